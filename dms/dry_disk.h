/*
 * dry_disk: a disk on which nothing changes. Files are opened for reading only; what is written to
 * them stays in memory and is read back from there, and is gone when the file is closed. A file
 * that is made is in memory only, and can be opened by its name while it is open. Renaming,
 * removing, syncing and making directories do nothing and say that it was done.
 *
 * Descriptors are real, so that fstat() and flock() work on them.
 *
 * Thread: one owner; reading may be done by several threads while nobody writes, opens or closes.
 */
#ifndef EDM_DMS_DRY_DISK_H
#define EDM_DMS_DRY_DISK_H

#include "disk.h"

struct dry_disk;

int dry_disk_new(struct dry_disk **out) __attribute__((warn_unused_result));

/* Its files must be closed. */
void dry_disk_destroy(struct dry_disk **dry);

const struct disk *dry_disk_ops(const struct dry_disk *dry);

#endif
