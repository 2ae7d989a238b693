/*
 * slot_pool: the segment files of one shard as one supply of slots.
 *
 * A slot is named by a 64-bit reference, never 0. Segment files are made when slots are needed and
 * removed when they are empty.
 *
 * Thread: the shard's. slot_pool_scan() uses threads of its own and waits for them.
 */
#ifndef EDM_DMS_SLOT_POOL_H
#define EDM_DMS_SLOT_POOL_H

#include "segment.h"

#include <stdbool.h>
#include <stdint.h>

struct slot_pool;

/* Opens the segment files in the directory DIR (which exists), each of SEGMENT_SLOTS slots, and
 * removes what a crash left half made. *NREPAIRED: files with a damaged file header or cut short.
 * Nothing can be taken before slot_pool_scan(). Returns 0 or -errno; -EPROTONOSUPPORT: a segment
 * has another format. */
int slot_pool_open(struct slot_pool **out, const char *dir, uint32_t segment_slots,
                   uint32_t *nrepaired) __attribute__((warn_unused_result));

/* Closes; the files stay. */
void slot_pool_close(struct slot_pool **pool);

struct slot_pool_report {
    uint64_t pages;       /* slots in use, with a sound header */
    uint64_t bad_headers; /* slots set aside: nobody knows whose they are */
    uint64_t bad_pages;   /* slots in use whose bytes do not match their checksum */
};

/* Reads every slot, with NTHREADS threads, and says VISIT of each that is in use with a sound
 * header, in no particular order. VISIT holds one reference to that slot, for slot_pool_release().
 * Slots with a damaged header stay out of use. Returns 0, -ENOMEM, or what VISIT returned if
 * not 0. */
int slot_pool_scan(struct slot_pool *pool, unsigned nthreads,
                   int (*visit)(void *context, uint64_t ref, const struct slot_header *header),
                   void *context, struct slot_pool_report *report)
    __attribute__((warn_unused_result));

/* Makes files until NSLOTS slots are free. Returns 0 or -errno: -ENOSPC when the file system is
 * full. */
int slot_pool_reserve(struct slot_pool *pool, uint64_t nslots) __attribute__((warn_unused_result));

/* Takes and fills a run of at most COUNT free slots from SOURCES; at least one must be free (see
 * slot_pool_reserve()). Slot i of the run is *FIRST + i and is held once. Returns the run's length
 * or -errno (nothing is taken then). */
int slot_pool_fill(struct slot_pool *pool, uint32_t count, const struct slot_source *sources,
                   uint64_t *first) __attribute__((warn_unused_result));

void slot_pool_retain(struct slot_pool *pool, uint64_t ref);
void slot_pool_release(struct slot_pool *pool, uint64_t ref);

/* How many hold the slot. */
uint32_t slot_pool_refs(const struct slot_pool *pool, uint64_t ref);

/* What a slot in use holds. Its header may have been damaged since the scan: see
 * slot_pool_is_sound(). */
const struct slot_header *slot_pool_header(const struct slot_pool *pool, uint64_t ref);
const void *slot_pool_bytes(const struct slot_pool *pool, uint64_t ref);
bool slot_pool_is_sound(const struct slot_pool *pool, uint64_t ref);

/* Takes a step towards removing one empty segment file if there are more than KEEP. Returns whether
 * there was something to do. */
bool slot_pool_trim(struct slot_pool *pool, uint32_t keep);

/* Slots in use, slots set aside included. */
uint64_t slot_pool_used(const struct slot_pool *pool);

int slot_pool_sync(struct slot_pool *pool) __attribute__((warn_unused_result));

#endif
