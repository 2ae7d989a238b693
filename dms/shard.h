/*
 * shard: one server (server.h), one store, and the thread that serves the one from the other.
 *
 * Thread: the main thread makes, starts, stops and destroys it; everything else of it belongs to
 * its own thread.
 */
#ifndef EDM_DMS_SHARD_H
#define EDM_DMS_SHARD_H

#include "store.h"

#include <stdint.h>

struct shard;

struct shard_options {
    uint32_t number, nshards;
    const struct disk *disk; /* NULL: the real one; outlives the shard */
    const char *endpoint;    /* copied, as is the next */
    const char *dir;
    uint64_t capacity_bytes;
    uint64_t first_page; /* pages below are refused */
    unsigned scan_threads;
    uint32_t max_connections, max_regions;
    uint64_t region_bytes;  /* of pages, of one region; 0: no limit of its own */
    uint32_t request_bytes; /* of pages, of one request */
    enum store_durability durability;
    uint32_t sync_interval_ms;
    uint64_t scrub_bytes; /* to be read again a second, 0: none */
};

/* Binds the shard's socket. What goes wrong is logged. Returns 0 or -errno. */
int shard_new(struct shard **out, const struct shard_options *options)
    __attribute__((warn_unused_result));

/* What a shard's thread tells: written whole to its event descriptor. */
struct shard_event {
    uint32_t number;
    enum { SHARD_READY, SHARD_FAILED } kind; /* FAILED: logged; the thread has ended */
};

/* Starts the thread: it reads the store back, tells EVENT_FD that it is ready, and serves until
 * shard_stop(). Returns 0 or -errno. */
int shard_start(struct shard *shard, int event_fd) __attribute__((warn_unused_result));

/* Ends the thread, if it was started, and waits for it. Returns 0, or what it ended with, logged.
 */
int shard_stop(struct shard *shard);

void shard_destroy(struct shard **shard);

#endif
