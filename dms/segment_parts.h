/*
 * segment_parts: what the files of a segment share.
 *
 * Thread: the segment's owner.
 */
#ifndef EDM_DMS_SEGMENT_PARTS_H
#define EDM_DMS_SEGMENT_PARTS_H

#include "segment.h"
#include "slot_map.h"

/* What a slot's damaged header was. */
struct stand_in {
    uint32_t slot;
    struct slot_header header;
};

struct segment {
    struct segment_file file;
    struct segment_shape shape;
    struct slot_map free;
    bool unsure;                       /* holes may have blocks */
    bool filled, freed;                /* since the last sync; dropping is filling */
    bool unreadable;                   /* a part of it could not be read at the start */
    bool in_doubt, headers_missing;    /* zeros may stand where headers were */
    const struct slot_header *headers; /* mapped */
    uint32_t *refs;
    uint64_t *reported;         /* a bit a slot */
    uint64_t *blank;            /* a bit a slot: at the start, whose headers read as zeros */
    struct stand_in *stand_ins; /* in the order of the slots */
    uint32_t nstand_ins;
};

/* Reads LEN bytes with system calls. Returns 0 or -errno: -EIO also where the file ends. */
int segment_read(const struct segment *segment, void *bytes, size_t len, size_t offset)
    __attribute__((warn_unused_result));

/* Writes headers of free slots, the bits of WHICH, in GROUP. Returns 0 or -errno. */
int segment_write_free(struct segment *segment, uint32_t group, uint64_t which)
    __attribute__((warn_unused_result));

/* Writes COUNT headers. The kernel may be interrupted between pages, ours or the file's, and in
 * neither case in the middle of a header, if HEADERS is aligned to one. */
int segment_write_headers(struct segment *segment, uint32_t first,
                          const struct slot_header *headers, uint32_t count)
    __attribute__((warn_unused_result));

#endif
