/*
 * sync_job: what one round of syncing has to do. The shard's thread fills it, whichever thread runs
 * it, and the files stay open until it has run.
 *
 * Thread: the one that has it in hand.
 */
#ifndef EDM_DMS_SYNC_JOB_H
#define EDM_DMS_SYNC_JOB_H

#include "disk.h"

#include <stdint.h>

enum { SYNC_JOB_NOTE_BYTES = 256 };

/* All zero but DISK: empty. */
struct sync_job {
    const struct disk *disk;
    const char *dir; /* to be synced too; NULL: not */
    int *fds;
    uint32_t count, capacity;
    int note_fd; /* when all is synced, the note is written to this file, and that synced; 0: none
                  */
    off_t note_offset;
    char note[SYNC_JOB_NOTE_BYTES];
};

/* Makes sure that the next COUNT files can be added. Returns 0 or -ENOMEM. */
int sync_job_reserve(struct sync_job *job, uint32_t count) __attribute__((warn_unused_result));
void sync_job_add(struct sync_job *job, int fd);

/* Does it. Blocks. Returns 0 or the first -errno; what was not reached then is not synced. */
int sync_job_run(const struct sync_job *job) __attribute__((warn_unused_result));

/* Empties it, for the next round. */
void sync_job_clear(struct sync_job *job);
void sync_job_free(struct sync_job *job);

#endif
