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
    union {
        uint32_t drop; /* EVENT_DROP: index into the recovery's drops */
        uint32_t
            moves; /* EVENT_SLOT: of slots with one stamp, the version's last copy comes last */
    };
    union {
        uint64_t ref;          /* EVENT_SLOT */
        struct region *branch; /* EVENT_BRANCH */
    };
};

/* A segment file as the manifest speaks of it. */
struct noted_file {
    struct slot_pool_file file;
    size_t order; /* in the manifest */
    bool there;
    bool found;
};

/* A slot that says it is superseded. */
struct superseded {
    uint64_t ref;
    enum slot_check check;
};

struct recovery {
    struct store *store;
    struct store_report *report;
    struct damage_list *damage;
    struct event *events;
    size_t nevents, events_cap;
    struct manifest_record *drops;
    size_t ndrops, drops_cap;
    struct region *last; /* of the slot seen last: the next one's is mostly the same */
    /* There was a power cut: what came after this stamp may be there or not. */
    bool doubt;
    uint64_t synced_stamp;
    struct manifest_record synced; /* the last note of what was on disk; type 0: none */
    uint64_t *dropped;             /* slots that say of their page that it is not there */
    size_t ndropped, dropped_cap;
    struct superseded *superseded;
    size_t nsuperseded, superseded_cap;
    struct noted_file *noted; /* by number, once the manifest is read */
    size_t nnoted, noted_cap;
    bool files_noted;  /* all that there are */
    bool must_compact; /* the manifest has gaps, or branches, that a power cut left */
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

static int add_ref(uint64_t **refs, size_t *count, size_t *cap, uint64_t ref)
{
    void *array = *refs;
    int err = grow(&array, *count, cap, sizeof(ref));

    *refs = array;
    if (err == 0)
        (*refs)[(*count)++] = ref;
    return err;
}

static bool is_doubtful(const struct recovery *recovery, uint64_t stamp)
{
    return recovery->doubt && stamp > recovery->synced_stamp;
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
    region->flags = record->flags & ~(uint32_t)MANIFEST_SOLID;
    region->solid = (record->flags & MANIFEST_SOLID) != 0;
    region_table_add(store->regions, region);
    return 0;
}

static int apply_segment(struct recovery *recovery, const struct manifest_record *record)
{
    struct noted_file note = {.file = {(uint32_t)record->sequence, record->slot_bytes},
                              .order = recovery->nnoted,
                              .there = record->flags != 0};
    void *noted = recovery->noted;

    if (record->sequence > UINT32_MAX)
        return 0;
    int err = grow(&noted, recovery->nnoted, &recovery->noted_cap, sizeof(note));
    recovery->noted = noted;
    if (err == 0)
        recovery->noted[recovery->nnoted++] = note;
    return err;
}

static int apply_record(void *context, const struct manifest_record *record)
{
    struct recovery *recovery = context;
    struct store *store = recovery->store;
    struct region *region = region_table_find(store->regions, record->region);
    void *drops = recovery->drops;

    if (record->stamp > store->stamp)
        store->stamp = record->stamp;
    if (record->type == MANIFEST_SYNCED)
        recovery->synced = *record;
    if (record->type == MANIFEST_REGION)
        return apply_region(store, record);
    if (record->type == MANIFEST_INCOMPLETE)
        store_apply_incomplete(store, record);
    if (record->type == MANIFEST_SEGMENT)
        return apply_segment(recovery, record);
    if (record->type == MANIFEST_UNMARKED)
        store->unmarked = record->flags != 0;
    if (region == NULL)
        return 0;
    if (record->type == MANIFEST_EPOCH && record->epoch > region->epoch)
        region->epoch = record->epoch;
    if (record->type == MANIFEST_SEQUENCE && record->sequence > region->sequence)
        region->sequence = record->sequence;
    if (record->type == MANIFEST_DOUBT && record->stamp > region->doubt_stamp)
        region->doubt_stamp = record->stamp;
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

static void count_child(struct region *parent, const struct region *child)
{
    parent->nchildren++;
    if (child->stamp > parent->last_branched)
        parent->last_branched = child->stamp;
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
    (*out)->flags = REGION_ORPHAN;
    region_table_add(store->regions, *out);
    struct damage damage = {.kind = DAMAGE_REGION, .file = "manifest", .region = id};
    err = damage_add(recovery->damage, &damage);
    if (err != 0)
        return err;
    recovery->report->recovered++;
    for (uint32_t i = 0; i < region_table_size(store->regions); i++) {
        const struct region *child = region_table_at(store->regions, i);
        if (child->parent == id)
            count_child(*out, child);
    }
    return store_log_region(store, *out);
}

/* Whether the region's pages may be another's too, or may have been. */
static bool is_related(const struct region *region)
{
    return region->parent != 0 || region->nchildren > 0 || region->dropped_from;
}

/* Finds out whether the machine was started anew since the store was written, and forgets branches
 * that were then not yet made sure of: what they were made of may not be there. */
static int judge(struct recovery *recovery)
{
    struct store *store = recovery->store;
    const struct manifest_record *synced = &recovery->synced;
    bool rebooted = synced->epoch != store->boot[0] || synced->sequence != store->boot[1];
    int err = 0;

    store->was_synced = synced->type != 0 && (synced->flags & MANIFEST_UNSYNCED) == 0;
    recovery->doubt = store->was_synced && rebooted;
    recovery->synced_stamp = synced->stamp;
    recovery->report->power_cut = recovery->doubt;
    for (uint32_t i = 0; err == 0 && i < region_table_size(store->regions); i++) {
        struct region *region = region_table_at(store->regions, i);
        if (region->parent == 0 || region->solid || !is_doubtful(recovery, region->stamp))
            continue;
        /* Its parent may be missing too. So that nobody looks for it again, its record must go. */
        region->parent = 0;
        recovery->must_compact = true;
        if (region->removed)
            continue;
        struct manifest_record record = {.type = MANIFEST_REMOVE, .region = region->id};
        err = manifest_append(store->manifest, &record, 1, true);
        region_table_unname(store->regions, region);
        recovery->report->unfinished++;
    }
    return err;
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
            count_child(parent, region);
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
 * event of the others. Where records are missing one of them may be of a branch: then all count. */
static int find_drops(struct recovery *recovery, const struct manifest_report *records)
{
    bool is_whole = records->damaged == 0 && records->unwritten == 0 && !records->is_cut &&
                    recovery->report->unfinished == 0;
    size_t kept = 0;
    int err = 0;

    for (size_t i = 0; err == 0 && i < recovery->ndrops; i++) {
        const struct manifest_record *drop = &recovery->drops[i];
        struct region *region = region_table_find(recovery->store->regions, drop->region);
        if (!is_whole || (drop->flags & MANIFEST_ALONE) != 0)
            region->dropped_from = true;
        if (!is_related(region))
            continue;
        struct event event = {.stamp = drop->stamp, .kind = EVENT_DROP, .drop = (uint32_t)kept};
        recovery->drops[kept++] = *drop;
        err = add_event(recovery, event);
    }
    recovery->ndrops = kept;
    return err;
}

/* Of two slots of one version of a page, which of them counts: see DESIGN.md, Moving pages. A copy
 * whose bytes a power cut has torn does not, and is marked free before anything changes. */
static bool is_last_copy(const struct store *store, uint64_t ref, uint64_t there)
{
    bool is_torn = slot_pool_has_bad_page(store->pool, ref);

    if (is_torn != slot_pool_has_bad_page(store->pool, there))
        return !is_torn;
    return slot_pool_header(store->pool, ref)->moves >= slot_pool_header(store->pool, there)->moves;
}

/* The scan's reference to a slot that does not count is given up. */
static void pass_over(struct store *store, uint64_t ref, bool is_copy)
{
    if (is_copy && slot_pool_has_bad_page(store->pool, ref))
        slot_pool_discard(store->pool, ref);
    else
        slot_pool_release(store->pool, ref);
}

/* Points the region's page at the slot if that is newer than what is there. The reference of the
 * scan is passed on or given up: what is not pointed at in the end is free. */
static int place_slot(struct store *store, struct region *region, uint64_t ref)
{
    const struct slot_header *header = slot_pool_header(store->pool, ref);
    uint64_t there = page_tree_get(region->pages, header->page);

    if (header->sequence > region->sequence)
        region->sequence = header->sequence;
    const struct slot_header *old = there == 0 ? NULL : slot_pool_header(store->pool, there);
    bool is_copy = old != NULL && old->stamp == header->stamp;
    if (old != NULL && (is_copy ? !is_last_copy(store, ref, there) : old->stamp > header->stamp)) {
        pass_over(store, ref, is_copy);
        return 0;
    }
    if (!is_copy)
        return page_tree_set(region->pages, header->page, ref);
    /* Nobody else can point at it: branches have other stamps. */
    page_tree_replace(region->pages, header->page, there, ref);
    pass_over(store, there, true);
    return 0;
}

/* What a power cut left of something that nobody was told is sure. */
static bool is_unfinished(const struct recovery *recovery, const struct slot_header *header,
                          enum slot_check check)
{
    const struct region_table *regions = recovery->store->regions;

    return is_doubtful(recovery, header->stamp) &&
           (check == SLOT_CHECK_BAD_PAGE || check == SLOT_CHECK_BAD_HEADER ||
            region_table_find(regions, header->region) == NULL);
}

static int add_slot_damage(struct recovery *recovery, uint64_t ref, enum slot_check check)
{
    bool is_damaged = check == SLOT_CHECK_BAD_PAGE || check == SLOT_CHECK_BAD_HEADER;
    enum damage_kind kind = check == SLOT_CHECK_UNKNOWN ? DAMAGE_SLOT
                            : is_damaged                ? DAMAGE_PAGE
                                                        : DAMAGE_LOST;
    struct damage damage;

    store_find_damage(recovery->store, ref, kind, &damage);
    return damage_add(recovery->damage, &damage);
}

/* Finds out whose page the slot is. */
static int take_slot(struct recovery *recovery, uint64_t ref, enum slot_check check)
{
    struct store *store = recovery->store;
    const struct slot_header *header = slot_pool_header(store->pool, ref);
    struct region *region = recovery->last;
    int err = 0;

    if (check == SLOT_CHECK_BAD_PAGE || check == SLOT_CHECK_BAD_HEADER ||
        header->encoding == SLOT_LOST)
        err = add_slot_damage(recovery, ref, check);
    if (check == SLOT_CHECK_DROPPED)
        err = add_ref(&recovery->dropped, &recovery->ndropped, &recovery->dropped_cap, ref);
    if (err != 0)
        return err;
    if (region == NULL || region->id != header->region)
        region = region_table_find(store->regions, header->region);
    if (region == NULL) {
        if (check == SLOT_CHECK_DROPPED) {
            slot_pool_release(store->pool, ref);
            return 0;
        }
        err = adopt_region(recovery, header->region, &region);
        if (err != 0)
            return err;
    }
    recovery->last = region;
    if (is_related(region))
        return add_event(recovery, (struct event){.stamp = header->stamp,
                                                  .kind = EVENT_SLOT,
                                                  .moves = header->moves,
                                                  .ref = ref});
    if (!region->removed)
        return place_slot(store, region, ref);
    slot_pool_release(store->pool, ref);
    return 0;
}

static int visit_slot(void *context, uint64_t ref, const struct slot_header *header,
                      enum slot_check check)
{
    struct recovery *recovery = context;
    struct store *store = recovery->store;
    void *superseded = recovery->superseded;

    if (check == SLOT_CHECK_UNKNOWN)
        return add_slot_damage(recovery, ref, check);
    uint64_t written = slot_pool_written(store->pool, ref);
    if (written > store->stamp)
        store->stamp = written;
    if (is_unfinished(recovery, header, check)) {
        slot_pool_discard(store->pool, ref);
        recovery->report->unfinished++;
        return 0;
    }
    if (atomic_load(&header->state) != SLOT_SUPERSEDED)
        return take_slot(recovery, ref, check);
    int err = grow(&superseded, recovery->nsuperseded, &recovery->superseded_cap,
                   sizeof(*recovery->superseded));
    recovery->superseded = superseded;
    if (err == 0)
        recovery->superseded[recovery->nsuperseded++] = (struct superseded){ref, check};
    return err;
}

/* Two rounds: the slots freed by the first are marked on disk by the second. */
static int settle_slots(struct store *store)
{
    struct sync_job job = {.disk = store->disk};
    int err = 0;

    for (int i = 0; err == 0 && i < 2; i++) {
        err = slot_pool_begin_sync(store->pool, true, &job);
        if (err != 0)
            break;
        err = manifest_sync(store->manifest);
        if (err == 0)
            err = sync_job_run(&job);
        if (err == 0)
            slot_pool_end_sync(store->pool, true);
        sync_job_clear(&job);
    }
    sync_job_free(&job);
    return err;
}

/* What replaced a page may not be on disk, then its superseded slot counts. Not so where the newer
 * one may be among what is hidden; before that is noted, the slot must be gone for good. */
static int take_superseded(struct recovery *recovery)
{
    struct store *store = recovery->store;
    bool hidden = store_hides_more(store, recovery->damage);
    int err = 0;

    for (size_t i = 0; err == 0 && i < recovery->nsuperseded; i++) {
        const struct superseded *superseded = &recovery->superseded[i];
        if (hidden)
            slot_pool_discard(store->pool, superseded->ref);
        else
            err = take_slot(recovery, superseded->ref, superseded->check);
    }
    if (hidden && err == 0 && recovery->nsuperseded > 0 && store->durability != STORE_NONE)
        err = settle_slots(store);
    return err;
}

/* What was superseded, and is pointed at after all, is in use again. */
static void revive_superseded(struct recovery *recovery)
{
    struct slot_pool *pool = recovery->store->pool;

    for (size_t i = 0; i < recovery->nsuperseded; i++) {
        const struct superseded *superseded = &recovery->superseded[i];
        if (superseded->check != SLOT_CHECK_BAD_HEADER && slot_pool_refs(pool, superseded->ref) > 0)
            slot_pool_revive(pool, superseded->ref);
    }
}

static int compare_events(const void *a, const void *b)
{
    const struct event *left = a, *right = b;

    if (left->stamp == right->stamp && left->kind == EVENT_SLOT && right->kind == EVENT_SLOT)
        return (left->moves > right->moves) - (left->moves < right->moves);
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

/* A dropped page's slot takes its page out at once: older ones were replayed before it, and
 * branches that come after it must not have it. */
static int replay_slot(struct store *store, uint64_t ref)
{
    const struct slot_header *header = slot_pool_header(store->pool, ref);
    struct region *region = region_table_find(store->regions, header->region);

    if (atomic_load(&header->state) != SLOT_DROPPED)
        return place_slot(store, region, ref);
    if (header->sequence > region->sequence)
        region->sequence = header->sequence;
    int err = page_tree_clear(region->pages, header->page);
    slot_pool_release(store->pool, ref);
    return err;
}

static int replay_event(struct recovery *recovery, const struct event *event)
{
    struct store *store = recovery->store;

    if (event->kind == EVENT_DROP)
        return replay_drop(store, &recovery->drops[event->drop]);
    if (event->kind == EVENT_SLOT)
        return replay_slot(store, event->ref);
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

/* Takes the pages out whose newest slot says that they were dropped. */
static int take_dropped_out(struct recovery *recovery)
{
    struct store *store = recovery->store;
    int err = 0;

    for (size_t i = 0; err == 0 && i < recovery->ndropped; i++) {
        uint64_t ref = recovery->dropped[i];
        if (slot_pool_refs(store->pool, ref) == 0)
            continue;
        const struct slot_header *header = slot_pool_header(store->pool, ref);
        struct region *region = region_table_find(store->regions, header->region);
        if (region != NULL && page_tree_get(region->pages, header->page) == ref)
            err = page_tree_clear(region->pages, header->page);
    }
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
        if (region->doubt_stamp > 0)
            records[count++] = store_describe_doubt(region);
        if (removed)
            records[count++] =
                (struct manifest_record){.type = MANIFEST_REMOVE, .region = region->id};
    }
    return count;
}

/* Writes the manifest anew, if that saves much, from what is known now. */
static int compact_manifest(struct recovery *recovery, uint64_t nrecords, bool force)
{
    struct store *store = recovery->store;
    uint64_t nfiles = slot_pool_files(store->pool);
    uint64_t needed = 3 * (uint64_t)region_table_size(store->regions) + recovery->ndrops + nfiles;

    /* A damaged one is kept as it is, for whoever looks into it. */
    bool worth = nrecords > 2 * needed + SLACK_RECORDS || recovery->must_compact;
    worth = worth && recovery->report->damaged_records + recovery->report->damaged_files == 0;
    if (needed > UINT32_MAX || (!worth && !force))
        return 0;
    struct manifest_record *records = calloc(needed + 3, sizeof(*records));
    if (records == NULL)
        return -ENOMEM;
    uint32_t count = 0;
    if (store->hidden > 0)
        records[count++] = store_describe_hidden(store);
    if (store->unmarked)
        records[count++] = store_describe_unmarked(true);
    struct slot_pool_file file;
    for (uint32_t i = 0; slot_pool_next_file(store->pool, &i, &file);)
        records[count++] = store_describe_file(&file, true);
    count += describe_regions(store, true, &records[count]);
    count += describe_regions(store, false, &records[count]);
    for (size_t i = 0; i < recovery->ndrops; i++) {
        if (region_table_find(store->regions, recovery->drops[i].region) != NULL)
            records[count++] = recovery->drops[i];
    }
    /* The slots of forgotten regions must be free on disk before their last trace goes. */
    int err = settle_slots(store);
    if (err != 0 && store->durability != STORE_NONE)
        store->failed = err;
    if (err == 0)
        err = manifest_replace(store->manifest, records, count);
    store->was_synced = store->was_synced && manifest_has_note(store->manifest);
    /* Replaced, but its directory could not be synced. */
    if (err != 0 && !store->was_synced && store->durability != STORE_NONE)
        store->failed = err;
    free(records);
    return err;
}

/* The manifest's file as a whole. After a power cut, what was never on disk is no damage. */
static int judge_manifest(struct recovery *recovery, const struct manifest_report *records)
{
    bool has_files = slot_pool_files(recovery->store->pool) > 0;
    struct damage damage = {.file = "manifest"};
    int err = 0;

    recovery->must_compact = recovery->must_compact || (recovery->doubt && records->unwritten > 0);
    if (records->was_empty && has_files) {
        damage.kind = DAMAGE_FILE_MISSING;
        return damage_add(recovery->damage, &damage);
    }
    if (recovery->doubt)
        return 0;
    if (records->is_cut) {
        damage.kind = DAMAGE_FILE_LENGTH;
        err = damage_add(recovery->damage, &damage);
    }
    damage.kind = DAMAGE_RECORD;
    for (uint64_t i = 0; err == 0 && i < records->unwritten; i++)
        err = damage_add(recovery->damage, &damage);
    return err;
}

static int compare_numbers(const void *a, const void *b)
{
    const struct noted_file *left = a, *right = b;

    return (left->file.number > right->file.number) - (left->file.number < right->file.number);
}

static int compare_notes(const void *a, const void *b)
{
    const struct noted_file *left = a, *right = b;
    int by_number = compare_numbers(a, b);

    return by_number != 0 ? by_number : (left->order > right->order) - (left->order < right->order);
}

static struct noted_file *find_note(const struct recovery *recovery,
                                    const struct slot_pool_file *file)
{
    struct noted_file key = {.file = *file};

    return recovery->nnoted == 0
               ? NULL
               : bsearch(&key, recovery->noted, recovery->nnoted, sizeof(key), compare_numbers);
}

/* Of what the manifest says of each file keeps the last word, and finds out which there are. */
static void sort_notes(struct recovery *recovery)
{
    struct slot_pool_file file;
    size_t kept = 0;

    if (recovery->nnoted > 0)
        qsort(recovery->noted, recovery->nnoted, sizeof(*recovery->noted), compare_notes);
    for (size_t i = 0; i < recovery->nnoted; i++) {
        const struct noted_file *note = &recovery->noted[i];
        if (kept > 0 && recovery->noted[kept - 1].file.number == note->file.number)
            kept--;
        recovery->noted[kept++] = *note;
        slot_pool_skip(recovery->store->pool, note->file.number);
    }
    recovery->nnoted = kept;
    for (uint32_t i = 0; slot_pool_next_file(recovery->store->pool, &i, &file);) {
        struct noted_file *note = find_note(recovery, &file);
        if (note != NULL)
            note->found = true;
    }
}

/* What the segment files as such are found to be, against what the manifest says. After a power cut
 * that cannot be told from what was under way. */
static int judge_files(struct recovery *recovery)
{
    struct damage_list *list = recovery->damage;
    size_t kept = 0;
    int err = 0;

    for (size_t i = 0; i < list->count; i++) {
        if (!recovery->doubt || strncmp(list->at[i].file, "segment", 7) != 0)
            list->at[kept++] = list->at[i];
    }
    list->count = kept;

    sort_notes(recovery);
    for (size_t i = 0; err == 0 && !recovery->doubt && i < recovery->nnoted; i++) {
        const struct noted_file *note = &recovery->noted[i];
        struct damage damage = {
            .kind = DAMAGE_FILE_MISSING, .hides = true, .place = note->file.number};
        if (!note->there || note->found)
            continue;
        slot_pool_name(&note->file, damage.file, sizeof(damage.file));
        err = damage_add(recovery->damage, &damage);
    }
    return err;
}

/* Has the manifest say which files there are, now and from now on. What is not there after a power
 * cut was never missed: neither is it later. */
static int note_files(struct recovery *recovery)
{
    struct store *store = recovery->store;
    struct slot_pool_file file;
    int err = 0;

    for (size_t i = 0;
         err == 0 && recovery->doubt && !recovery->files_noted && i < recovery->nnoted; i++) {
        const struct noted_file *note = &recovery->noted[i];
        if (note->there && !note->found)
            err = store_note_file(store, &note->file, false);
    }

    for (uint32_t i = 0;
         err == 0 && !recovery->files_noted && slot_pool_next_file(store->pool, &i, &file);) {
        const struct noted_file *note = find_note(recovery, &file);
        if (note == NULL || !note->there)
            err = store_note_file(store, &file, true);
    }
    slot_pool_on_file(store->pool, store_note_file, store);
    return err;
}

/* What is wrong stays to be seen, in the files or in the manifest, until all of this is done. */
static int repair(struct recovery *recovery, uint64_t nrecords)
{
    struct store *store = recovery->store;
    int err = store_lose_pages(store, recovery->damage);

    if (err == 0)
        err = settle_slots(store);
    if (err == 0)
        err = compact_manifest(recovery, nrecords, true);
    recovery->files_noted = err == 0;
    if (err == 0) {
        store_free_unknown(store, recovery->damage);
        err = settle_slots(store);
    }
    if (err != 0)
        return err;
    struct manifest_record none = store_describe_hidden(store);
    return manifest_append(store->manifest, &none, 1, true);
}

static int finish(struct recovery *recovery, const struct store_options *options,
                  const struct manifest_report *records)
{
    struct store *store = recovery->store;
    struct store_report *report = recovery->report;

    finish_removals(store);
    int err = store_settle_damage(store, recovery->damage, report);
    /* Only now: until what may be missing is noted, so must be that there are marks missing. */
    store_mark(store);
    if (err == 0)
        err = store->failed;
    report->pages = slot_pool_used(store->pool) - report->damaged_headers;
    report->regions = region_table_count(store->regions);
    if (err == 0 && options->purpose == STORE_REPAIR && damage_harm(recovery->damage) > 0)
        err = repair(recovery, records->records);
    else if (err == 0 && compact_manifest(recovery, records->records, false) != 0)
        log_warn("Store", "the manifest of %s stays long", options->dir);
    if (err == 0)
        err = note_files(recovery);
    /* Only now it is noted what the files hide. */
    return err != 0 ? err : slot_pool_mend(store->pool);
}

static int rebuild(struct recovery *recovery, const struct store_options *options)
{
    struct store *store = recovery->store;
    struct manifest_report records;
    char path[PATH_MAX];
    int len = snprintf(path, sizeof(path), "%s/manifest", options->dir);

    if (len < 0 || (size_t)len >= sizeof(path))
        return -ENAMETOOLONG;
    int err = slot_pool_open(&store->pool, store->disk, options->dir, store->segment_slots,
                             recovery->damage);
    if (err == 0)
        slot_pool_set_capacity(store->pool, store->capacity_bytes);
    if (err == 0)
        err = manifest_open(&store->manifest, store->disk, path, apply_record, recovery,
                            recovery->damage, &records);
    if (err == 0 && store->durability != STORE_NONE)
        slot_pool_set_durable(store->pool);
    if (err == 0)
        err = judge(recovery);
    /* Where nothing was ever synced, nobody knows whether there was a power cut. */
    if (err == 0 && (recovery->doubt || !store->was_synced))
        slot_pool_set_in_doubt(store->pool);
    /* The sync at the end of opening only writes what the kernel takes to be unwritten. After one
     * that failed, perhaps at an opening before this, that is not all. */
    if (err == 0 && store->durability != STORE_NONE)
        err = slot_pool_write_again(store->pool, recovery->synced_stamp);
    if (err == 0)
        err = judge_manifest(recovery, &records);
    if (err == 0)
        err = judge_files(recovery);
    if (err == 0)
        err = find_branches(recovery);
    if (err == 0)
        err = find_drops(recovery, &records);
    if (err == 0)
        err = slot_pool_scan(store->pool, options->scan_threads, visit_slot, recovery,
                             recovery->damage);
    if (err == 0)
        err = take_superseded(recovery);
    if (err == 0)
        err = replay(recovery);
    if (err == 0)
        err = take_dropped_out(recovery);
    if (err == 0)
        revive_superseded(recovery);
    if (err == 0)
        err = finish(recovery, options, &records);
    return err;
}

int store_recover(struct store *store, const struct store_options *options,
                  struct damage_list *list, struct store_report *report)
{
    struct recovery recovery = {.store = store, .report = report, .damage = list};
    int err = rebuild(&recovery, options);

    free(recovery.events);
    free(recovery.drops);
    free(recovery.dropped);
    free(recovery.superseded);
    free(recovery.noted);
    return err;
}
