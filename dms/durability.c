#include "durability.h"

#include "syncer.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct durability {
    struct store *store;
    enum store_durability how;
    int64_t interval_ms;
    int64_t begun_ms; /* the last full round */
    struct syncer *syncer;
    bool syncing;
};

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int durability_new(struct durability **out, struct store *store, enum store_durability how,
                   uint32_t interval_ms)
{
    struct durability *durability = calloc(1, sizeof(*durability));

    if (durability == NULL)
        return -ENOMEM;
    durability->store = store;
    durability->how = how;
    durability->interval_ms = interval_ms;
    durability->begun_ms = now_ms();
    int err = how == STORE_INTERVAL ? syncer_new(&durability->syncer) : 0;
    if (err != 0)
        free(durability);
    else
        *out = durability;
    return err;
}

/* Waits for a round under way. */
static int finish(struct durability *durability)
{
    if (!durability->syncing)
        return 0;
    durability->syncing = false;
    return store_end_sync(durability->store, syncer_wait(durability->syncer));
}

void durability_destroy(struct durability **durability)
{
    if (*durability == NULL)
        return;
    int err = finish(*durability);
    (void)err; /* nobody will be told anything any more */
    syncer_destroy(&(*durability)->syncer);
    free(*durability);
    *durability = NULL;
}

bool durability_must_commit(const struct durability *durability)
{
    return durability->how == STORE_ALWAYS && store_changed(durability->store);
}

int durability_commit(struct durability *durability)
{
    if (!durability_must_commit(durability))
        return store_failure(durability->store);
    int64_t now = now_ms();
    bool full = now - durability->begun_ms >= durability->interval_ms;
    if (full)
        durability->begun_ms = now;
    return store_commit(durability->store, full);
}

/* A full round: with a syncer beside the shard, without one here and now. */
static int begin(struct durability *durability)
{
    struct sync_job *job;

    if (durability->syncer == NULL)
        return store_commit(durability->store, true);
    int err = store_begin_sync(durability->store, true, &job);
    if (err == -ENOMEM)
        return 0; /* the next time */
    if (err != 0)
        return err;
    durability->syncing = true;
    syncer_start(durability->syncer, job);
    return 0;
}

int durability_turn(struct durability *durability, int *timeout_ms)
{
    int err = store_failure(durability->store);
    int sync_err;

    *timeout_ms = -1;
    if (err == 0 && durability->syncing && syncer_take(durability->syncer, &sync_err)) {
        durability->syncing = false;
        err = store_end_sync(durability->store, sync_err);
    }
    if (err != 0 || durability->syncing || !store_unsettled(durability->store))
        return err;
    int64_t now = now_ms();
    int64_t left = durability->begun_ms + durability->interval_ms - now;
    if (left > 0) {
        *timeout_ms = (int)left;
        return 0;
    }
    durability->begun_ms = now;
    *timeout_ms = (int)durability->interval_ms;
    return begin(durability);
}

int durability_fd(const struct durability *durability)
{
    return durability->syncer == NULL ? -1 : syncer_fd(durability->syncer);
}

int durability_settle(struct durability *durability)
{
    int err = finish(durability);

    return err != 0 ? err : store_settle(durability->store);
}
