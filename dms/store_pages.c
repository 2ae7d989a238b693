#include "store_parts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* A page whose header was damaged since the start, and cannot be told, may be the newest there is.
 */
static uint64_t stored_sequence(const struct store *store, const struct region *region,
                                uint64_t ref)
{
    struct slot_header header;
    bool known = slot_pool_identify(store->pool, ref, &header);

    return known ? header.sequence : region->sequence;
}

/* Whether PAGE is to be stored where THERE is now: 1 or 0; -ENODATA when nobody knows which of the
 * two is newer. A repetition of the PUT whose page was lost brings it back. */
static int is_newer(const struct store *store, const struct region *region,
                    const struct wire_page *page, uint64_t there)
{
    struct slot_header header;

    if (!slot_pool_identify(store->pool, there, &header))
        return page->sequence > region->sequence ? 1 : -ENODATA;
    bool lost = !slot_pool_is_sound(store->pool, there) || slot_pool_is_lost(store->pool, there);
    return page->sequence > header.sequence || (page->sequence == header.sequence && lost);
}

/* A batch on its way into the store. */
struct batch {
    struct slot_source sources[WIRE_MAX_PAGES];
    uint32_t count;
};

/* Puts together what of PAGES is newer than what is stored. -EBADMSG: page *BAD is not what its
 * checksum says. -ENODATA: whether it is newer cannot be told. */
static int choose_newer(const struct store *store, const struct region *region,
                        const struct wire_page *pages, uint32_t npages, const char *body,
                        struct batch *batch, uint64_t *bad)
{
    batch->count = 0;
    for (uint32_t i = 0; i < npages; body += pages[i].length_bytes, i++) {
        const struct wire_page *page = &pages[i];
        if (wire_checksum(page->page, body, page->length_bytes) != page->checksum) {
            *bad = page->page;
            return -EBADMSG;
        }
        uint64_t there = page_tree_get(region->pages, page->page);
        int newer = there == 0 ? 1 : is_newer(store, region, page, there);
        if (newer < 0) {
            *bad = page->page;
            return newer;
        }
        if (newer == 0)
            continue;
        batch->sources[batch->count++] = (struct slot_source){
            .region = region->id,
            .page = page,
            .bytes = body,
        };
    }
    return 0;
}

/* Room for COUNT pages, NMORE of them beyond those there are. */
static int find_room(struct store *store, uint64_t nmore, uint64_t count)
{
    bool full = nmore > 0 && slot_pool_used(store->pool) + nmore > store->capacity_slots;
    int err = full ? -ENOSPC : slot_pool_reserve(store->pool, count);

    /* Slots that wait for rounds of syncing need at most two. */
    for (int i = 0; !full && err == -ENOSPC && i < 2 && slot_pool_waiting(store->pool) > 0 &&
                    !store->in_round && store->failed == 0;
         i++) {
        err = store_commit(store, true);
        if (err == 0)
            err = slot_pool_reserve(store->pool, count);
    }
    return err;
}

/* Makes sure that the whole batch has room, in the page table, within the capacity and in the
 * files. A page that replaces one of its own counts for nothing more, but the old slot is only
 * freed after the new one is filled. */
static int make_room(struct store *store, struct region *region, const struct batch *batch)
{
    uint64_t nmore = 0, nfresh = 0;
    uint32_t prepared = 0;
    int err = 0;

    for (uint32_t i = 0; i < batch->count; i++)
        nfresh += page_tree_get(region->pages, batch->sources[i].page->page) == 0;
    if (nfresh > 0 && page_tree_count(region->pages) + nfresh > store->region_pages)
        return -E2BIG;
    /* Copies shared leaves first: only then do the slots say whether they are shared. */
    while (err == 0 && prepared < batch->count) {
        err = page_tree_prepare(region->pages, batch->sources[prepared].page->page);
        prepared += err == 0;
    }
    for (uint32_t i = 0; err == 0 && i < batch->count; i++) {
        uint64_t there = page_tree_get(region->pages, batch->sources[i].page->page);
        nmore += there == 0 || slot_pool_refs(store->pool, there) > 1;
    }
    if (err == 0)
        while ((err = find_room(store, nmore, batch->count)) == -ENOSPC && store->doomed != NULL)
            store_free_doomed(store);
    while (err != 0 && prepared > 0)
        page_tree_unprepare(region->pages, batch->sources[--prepared].page->page);
    return err;
}

/* Fills slots with the batch; all or nothing. */
static int fill_slots(struct store *store, struct batch *batch, uint64_t *refs)
{
    for (uint32_t done = 0; done < batch->count;) {
        uint64_t first;
        int run = slot_pool_fill(store->pool, batch->count - done, &batch->sources[done], &first);
        if (run < 0) {
            while (done > 0)
                slot_pool_discard(store->pool, refs[--done]);
            return run;
        }
        for (int i = 0; i < run; i++)
            refs[done++] = first + (unsigned)i;
    }
    return 0;
}

int store_put(struct store *store, uint64_t id, uint64_t epoch, const struct wire_page *pages,
              uint32_t npages, const void *body, uint64_t *bad)
{
    struct region *region;
    struct batch batch;
    uint64_t refs[WIRE_MAX_PAGES];
    int err = store_check(store, id, epoch, true, &region);

    if (err == 0)
        err = choose_newer(store, region, pages, npages, body, &batch, bad);
    if (err == 0 && batch.count > 0)
        err = make_room(store, region, &batch);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < batch.count; i++)
        batch.sources[i].stamp = ++store->stamp;
    err = fill_slots(store, &batch, refs);
    for (uint32_t i = 0; err != 0 && i < batch.count; i++)
        page_tree_unprepare(region->pages, batch.sources[i].page->page);
    for (uint32_t i = 0; err == 0 && i < batch.count; i++) {
        const struct wire_page *page = batch.sources[i].page;
        int set = page_tree_set(region->pages, page->page, refs[i]);
        assert(set == 0); /* prepared by make_room() */
        (void)set;
        if (page->sequence > region->sequence)
            region->sequence = page->sequence;
    }
    return err;
}

/* Whether REGION has what it should have where it has REF, or nothing. An incomplete region may
 * have lost a page that hid what it came with; and a page of its own that replaced an older one,
 * which is still there only because it was branched in between. A frozen one stores none. */
static bool is_certain(const struct store *store, const struct region *region, uint64_t ref)
{
    const struct slot_header *header = ref == 0 ? NULL : slot_pool_header(store->pool, ref);

    while (region != NULL) {
        if (header != NULL && region->id == header->region)
            return header->stamp > region->doubt_stamp;
        if ((region->flags & REGION_INCOMPLETE) != 0 && (region->flags & REGION_FROZEN) == 0)
            return false;
        if (header == NULL && (region->flags & REGION_ORPHAN) != 0)
            return false;
        region = region_table_find(store->regions, region->parent);
    }
    return true;
}

int store_locate(struct store *store, uint64_t id, uint64_t epoch, struct wire_page *pages,
                 uint32_t npages, struct store_found *found, uint64_t *bad)
{
    struct region *region;
    int err = store_check(store, id, epoch, false, &region);

    if (err != 0)
        return err;
    found->body_bytes = 0;
    for (uint32_t i = 0; i < npages; i++) {
        uint64_t page = pages[i].page;
        uint64_t ref = page_tree_get(region->pages, page);
        found->refs[i] = ref;
        *bad = page;
        if (store->any_incomplete && !is_certain(store, region, ref))
            return -ENODATA;
        if (ref == 0) {
            pages[i] = (struct wire_page){.page = page, .encoding = WIRE_ABSENT};
            continue;
        }
        if (!slot_pool_is_sound(store->pool, ref) || slot_pool_is_lost(store->pool, ref))
            return -EBADMSG;
        const struct slot_header *header = slot_pool_header(store->pool, ref);
        pages[i].sequence = header->sequence;
        pages[i].checksum = header->checksum;
        pages[i].length_bytes = header->length_bytes;
        pages[i].encoding = header->encoding;
        found->body_bytes += header->length_bytes;
    }
    return 0;
}

int store_read(const struct store *store, const struct wire_page *pages, uint32_t npages,
               const struct store_found *found, void *body, uint64_t *bad)
{
    char *to = body;

    for (uint32_t i = 0; i < npages; i++) {
        if (found->refs[i] == 0)
            continue;
        /* Checked after it was copied: what is sent is what was checked. */
        memcpy(to, slot_pool_bytes(store->pool, found->refs[i]), pages[i].length_bytes);
        if (wire_checksum(pages[i].page, to, pages[i].length_bytes) != pages[i].checksum) {
            *bad = pages[i].page;
            return -EBADMSG;
        }
        to += pages[i].length_bytes;
    }
    return 0;
}

/* The first page of RANGE from *PAGE on that a drop with this SEQUENCE takes. False: none. */
static bool next_dropped(const struct store *store, const struct region *region,
                         const struct wire_range *range, uint64_t sequence, uint64_t *page)
{
    uint64_t end = range->first + range->npages;
    uint64_t ref;

    while (*page < end && (ref = page_tree_next(region->pages, *page, page)) != 0 && *page < end) {
        if (stored_sequence(store, region, ref) <= sequence)
            return true;
        (*page)++;
    }
    return false;
}

/* Where pages are shared the slot cannot say from which of the regions they were dropped: the
 * manifest does. */
static int log_drops(struct store *store, const struct region *region, uint64_t sequence,
                     uint32_t flags, const struct wire_range *ranges, uint32_t nranges)
{
    struct manifest_record records[WIRE_MAX_RANGES / MANIFEST_MAX_RANGES + 1];
    uint32_t used = 0;

    memset(records, 0, sizeof(records));
    for (uint32_t i = 0; i < nranges; i++) {
        uint64_t page = ranges[i].first;
        if (!next_dropped(store, region, &ranges[i], sequence, &page))
            continue;
        struct manifest_record *record = &records[used / MANIFEST_MAX_RANGES];
        record->type = MANIFEST_DROP;
        record->region = region->id;
        record->sequence = sequence;
        record->stamp = store->stamp;
        record->flags = flags;
        record->ranges[record->nranges++] = ranges[i];
        used++;
    }
    uint32_t count = (used + MANIFEST_MAX_RANGES - 1) / MANIFEST_MAX_RANGES;
    return count == 0 ? 0 : manifest_append(store->manifest, records, count, false);
}

/* Whether pages are or were shared with other regions: then the manifest says what is dropped. */
static bool is_logged(const struct region *region)
{
    return region->parent != 0 || region->nchildren > 0;
}

/* What has to be written down of a drop. */
struct drop_notes {
    bool highest; /* it takes the page with the region's highest sequence */
    bool alone;   /* a slot of its pages cannot say that its page was dropped */
};

/* Makes sure that dropping RANGE cannot fail. */
static int prepare_drop(const struct store *store, const struct region *region, uint64_t sequence,
                        const struct wire_range *range, struct drop_notes *notes)
{
    uint64_t page = range->first;
    int err = 0;

    for (; err == 0 && next_dropped(store, region, range, sequence, &page); page++) {
        uint64_t ref = page_tree_get(region->pages, page);
        notes->highest = notes->highest || stored_sequence(store, region, ref) == region->sequence;
        notes->alone = notes->alone || !slot_pool_is_sound(store->pool, ref) ||
                       !slot_pool_is_writable(store->pool, ref);
        err = page_tree_prepare(region->pages, page);
    }
    return err;
}

/* The region's highest sequence must outlive the page that has it: the owner goes on above it, also
 * after a restart. */
static int log_sequence(struct store *store, struct region *region)
{
    struct manifest_record record = {
        .type = MANIFEST_SEQUENCE, .region = region->id, .sequence = region->sequence};

    if (region->logged_sequence >= region->sequence)
        return 0;
    int err = manifest_put(store->manifest, &record, &region->sequence_place);
    region->logged_sequence = err == 0 ? region->sequence : 0;
    return err;
}

static void drop_range(struct store *store, struct region *region, uint64_t sequence,
                       const struct wire_range *range)
{
    uint64_t page = range->first;

    while (next_dropped(store, region, range, sequence, &page)) {
        uint64_t ref = page_tree_get(region->pages, page);
        if (store->durability != STORE_NONE && !is_logged(region) &&
            slot_pool_is_sound(store->pool, ref))
            slot_pool_drop(store->pool, ref);
        int err = page_tree_clear(region->pages, page);
        assert(err == 0); /* prepared by prepare_drop() */
        (void)err;
    }
}

int store_drop(struct store *store, uint64_t id, uint64_t epoch, uint64_t sequence,
               const struct wire_range *ranges, uint32_t nranges)
{
    struct region *region;
    struct drop_notes notes = {0};
    int err = store_check(store, id, epoch, true, &region);

    for (uint32_t i = 0; err == 0 && i < nranges; i++)
        err = prepare_drop(store, region, sequence, &ranges[i], &notes);
    if (err != 0)
        return err;
    store->stamp++;
    if (notes.highest)
        err = log_sequence(store, region);
    uint32_t flags = notes.alone ? MANIFEST_ALONE : 0;
    if (err == 0 && (is_logged(region) || notes.alone))
        err = log_drops(store, region, sequence, flags, ranges, nranges);
    for (uint32_t i = 0; err == 0 && i < nranges; i++)
        drop_range(store, region, sequence, &ranges[i]);
    return err;
}
