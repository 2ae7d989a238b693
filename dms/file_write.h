/*
 * file_write: small files, written so that after a crash there is all of one or nothing.
 *
 * Thread: any.
 */
#ifndef EDM_DMS_FILE_WRITE_H
#define EDM_DMS_FILE_WRITE_H

#include "disk.h"

#include <stddef.h>

/* Makes PATH hold LEN bytes, by way of PATH.new. Returns 0 or -errno. Blocks until they are on
 * disk. */
int file_write_whole(const struct disk *disk, const char *path, const void *bytes, size_t len)
    __attribute__((warn_unused_result));

#endif
