/*
 * shard_file: the small file in a shard's directory that says which shard it is and how it is laid
 * out. It is written once.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_SHARD_FILE_H
#define EDM_DMS_SHARD_FILE_H

#include "disk.h"

#include <stdint.h>

/* Reads the file in DIR on DISK, or makes it with a random id and the *SEGMENT_SLOTS given if there
 * is nothing of a shard in DIR. Returns 0 or -errno: -EPROTONOSUPPORT another format, -EBADMSG the
 * file is damaged, or missing where it should be. */
int shard_file_open(const struct disk *disk, const char *dir, uint64_t *id, uint32_t *segment_slots)
    __attribute__((warn_unused_result));

/* Makes it, whatever is there. Returns 0 or -errno. */
int shard_file_make(const struct disk *disk, const char *dir, uint64_t *id, uint32_t segment_slots)
    __attribute__((warn_unused_result));

#endif
