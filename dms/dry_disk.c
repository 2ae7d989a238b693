#include "dry_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes that were written. */
struct extent {
    off_t offset;
    size_t len;
    char *bytes;
};

struct dry_file {
    bool scratch;           /* made here: a file in memory, written to as it is */
    char *path;             /* of a scratch file */
    off_t len;              /* what it would be */
    struct extent *written; /* the oldest first */
    size_t nwritten, written_cap;
    char *map; /* NULL: not mapped */
    size_t map_bytes;
};

struct dry_disk {
    struct disk disk;
    struct dry_file *files; /* by descriptor */
    int nfiles;
};

static int make_place(struct dry_disk *dry, int fd)
{
    if (fd < dry->nfiles)
        return 0;
    int count = 2 * fd + 1;
    struct dry_file *files = realloc(dry->files, (size_t)count * sizeof(*files));
    if (files == NULL)
        return -ENOMEM;
    memset(files + dry->nfiles, 0, (size_t)(count - dry->nfiles) * sizeof(*files));
    dry->files = files;
    dry->nfiles = count;
    return 0;
}

/* Another descriptor of a file made here, or -ENOENT. */
static int reopen(const struct dry_disk *dry, const char *path)
{
    for (int fd = 0; fd < dry->nfiles; fd++) {
        const char *other = dry->files[fd].path;
        if (other == NULL || strcmp(other, path) != 0)
            continue;
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        return copy < 0 ? -errno : copy;
    }
    return -ENOENT;
}

static int dry_open(void *context, const char *path, int flags, mode_t mode)
{
    struct dry_disk *dry = context;
    struct stat st = {0};
    int fd = (flags & O_TRUNC) != 0 ? -ENOENT : reopen(dry, path);
    bool scratch = fd >= 0 || (flags & O_TRUNC) != 0;

    if (!scratch)
        fd = disk_open(&disk_real, path, flags & O_DIRECTORY, mode);
    if (fd >= 0 && (flags & O_EXCL) != 0) {
        close(fd);
        return -EEXIST;
    }
    if (fd == -ENOENT && (flags & O_CREAT) != 0) {
        scratch = true;
        fd = memfd_create("edm-check", MFD_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
    }
    if (fd < 0)
        return fd;
    char *name = scratch ? strdup(path) : NULL;
    int err = fstat(fd, &st) == 0 ? make_place(dry, fd) : -errno;
    if (err == 0 && scratch && name == NULL)
        err = -ENOMEM;
    if (err != 0) {
        free(name);
        close(fd);
        return err;
    }
    dry->files[fd] = (struct dry_file){.scratch = scratch, .path = name, .len = st.st_size};
    return fd;
}

static void dry_close(void *context, int fd)
{
    struct dry_disk *dry = context;
    struct dry_file *file = &dry->files[fd];

    for (size_t i = 0; i < file->nwritten; i++)
        free(file->written[i].bytes);
    free(file->written);
    free(file->path);
    *file = (struct dry_file){0};
    close(fd);
}

/* Copies what of EXTENT lies in the LEN bytes at OFFSET. */
static void lay_over(const struct extent *extent, char *bytes, size_t len, off_t offset)
{
    off_t end = offset + (off_t)len, extent_end = extent->offset + (off_t)extent->len;
    off_t from = extent->offset > offset ? extent->offset : offset;
    off_t to = extent_end < end ? extent_end : end;

    if (from < to)
        memcpy(bytes + (from - offset), extent->bytes + (from - extent->offset),
               (size_t)(to - from));
}

static ssize_t dry_read(void *context, int fd, void *bytes, size_t len, off_t offset)
{
    const struct dry_disk *dry = context;
    const struct dry_file *file = &dry->files[fd];
    size_t there = 0;

    if (file->scratch)
        return disk_read(&disk_real, fd, bytes, len, offset);
    if (offset >= file->len)
        return 0;
    if ((off_t)len > file->len - offset)
        len = (size_t)(file->len - offset);
    while (there < len) {
        ssize_t got =
            disk_read(&disk_real, fd, (char *)bytes + there, len - there, offset + (off_t)there);
        if (got < 0)
            return got;
        if (got == 0)
            break;
        there += (size_t)got;
    }
    memset((char *)bytes + there, 0, len - there);
    for (size_t i = 0; i < file->nwritten; i++)
        lay_over(&file->written[i], bytes, len, offset);
    return (ssize_t)len;
}

static int make_extent(struct dry_file *file, size_t len, off_t offset, struct extent **out)
{
    if (file->nwritten == file->written_cap) {
        size_t cap = file->written_cap == 0 ? 8 : 2 * file->written_cap;
        struct extent *written = realloc(file->written, cap * sizeof(*written));
        if (written == NULL)
            return -ENOMEM;
        file->written = written;
        file->written_cap = cap;
    }
    struct extent *extent = &file->written[file->nwritten];
    *extent = (struct extent){offset, len, malloc(len + 1)};
    if (extent->bytes == NULL)
        return -ENOMEM;
    file->nwritten++;
    *out = extent;
    return 0;
}

static ssize_t dry_write(void *context, int fd, const struct iovec *iov, int n, off_t offset)
{
    struct dry_disk *dry = context;
    struct dry_file *file = &dry->files[fd];
    struct extent *extent;
    size_t len = 0;

    if (file->scratch)
        return disk_write(&disk_real, fd, iov, n, offset);
    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    int err = make_extent(file, len, offset, &extent);
    if (err != 0)
        return err;
    char *to = extent->bytes;
    for (int i = 0; i < n; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    if (offset + (off_t)len > file->len)
        file->len = offset + (off_t)len;
    if (file->map != NULL)
        lay_over(extent, file->map, file->map_bytes, 0);
    return (ssize_t)len;
}

static int dry_allocate(void *context, int fd, off_t offset, off_t len)
{
    struct dry_disk *dry = context;
    struct dry_file *file = &dry->files[fd];

    if (file->scratch)
        return disk_allocate(&disk_real, fd, offset, len);
    if (offset + len > file->len)
        file->len = offset + len;
    return 0;
}

/* Reads as zeros, as if that was written. */
static int dry_punch(void *context, int fd, off_t offset, off_t len)
{
    struct dry_disk *dry = context;

    if (dry->files[fd].scratch)
        return disk_punch(&disk_real, fd, offset, len);
    void *zeros = calloc(1, (size_t)len + 1);
    if (zeros == NULL)
        return -ENOMEM;
    struct iovec iov = {zeros, (size_t)len};
    ssize_t wrote = dry_write(context, fd, &iov, 1, offset);
    free(zeros);
    return wrote < 0 ? (int)wrote : 0;
}

static int dry_truncate(void *context, int fd, off_t len)
{
    struct dry_disk *dry = context;
    struct dry_file *file = &dry->files[fd];

    if (file->scratch)
        return disk_truncate(&disk_real, fd, len);
    file->len = len;
    return 0;
}

static int dry_size(void *context, int fd, off_t *len)
{
    const struct dry_disk *dry = context;

    if (dry->files[fd].scratch)
        return disk_size(&disk_real, fd, len);
    *len = dry->files[fd].len;
    return 0;
}

/* A copy of the file as it is read, made where it is written to; beyond its end, zeros. */
static int dry_map(void *context, int fd, size_t len, void **out)
{
    struct dry_disk *dry = context;
    struct dry_file *file = &dry->files[fd];
    int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_NORESERVE;
    struct stat st;

    if (file->scratch)
        return disk_map(&disk_real, fd, len, out);
    if (fstat(fd, &st) != 0)
        return -errno;
    char *map = mmap(NULL, len, protection, flags | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -errno;
    size_t there = (size_t)st.st_size < len ? (size_t)st.st_size : len;
    if (there > 0 && mmap(map, there, protection, flags | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int err = -errno;
        munmap(map, len);
        return err;
    }
    for (size_t i = 0; i < file->nwritten; i++)
        lay_over(&file->written[i], map, len, 0);
    file->map = map;
    file->map_bytes = len;
    *out = map;
    return 0;
}

static void dry_unmap(void *context, void *map, size_t len)
{
    struct dry_disk *dry = context;

    for (int fd = 0; fd < dry->nfiles; fd++) {
        if (dry->files[fd].map == map)
            dry->files[fd].map = NULL;
    }
    disk_unmap(&disk_real, map, len);
}

static int dry_sync(void *context, int fd)
{
    (void)context;
    (void)fd;
    return 0;
}

static int dry_sync_dir(void *context, const char *path)
{
    (void)context;
    (void)path;
    return 0;
}

static int dry_rename(void *context, const char *from, const char *to)
{
    (void)context;
    (void)from;
    (void)to;
    return 0;
}

static int dry_unlink(void *context, const char *path)
{
    (void)context;
    (void)path;
    return 0;
}

static int dry_make_dir(void *context, const char *path, mode_t mode)
{
    (void)context;
    (void)path;
    (void)mode;
    return 0;
}

static int dry_boot(void *context, uint64_t id[2])
{
    (void)context;
    return disk_boot(&disk_real, id);
}

static const struct disk_ops ops = {
    .open = dry_open,
    .close = dry_close,
    .read = dry_read,
    .write = dry_write,
    .allocate = dry_allocate,
    .punch = dry_punch,
    .truncate = dry_truncate,
    .size = dry_size,
    .map = dry_map,
    .unmap = dry_unmap,
    .sync = dry_sync,
    .sync_dir = dry_sync_dir,
    .rename = dry_rename,
    .unlink = dry_unlink,
    .make_dir = dry_make_dir,
    .boot = dry_boot,
};

int dry_disk_new(struct dry_disk **out)
{
    struct dry_disk *dry = calloc(1, sizeof(*dry));

    if (dry == NULL)
        return -ENOMEM;
    dry->disk = (struct disk){&ops, dry};
    *out = dry;
    return 0;
}

void dry_disk_destroy(struct dry_disk **dry)
{
    if (*dry == NULL)
        return;
    free((*dry)->files);
    free(*dry);
    *dry = NULL;
}

const struct disk *dry_disk_ops(const struct dry_disk *dry)
{
    return &dry->disk;
}
