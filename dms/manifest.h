/*
 * manifest: the log of a shard's regions, a file of 256-byte records that grows.
 *
 * It holds what the slot headers cannot say: which regions there are, their names, owners' epochs
 * and parents, and which pages were dropped from regions that share pages with others. Each record
 * has a checksum and lies within one disk block; a damaged one is skipped and counted. It also says
 * which segment files there are, so that one that is lost is missed.
 *
 * Space is reserved ahead, and the last of it is kept for removing regions: a full disk must not
 * stop one from making room.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_MANIFEST_H
#define EDM_DMS_MANIFEST_H

#include "../proto/wire.h"
#include "damage.h"
#include "disk.h"
#include "sync_job.h"

#include <stdbool.h>
#include <stdint.h>

enum { MANIFEST_FORMAT = 1, MANIFEST_MAX_RANGES = 12 };

enum manifest_type {
    MANIFEST_REGION = 1,   /* a region begins: all fields but ranges */
    MANIFEST_EPOCH = 2,    /* region, epoch */
    MANIFEST_REMOVE = 3,   /* region */
    MANIFEST_DROP = 4,     /* region, sequence, stamp, ranges */
    MANIFEST_SEQUENCE = 5, /* region, sequence: the highest stored, whose page was dropped */
    /* What happened up to this stamp is on disk; epoch, sequence: the machine's start (disk_boot())
     * since which it was written. MANIFEST_UNSYNCED: nobody knows. One in a manifest. */
    MANIFEST_SYNCED = 6,
    /* sequence: number of a segment file; slot_bytes; flags 1: it is there, 0: it is about to be
     * removed */
    MANIFEST_SEGMENT = 7,
    /* All regions before it are REGION_INCOMPLETE; sequence: because of these damages that
     * hide pages (damage_hidden()). */
    MANIFEST_INCOMPLETE = 8,
    MANIFEST_DOUBT = 9,     /* region, stamp: pages of its own up to this may have been replaced */
    MANIFEST_UNMARKED = 10, /* flags 1: slots could not be marked, 0: they are */
};

enum manifest_flag {
    MANIFEST_SOLID = 1 << 30,    /* a region's: what was before it was on disk first */
    MANIFEST_UNSYNCED = 1 << 29, /* a MANIFEST_SYNCED's */
    MANIFEST_ALONE = 1 << 28,    /* a MANIFEST_DROP's: the slots cannot say that too */
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
    uint64_t stamp;      /* the store's count of changes when this happened */
    uint32_t flags;      /* enum region_flag */
    uint32_t slot_bytes; /* of a segment file */
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
    uint64_t unwritten; /* zeros between others: a power cut leaves them, or damage */
    bool was_empty;     /* there was no manifest, or nothing in it */
    bool is_cut;        /* its end is missing, unless a full disk never gave it one */
};

/* Opens the manifest PATH on DISK, making it where there is none, and says APPLY of each sound
 * record in order; the others are added to DAMAGE. Returns 0, what APPLY returned if not 0, or
 * -errno; -EPROTONOSUPPORT: another format. */
int manifest_open(struct manifest **out, const struct disk *disk, const char *path,
                  int (*apply)(void *context, const struct manifest_record *record), void *context,
                  struct damage_list *damage, struct manifest_report *report)
    __attribute__((warn_unused_result));

void manifest_close(struct manifest **manifest);

/* Adds COUNT records; magic and checksum are filled in. LAST_RESERVE: they may use the space kept
 * for removals. Returns 0 or -errno (what follows overwrites what was written then). */
int manifest_append(struct manifest *manifest, struct manifest_record *records, uint32_t count,
                    bool last_reserve) __attribute__((warn_unused_result));

/* Adds RECORD if *PLACE is 0, and stores where it is; otherwise writes it over what is there. */
int manifest_put(struct manifest *manifest, struct manifest_record *record, uint64_t *place)
    __attribute__((warn_unused_result));

/* Replaces the whole log by COUNT records, at once: after a crash there is the old or the new one.
 * Returns 0 or -errno: the old one goes on then, or the new one, if only syncing the directory
 * failed. No place of manifest_put() is valid any more. */
int manifest_replace(struct manifest *manifest, struct manifest_record *records, uint32_t count)
    __attribute__((warn_unused_result));

/* Whether there is a MANIFEST_SYNCED. */
bool manifest_has_note(const struct manifest *manifest);

/* Writes the manifest's one MANIFEST_SYNCED, or the first. */
int manifest_note_synced(struct manifest *manifest, struct manifest_record *record)
    __attribute__((warn_unused_result));

/* Leaves that to the end of JOB. There must be one. */
void manifest_note_later(struct manifest *manifest, struct manifest_record *record,
                         struct sync_job *job);

/* Whether records were written since the last manifest_begin_sync(). */
bool manifest_changed(const struct manifest *manifest);

/* The descriptor to sync; from now on all counts as synced. */
int manifest_begin_sync(struct manifest *manifest);

/* Makes what was written so far survive a power cut, also while a job is under way. Blocks. */
int manifest_sync(struct manifest *manifest) __attribute__((warn_unused_result));

#endif
