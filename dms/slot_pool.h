/*
 * slot_pool: the segment files of one shard as one supply of slots.
 *
 * A slot is named by a 64-bit reference, never 0. There are segments for every size class that is
 * used. Segment files are made when slots are needed and removed when they are empty; blocks are
 * reserved group by group and given back where slots that follow each other are free.
 *
 * Durable (slot_pool_set_durable()), a slot is marked free, and used again, only when what made it
 * free is known to be on disk. Otherwise a power cut could bring back a page table that points at
 * it. Until then it is marked as superseded: should the slot that replaced it be damaged, it must
 * not be taken for the newest of the page. A dropped page's slot waits longer, until older slots of
 * the page are known to be marked on disk: see DESIGN.md, Power cuts.
 *
 * Thread: the shard's. slot_pool_scan() uses threads of its own and waits for them.
 */
#ifndef EDM_DMS_SLOT_POOL_H
#define EDM_DMS_SLOT_POOL_H

#include "damage.h"
#include "segment.h"
#include "size_class.h"
#include "sync_job.h"

#include <stdbool.h>
#include <stdint.h>

struct slot_pool;

/* Slots a pool's segments of raw pages may have; the segments of other classes are about as long.
 */
enum { SLOT_POOL_MIN_SLOTS = 64, SLOT_POOL_MAX_SLOTS = 16384 /* 64 MiB of pages */ };

/* Opens the segment files in the directory DIR (which exists) on DISK, and removes what a crash
 * left half made. New segments of raw pages will have SEGMENT_SLOTS slots, a multiple of 64. Files
 * with a damaged header or cut short are added to DAMAGE. Nothing can be taken before
 * slot_pool_scan(). Returns 0 or -errno; -EPROTONOSUPPORT: a segment has another format, and stands
 * in DAMAGE. */
int slot_pool_open(struct slot_pool **out, const struct disk *disk, const char *dir,
                   uint32_t segment_slots, struct damage_list *damage)
    __attribute__((warn_unused_result));

/* How many slots the segments of raw pages seem to have, by the files in DIR; 0 if there are none.
 */
uint32_t slot_pool_guess_slots(const char *dir);

/* Closes; the files stay. */
void slot_pool_close(struct slot_pool **pool);

/* There was a power cut: what was not synced may not have been written. Before slot_pool_scan(). */
void slot_pool_set_in_doubt(struct slot_pool *pool);

/* From now on slots are freed with the rounds of syncing. Before slot_pool_scan(). */
void slot_pool_set_durable(struct slot_pool *pool);

/* Writes what a sync that failed may have left in memory only once more: slots later than STAMP,
 * and all headers. Returns 0 or -errno. */
int slot_pool_write_again(struct slot_pool *pool, uint64_t stamp)
    __attribute__((warn_unused_result));

/* What was wrong with files as a whole is noted elsewhere: they are whole again. Returns 0 or
 * -errno. */
int slot_pool_mend(struct slot_pool *pool) __attribute__((warn_unused_result));

/* A segment file: its number, which no other gets as long as the pool is open, and what its slots
 * hold, as its name says. */
struct slot_pool_file {
    uint32_t number;
    uint32_t slot_bytes;
};

/* NUMBER belongs to a file that is not there: it may come back, and is not given to another. */
void slot_pool_skip(struct slot_pool *pool, uint32_t number);

/* The file's name, CAP bytes. */
void slot_pool_name(const struct slot_pool_file *file, char *name, size_t cap);

/* From now on says NOTE of every file that was made (THERE; before it is used) and of every one
 * that is about to be removed. What it returns, if not 0, prevents that. */
void slot_pool_on_file(struct slot_pool *pool,
                       int (*note)(void *context, const struct slot_pool_file *file, bool there),
                       void *context);

/* How many files there are; and the next one from place *I on (0: the first), which is moved on.
 * False: there is none. */
uint32_t slot_pool_files(const struct slot_pool *pool);
bool slot_pool_next_file(const struct slot_pool *pool, uint32_t *i, struct slot_pool_file *file);

/* Reads every slot, with NTHREADS threads, and says VISIT of each that is in use or dropped, and of
 * those with a damaged header, in no particular order. VISIT holds one reference to that slot, for
 * slot_pool_release(). SLOT_CHECK_UNKNOWN: nobody knows what the slot was. Files of which parts
 * cannot be read are added to DAMAGE. Returns 0, -ENOMEM, or what VISIT returned if not 0. */
int slot_pool_scan(struct slot_pool *pool, unsigned nthreads,
                   int (*visit)(void *context, uint64_t ref, const struct slot_header *header,
                                enum slot_check check),
                   void *context, struct damage_list *damage) __attribute__((warn_unused_result));

/* From now on no more is reserved once slots in use and free ones with blocks together take twice
 * this (or twice what is used, if that is more) and a group a class: blocks may be stuck in slots
 * of sizes that nobody asks for. */
void slot_pool_set_capacity(struct slot_pool *pool, uint64_t bytes);
bool slot_pool_may_grow(const struct slot_pool *pool, uint64_t more_bytes);

/* Makes sure that COUNTS slots of each size class can be filled. Returns 0 or -errno: -ENOSPC when
 * the file system is full, or as said above. */
int slot_pool_reserve(struct slot_pool *pool, const uint32_t counts[SIZE_CLASSES])
    __attribute__((warn_unused_result));

/* Takes and fills a run of slots from the first of SOURCES that are of one size class, at most
 * COUNT; at least one must be ready (see slot_pool_reserve()). Slot i of the run is *FIRST + i and
 * is held once. Returns the run's length or -errno (nothing is taken then). */
int slot_pool_fill(struct slot_pool *pool, uint32_t count, const struct slot_source *sources,
                   uint64_t *first) __attribute__((warn_unused_result));

/* What nobody holds any more is free after slot_pool_flush(), or, durable, after rounds of syncing.
 */
void slot_pool_retain(struct slot_pool *pool, uint64_t ref);
void slot_pool_release(struct slot_pool *pool, uint64_t ref);

/* The page of a sound slot that is held once is being dropped, and that is written nowhere else:
 * the next slot_pool_flush() says so in the file. It is still to be released. IS_DROPPED false
 * takes it back. */
void slot_pool_drop(struct slot_pool *pool, uint64_t ref, bool is_dropped);

/* A slot that says it is superseded is in use after all: so does the next slot_pool_flush(). */
void slot_pool_revive(struct slot_pool *pool, uint64_t ref);

/* Whether what the slot's file says can still be changed. */
bool slot_pool_is_writable(const struct slot_pool *pool, uint64_t ref);

/* Frees a slot that is held once and whose content counts for nothing with the next
 * slot_pool_flush(). */
void slot_pool_discard(struct slot_pool *pool, uint64_t ref);

/* The slot becomes one that stands for a lost page: segment_lose(). */
int slot_pool_lose(struct slot_pool *pool, uint64_t ref, const struct slot_header *header)
    __attribute__((warn_unused_result));
bool slot_pool_is_lost(const struct slot_pool *pool, uint64_t ref);

/* Where the slot is: the file's name (CAP bytes) and the slot's number in it. */
void slot_pool_place(const struct slot_pool *pool, uint64_t ref, char *file, size_t cap,
                     uint64_t *slot);

/* Reads on from *REF (0: the beginning; set to 0 at the end), some MAX pages of one file. Adds the
 * bytes of those in use to *BYTES. Returns a damaged slot that was not reported yet, which counts
 * as reported from then on, or 0. *AGAIN: nothing was read, it is still on its way into memory;
 * with HURRY it is waited for. */
uint64_t slot_pool_scrub(struct slot_pool *pool, uint64_t *ref, uint32_t max, bool hurry,
                         uint64_t *bytes, bool *again);

/* Marks in the files what was freed and dropped: a crash does not bring it back. Returns 0 or
 * -errno: what is not marked waits for the next one. */
int slot_pool_flush(struct slot_pool *pool) __attribute__((warn_unused_result));

/* How many hold the slot. */
uint32_t slot_pool_refs(const struct slot_pool *pool, uint64_t ref);

/* What a slot in use holds. Its header may have been damaged since the scan: see
 * slot_pool_is_sound(). */
const struct slot_header *slot_pool_header(const struct slot_pool *pool, uint64_t ref);
const void *slot_pool_bytes(const struct slot_pool *pool, uint64_t ref);
bool slot_pool_is_sound(const struct slot_pool *pool, uint64_t ref);

/* Whether the slot's page was found to be damaged, its header not. */
bool slot_pool_has_bad_page(const struct slot_pool *pool, uint64_t ref);

/* The stamp of the change that wrote the slot: that of its page, or of its last move. */
uint64_t slot_pool_written(const struct slot_pool *pool, uint64_t ref);

/* The header in *OUT, or what it was before it was damaged. False: that cannot be told. */
bool slot_pool_identify(const struct slot_pool *pool, uint64_t ref, struct slot_header *out);

/* Takes a step towards giving back empty segment files, and blocks of free slots when there are too
 * many. ALL: whatever can be given back. Nothing while a round of syncing is under way. Returns
 * whether there is more to do. */
bool slot_pool_trim(struct slot_pool *pool, bool all);

/* From now on groups are emptied whenever that makes them fewer, or never. For tests. */
void slot_pool_set_compacting(struct slot_pool *pool, bool eagerly);

/* A step towards fuller groups. Returns how many slots it has put at REFS, at most MAX, all of one
 * class, that should be moved to where slot_pool_fill_chosen() puts them; if none, *PAUSE_MS is
 * when to ask again, -1: no need to before something changes or a round of syncing ends. NOW_MS: of
 * a clock. */
uint32_t slot_pool_choose(struct slot_pool *pool, int64_t now_ms, uint64_t *refs, uint32_t max,
                          int *pause_ms);

/* As slot_pool_fill(), for copies of slots just chosen and no more than those; all of SOURCES are
 * of their class. Nobody waits for them to be synced. -ENOSPC, others: nothing more is chosen for
 * now.
 */
int slot_pool_fill_chosen(struct slot_pool *pool, uint32_t count, const struct slot_source *sources,
                          uint64_t *first) __attribute__((warn_unused_result));

/* Copies a slot's header and, to BYTES, WIRE_PAGE_BYTES of them, its page. False: it is damaged, or
 * not in use. */
bool slot_pool_read(const struct slot_pool *pool, uint64_t ref, struct slot_header *header,
                    void *bytes);

/* Slots in use, slots set aside included, and what they count against the capacity. */
uint64_t slot_pool_used(const struct slot_pool *pool);
uint64_t slot_pool_used_bytes(const struct slot_pool *pool);

/* What a slot in use counts. */
uint32_t slot_pool_charge(const struct slot_pool *pool, uint64_t ref);

/* Takes files out of use of which parts cannot be read any more, and logs it. What can be read of
 * them goes on. */
void slot_pool_retire_lost(struct slot_pool *pool);

/* A round of syncing begins: adds to JOB what is to be synced. FULL: also files in which slots were
 * only freed. Returns 0 or -errno (no round has begun): -ENOMEM; others: what was freed or dropped
 * could not be marked. Until slot_pool_end_sync() no other may. */
int slot_pool_begin_sync(struct slot_pool *pool, bool full, struct sync_job *job)
    __attribute__((warn_unused_result));

/* JOB has run without error: frees what waited for that. */
void slot_pool_end_sync(struct slot_pool *pool, bool full);

/* Whether pages were stored or dropped since the last round began. */
bool slot_pool_changed(const struct slot_pool *pool);

/* Slots that wait to be freed. */
uint64_t slot_pool_waiting(const struct slot_pool *pool);

/* Whether a full round has something to do. */
bool slot_pool_unsettled(const struct slot_pool *pool);

#endif
