/*
 * durability: when a shard's changes are synced. With STORE_ALWAYS before their replies are sent,
 * all that came in together at once; with STORE_INTERVAL now and then by a thread beside the
 * shard's; what only frees slots for good, at most once an interval.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_DURABILITY_H
#define EDM_DMS_DURABILITY_H

#include "store.h"

#include <stdbool.h>
#include <stdint.h>

struct durability;

/* STORE stays the caller's and must outlive it. Returns 0 or -errno. */
int durability_new(struct durability **out, struct store *store, enum store_durability how,
                   uint32_t interval_ms) __attribute__((warn_unused_result));

/* Ends without syncing any more. */
void durability_destroy(struct durability **durability);

/* Whether what was done since the last commit must be synced before anybody is told. */
bool durability_must_commit(const struct durability *durability);

/* Syncs that. Blocks. Returns 0 or what the sync failed with: then nobody may be told. */
int durability_commit(struct durability *durability) __attribute__((warn_unused_result));

/* Begins or ends what is to be done by now. *TIMEOUT_MS: when to come again, -1: no need to.
 * Returns 0 or what a sync failed with. */
int durability_turn(struct durability *durability, int *timeout_ms)
    __attribute__((warn_unused_result));

/* Readable when durability_turn() has something to do. -1: never. */
int durability_fd(const struct durability *durability);

/* Makes all sure, before an orderly end. Blocks. */
int durability_settle(struct durability *durability) __attribute__((warn_unused_result));

#endif
