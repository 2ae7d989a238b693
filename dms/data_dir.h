/*
 * data_dir: the directory a DMS keeps its pages in: whose it is, which format, and that no other
 * process uses it.
 *
 *     DIR/edm-store      text: format and number of shards
 *     DIR/lock           locked while a DMS runs
 *     DIR/shard-0/ ...   a directory for each shard's store
 *
 * Thread: the main thread.
 */
#ifndef EDM_DMS_DATA_DIR_H
#define EDM_DMS_DATA_DIR_H

#include "disk.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DATA_DIR_FORMAT = 1 };

struct data_dir;

/* Locks PATH on DISK for NSHARDS shards, making it if it is not there or empty. Returns 0, or
 * -errno with WHY (WHY_CAP bytes) saying what is wrong and what to do about it. A shard that is
 * missing while others were used is refused. */
int data_dir_open(struct data_dir **out, const struct disk *disk, const char *path,
                  uint32_t nshards, char *why, size_t why_cap) __attribute__((warn_unused_result));
void data_dir_close(struct data_dir **dir);

/* Locks a directory that is there, with the number of shards that its file says or, should that be
 * damaged or missing (*DAMAGED), with as many as there are directories of shards; the last of them
 * may be missing. Nothing is made. Returns 0, or -errno with WHY. */
int data_dir_examine(struct data_dir **out, const struct disk *disk, const char *path,
                     bool *damaged, char *why, size_t why_cap) __attribute__((warn_unused_result));

/* Makes directories of shards that are missing and, if DAMAGED, writes the file anew. Returns 0, or
 * -errno with WHY. */
int data_dir_mend(struct data_dir *dir, bool damaged, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

uint32_t data_dir_shards(const struct data_dir *dir);

/* The directory of a shard, which exists after data_dir_open(). Valid until the next call. */
const char *data_dir_shard(struct data_dir *dir, uint32_t shard);

/* Bytes that the file system has free for us, those our files use already included. Returns 0 or
 * -errno. */
int data_dir_room(const struct data_dir *dir, uint64_t *bytes) __attribute__((warn_unused_result));

#endif
