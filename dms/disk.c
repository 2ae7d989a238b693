#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int disk_open(const struct disk *disk, const char *path, int flags, mode_t mode)
{
    return disk->ops->open(disk->context, path, flags, mode);
}

void disk_close(const struct disk *disk, int fd)
{
    disk->ops->close(disk->context, fd);
}

ssize_t disk_read(const struct disk *disk, int fd, void *bytes, size_t len, off_t offset)
{
    return disk->ops->read(disk->context, fd, bytes, len, offset);
}

ssize_t disk_write(const struct disk *disk, int fd, const struct iovec *iov, int n, off_t offset)
{
    return disk->ops->write(disk->context, fd, iov, n, offset);
}

int disk_read_all(const struct disk *disk, int fd, void *bytes, size_t len, off_t offset)
{
    for (size_t done = 0; done < len;) {
        ssize_t got = disk_read(disk, fd, (char *)bytes + done, len - done, offset + (off_t)done);
        if (got <= 0)
            return got < 0 ? (int)got : -EIO;
        done += (size_t)got;
    }
    return 0;
}

int disk_write_all(const struct disk *disk, int fd, const void *bytes, size_t len, off_t offset)
{
    for (size_t done = 0; done < len;) {
        struct iovec iov = {(char *)(uintptr_t)bytes + done, len - done};
        ssize_t wrote = disk_write(disk, fd, &iov, 1, offset + (off_t)done);
        if (wrote <= 0)
            return wrote < 0 ? (int)wrote : -ENOSPC;
        done += (size_t)wrote;
    }
    return 0;
}

int disk_allocate(const struct disk *disk, int fd, off_t offset, off_t len)
{
    return disk->ops->allocate(disk->context, fd, offset, len);
}

int disk_punch(const struct disk *disk, int fd, off_t offset, off_t len)
{
    return disk->ops->punch(disk->context, fd, offset, len);
}

int disk_truncate(const struct disk *disk, int fd, off_t len)
{
    return disk->ops->truncate(disk->context, fd, len);
}

int disk_size(const struct disk *disk, int fd, off_t *len)
{
    return disk->ops->size(disk->context, fd, len);
}

int disk_map(const struct disk *disk, int fd, size_t len, void **out)
{
    return disk->ops->map(disk->context, fd, len, out);
}

void disk_unmap(const struct disk *disk, void *map, size_t len)
{
    disk->ops->unmap(disk->context, map, len);
}

int disk_sync(const struct disk *disk, int fd)
{
    return disk->ops->sync(disk->context, fd);
}

int disk_sync_dir(const struct disk *disk, const char *path)
{
    return disk->ops->sync_dir(disk->context, path);
}

int disk_sync_parent(const struct disk *disk, const char *path)
{
    char parent[PATH_MAX];
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    while (len > 1 && path[len - 1] == '/')
        len--;
    if (len >= sizeof(parent))
        return -ENAMETOOLONG;
    snprintf(parent, sizeof(parent), "%.*s", (int)len, path);
    return disk_sync_dir(disk, len == 0 ? "." : parent);
}

int disk_rename(const struct disk *disk, const char *from, const char *to)
{
    return disk->ops->rename(disk->context, from, to);
}

int disk_unlink(const struct disk *disk, const char *path)
{
    return disk->ops->unlink(disk->context, path);
}

int disk_make_dir(const struct disk *disk, const char *path, mode_t mode)
{
    return disk->ops->make_dir(disk->context, path, mode);
}

int disk_boot(const struct disk *disk, uint64_t id[2])
{
    return disk->ops->boot(disk->context, id);
}

static int real_open(void *context, const char *path, int flags, mode_t mode)
{
    int fd;

    (void)context;
    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static void real_close(void *context, int fd)
{
    (void)context;
    close(fd);
}

static ssize_t real_read(void *context, int fd, void *bytes, size_t len, off_t offset)
{
    ssize_t got;

    (void)context;
    do
        got = pread(fd, bytes, len, offset);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static ssize_t real_write(void *context, int fd, const struct iovec *iov, int n, off_t offset)
{
    ssize_t wrote;

    (void)context;
    do
        wrote = pwritev(fd, iov, n, offset);
    while (wrote < 0 && errno == EINTR);
    return wrote < 0 ? -errno : wrote;
}

static int real_allocate(void *context, int fd, off_t offset, off_t len)
{
    int err;

    (void)context;
    do
        err = fallocate(fd, 0, offset, len) == 0 ? 0 : errno;
    while (err == EINTR);
    if (err == EOPNOTSUPP)
        err = posix_fallocate(fd, offset, len);
    return -err;
}

static int real_punch(void *context, int fd, off_t offset, off_t len)
{
    int err;

    (void)context;
    do
        err =
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len) == 0 ? 0 : errno;
    while (err == EINTR);
    return -err;
}

static int real_truncate(void *context, int fd, off_t len)
{
    int err;

    (void)context;
    do
        err = ftruncate(fd, len) == 0 ? 0 : errno;
    while (err == EINTR);
    return -err;
}

/* Not by fstat(): who asks for a file's times makes its next write note a new one (the kernel's
 * multigrain timestamps, Documentation/filesystems/multigrain-ts.rst), which costs as much as a
 * copied page. Nobody uses the place in the file that this moves. */
static int real_size(void *context, int fd, off_t *len)
{
    (void)context;
    *len = lseek(fd, 0, SEEK_END);
    return *len < 0 ? -errno : 0;
}

static int real_map(void *context, int fd, size_t len, void **out)
{
    (void)context;
    void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    *out = map;
    return 0;
}

static void real_unmap(void *context, void *map, size_t len)
{
    (void)context;
    munmap(map, len);
}

static int real_sync(void *context, int fd)
{
    int err;

    (void)context;
    do
        err = fdatasync(fd) == 0 ? 0 : errno;
    while (err == EINTR);
    return -err;
}

static int real_sync_dir(void *context, const char *path)
{
    int fd = real_open(context, path, O_RDONLY | O_DIRECTORY, 0);

    if (fd < 0)
        return fd;
    int err = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    /* Some file systems cannot, and need not. */
    return err == -EINVAL || err == -EOPNOTSUPP ? 0 : err;
}

static int real_rename(void *context, const char *from, const char *to)
{
    (void)context;
    return rename(from, to) == 0 ? 0 : -errno;
}

static int real_unlink(void *context, const char *path)
{
    (void)context;
    return unlink(path) == 0 ? 0 : -errno;
}

static int real_make_dir(void *context, const char *path, mode_t mode)
{
    (void)context;
    return mkdir(path, mode) == 0 ? 0 : -errno;
}

/* The kernel's own number, 16 bytes written as 32 digits and dashes. */
static int real_boot(void *context, uint64_t id[2])
{
    char text[64];
    unsigned ndigits = 0;
    int fd = real_open(context, "/proc/sys/kernel/random/boot_id", O_RDONLY, 0);

    if (fd < 0)
        return fd;
    ssize_t got = read(fd, text, sizeof(text));
    int err = got < 0 ? -errno : 0;
    close(fd);
    id[0] = id[1] = 0;
    for (ssize_t i = 0; i < got && ndigits < 32; i++) {
        unsigned digit = (unsigned char)text[i];
        if (digit >= '0' && digit <= '9')
            digit -= '0';
        else if (digit >= 'a' && digit <= 'f')
            digit -= 'a' - 10;
        else
            continue;
        id[ndigits / 16] = id[ndigits / 16] << 4 | digit;
        ndigits++;
    }
    return err == 0 && ndigits < 32 ? -EIO : err;
}

static const struct disk_ops real_ops = {
    .open = real_open,
    .close = real_close,
    .read = real_read,
    .write = real_write,
    .allocate = real_allocate,
    .punch = real_punch,
    .truncate = real_truncate,
    .size = real_size,
    .map = real_map,
    .unmap = real_unmap,
    .sync = real_sync,
    .sync_dir = real_sync_dir,
    .rename = real_rename,
    .unlink = real_unlink,
    .make_dir = real_make_dir,
    .boot = real_boot,
};

const struct disk disk_real = {&real_ops, NULL};
