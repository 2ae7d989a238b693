/*
 * segment: one file of page slots of one size.
 *
 * A slot is in use; or ready: free, with blocks on disk, so that filling it cannot fail for want of
 * room; or a hole: free, and its blocks are to be reserved first. segment_reserve() makes ready
 * slots of holes and segment_punch() holes of ready slots, in groups (segment_file.h). Nothing of a
 * hole is touched, not even read through the mapping: some file systems would need a block for
 * that.
 *
 * A slot's header is written after its bytes: whoever finds a slot in use after a crash finds it
 * whole. Slots in use are never changed; they are freed and taken anew. Slots that are freed,
 * dropped or superseded are marked in the file with segment_flush(), many at once, and not used
 * again before.
 *
 * How often a slot is pointed at is counted in memory only.
 *
 * What a power cut leaves is up to the disk: of what was written since the last sync any part.
 * Whoever frees slots while that matters (slot_pool) marks them in two steps, see segment_unhold().
 *
 * A group has headers, and the file says so, from when its first hole is made ready until all of it
 * is given back. A header of zeros in it is a damaged one.
 *
 * Thread: one owner, except segment_check() and segment_check_group(), which only read and may run
 * in another thread while the owner leaves the segment alone.
 */
#ifndef EDM_DMS_SEGMENT_H
#define EDM_DMS_SEGMENT_H

#include "../proto/wire.h"
#include "disk.h"
#include "segment_file.h"
#include "slot_header.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a new slot is filled with. */
struct slot_source {
    uint64_t region;
    uint64_t stamp;
    uint8_t moves;  /* as the slot's header is to say */
    uint64_t moved; /* in slots with bytes */
    const struct wire_page *page;
    const void *bytes; /* page->length_bytes of them */
};

enum slot_check {
    SLOT_CHECK_EMPTY,
    SLOT_CHECK_GOOD,
    SLOT_CHECK_BAD_HEADER,
    SLOT_CHECK_BAD_PAGE,
    SLOT_CHECK_DROPPED,    /* with a sound header */
    SLOT_CHECK_SUPERSEDED, /* a good page, but for its state */
    SLOT_CHECK_UNKNOWN,    /* a damaged header that segment_identify() made nothing of */
};

struct segment;

/* Makes PATH on DISK (which outlives the segment), which must not exist; every slot is a hole.
 * Returns 0 or -errno: -ENOSPC when the file system has no room for it. */
int segment_create(struct segment **out, const struct disk *disk, const char *path,
                   struct segment_shape shape) __attribute__((warn_unused_result));

/* Opens PATH, see segment_file_open(). Every slot counts as in use, pointed at zero times, until
 * segment_adopt() says what it is. */
int segment_open(struct segment **out, const struct disk *disk, const char *path,
                 struct segment_shape shape, unsigned *faults) __attribute__((warn_unused_result));

/* What was wrong with the file is noted elsewhere: it is whole again. Returns 0 or -errno. */
int segment_mend(struct segment *segment) __attribute__((warn_unused_result));

/* After segment_open(): writes what a sync that failed may have left in memory only once more, to
 * be synced: slots in use written later than STAMP, and all headers. BUFFER: SEGMENT_GROUP_BYTES.
 * Returns 0 or -errno. */
enum { SEGMENT_GROUP_BYTES = SEGMENT_GROUP_SLOTS * WIRE_PAGE_BYTES };
int segment_write_again(struct segment *segment, uint64_t stamp, void *buffer)
    __attribute__((warn_unused_result));

/* Unmaps and closes; the file stays. */
void segment_close(struct segment **segment);

/* As segment_file_shrink(). */
bool segment_shrink(struct segment *segment);

/* After segment_open(): there was a power cut. Headers may not have been written, a sector of them
 * at a time. */
void segment_set_in_doubt(struct segment *segment);

/* Looks at a slot that is not a hole as it is on disk. READ_PAGE: check the page's bytes also. */
enum slot_check segment_check(const struct segment *segment, uint32_t slot, bool read_page);

/* Whether a slot that is held still is what it was made, whatever it is marked as. */
bool segment_is_sound(const struct segment *segment, uint32_t slot);

/* Copies the header of a slot and its page, its slot's size of bytes or what is in the header, to
 * BYTES. False: it is not in use, or damaged. */
bool segment_copy(const struct segment *segment, uint32_t slot, struct slot_header *header,
                  void *bytes);

/* After segment_open(), looks at the slots of GROUP, page bytes also, into CHECKS (one each). What
 * cannot be read is damaged; headers that cannot be read look like those of free slots, and
 * *HEADERS_LOST says so. BUFFER: SEGMENT_GROUP_BYTES. */
void segment_check_group(struct segment *segment, uint32_t group, void *buffer, uint8_t *checks,
                         bool *headers_lost);

/* Then: what the slot is. EMPTY makes it a hole. */
void segment_adopt(struct segment *segment, uint32_t slot, enum slot_check check);

/* And when all are adopted; then zeros are no headers any more but in groups without any. Returns
 * 0 or -errno. Afterwards, while the segment is unsure, holes may have blocks: for every group
 * segment_punch() is to be called, and segment_be_sure() after that. */
int segment_end_adoption(struct segment *segment) __attribute__((warn_unused_result));
bool segment_is_unsure(const struct segment *segment);
void segment_be_sure(struct segment *segment);

/* For a slot with a damaged header: finds out what it was, which from now on is what
 * segment_header() says of it. The slot does not become sound. False: nobody knows. */
bool segment_identify(struct segment *segment, uint32_t slot);

/* Makes a slot one that stands for a lost page, with region, page, sequence and stamp of HEADER, at
 * once: after a crash it is as before or so. Returns 0 or -errno. */
int segment_lose(struct segment *segment, uint32_t slot, const struct slot_header *header)
    __attribute__((warn_unused_result));

/* Whether a damaged slot was reported; and noting that it was, until it is taken anew. */
bool segment_is_reported(const struct segment *segment, uint32_t slot);
void segment_set_reported(struct segment *segment, uint32_t slot);

/* Whether the bytes of those of COUNT (at most SEGMENT_GROUP_SLOTS) slots that are held are in
 * memory; they are asked for if not. */
bool segment_is_near(const struct segment *segment, uint32_t first, uint32_t count);

/* Makes the holes of one group ready. There must be some. Returns how many or -errno: -ENOSPC. */
int segment_reserve(struct segment *segment) __attribute__((warn_unused_result));

/* The same for GROUP, which need not have any. */
int segment_reserve_in(struct segment *segment, uint32_t group) __attribute__((warn_unused_result));

/* Gives back the whole blocks that only free slots are in, from slot *SLOT on to the end of its
 * group, with at most about *CALLS system calls. *SLOT is moved on, *CALLS counted down. Returns 0
 * or -errno. */
int segment_punch(struct segment *segment, uint32_t *slot, unsigned *calls)
    __attribute__((warn_unused_result));

/* Takes up to MAX ready slots that follow each other and stores their first in *FIRST. Returns how
 * many; 0 only when no slot is ready. They are pointed at once each. */
uint32_t segment_take(struct segment *segment, uint32_t max, uint32_t *first);

/* The same in GROUP alone. */
uint32_t segment_take_in(struct segment *segment, uint32_t group, uint32_t max, uint32_t *first);

/* Gives back slots from segment_take() that were not filled, or not with success: they are freed.
 */
void segment_untake(struct segment *segment, uint32_t first, uint32_t count);

/* Fills COUNT slots that were taken, with pages of their size class. Returns 0 or -errno: some of
 * them may be in use in the file then, until segment_untake() and segment_flush(). */
int segment_fill(struct segment *segment, uint32_t first, uint32_t count,
                 const struct slot_source *sources) __attribute__((warn_unused_result));

/* One more, one less that points at a slot. At zero unhold returns true; the slot stays as it is
 * until segment_free(), and is ready after the segment_flush() that follows. */
void segment_retain(struct segment *segment, uint32_t slot);
bool segment_unhold(struct segment *segment, uint32_t slot);
void segment_free(struct segment *segment, uint32_t slot);

/* The page of a sound slot in use is dropped, or not after all: says so in the file with the next
 * segment_flush(). */
void segment_drop(struct segment *segment, uint32_t slot, bool is_dropped);
bool segment_is_dropped(const struct segment *segment, uint32_t slot);

/* A slot that nobody holds is superseded; and one that is, and is held after all, is in use: says
 * so in the file with the next segment_flush(). */
void segment_supersede(struct segment *segment, uint32_t slot);
void segment_revive(struct segment *segment, uint32_t slot);

/* Marks in the file what was freed, dropped and superseded. Returns 0 or -errno: what is not marked
 * waits for the next one. */
int segment_flush(struct segment *segment) __attribute__((warn_unused_result));

/* Whether parts of the file cannot be read any more (see mapped_fault.h). Nothing is to be filled
 * then. */
bool segment_is_lost(const struct segment *segment);

uint32_t segment_refs(const struct segment *segment, uint32_t slot);
const struct slot_header *segment_header(const struct segment *segment, uint32_t slot);
const void *segment_bytes(const struct segment *segment, uint32_t slot);

/* Of GROUP, a bit each: the slots that somebody holds, and those that are free. */
uint64_t segment_held_in(const struct segment *segment, uint32_t group);
uint64_t segment_free_in(const struct segment *segment, uint32_t group);

/* How many slots of GROUP are ready. */
uint32_t segment_ready_in(const struct segment *segment, uint32_t group);

uint32_t segment_ready_slots(const struct segment *segment);
uint32_t segment_holes(const struct segment *segment);

/* Slots that segment_flush() is to mark. */
uint32_t segment_unmarked_slots(const struct segment *segment);
struct segment_shape segment_shape(const struct segment *segment);

/* The descriptor to sync so that what was written so far survives a power cut; from now on it
 * counts as synced. -1: there is nothing to sync. FREED_TOO: also if slots were freed only. */
int segment_begin_sync(struct segment *segment, bool freed_too);

#endif
