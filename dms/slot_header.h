/*
 * slot_header: what stands on disk beside each slot: whose page it holds, and since when.
 *
 * Pure: no state, any thread.
 */
#ifndef EDM_DMS_SLOT_HEADER_H
#define EDM_DMS_SLOT_HEADER_H

#include "size_class.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* SLOT_UNUSED is what a file is full of where there are no headers: none says so. The others are
 * far apart, so that a flipped bit makes none of them out of another. SLOT_DROPPED: the page was
 * dropped; the slot says so, to older slots of the page that a power cut may bring back, until
 * those are known to be gone. SLOT_SUPERSEDED: nothing points at it any more, but a power cut may
 * undo what made it so, and then it counts. */
enum slot_state {
    SLOT_UNUSED = 0,
    SLOT_USED = 0x45534c55,
    SLOT_FREE = 0x1a3b5ec6,
    SLOT_DROPPED = 0x6cf1a12b,
    SLOT_SUPERSEDED = 0xb76ee7b0,
};

enum { SLOT_MAX_MOVES = 255 };

/* The encoding of a slot without bytes that stands for a page that is lost: segment_lose(). */
enum { SLOT_LOST = 254 };

struct slot_header {
    _Atomic uint32_t state; /* enum slot_state */
    uint16_t length_bytes;  /* of the encoded page */
    uint8_t encoding;       /* enum wire_encoding */
    uint8_t moves; /* how often this version of the page was copied to another slot, at most 255 */
    uint64_t region;
    uint64_t page;
    uint64_t sequence; /* the client's */
    uint64_t stamp;    /* the store's own count of changes: tells what came before a branch */
    uint64_t checksum; /* wire_checksum() of the encoded page */
    union {
        uint8_t bytes[SIZE_CLASS_INLINE_BYTES]; /* the encoded page, in slots of 0 bytes */
        uint64_t moved; /* in others: the stamp of the last move, 0: there was none */
    };
    uint64_t header_checksum; /* of everything between state and this, seeded with the place */
};

_Static_assert(sizeof(struct slot_header) == SIZE_CLASS_HEADER_BYTES, "64 bytes on disk");

/* The checksum HEADER should have as that of number SLOT. */
uint64_t slot_header_checksum(const struct slot_header *header, uint32_t slot);

/* The stamp of the change that wrote the slot, as far as the header of one of SLOT_BYTES says it.
 */
uint64_t slot_header_written(const struct slot_header *header, uint32_t slot_bytes);

/* Whether HEADER speaks of a page, stored or lost, in a slot of SLOT_BYTES. What was never stored
 * there cannot be there, whatever its checksum: no reply could carry it. */
bool slot_header_is_page(const struct slot_header *header, uint32_t slot_bytes);

/* Whether HEADER, of number SLOT of SLOT_BYTES, is as it was written, whatever its state. */
bool slot_header_is_whole(const struct slot_header *header, uint32_t slot, uint32_t slot_bytes);

#endif
