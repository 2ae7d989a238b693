#include "fault_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DELAY_US = 1000, PAGE = 4096 };

/* Whether this operation is the one. */
static bool is_due(struct fault_disk *fault)
{
    fault->operations++;
    if (fault->countdown == 0 || --fault->countdown > 0)
        return false;
    fault->fired = true;
    if (fault->kind == FAULT_DELAY)
        usleep(DELAY_US);
    return fault->kind != FAULT_DELAY;
}

/* For operations that are done or not. Returns the error to return, or 0. */
static int check(struct fault_disk *fault)
{
    if (!is_due(fault))
        return 0;
    if (fault->kind == FAULT_FAIL || fault->kind == FAULT_TEAR)
        return fault->err;
    fault->fired = false; /* not for this kind of operation: the next one */
    fault->countdown = 1;
    return 0;
}

static int fault_open(void *context, const char *path, int flags, mode_t mode)
{
    int err = check(context);

    return err != 0 ? err : disk_open(&disk_real, path, flags, mode);
}

static void fault_close(void *context, int fd)
{
    (void)context;
    disk_close(&disk_real, fd);
}

static ssize_t fault_read(void *context, int fd, void *bytes, size_t len, off_t offset)
{
    int err = check(context);

    return err != 0 ? err : disk_read(&disk_real, fd, bytes, len, offset);
}

/* One array of what is to be written. */
static char *gather(const struct iovec *iov, int n, size_t *len)
{
    char *bytes = NULL;

    *len = 0;
    for (int i = 0; i < n; i++) {
        bytes = realloc(bytes, *len + iov[i].iov_len);
        if (bytes == NULL)
            abort();
        memcpy(bytes + *len, iov[i].iov_base, iov[i].iov_len);
        *len += iov[i].iov_len;
    }
    return bytes;
}

static ssize_t write_wrong(struct fault_disk *fault, int fd, const struct iovec *iov, int n,
                           off_t offset)
{
    size_t len;
    char *bytes = gather(iov, n, &len);
    ssize_t wrote = fault->err;

    /* No more than a page may be a block of slot headers, or of the manifest. */
    if (fault->kind == FAULT_CORRUPT && len <= PAGE) {
        fault->fired = false;
        fault->countdown = 1;
        wrote = disk_write(&disk_real, fd, iov, n, offset);
    } else if (fault->kind == FAULT_CORRUPT) {
        bytes[len / 2] ^= 4;
        struct iovec all = {bytes, len};
        wrote = disk_write(&disk_real, fd, &all, 1, offset);
    } else if (fault->kind != FAULT_FAIL) {
        struct iovec half = {bytes, len / 2};
        wrote = disk_write(&disk_real, fd, &half, 1, offset);
        if (fault->kind == FAULT_TEAR)
            wrote = fault->err;
    }
    free(bytes);
    return wrote;
}

static ssize_t fault_write(void *context, int fd, const struct iovec *iov, int n, off_t offset)
{
    struct fault_disk *fault = context;

    if (is_due(fault))
        return write_wrong(fault, fd, iov, n, offset);
    return disk_write(&disk_real, fd, iov, n, offset);
}

static int fault_allocate(void *context, int fd, off_t offset, off_t len)
{
    int err = check(context);

    return err != 0 ? err : disk_allocate(&disk_real, fd, offset, len);
}

static int fault_punch(void *context, int fd, off_t offset, off_t len)
{
    int err = check(context);

    return err != 0 ? err : disk_punch(&disk_real, fd, offset, len);
}

static int fault_truncate(void *context, int fd, off_t len)
{
    int err = check(context);

    return err != 0 ? err : disk_truncate(&disk_real, fd, len);
}

static int fault_size(void *context, int fd, off_t *len)
{
    (void)context;
    return disk_size(&disk_real, fd, len);
}

static int fault_map(void *context, int fd, size_t len, void **out)
{
    int err = check(context);

    return err != 0 ? err : disk_map(&disk_real, fd, len, out);
}

static void fault_unmap(void *context, void *map, size_t len)
{
    (void)context;
    disk_unmap(&disk_real, map, len);
}

static int fault_sync(void *context, int fd)
{
    struct fault_disk *fault = context;
    int err = check(fault);

    (void)fd; /* the tests' files need not outlive the machine */
    fault->fired_in_sync = fault->fired_in_sync || err != 0;
    return err;
}

static int fault_sync_dir(void *context, const char *path)
{
    struct fault_disk *fault = context;
    int err = check(fault);

    (void)path;
    fault->fired_in_sync = fault->fired_in_sync || err != 0;
    return err;
}

static int fault_rename(void *context, const char *from, const char *to)
{
    int err = check(context);

    return err != 0 ? err : disk_rename(&disk_real, from, to);
}

static int fault_unlink(void *context, const char *path)
{
    int err = check(context);

    return err != 0 ? err : disk_unlink(&disk_real, path);
}

static int fault_make_dir(void *context, const char *path, mode_t mode)
{
    int err = check(context);

    return err != 0 ? err : disk_make_dir(&disk_real, path, mode);
}

static int fault_boot(void *context, uint64_t id[2])
{
    (void)context;
    return disk_boot(&disk_real, id);
}

static const struct disk_ops fault_ops = {
    .open = fault_open,
    .close = fault_close,
    .read = fault_read,
    .write = fault_write,
    .allocate = fault_allocate,
    .punch = fault_punch,
    .truncate = fault_truncate,
    .size = fault_size,
    .map = fault_map,
    .unmap = fault_unmap,
    .sync = fault_sync,
    .sync_dir = fault_sync_dir,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .make_dir = fault_make_dir,
    .boot = fault_boot,
};

void fault_disk_begin(struct fault_disk *fault)
{
    *fault = (struct fault_disk){.disk = {&fault_ops, fault}};
}

void fault_disk_order(struct fault_disk *fault, enum fault kind, int err, uint64_t countdown)
{
    fault->kind = kind;
    fault->err = err;
    fault->countdown = countdown;
    fault->fired = fault->fired_in_sync = false;
}
