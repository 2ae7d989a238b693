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

int store_view(const struct store *store, const struct wire_page *pages, uint32_t npages,
               const struct store_found *found, struct iovec *parts, unsigned *nparts,
               uint64_t *bad)
{
    unsigned count = 0;

    *nparts = 0;
    for (uint32_t i = 0; i < npages; i++) {
        if (found->refs[i] == 0)
            continue;
        const char *bytes = slot_pool_bytes(store->pool, found->refs[i]);
        size_t len = pages[i].length_bytes;
        if (wire_checksum(pages[i].page, bytes, len) != pages[i].checksum) {
            *bad = pages[i].page;
            return -EBADMSG;
        }
        struct iovec *last = count == 0 ? NULL : &parts[count - 1];
        if (last != NULL && (char *)last->iov_base + last->iov_len == bytes)
            last->iov_len += len;
        else
            parts[count++] = (struct iovec){(void *)(uintptr_t)bytes, len};
    }
    *nparts = count;
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

/* Says, or says no more, in the slots of RANGE that can say it that their pages are dropped. */
static void mark_range(struct store *store, const struct region *region, uint64_t sequence,
                       const struct wire_range *range, bool is_dropped)
{
    uint64_t page = range->first;

    for (; next_dropped(store, region, range, sequence, &page); page++) {
        uint64_t ref = page_tree_get(region->pages, page);
        if (slot_pool_is_sound(store->pool, ref) && slot_pool_is_writable(store->pool, ref))
            slot_pool_drop(store->pool, ref, is_dropped);
    }
}

static int mark_ranges(struct store *store, const struct region *region, uint64_t sequence,
                       const struct wire_range *ranges, uint32_t nranges, bool is_dropped)
{
    for (uint32_t i = 0; i < nranges; i++)
        mark_range(store, region, sequence, &ranges[i], is_dropped);
    return slot_pool_flush(store->pool);
}

/* Writes down that the pages are dropped, in their slots or in the manifest. All or nothing, unless
 * the file system fails again while marks are taken back. */
static int write_down(struct store *store, struct region *region, uint64_t sequence,
                      const struct drop_notes *notes, const struct wire_range *ranges,
                      uint32_t nranges)
{
    bool is_marked = !is_logged(region);
    uint32_t flags = notes->alone ? MANIFEST_ALONE : 0;
    int err = 0;

    if (is_marked)
        err = mark_ranges(store, region, sequence, ranges, nranges, true);
    if (err == 0 && (!is_marked || notes->alone))
        err = log_drops(store, region, sequence, flags, ranges, nranges);
    if (err != 0 && is_marked) {
        int taken_back = mark_ranges(store, region, sequence, ranges, nranges, false);
        (void)taken_back;
    }
    return err;
}

static void drop_range(struct store *store, struct region *region, uint64_t sequence,
                       const struct wire_range *range)
{
    uint64_t page = range->first;

    while (next_dropped(store, region, range, sequence, &page)) {
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
    if (err == 0)
        err = write_down(store, region, sequence, &notes, ranges, nranges);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < nranges; i++)
        drop_range(store, region, sequence, &ranges[i]);
    store_mark(store);
    return 0;
}
