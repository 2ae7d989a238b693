#include "store_parts.h"

#include <assert.h>
#include <errno.h>

bool store_changed(const struct store *store)
{
    return store->durability != STORE_NONE &&
           (slot_pool_changed(store->pool) || manifest_changed(store->manifest));
}

bool store_unsettled(const struct store *store)
{
    return store->durability != STORE_NONE &&
           (slot_pool_unsettled(store->pool) || manifest_changed(store->manifest) ||
            store->noted_stamp != store->stamp || store->unsure != NULL);
}

struct manifest_record store_describe_unmarked(bool unmarked)
{
    return (struct manifest_record){.type = MANIFEST_UNMARKED, .flags = unmarked ? 1 : 0};
}

void store_mark(struct store *store)
{
    bool unmarked = slot_pool_flush(store->pool) != 0;
    struct manifest_record record = store_describe_unmarked(unmarked);

    if (unmarked == store->unmarked)
        return;
    int err = manifest_append(store->manifest, &record, 1, true);
    if (err == 0)
        store->unmarked = unmarked;
    else if (unmarked && store->failed == 0)
        store->failed = err;
}

void store_bury(struct store *store, struct region *region)
{
    if (store->serving) {
        region->removal_round = store->rounds_begun + 1;
        region->next_doomed = store->unsure;
        store->unsure = region;
    } else if (region->nchildren == 0) {
        region_table_delete(store->regions, region);
    }
}

/* Frees the removed regions whose removal the last round has made sure. */
static void bury_sure(struct store *store)
{
    struct region **at = &store->unsure;

    while (*at != NULL) {
        struct region *region = *at;
        if (region->removal_round > store->rounds_begun) {
            at = &region->next_doomed;
            continue;
        }
        *at = region->next_doomed;
        region->removal_round = 0;
        if (region->nchildren == 0)
            region_table_delete(store->regions, region);
    }
}

int store_begin_sync(struct store *store, bool full, struct sync_job **out)
{
    struct sync_job *job = &store->job;
    struct manifest_record note = {
        .epoch = store->boot[0], .sequence = store->boot[1], .stamp = store->stamp};

    assert(!store->in_round);
    job->disk = store->disk;
    int err = store->failed;
    if (err == 0)
        err = sync_job_reserve(job, 1);
    if (err == 0)
        err = slot_pool_begin_sync(store->pool, full, job);
    /* What cannot be marked cannot be synced. */
    if (err != 0 && err != -ENOMEM)
        store->failed = err;
    if (err != 0)
        return err;
    if (manifest_changed(store->manifest))
        sync_job_add(job, manifest_begin_sync(store->manifest));
    if (full && store->noted_stamp != store->stamp)
        manifest_note_later(store->manifest, &note, job);
    store->in_round = true;
    store->rounds_begun++;
    store->round_full = full;
    store->round_stamp = store->stamp;
    *out = job;
    return 0;
}

int store_end_sync(struct store *store, int err)
{
    assert(store->in_round);
    store->in_round = false;
    sync_job_clear(&store->job);
    /* What failed meanwhile (see make_sure()) may have been something this round was to write. */
    if (store->failed == 0)
        store->failed = err;
    if (store->failed != 0)
        return store->failed;
    if (store->round_full)
        store->noted_stamp = store->round_stamp;
    slot_pool_end_sync(store->pool, store->round_full);
    bury_sure(store);
    return 0;
}

int store_commit(struct store *store, bool full)
{
    struct sync_job *job;
    int err = store_begin_sync(store, full, &job);

    return err != 0 ? err : store_end_sync(store, sync_job_run(job));
}

int store_failure(const struct store *store)
{
    return store->failed;
}

int store_settle(struct store *store)
{
    return store_unsettled(store) ? store_commit(store, true) : store->failed;
}

int store_begin_durability(struct store *store)
{
    struct manifest_record unknown = {.flags = MANIFEST_UNSYNCED};
    int err = 0;

    /* Sure before anything changes: after a power cut the old note would be believed. */
    if (store->durability == STORE_NONE) {
        if (store->was_synced)
            err = manifest_note_synced(store->manifest, &unknown);
        return err != 0 || !store->was_synced ? err : manifest_sync(store->manifest);
    }
    /* A place for the note, which must not say more than before until all is synced. */
    if (!store->was_synced)
        err = manifest_note_synced(store->manifest, &unknown);
    if (err != 0)
        return err;
    /* All of it: who wrote it last may not have synced, and reading it back changes things. */
    slot_pool_set_durable(store->pool);
    store->noted_stamp = UINT64_MAX;
    err = store_commit(store, true);
    store->serving = err == 0;
    return err;
}
