#include "store_parts.h"

#include "../ini/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A manifest is written anew when it has this many records more than twice what is needed. */
enum { SLACK_RECORDS = 256 };

static const uint64_t RECOVERED_EPOCH = 1;

/* Something that happened to regions that share pages. Done again in the order of the stamps, it
 * gives the page tables as they were. */
struct event {
    uint64_t stamp;
    enum { EVENT_SLOT, EVENT_BRANCH, EVENT_DROP } kind;
    uint32_t drop; /* EVENT_DROP: index into the recovery's drops */
    union {
        uint64_t ref;          /* EVENT_SLOT */
        struct region *branch; /* EVENT_BRANCH */
    };
};

struct recovery {
    struct store *store;
    struct store_report *report;
    struct event *events;
    size_t nevents, events_cap;
    struct manifest_record *drops;
    size_t ndrops, drops_cap;
    struct region *last; /* of the slot seen last: the next one's is mostly the same */
};

/* Makes room for one more of SIZE bytes in a growing array. */
static int grow(void **array, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return 0;
    size_t more = *cap == 0 ? 64 : 2 * *cap;
    void *grown = realloc(*array, more * size);
    if (grown == NULL)
        return -ENOMEM;
    *array = grown;
    *cap = more;
    return 0;
}

static int add_event(struct recovery *recovery, struct event event)
{
    void *events = recovery->events;
    int err = grow(&events, recovery->nevents, &recovery->events_cap, sizeof(event));

    recovery->events = events;
    if (err == 0)
        recovery->events[recovery->nevents++] = event;
    return err;
}

static int apply_region(struct store *store, const struct manifest_record *record)
{
    struct region *region;

    if (record->region == 0 || memchr(record->name, 0, sizeof(record->name)) == NULL ||
        region_table_find(store->regions, record->region) != NULL)
        return 0;
    /* A name can only be used again after it was removed: that record must have been damaged. */
    struct region *namesake = region_table_find_name(store->regions, record->name);
    if (namesake != NULL)
        region_table_unname(store->regions, namesake);
    int err = region_table_prepare(store->regions);
    if (err == 0)
        err = store_new_region(store, &region, record->region, record->name);
    if (err != 0)
        return err;
    region->parent = record->parent;
    region->epoch = record->epoch;
    region->sequence = record->sequence;
    region->stamp = record->stamp;
    region->flags = record->flags;
    region_table_add(store->regions, region);
    return 0;
}

static int apply_record(void *context, const struct manifest_record *record)
{
    struct recovery *recovery = context;
    struct store *store = recovery->store;
    struct region *region = region_table_find(store->regions, record->region);
    void *drops = recovery->drops;

    if (record->stamp > store->stamp)
        store->stamp = record->stamp;
    if (record->type == MANIFEST_REGION)
        return apply_region(store, record);
    if (region == NULL)
        return 0;
    if (record->type == MANIFEST_EPOCH && record->epoch > region->epoch)
        region->epoch = record->epoch;
    if (record->type == MANIFEST_SEQUENCE && record->sequence > region->sequence)
        region->sequence = record->sequence;
    if (record->type == MANIFEST_REMOVE && !region->removed)
        region_table_unname(store->regions, region);
    if (record->type != MANIFEST_DROP)
        return 0;
    int err = grow(&drops, recovery->ndrops, &recovery->drops_cap, sizeof(*record));
    recovery->drops = drops;
    if (err == 0)
        recovery->drops[recovery->ndrops++] = *record;
    return err;
}

/* A region whose record is lost gets a name of its own: its pages are somebody's. */
static int adopt_region(struct recovery *recovery, uint64_t id, struct region **out)
{
    struct store *store = recovery->store;
    char name[WIRE_MAX_NAME_BYTES + 1];
    unsigned more = 0;

    snprintf(name, sizeof(name), "recovered-%016" PRIx64, id);
    while (region_table_find_name(store->regions, name) != NULL)
        snprintf(name, sizeof(name), "recovered-%016" PRIx64 "-%u", id, ++more);
    int err = region_table_prepare(store->regions);
    if (err == 0)
        err = store_new_region(store, out, id, name);
    if (err != 0)
        return err;
    (*out)->epoch = RECOVERED_EPOCH;
    region_table_add(store->regions, *out);
    recovery->report->recovered++;
    for (uint32_t i = 0; i < region_table_size(store->regions); i++)
        (*out)->nchildren += region_table_at(store->regions, i)->parent == id;
    return store_log_region(store, *out);
}

/* Whether the region's pages may be another's too, or may have been. */
static bool is_related(const struct region *region)
{
    return region->parent != 0 || region->nchildren > 0;
}

/* Counts children, which may stand before their parents in the manifest, finds parents that are not
 * in it at all, and makes an event of every branch. */
static int find_branches(struct recovery *recovery)
{
    struct region_table *regions = recovery->store->regions;
    uint32_t size = region_table_size(regions);
    struct region *parent;
    int err = 0;

    for (uint32_t i = 0; i < size; i++)
        region_table_at(regions, i)->nchildren = 0;
    for (uint32_t i = 0; err == 0 && i < size; i++) {
        struct region *region = region_table_at(regions, i);
        if (region->parent == 0)
            continue;
        parent = region_table_find(regions, region->parent);
        if (parent != NULL)
            parent->nchildren++;
        struct event event = {.stamp = region->stamp, .kind = EVENT_BRANCH, .branch = region};
        err = add_event(recovery, event);
    }
    for (size_t i = 0; err == 0 && i < recovery->nevents; i++) {
        uint64_t id = recovery->events[i].branch->parent;
        if (region_table_find(regions, id) == NULL)
            err = adopt_region(recovery, id, &parent);
    }
    return err;
}

/* Forgets the drops of regions that share nothing any more, whose slots say it all, and makes an
 * event of the others. */
static int find_drops(struct recovery *recovery)
{
    size_t kept = 0;
    int err = 0;

    for (size_t i = 0; err == 0 && i < recovery->ndrops; i++) {
        const struct manifest_record *drop = &recovery->drops[i];
        if (!is_related(region_table_find(recovery->store->regions, drop->region)))
            continue;
        struct event event = {.stamp = drop->stamp, .kind = EVENT_DROP, .drop = (uint32_t)kept};
        recovery->drops[kept++] = *drop;
        err = add_event(recovery, event);
    }
    recovery->ndrops = kept;
    return err;
}

/* Points the region's page at the slot if that is newer than what is there. The reference of the
 * scan is passed on or given up: what is not pointed at in the end is free. */
static int place_slot(struct store *store, struct region *region, uint64_t ref)
{
    const struct slot_header *header = slot_pool_header(store->pool, ref);
    uint64_t there = page_tree_get(region->pages, header->page);
    int err = 0;

    if (header->sequence > region->sequence)
        region->sequence = header->sequence;
    const struct slot_header *old = there == 0 ? NULL : slot_pool_header(store->pool, there);
    if (old != NULL && (old->sequence > header->sequence ||
                        (old->sequence == header->sequence && old->stamp > header->stamp)))
        slot_pool_release(store->pool, ref);
    else
        err = page_tree_set(region->pages, header->page, ref);
    return err;
}

static int visit_slot(void *context, uint64_t ref, const struct slot_header *header)
{
    struct recovery *recovery = context;
    struct store *store = recovery->store;
    struct region *region = recovery->last;

    if (header->stamp > store->stamp)
        store->stamp = header->stamp;
    if (region == NULL || region->id != header->region)
        region = region_table_find(store->regions, header->region);
    if (region == NULL) {
        int err = adopt_region(recovery, header->region, &region);
        if (err != 0)
            return err;
    }
    recovery->last = region;
    if (is_related(region))
        return add_event(recovery,
                         (struct event){.stamp = header->stamp, .kind = EVENT_SLOT, .ref = ref});
    if (!region->removed)
        return place_slot(store, region, ref);
    slot_pool_release(store->pool, ref);
    return 0;
}

static int compare_events(const void *a, const void *b)
{
    const struct event *left = a, *right = b;

    return (left->stamp > right->stamp) - (left->stamp < right->stamp);
}

static int replay_drop(struct store *store, const struct manifest_record *drop)
{
    struct region *region = region_table_find(store->regions, drop->region);
    int err = 0;

    for (uint16_t i = 0; err == 0 && i < drop->nranges; i++) {
        uint64_t page = drop->ranges[i].first;
        uint64_t end = page + drop->ranges[i].npages;
        uint64_t ref;
        while (err == 0 && (ref = page_tree_next(region->pages, page, &page)) != 0 && page < end) {
            if (slot_pool_header(store->pool, ref)->sequence <= drop->sequence)
                err = page_tree_clear(region->pages, page);
            page++;
        }
    }
    return err;
}

static int replay_event(struct recovery *recovery, const struct event *event)
{
    struct store *store = recovery->store;

    if (event->kind == EVENT_DROP)
        return replay_drop(store, &recovery->drops[event->drop]);
    if (event->kind == EVENT_SLOT) {
        uint64_t id = slot_pool_header(store->pool, event->ref)->region;
        return place_slot(store, region_table_find(store->regions, id), event->ref);
    }
    struct region *parent = region_table_find(store->regions, event->branch->parent);
    struct page_tree *pages;
    int err = page_tree_clone(&pages, parent->pages);
    if (err != 0)
        return err;
    page_tree_destroy(&event->branch->pages);
    event->branch->pages = pages;
    return 0;
}

static int replay(struct recovery *recovery)
{
    int err = 0;

    if (recovery->nevents == 0)
        return 0;
    qsort(recovery->events, recovery->nevents, sizeof(struct event), compare_events);
    for (size_t i = 0; err == 0 && i < recovery->nevents; i++)
        err = replay_event(recovery, &recovery->events[i]);
    return err;
}

/* Frees what only removed regions had. */
static void finish_removals(struct store *store)
{
    for (uint32_t i = 0; i < region_table_size(store->regions); i++) {
        struct region *region = region_table_at(store->regions, i);
        if (region->removed)
            store_doom(store, region);
    }
    while (store_free_doomed(store))
        ;
    store->trimming = true;
}

/* Puts the records of the regions that are REMOVED, or of the others, at RECORDS. Removed ones come
 * first: their names may be in use again. */
static uint32_t describe_regions(const struct store *store, bool removed,
                                 struct manifest_record *records)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < region_table_size(store->regions); i++) {
        const struct region *region = region_table_at(store->regions, i);
        if (region->removed != removed)
            continue;
        records[count++] = store_describe_region(region);
        if (removed)
            records[count++] =
                (struct manifest_record){.type = MANIFEST_REMOVE, .region = region->id};
    }
    return count;
}

/* Writes the manifest anew, if that saves much, from what is known now. */
static int compact_manifest(struct recovery *recovery, uint64_t nrecords)
{
    struct store *store = recovery->store;
    uint64_t needed = 2 * (uint64_t)region_table_size(store->regions) + recovery->ndrops;

    /* A damaged one is kept as it is, for whoever looks into it. */
    if (nrecords <= 2 * needed + SLACK_RECORDS || recovery->report->damaged_records > 0 ||
        needed > UINT32_MAX)
        return 0;
    struct manifest_record *records = calloc(needed + 1, sizeof(*records));
    if (records == NULL)
        return -ENOMEM;
    uint32_t count = describe_regions(store, true, records);
    count += describe_regions(store, false, &records[count]);
    for (size_t i = 0; i < recovery->ndrops; i++) {
        if (region_table_find(store->regions, recovery->drops[i].region) != NULL)
            records[count++] = recovery->drops[i];
    }
    /* The slots of forgotten regions must be free on disk before their last trace goes. */
    int err = slot_pool_sync(store->pool);
    if (err == 0)
        err = manifest_replace(store->manifest, records, count);
    free(records);
    return err;
}

static int rebuild(struct recovery *recovery, const char *dir, unsigned scan_threads)
{
    struct store *store = recovery->store;
    struct store_report *report = recovery->report;
    struct manifest_report records;
    struct slot_pool_report slots;
    char path[PATH_MAX];
    uint32_t nrepaired;
    int len = snprintf(path, sizeof(path), "%s/manifest", dir);

    if (len < 0 || (size_t)len >= sizeof(path))
        return -ENAMETOOLONG;
    int err = slot_pool_open(&store->pool, dir, store->segment_slots, &nrepaired);
    if (err == 0)
        err = manifest_open(&store->manifest, path, apply_record, recovery, &records);
    if (err == 0)
        err = find_branches(recovery);
    if (err == 0)
        err = find_drops(recovery);
    if (err == 0)
        err = slot_pool_scan(store->pool, scan_threads, visit_slot, recovery, &slots);
    if (err == 0)
        err = replay(recovery);
    if (err != 0)
        return err;
    finish_removals(store);
    report->pages = slot_pool_used(store->pool) - slots.bad_headers;
    report->regions = region_table_count(store->regions);
    report->damaged_headers = slots.bad_headers;
    report->damaged_pages = slots.bad_pages;
    report->damaged_records = records.damaged;
    report->damaged_files = nrepaired;
    /* A manifest that stays long is no reason not to serve. */
    err = compact_manifest(recovery, records.records);
    if (err != 0)
        log_warn("Store", "%s stays long: %s", path, strerror(-err));
    return 0;
}

int store_recover(struct store *store, const char *dir, unsigned scan_threads,
                  struct store_report *report)
{
    struct recovery recovery = {.store = store, .report = report};
    int err = rebuild(&recovery, dir, scan_threads);

    free(recovery.events);
    free(recovery.drops);
    return err;
}
