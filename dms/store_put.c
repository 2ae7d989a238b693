#include "store_parts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

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

/* Puts pages of one size class together, to be written in one go. */
static void sort_by_class(struct batch *batch)
{
    struct slot_source sorted[WIRE_MAX_PAGES];
    uint32_t at[SIZE_CLASSES + 1] = {0};

    for (uint32_t i = 0; i < batch->count; i++)
        at[size_class_of(batch->sources[i].page->length_bytes) + 1]++;
    for (uint32_t size_class = 1; size_class < SIZE_CLASSES; size_class++)
        at[size_class] += at[size_class - 1];
    for (uint32_t i = 0; i < batch->count; i++)
        sorted[at[size_class_of(batch->sources[i].page->length_bytes)]++] = batch->sources[i];
    memcpy(batch->sources, sorted, batch->count * sizeof(sorted[0]));
}

/* What a batch needs. */
struct need {
    int64_t more_bytes; /* that count against the capacity, once all of it is stored */
    uint32_t slots[SIZE_CLASSES];
};

static void find_need(const struct store *store, const struct region *region,
                      const struct batch *batch, struct need *need)
{
    *need = (struct need){0};
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct wire_page *page = batch->sources[i].page;
        uint32_t size_class = size_class_of(page->length_bytes);
        uint64_t there = page_tree_get(region->pages, page->page);
        need->slots[size_class]++;
        need->more_bytes += size_class_charge(size_class);
        if (there != 0 && slot_pool_refs(store->pool, there) == 1)
            need->more_bytes -= slot_pool_charge(store->pool, there);
    }
}

static bool is_within_capacity(const struct store *store, const struct need *need)
{
    return need->more_bytes <= 0 ||
           slot_pool_used_bytes(store->pool) + (uint64_t)need->more_bytes <= store->capacity_bytes;
}

/* Makes sure that there are slots to be filled. On a full disk, what can be given back may be what
 * is missing: pages of removed regions, slots that wait for rounds of syncing (at most two), and
 * blocks of free slots of other sizes. */
static int reserve_slots(struct store *store, const struct need *need)
{
    int err;

    while ((err = slot_pool_reserve(store->pool, need->slots)) == -ENOSPC && store->doomed != NULL)
        store_free_doomed(store);
    for (int i = 0; err == -ENOSPC && i < 2 && slot_pool_waiting(store->pool) > 0 &&
                    !store->in_round && store->failed == 0;
         i++) {
        err = store_commit(store, true);
        if (err == 0)
            err = slot_pool_reserve(store->pool, need->slots);
    }
    if (err != -ENOSPC)
        return err;
    while (slot_pool_trim(store->pool, true))
        ;
    return slot_pool_reserve(store->pool, need->slots);
}

static bool is_beyond_region(const struct store *store, const struct region *region,
                             const struct batch *batch)
{
    uint64_t nfresh = 0;

    for (uint32_t i = 0; i < batch->count; i++)
        nfresh += page_tree_get(region->pages, batch->sources[i].page->page) == 0;
    return nfresh > 0 && page_tree_count(region->pages) + nfresh > store->region_pages;
}

/* Room within the capacity and in the files. */
static int find_room(struct store *store, const struct region *region, const struct batch *batch)
{
    struct need need;

    find_need(store, region, batch, &need);
    while (!is_within_capacity(store, &need) && store->doomed != NULL) {
        store_free_doomed(store);
        find_need(store, region, batch, &need);
    }
    return is_within_capacity(store, &need) ? reserve_slots(store, &need) : -ENOSPC;
}

/* What make_room() prepared for the first COUNT pages is not used. */
static void unprepare(struct region *region, const struct batch *batch, uint32_t count)
{
    while (count > 0)
        page_tree_unprepare(region->pages, batch->sources[--count].page->page);
}

/* Makes sure that the whole batch has room, in the page table, within the capacity and in the
 * files. A page that replaces one of its own makes that one's room free, but the old slot is only
 * freed after the new one is filled. */
static int make_room(struct store *store, struct region *region, const struct batch *batch)
{
    uint32_t prepared = 0;
    int err = is_beyond_region(store, region, batch) ? -E2BIG : 0;

    /* Copies shared leaves first: only then do the slots say whether they are shared. */
    while (err == 0 && prepared < batch->count) {
        err = page_tree_prepare(region->pages, batch->sources[prepared].page->page);
        prepared += err == 0;
    }
    if (err == 0)
        err = find_room(store, region, batch);
    if (err != 0)
        unprepare(region, batch, prepared);
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
    sort_by_class(&batch);
    for (uint32_t i = 0; i < batch.count; i++)
        batch.sources[i].stamp = ++store->stamp;
    err = fill_slots(store, &batch, refs);
    if (err != 0)
        unprepare(region, &batch, batch.count);
    for (uint32_t i = 0; err == 0 && i < batch.count; i++) {
        const struct wire_page *page = batch.sources[i].page;
        int set = page_tree_set(region->pages, page->page, refs[i]);
        assert(set == 0); /* prepared by make_room() */
        (void)set;
        if (page->sequence > region->sequence)
            region->sequence = page->sequence;
    }
    /* What cannot be marked is outdone by what was stored, unless that is damaged. */
    store_mark(store);
    return err != 0 ? err : store->failed;
}
