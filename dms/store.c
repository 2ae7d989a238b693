#include "store.h"

#include "random_number.h"
#include "shard_file.h"
#include "store_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHRINK_STEP = 1024, /* pages freed in one step: some 100 us */
    FIRST_EPOCH = 1,
    FEW_SEGMENTS = 16, /* a small store is made of at least this many files */
};

static void retain_slot(void *owner, uint64_t entry)
{
    struct store *store = owner;

    slot_pool_retain(store->pool, entry);
}

static void release_slot(void *owner, uint64_t entry)
{
    struct store *store = owner;

    if (store->pool != NULL)
        slot_pool_release(store->pool, entry);
}

const struct page_tree_ops store_tree_ops = {retain_slot, release_slot};

/* Slots of a segment file of raw pages: the largest power of two of which a store of this size
 * needs many. */
static uint32_t choose_segment_slots(uint64_t capacity_bytes)
{
    uint64_t capacity_slots = capacity_bytes / WIRE_PAGE_BYTES;
    uint32_t slots = SLOT_POOL_MAX_SLOTS;

    while (slots > SLOT_POOL_MIN_SLOTS && (uint64_t)slots * FEW_SEGMENTS > capacity_slots)
        slots /= 2;
    return slots;
}

/* A damaged one is made anew where damage is what was asked for. */
static int open_shard_file(struct store *store, const struct store_options *options,
                           struct damage_list *list)
{
    struct damage damage = {.kind = DAMAGE_FILE_HEADER, .file = "shard"};
    int err = shard_file_open(store->disk, options->dir, &store->id, &store->segment_slots);

    if (err != -EBADMSG && err != -EPROTONOSUPPORT)
        return err;
    damage.kind = err == -EPROTONOSUPPORT ? DAMAGE_FORMAT : DAMAGE_FILE_HEADER;
    if (damage_add(list, &damage) != 0)
        return -ENOMEM;
    if (err != -EBADMSG || options->purpose == STORE_SERVE)
        return err;
    uint32_t guess = slot_pool_guess_slots(options->dir);
    if (guess > 0)
        store->segment_slots = guess;
    return shard_file_make(store->disk, options->dir, &store->id, store->segment_slots);
}

int store_open(struct store **out, const struct store_options *options, struct store_report *report)
{
    struct store *store = calloc(1, sizeof(*store));

    if (store == NULL)
        return -ENOMEM;
    *report = (struct store_report){0};
    store->disk = options->disk == NULL ? &disk_real : options->disk;
    store->capacity_bytes = options->capacity_bytes;
    store->region_pages =
        options->region_bytes == 0 ? UINT64_MAX : options->region_bytes / WIRE_PAGE_BYTES;
    store->max_regions = options->max_regions == 0 ? REGION_MAX : options->max_regions;
    store->segment_slots = choose_segment_slots(store->capacity_bytes);
    store->durability = options->durability;
    store->pause_ms = -1;
    struct damage_list unwanted = {0};
    struct damage_list *list = options->damage == NULL ? &unwanted : options->damage;
    int err = disk_boot(store->disk, store->boot);
    if (err == 0)
        err = open_shard_file(store, options, list);
    if (err == 0)
        err = region_table_new(&store->regions);
    if (err == 0)
        err = store_recover(store, options, list, report);
    if (err == 0)
        err = store_begin_durability(store);
    if (err == 0 && options->moves != STORE_MOVES_WORTH)
        slot_pool_set_compacting(store->pool, options->moves == STORE_MOVES_EAGERLY);
    damage_clear(&unwanted);
    if (err != 0)
        store_close(&store);
    else
        *out = store;
    return err;
}

/* The pool goes first: freeing the page tables must not free the pages in the files. */
void store_close(struct store **store)
{
    if (*store == NULL)
        return;
    slot_pool_close(&(*store)->pool);
    region_table_destroy(&(*store)->regions);
    manifest_close(&(*store)->manifest);
    sync_job_free(&(*store)->job);
    free(*store);
    *store = NULL;
}

uint64_t store_id(const struct store *store)
{
    return store->id;
}

int store_check(const struct store *store, uint64_t id, uint64_t epoch, bool to_change,
                struct region **out)
{
    struct region *region = region_table_find(store->regions, id);

    if (region == NULL || region->removed)
        return -ENOENT;
    bool frozen = (region->flags & REGION_FROZEN) != 0;
    if (frozen && to_change)
        return -EROFS;
    if (!frozen && epoch != region->epoch)
        return -ESTALE;
    *out = region;
    return to_change ? store->failed : 0;
}

int store_new_region(struct store *store, struct region **out, uint64_t id, const char *name)
{
    struct region *region = calloc(1, sizeof(*region));

    if (region == NULL)
        return -ENOMEM;
    int err = page_tree_new(&region->pages, &store_tree_ops, store);
    if (err != 0) {
        free(region);
        return err;
    }
    region->id = id;
    memcpy(region->name, name, strnlen(name, WIRE_MAX_NAME_BYTES));
    *out = region;
    return 0;
}

struct manifest_record store_describe_region(const struct region *region)
{
    struct manifest_record record = {
        .type = MANIFEST_REGION,
        .region = region->id,
        .parent = region->parent,
        .epoch = region->epoch,
        .sequence = region->sequence,
        .stamp = region->stamp,
        .flags = region->flags | (region->solid ? MANIFEST_SOLID : 0),
    };

    memcpy(record.name, region->name, sizeof(record.name));
    return record;
}

int store_log_region(struct store *store, const struct region *region)
{
    struct manifest_record record = store_describe_region(region);

    return manifest_append(store->manifest, &record, 1, false);
}

/* Whether THERE is what branching SOURCE would make: the request is repeated. */
static bool is_branch(const struct region *there, const struct region *source, uint32_t flags)
{
    bool untouched = there->epoch == FIRST_EPOCH && there->sequence == source->sequence;

    return there->parent == source->id && (there->flags & REGION_FROZEN) == flags && untouched;
}

/* Logs REGION and puts it into the table; frees it on failure. */
static int add_region(struct store *store, struct region *region)
{
    bool room = region_table_count(store->regions) < store->max_regions;
    int err = room ? region_table_prepare(store->regions) : -EUSERS;

    region->stamp = ++store->stamp;
    if (err == 0)
        err = store_log_region(store, region);
    if (err != 0) {
        page_tree_destroy(&region->pages);
        free(region);
        return err;
    }
    region_table_add(store->regions, region);
    return 0;
}

static int make_region(struct store *store, const char *name, uint64_t epoch, uint64_t claim,
                       const struct region **out)
{
    struct region *region;
    uint64_t id;
    int err;

    do
        err = random_number(&id);
    while (err == 0 && region_table_find(store->regions, id) != NULL);
    if (err == 0)
        err = store_new_region(store, &region, id, name);
    if (err != 0)
        return err;
    region->epoch = epoch == 0 ? FIRST_EPOCH : epoch;
    region->claim = claim;
    *out = region;
    return add_region(store, region);
}

/* An epoch must not go back: an owner that was fenced would be let in again. So this does not wait
 * for the next round. */
static int make_sure(struct store *store)
{
    if (store->durability == STORE_INTERVAL)
        store->failed = manifest_sync(store->manifest);
    return store->failed;
}

int store_claim(struct store *store, const char *name, uint64_t epoch, uint64_t claim,
                const struct region **out)
{
    struct region *region = region_table_find_name(store->regions, name);

    if (store->failed != 0)
        return store->failed;
    if (region == NULL) {
        int err = make_region(store, name, epoch, claim, out);
        return err != 0 ? err : make_sure(store);
    }
    *out = region;
    if ((region->flags & REGION_FROZEN) != 0)
        return 0;
    if (epoch == 0)
        epoch = claim == region->claim ? region->epoch : region->epoch + 1;
    if (epoch < region->epoch)
        return -ESTALE;
    if (epoch > region->epoch) {
        struct manifest_record record = {
            .type = MANIFEST_EPOCH, .region = region->id, .epoch = epoch};
        int err = manifest_append(store->manifest, &record, 1, false);
        if (err == 0)
            err = make_sure(store);
        if (err != 0)
            return err;
    }
    region->epoch = epoch;
    region->claim = claim;
    return 0;
}

int store_branch(struct store *store, uint64_t id, uint64_t epoch, const char *name, bool frozen,
                 const struct region **out)
{
    struct region *source, *branch;
    uint32_t flags = frozen ? REGION_FROZEN : 0;
    uint64_t branch_id;
    int err = store_check(store, id, epoch, frozen, &source);

    if (err != 0)
        return err;
    const struct region *there = region_table_find_name(store->regions, name);
    if (there != NULL) {
        *out = there;
        return is_branch(there, source, flags) ? 0 : -EEXIST;
    }
    /* A branch that is found after a power cut must have all that it was made of. */
    err = store->failed;
    if (err == 0 && store->durability == STORE_ALWAYS && store_changed(store))
        err = store_commit(store, false);
    if (err == 0)
        err = random_number(&branch_id);
    if (err == 0)
        err = store_new_region(store, &branch, branch_id, name);
    if (err != 0)
        return err;
    page_tree_destroy(&branch->pages);
    err = page_tree_clone(&branch->pages, source->pages);
    if (err != 0) {
        free(branch);
        return err;
    }
    branch->parent = id;
    branch->epoch = FIRST_EPOCH;
    branch->sequence = source->sequence;
    branch->flags = flags;
    branch->solid = store->durability == STORE_ALWAYS;
    *out = branch;
    return add_region(store, branch);
}

void store_doom(struct store *store, struct region *region)
{
    region->next_doomed = store->doomed;
    store->doomed = region;
}

int store_remove(struct store *store, uint64_t id, uint64_t epoch)
{
    struct region *region;
    int err = store_check(store, id, epoch, false, &region);

    if (err != 0)
        return err;
    if (store->failed != 0)
        return store->failed;
    struct manifest_record record = {.type = MANIFEST_REMOVE, .region = id};
    err = manifest_append(store->manifest, &record, 1, true);
    if (err != 0)
        return err;
    region_table_unname(store->regions, region);
    store_doom(store, region);
    return 0;
}

const struct region *store_find(const struct store *store, uint64_t id)
{
    const struct region *region = region_table_find(store->regions, id);

    return region == NULL || region->removed ? NULL : region;
}

const struct region *store_after(const struct store *store, const char *name)
{
    return region_table_after(store->regions, name);
}

void store_stat(const struct store *store, struct wire_shard_info *info)
{
    info->npages = slot_pool_used(store->pool);
    info->used_bytes = slot_pool_used_bytes(store->pool);
    info->capacity_bytes = store->capacity_bytes;
    info->nregions = region_table_count(store->regions);
}

bool store_is_full(const struct store *store)
{
    return slot_pool_used_bytes(store->pool) + WIRE_MAX_BODY_BYTES > store->capacity_bytes ||
           !slot_pool_may_grow(store->pool, WIRE_MAX_BODY_BYTES);
}

bool store_free_doomed(struct store *store)
{
    struct region *region = store->doomed;

    if (region == NULL)
        return false;
    bool is_freed = page_tree_shrink(region->pages, SHRINK_STEP);
    store_mark(store);
    if (!is_freed)
        return true;
    store->doomed = region->next_doomed;
    page_tree_destroy(&region->pages);
    store_bury(store, region);
    return store->doomed != NULL;
}

bool store_work(struct store *store)
{
    slot_pool_retire_lost(store->pool);
    if (store->doomed != NULL) {
        store_free_doomed(store);
        return true;
    }
    return store_move_pages(store) || slot_pool_trim(store->pool, false);
}

uint64_t store_moved(const struct store *store)
{
    return store->moved;
}

int store_pause_ms(const struct store *store)
{
    return store->pause_ms;
}
