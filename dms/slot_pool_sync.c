#include "slot_pool_parts.h"

#include "mapped_fault.h"
#include "../ini/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void slot_pool_set_durable(struct slot_pool *pool)
{
    pool->durable = pool->changed = pool->dir_changed = true;
}

int slot_pool_write_again(struct slot_pool *pool, uint64_t stamp)
{
    void *buffer = malloc(SEGMENT_GROUP_BYTES);
    int err = buffer == NULL ? -ENOMEM : 0;

    for (uint32_t i = 0; err == 0 && i < pool->nmembers; i++) {
        if (pool->members[i].segment != NULL)
            err = segment_write_again(pool->members[i].segment, stamp, buffer);
    }
    free(buffer);
    return err;
}

static int flush_member(struct slot_pool *pool, uint32_t i)
{
    struct segment *segment = pool->members[i].segment;
    bool is_lost = pool->members[i].lost, was_empty = slot_pool_is_empty(segment);
    uint32_t before = segment_ready_slots(segment);
    int err = segment_flush(segment);

    pool->freed = true;
    slot_pool_account(pool, i, 0, (int64_t)segment_ready_slots(segment) - before);
    pool->nempty += !is_lost && !was_empty && slot_pool_is_empty(segment);
    if (segment_is_lost(segment))
        slot_pool_retire(pool, i);
    return err;
}

static int flush_members(struct slot_pool *pool)
{
    int err = 0;

    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        uint32_t i;
        while (err == 0 && (i = pool->lists[SLOT_LIST_UNMARKED][size_class].head) != SLOT_POOL_NONE)
            err = flush_member(pool, i);
    }
    return err;
}

/* Frees slots that say of pages that they were dropped. */
static void free_dropped(struct slot_pool *pool, uint64_t done)
{
    uint64_t ref;

    while (!pool->forgot && ref_queue_pop(&pool->dropped, done, &ref))
        slot_pool_free(pool, ref);
}

int slot_pool_flush(struct slot_pool *pool)
{
    int err = flush_members(pool);

    if (err != 0 || pool->durable)
        return err;
    /* Not before: older slots of their pages may have been among those just marked. */
    free_dropped(pool, UINT64_MAX);
    return flush_members(pool);
}

void slot_pool_retire(struct slot_pool *pool, uint32_t i)
{
    struct member *member = &pool->members[i];
    char name[SLOT_POOL_NAME_BYTES];

    if (member->lost)
        return;
    pool->nempty -= slot_pool_is_empty(member->segment);
    pool->nunsure -= segment_is_unsure(member->segment);
    segment_be_sure(member->segment);
    slot_pool_forget(pool, i);
    member->lost = true;
    slot_pool_name(&member->file, name, sizeof(name));
    log_error("Store",
              "parts of %s/%s cannot be read any more: the file was cut short, or the disk is "
              "failing; the pages in them are answered with DATA_LOSS, and nothing more is stored "
              "in this file",
              pool->dir, name);
}

void slot_pool_retire_lost(struct slot_pool *pool)
{
    uint32_t nfaults = mapped_fault_total();

    if (nfaults == pool->nfaults)
        return;
    pool->nfaults = nfaults;
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        const struct member *member = &pool->members[i];
        if (member->segment != NULL && segment_is_lost(member->segment))
            slot_pool_retire(pool, i);
    }
}

int slot_pool_begin_sync(struct slot_pool *pool, bool full, struct sync_job *job)
{
    assert(pool->rounds_begun == pool->rounds_done);
    int err = slot_pool_flush(pool);

    /* That one is for what may be tried again. */
    if (err == -ENOMEM)
        err = -EIO;
    if (err == 0)
        err = sync_job_reserve(job, pool->nmembers);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        struct segment *segment = pool->members[i].segment;
        int fd = segment == NULL ? -1 : segment_begin_sync(segment, full);
        if (fd >= 0)
            sync_job_add(job, fd);
    }
    if (pool->dir_changed)
        job->dir = pool->dir;
    pool->rounds_begun++;
    pool->full_begun += full;
    pool->changed = pool->dir_changed = false;
    pool->freed = pool->freed && !full;
    return 0;
}

void slot_pool_end_sync(struct slot_pool *pool, bool full)
{
    uint64_t ref;

    pool->rounds_done = pool->rounds_begun;
    pool->full_done += full;
    while (ref_queue_pop(&pool->superseded, pool->rounds_done, &ref))
        slot_pool_free(pool, ref);
    free_dropped(pool, pool->full_done);
    /* What is not marked now is with the next round, or that does not begin. */
    int err = flush_members(pool);
    (void)err;
}

int slot_pool_mend(struct slot_pool *pool)
{
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < pool->nmembers; i++) {
        if (pool->members[i].segment != NULL)
            err = segment_mend(pool->members[i].segment);
    }
    return err;
}

bool slot_pool_changed(const struct slot_pool *pool)
{
    return pool->changed || pool->dir_changed;
}

uint64_t slot_pool_waiting(const struct slot_pool *pool)
{
    return pool->superseded.count + pool->dropped.count;
}

bool slot_pool_unsettled(const struct slot_pool *pool)
{
    return slot_pool_changed(pool) || pool->freed || slot_pool_waiting(pool) > 0;
}
