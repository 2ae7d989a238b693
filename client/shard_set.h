/*
 * shard_set: the shards a run uses, and a region on all of them.
 *
 * Filled once at the start (HELLO and OPEN on every shard) and only read after that.
 *
 * Thread: main until it is open; then any, read-only.
 */
#ifndef EDM_CLIENT_SHARD_SET_H
#define EDM_CLIENT_SHARD_SET_H

#include "../ini/config.h"
#include "../proto/wire.h"

/* A region on every shard of a set. */
struct store_region {
    uint64_t ids[CONFIG_MAX_SHARDS]; /* its number on each shard */
    uint64_t epoch;
};

struct shard_set {
    char *const *endpoints; /* not owned */
    uint32_t nshards;
    uint32_t wait_ms;
    uint32_t say_after_ms; /* how long a shard may be silent before shard_set_open() says so */
    uint64_t stores[CONFIG_MAX_SHARDS];
    struct store_region region; /* the program's own */
    uint64_t sequence;          /* highest stored so far on any shard */
};

/* Greets all shards and opens REGION on each. Says on standard error when one has not answered for
 * say_after_ms (the program has not started yet), and goes on trying for wait_ms. STOP_FD: gives up
 * when it becomes readable (-1: none). Returns 0, or -errno with a line for people in WHY. */
int shard_set_open(struct shard_set *set, const char *region, int stop_fd, char *why,
                   size_t why_cap) __attribute__((warn_unused_result));

/* Removes the region from all shards; for at most WAIT_MS. Returns how many shards confirmed. */
uint32_t shard_set_remove_region(const struct shard_set *set, uint32_t wait_ms);

/* The shard for a page's key. */
uint32_t shard_set_place(const struct shard_set *set, uint64_t key);

#endif
