/*
 * segment_file: the file under a segment: its header, where its slots lie, and its blocks.
 *
 * The file is a header page, a table of 64-byte slot headers, and the slots themselves. 64 slots
 * that follow each other are a group: their headers are one page and their bytes whole pages. The
 * file has its full size from the start and is sparse: only reserved groups have blocks, so that a
 * full disk is an error when they are reserved and not later.
 *
 * The header page says which groups have slot headers, be they of free slots: in all others they
 * read as zeros, and in these zeros are damage.
 *
 * The file is mapped for reading, and written with system calls only. Writing through a mapping
 * would make the file system find blocks for all of the folio that a page is in, holes beside it
 * included: space that nobody asked for, and on a full disk a SIGBUS.
 *
 * Thread: one owner.
 */
#ifndef EDM_DMS_SEGMENT_FILE_H
#define EDM_DMS_SEGMENT_FILE_H

#include "disk.h"
#include "mapped_fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    SEGMENT_FORMAT = 4,
    SEGMENT_GROUP_SLOTS = 64,
    SEGMENT_MAX_SLOTS = 65536,
    SEGMENT_GROUP_WORDS = SEGMENT_MAX_SLOTS / SEGMENT_GROUP_SLOTS / 64,
    SEGMENT_BLOCK_BYTES = 4096, /* what is given back to the file system is a multiple of it */
};

struct segment_shape {
    uint32_t slot_bytes; /* of a size class */
    uint32_t nslots;     /* whole groups, at most SEGMENT_MAX_SLOTS */
};

bool segment_shape_is_valid(struct segment_shape shape);

/* The slots of SLOT_BYTES that a file of FILE_BYTES has; 0: it is none. */
uint32_t segment_slots_in(uint32_t slot_bytes, uint64_t file_bytes);

/* What is wrong with a file as a whole. HEADERS: it was cut short within the slot headers. */
enum segment_fault { SEGMENT_BAD_HEADER = 1, SEGMENT_BAD_LENGTH = 2, SEGMENT_BAD_HEADERS = 4 };

/* Where a slot's header and bytes are in the file. */
size_t segment_header_offset(struct segment_shape shape, uint32_t slot);
size_t segment_slot_offset(struct segment_shape shape, uint32_t slot);

struct segment_file {
    const struct disk *disk;
    int fd;
    struct segment_shape shape;
    const char *map; /* all of it */
    struct mapped_fault *fault;
    size_t map_bytes;
    size_t file_bytes; /* less than is mapped once it is shrunk */
    bool unmended;
    bool cut;                             /* somebody made it shorter */
    uint64_t groups[SEGMENT_GROUP_WORDS]; /* a bit for each that has headers */
};

/* Makes PATH on DISK (which outlives the file), which must not exist. Nothing but the header page
 * is reserved. Returns 0 or -errno: -ENOSPC when the file system has no room for it. */
int segment_file_create(struct segment_file *file, const struct disk *disk, const char *path,
                        struct segment_shape shape) __attribute__((warn_unused_result));

/* Opens PATH. If its header is damaged, it has SHAPE, or as many slots as its length says. A file
 * cut short is made as long as it was (the lost slots are found damaged or empty); until
 * segment_file_mend() it does not look whole; *FAULTS says so. Where it was not known to be so
 * before, no group has headers. Returns 0 or -errno;
 * -EPROTONOSUPPORT: another format. */
int segment_file_open(struct segment_file *file, const struct disk *disk, const char *path,
                      struct segment_shape shape, unsigned *faults)
    __attribute__((warn_unused_result));

/* What was wrong with the file is noted elsewhere: writes its header. Returns 0 or -errno. */
int segment_file_mend(struct segment_file *file) __attribute__((warn_unused_result));

/* Unmaps and closes; the file stays. */
void segment_file_close(struct segment_file *file);

/* Gives back a part of a file that was unlinked and is not used any more: freeing all of it at once
 * takes as long as many requests. Returns true once only segment_file_close() is left to do. */
bool segment_file_shrink(struct segment_file *file);

/* Whether parts of it cannot be read any more (see mapped_fault.h), or were seen to be gone. */
bool segment_file_is_lost(const struct segment_file *file);

/* Writes all of IOV, N pieces of LEN bytes. Returns 0 or -errno: -ENOSPC; -EIO: the file was cut
 * short before that place. It must not become longer, or nobody would see later what is missing. */
int segment_file_write(struct segment_file *file, const struct iovec *iov, int n, size_t len,
                       size_t offset) __attribute__((warn_unused_result));

/* Makes sure that what is written there has blocks; what is there stays. Returns 0 or -errno:
 * -ENOSPC. */
int segment_file_reserve(struct segment_file *file, size_t offset, size_t len)
    __attribute__((warn_unused_result));

/* Gives the blocks back: reads as zeros, and must be reserved again before it is written. Returns 0
 * or -errno: -EOPNOTSUPP. */
int segment_file_punch(struct segment_file *file, size_t offset, size_t len)
    __attribute__((warn_unused_result));

/* Whether GROUP has headers, and saying so in the file. Returns 0 or -errno: it is as before. */
bool segment_file_has_headers(const struct segment_file *file, uint32_t group);
int segment_file_say_headers(struct segment_file *file, uint32_t group, bool has_headers)
    __attribute__((warn_unused_result));

/* What the file takes on disk. */
uint64_t segment_file_disk_bytes(const struct segment_file *file);

#endif
