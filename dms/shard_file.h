/*
 * shard_file: the small file in a shard's directory that says which shard it is and how it is laid
 * out. It is written once.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_SHARD_FILE_H
#define EDM_DMS_SHARD_FILE_H

#include <stdint.h>

/* Reads the file in DIR, or makes it with a random id and the *SEGMENT_SLOTS given. Returns 0 or
 * -errno: -EPROTONOSUPPORT another format, -EBADMSG the file is damaged. */
int shard_file_open(const char *dir, uint64_t *id, uint32_t *segment_slots)
    __attribute__((warn_unused_result));

#endif
