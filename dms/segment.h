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
 * Thread: one owner, except segment_check(), which only reads and may run in another thread while
 * the owner leaves the segment alone.
 */
#ifndef EDM_DMS_SEGMENT_H
#define EDM_DMS_SEGMENT_H

#include "../proto/wire.h"

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
 * none of them out of another. */
enum slot_state { SLOT_UNUSED = 0, SLOT_USED = 0x45534c55, SLOT_FREE = 0x1a3b5ec6 };

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

enum slot_check { SLOT_CHECK_EMPTY, SLOT_CHECK_GOOD, SLOT_CHECK_BAD_HEADER, SLOT_CHECK_BAD_PAGE };

struct segment;

/* Makes PATH, a file of NSLOTS slots (a multiple of 64 between the bounds above) that must not
 * exist. Returns 0 or -errno: -ENOSPC when the file system has no room for it. */
int segment_create(struct segment **out, const char *path, uint32_t nslots)
    __attribute__((warn_unused_result));

/* Opens PATH, made by segment_create() with the same NSLOTS. A file that was cut short is made
 * whole again (the lost slots are found damaged or empty), a damaged file header is written anew;
 * *REPAIRED says so. Every slot counts as pointed at zero times and not free until
 * segment_adopt() says what it is. Returns 0 or -errno; -EPROTONOSUPPORT: another format. */
int segment_open(struct segment **out, const char *path, uint32_t nslots, bool *repaired)
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

uint32_t segment_refs(const struct segment *segment, uint32_t slot);
const struct slot_header *segment_header(const struct segment *segment, uint32_t slot);
const void *segment_bytes(const struct segment *segment, uint32_t slot);
uint32_t segment_free_slots(const struct segment *segment);
uint32_t segment_slots(const struct segment *segment);

/* Makes what was written so far survive a power cut. Blocks. Returns 0 or -errno. */
int segment_sync(struct segment *segment) __attribute__((warn_unused_result));

#endif
