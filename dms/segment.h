/*
 * segment: one file of page slots, mapped into memory.
 *
 * The file is a header page, a table of 64-byte slot headers and the slots themselves,
 * page-aligned. All of it is reserved on disk when it is made, so a full disk is an error here and
 * not a SIGBUS later. A slot's state is written after everything else of it: whoever finds a slot
 * in use after a crash finds it whole. Slots in use are never written again; they are freed and
 * taken anew.
 *
 * How often a slot is pointed at is counted in memory only.
 *
 * What a power cut leaves is up to the disk: of what was written since the last sync any part.
 * Whoever frees slots while that matters (slot_pool) marks them in two steps, see segment_unhold().
 *
 * Thread: one owner, except segment_check(), which only reads and may run in another thread while
 * the owner leaves the segment alone.
 */
#ifndef EDM_DMS_SEGMENT_H
#define EDM_DMS_SEGMENT_H

#include "../proto/wire.h"
#include "disk.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SEGMENT_FORMAT = 1,
    SEGMENT_SLOT_BYTES = WIRE_PAGE_BYTES,
    SEGMENT_MIN_SLOTS = 64,
    SEGMENT_MAX_SLOTS = 16384, /* 64 MiB of pages */
};

/* SLOT_UNUSED is what a new file is full of. The others are far apart, so that a flipped bit makes
 * none of them out of another. SLOT_DROPPED: the page was dropped; the slot says so, to older slots
 * of the page that a power cut may bring back, until those are known to be gone. SLOT_SUPERSEDED:
 * nothing points at it any more, but a power cut may undo what made it so, and then it counts. */
enum slot_state {
    SLOT_UNUSED = 0,
    SLOT_USED = 0x45534c55,
    SLOT_FREE = 0x1a3b5ec6,
    SLOT_DROPPED = 0x6cf1a12b,
    SLOT_SUPERSEDED = 0xb76ee7b0,
};

/* The encoding of a slot without bytes that stands for a page that is lost: segment_lose(). */
enum { SLOT_LOST = 254 };

struct slot_header {
    _Atomic uint32_t state; /* enum slot_state */
    uint32_t length_bytes;  /* of the encoded page */
    uint64_t region;
    uint64_t page;
    uint64_t sequence; /* the client's */
    uint64_t stamp;    /* the store's own count of changes: tells what came before a branch */
    uint64_t checksum; /* wire_checksum() of the encoded page */
    uint8_t encoding;  /* enum wire_encoding */
    uint8_t reserved[7];
    uint64_t header_checksum; /* of everything between state and this, seeded with the place */
};

_Static_assert(sizeof(struct slot_header) == 64, "slot headers are 64 bytes on disk");

/* What a new slot is filled with. */
struct slot_source {
    uint64_t region;
    uint64_t stamp;
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

uint64_t segment_header_checksum(const struct slot_header *header, uint32_t slot);

/* Whether the header speaks of a page, stored or lost. What was never stored cannot be there,
 * whatever its checksum: no reply could carry it. */
bool segment_header_is_page(const struct slot_header *header);

/* What is wrong with a file as a whole. HEADERS: it was cut short within the slot headers. */
enum segment_fault { SEGMENT_BAD_HEADER = 1, SEGMENT_BAD_LENGTH = 2, SEGMENT_BAD_HEADERS = 4 };

/* Makes PATH on DISK (which outlives the segment), a file of NSLOTS slots (a multiple of 64 between
 * the bounds above) that must not exist. Returns 0 or -errno: -ENOSPC when the file system has no
 * room for it. */
int segment_create(struct segment **out, const struct disk *disk, const char *path, uint32_t nslots)
    __attribute__((warn_unused_result));

/* Opens PATH, made by segment_create() with the same NSLOTS. A file that was cut short is made
 * whole again (the lost slots are found damaged or empty), a damaged file header is written anew;
 * until segment_mend() the file does not look whole; *FAULTS says so. Every slot counts as pointed
 * at zero times and not free until segment_adopt() says what it is. Returns 0 or -errno;
 * -EPROTONOSUPPORT: another format. */
int segment_open(struct segment **out, const struct disk *disk, const char *path, uint32_t nslots,
                 unsigned *faults) __attribute__((warn_unused_result));

/* What was wrong with the file is noted elsewhere: it is whole again. Returns 0 or -errno. */
int segment_mend(struct segment *segment) __attribute__((warn_unused_result));

/* How many slots a file of so many bytes has; 0: it is none. */
uint32_t segment_slots_in(uint64_t bytes);

/* After segment_open(): writes what a sync that failed may have left in memory only once more, to
 * be synced: slots in use later than STAMP, and all headers. Returns 0 or -errno. */
int segment_write_again(struct segment *segment, uint64_t stamp)
    __attribute__((warn_unused_result));

/* Unmaps and closes; the file stays. */
void segment_close(struct segment **segment);

/* Gives back a part of a file that was unlinked and is not used any more: freeing all of it at once
 * takes as long as many requests. Returns true once only segment_close() is left to do. */
bool segment_shrink(struct segment *segment);

/* Looks at a slot as it is on disk. READ_PAGE: check the page's bytes also. */
enum slot_check segment_check(const struct segment *segment, uint32_t slot, bool read_page);

/* After segment_open(): what the slot is. REFS 0 makes it free. */
void segment_adopt(struct segment *segment, uint32_t slot, uint32_t refs);

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

/* Whether the bytes of COUNT slots are in memory; they are asked for if not. */
bool segment_is_near(const struct segment *segment, uint32_t first, uint32_t count);

/* Takes up to MAX free slots that follow each other and stores their first in *FIRST. Returns how
 * many; 0 only when no slot is free. They are pointed at once each. */
uint32_t segment_take(struct segment *segment, uint32_t max, uint32_t *first);

/* Gives back slots from segment_take() that were not filled. */
void segment_untake(struct segment *segment, uint32_t first, uint32_t count);

/* Fills COUNT slots that were taken. Returns 0 or -errno (none of them is in use then). */
int segment_fill(struct segment *segment, uint32_t first, uint32_t count,
                 const struct slot_source *sources) __attribute__((warn_unused_result));

/* One more, one less that points at a slot. At zero it is marked free in the file and release
 * returns true. */
void segment_retain(struct segment *segment, uint32_t slot);
bool segment_release(struct segment *segment, uint32_t slot);

/* As segment_release(), but the slot stays as it is in the file until segment_free(). */
bool segment_unhold(struct segment *segment, uint32_t slot);
void segment_free(struct segment *segment, uint32_t slot);

/* Marks a sound slot in use as SLOT_DROPPED in the file. */
void segment_drop(struct segment *segment, uint32_t slot);

/* Marks a slot that nobody holds as SLOT_SUPERSEDED in the file; and one that is so, and is held
 * after all, as SLOT_USED. */
void segment_supersede(struct segment *segment, uint32_t slot);
void segment_revive(struct segment *segment, uint32_t slot);

/* Reads all headers once. False: some of them cannot be read, and look like those of free slots. */
bool segment_read_headers(const struct segment *segment);

/* Whether parts of the file cannot be read any more (see mapped_fault.h). Nothing can be filled
 * then. */
bool segment_is_lost(const struct segment *segment);

uint32_t segment_refs(const struct segment *segment, uint32_t slot);
const struct slot_header *segment_header(const struct segment *segment, uint32_t slot);
const void *segment_bytes(const struct segment *segment, uint32_t slot);
uint32_t segment_free_slots(const struct segment *segment);
uint32_t segment_slots(const struct segment *segment);

/* The descriptor to sync so that what was written so far survives a power cut; from now on it
 * counts as synced. -1: there is nothing to sync. FREED_TOO: also if slots were freed only. */
int segment_begin_sync(struct segment *segment, bool freed_too);

#endif
