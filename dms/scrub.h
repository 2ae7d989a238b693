/*
 * scrub: reads all that a store holds over and over, slowly, so that damage is found before the
 * page is asked for: while another copy may still be had.
 *
 * What is due is asked for in the background and looked at once it is in memory, some slots at a
 * time, between requests. A pass is followed by the next, but not within seconds of its beginning.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_SCRUB_H
#define EDM_DMS_SCRUB_H

#include "store.h"

#include <stdbool.h>
#include <stdint.h>

enum { SCRUB_PASS_MS = 10000 };

struct scrub {
    struct store *store;
    const char *part; /* its name in the log */
    uint64_t rate;    /* bytes a second, 0: never */
    uint64_t ref;     /* where it has got to */
    int64_t due_us;   /* when the next step is */
    int64_t begun_us; /* of this pass; 0: none has begun */
    uint32_t waits;   /* how often the next slots were not in memory yet */
    uint64_t bytes;   /* read in this pass */
    uint64_t found;   /* damaged slots in this pass */
    uint64_t npasses; /* done */
};

/* Takes a step if one is due at NOW_US. Returns in how many milliseconds to call again, at most;
 * -1: never. Each damaged slot is logged once. */
int scrub_turn(struct scrub *scrub, int64_t now_us);

#endif
