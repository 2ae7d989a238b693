/*
 * manifest: the log of a shard's regions, a file of 256-byte records that grows.
 *
 * It holds what the slot headers cannot say: which regions there are, their names, owners' epochs
 * and parents, and which pages were dropped from regions that share pages with others. Each record
 * has a checksum and lies within one disk block; a damaged one is skipped and counted.
 *
 * Space is reserved ahead, and the last of it is kept for removing regions: a full disk must not
 * stop one from making room.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_MANIFEST_H
#define EDM_DMS_MANIFEST_H

#include "../proto/wire.h"

#include <stdbool.h>
#include <stdint.h>

enum { MANIFEST_FORMAT = 1, MANIFEST_MAX_RANGES = 12 };

enum manifest_type {
    MANIFEST_REGION = 1,   /* a region begins: all fields but ranges */
    MANIFEST_EPOCH = 2,    /* region, epoch */
    MANIFEST_REMOVE = 3,   /* region */
    MANIFEST_DROP = 4,     /* region, sequence, stamp, ranges */
    MANIFEST_SEQUENCE = 5, /* region, sequence: the highest stored, whose page was dropped */
};

struct manifest_record {
    uint32_t magic; /* this and the checksum are the manifest's */
    uint16_t type;  /* enum manifest_type */
    uint16_t nranges;
    uint64_t checksum;
    uint64_t region;
    uint64_t parent;
    uint64_t epoch;
    uint64_t sequence;
    uint64_t stamp; /* the store's count of changes when this happened */
    uint32_t flags; /* enum region_flag */
    uint32_t reserved;
    union {
        char name[WIRE_MAX_NAME_BYTES + 1];
        struct wire_range ranges[MANIFEST_MAX_RANGES];
    };
};

_Static_assert(sizeof(struct manifest_record) == 256, "manifest records are 256 bytes on disk");

struct manifest;

struct manifest_report {
    uint64_t records;
    uint64_t damaged;
};

/* Opens the manifest PATH, making it where there is none, and says APPLY of each sound record in
 * order. Returns 0, what APPLY returned if not 0, or -errno; -EPROTONOSUPPORT: another format. */
int manifest_open(struct manifest **out, const char *path,
                  int (*apply)(void *context, const struct manifest_record *record), void *context,
                  struct manifest_report *report) __attribute__((warn_unused_result));

void manifest_close(struct manifest **manifest);

/* Adds COUNT records; magic and checksum are filled in. LAST_RESERVE: they may use the space kept
 * for removals. Returns 0 or -errno (what follows overwrites what was written then). */
int manifest_append(struct manifest *manifest, struct manifest_record *records, uint32_t count,
                    bool last_reserve) __attribute__((warn_unused_result));

/* Adds RECORD if *PLACE is 0, and stores where it is; otherwise writes it over what is there. */
int manifest_put(struct manifest *manifest, struct manifest_record *record, uint64_t *place)
    __attribute__((warn_unused_result));

/* Replaces the whole log by COUNT records, at once: after a crash there is the old or the new one.
 * Returns 0 or -errno (the old one goes on then). No place
 * of manifest_put() is valid any more. */
int manifest_replace(struct manifest *manifest, struct manifest_record *records, uint32_t count)
    __attribute__((warn_unused_result));

int manifest_sync(struct manifest *manifest) __attribute__((warn_unused_result));

#endif
