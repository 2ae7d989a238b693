/*
 * disk: what the DMS asks of the file system, as a table of functions, so that tests can put in one
 * that fails, tears or forgets. disk_real is the real one.
 *
 * Files are mapped for reading only: what is written is written with write().
 *
 * Every function returns 0 (or what its comment says) or -errno, and goes on where a signal
 * interrupts it. Thread: any; a table of a test's own may say otherwise.
 */
#ifndef EDM_DMS_DISK_H
#define EDM_DMS_DISK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct disk_ops {
    int (*open)(void *context, const char *path, int flags, mode_t mode); /* a descriptor */
    void (*close)(void *context, int fd);
    /* Bytes read or written: fewer than asked for at the end of the file or of the room. */
    ssize_t (*read)(void *context, int fd, void *bytes, size_t len, off_t offset);
    ssize_t (*write)(void *context, int fd, const struct iovec *iov, int n, off_t offset);
    int (*allocate)(void *context, int fd, off_t offset, off_t len);
    int (*punch)(void *context, int fd, off_t offset, off_t len);
    int (*truncate)(void *context, int fd, off_t len);
    int (*size)(void *context, int fd, off_t *len);
    int (*map)(void *context, int fd, size_t len, void **out);
    void (*unmap)(void *context, void *map, size_t len);
    int (*sync)(void *context, int fd); /* content and size; blocks */
    int (*sync_dir)(void *context, const char *path);
    int (*rename)(void *context, const char *from, const char *to);
    int (*unlink)(void *context, const char *path);
    int (*make_dir)(void *context, const char *path, mode_t mode);
    /* A number for the time since the machine was started: what was written since is there. */
    int (*boot)(void *context, uint64_t id[2]);
};

struct disk {
    const struct disk_ops *ops;
    void *context;
};

extern const struct disk disk_real;

int disk_open(const struct disk *disk, const char *path, int flags, mode_t mode)
    __attribute__((warn_unused_result));
void disk_close(const struct disk *disk, int fd);
ssize_t disk_read(const struct disk *disk, int fd, void *bytes, size_t len, off_t offset)
    __attribute__((warn_unused_result));
ssize_t disk_write(const struct disk *disk, int fd, const struct iovec *iov, int n, off_t offset)
    __attribute__((warn_unused_result));

/* Reads or writes all of it, also in pieces: -EIO where the file ends, -ENOSPC where the room
 * does. */
int disk_read_all(const struct disk *disk, int fd, void *bytes, size_t len, off_t offset)
    __attribute__((warn_unused_result));
int disk_write_all(const struct disk *disk, int fd, const void *bytes, size_t len, off_t offset)
    __attribute__((warn_unused_result));

int disk_allocate(const struct disk *disk, int fd, off_t offset, off_t len)
    __attribute__((warn_unused_result));

/* Gives blocks back, whole ones of the file system: they read as zeros. The size stays.
 * -EOPNOTSUPP: the file system cannot. */
int disk_punch(const struct disk *disk, int fd, off_t offset, off_t len)
    __attribute__((warn_unused_result));
int disk_truncate(const struct disk *disk, int fd, off_t len) __attribute__((warn_unused_result));
int disk_size(const struct disk *disk, int fd, off_t *len) __attribute__((warn_unused_result));
int disk_map(const struct disk *disk, int fd, size_t len, void **out)
    __attribute__((warn_unused_result));
void disk_unmap(const struct disk *disk, void *map, size_t len);
int disk_sync(const struct disk *disk, int fd) __attribute__((warn_unused_result));
int disk_sync_dir(const struct disk *disk, const char *path) __attribute__((warn_unused_result));

/* Syncs the directory that PATH is in. */
int disk_sync_parent(const struct disk *disk, const char *path) __attribute__((warn_unused_result));
int disk_rename(const struct disk *disk, const char *from, const char *to)
    __attribute__((warn_unused_result));
int disk_unlink(const struct disk *disk, const char *path) __attribute__((warn_unused_result));
int disk_make_dir(const struct disk *disk, const char *path, mode_t mode)
    __attribute__((warn_unused_result));
int disk_boot(const struct disk *disk, uint64_t id[2]) __attribute__((warn_unused_result));

#endif
