#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    RECORD_BYTES = sizeof(struct manifest_record),
    CHUNK_RECORDS = 256, /* reserved at a time */
    KEPT_RECORDS = 64,   /* of those, for removing regions */
};

static const uint32_t MAGIC = 0x4e414d45; /* "EMAN" */
/* The first record of the file has this type; its stamp is the format. */
static const uint16_t FILE_HEADER = 0xffff;

struct manifest {
    char *path;
    int fd;
    uint64_t used;     /* records, the file's header included */
    uint64_t reserved; /* records the file has room for */
};

static uint64_t checksum_of(const struct manifest_record *record)
{
    struct manifest_record copy = *record;

    copy.checksum = 0;
    return XXH3_64bits(&copy, sizeof(copy));
}

static void seal(struct manifest_record *record)
{
    record->magic = MAGIC;
    record->reserved = 0;
    record->checksum = checksum_of(record);
}

static bool is_sound(const struct manifest_record *record)
{
    return record->magic == MAGIC && record->checksum == checksum_of(record) &&
           (record->type != MANIFEST_DROP || record->nranges <= MANIFEST_MAX_RANGES);
}

static bool is_zero(const struct manifest_record *record)
{
    const unsigned char *bytes = (const unsigned char *)record;

    for (size_t i = 0; i < sizeof(*record); i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

/* Makes room for COUNT more records and, if possible, a chunk more. */
static int reserve(struct manifest *manifest, uint64_t count)
{
    if (manifest->used + count + KEPT_RECORDS <= manifest->reserved)
        return 0;
    uint64_t want = manifest->used + count + CHUNK_RECORDS;
    off_t from = (off_t)(manifest->reserved * RECORD_BYTES);
    off_t len = (off_t)((want - manifest->reserved) * RECORD_BYTES);
    int err = fallocate(manifest->fd, 0, from, len) == 0 ? 0 : errno;
    if (err == EOPNOTSUPP)
        err = posix_fallocate(manifest->fd, from, len);
    if (err != 0)
        return -err;
    manifest->reserved = want;
    return 0;
}

static int write_at(int fd, const void *bytes, size_t len, off_t offset)
{
    const char *from = bytes;

    while (len > 0) {
        ssize_t wrote = pwrite(fd, from, len, offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote < 0 ? -errno : -ENOSPC;
        from += wrote;
        len -= (size_t)wrote;
        offset += wrote;
    }
    return 0;
}

static int read_whole(int fd, char *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t got = pread(fd, bytes + done, len - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        done += (size_t)got;
    }
    return 0;
}

/* Says APPLY of every record of the file and finds its end. */
static int load(struct manifest *manifest, const struct manifest_record *records,
                int (*apply)(void *context, const struct manifest_record *record), void *context,
                struct manifest_report *report)
{
    uint64_t end = manifest->reserved;
    int err = 0;

    while (end > 0 && is_zero(&records[end - 1]))
        end--;
    manifest->used = end;
    for (uint64_t i = 0; err == 0 && i < end; i++) {
        if (!is_sound(&records[i]) || (i == 0) != (records[i].type == FILE_HEADER)) {
            report->damaged++;
        } else if (i == 0) {
            err = records[i].stamp == MANIFEST_FORMAT ? 0 : -EPROTONOSUPPORT;
        } else {
            report->records++;
            err = apply(context, &records[i]);
        }
    }
    return err;
}

static struct manifest_record file_header(void)
{
    struct manifest_record header = {.type = FILE_HEADER, .stamp = MANIFEST_FORMAT};

    seal(&header);
    return header;
}

/* Gives an empty or damaged file its header. */
static int write_file_header(struct manifest *manifest)
{
    struct manifest_record header = file_header();
    int err = manifest->used > 0 ? 0 : reserve(manifest, 1);

    if (err == 0)
        err = write_at(manifest->fd, &header, sizeof(header), 0);
    if (err == 0 && manifest->used == 0)
        manifest->used = 1;
    return err;
}

static int open_file(struct manifest *manifest, const char *path)
{
    struct stat st;

    manifest->path = strdup(path);
    if (manifest->path == NULL)
        return -ENOMEM;
    manifest->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (manifest->fd < 0 || fstat(manifest->fd, &st) != 0)
        return -errno;
    manifest->reserved = (uint64_t)st.st_size / RECORD_BYTES;
    return 0;
}

int manifest_open(struct manifest **out, const char *path,
                  int (*apply)(void *context, const struct manifest_record *record), void *context,
                  struct manifest_report *report)
{
    struct manifest *manifest = calloc(1, sizeof(*manifest));
    struct manifest_record *records = NULL;

    if (manifest == NULL)
        return -ENOMEM;
    *report = (struct manifest_report){0};
    manifest->fd = -1;
    int err = open_file(manifest, path);
    if (err == 0 && manifest->reserved > 0) {
        size_t len = manifest->reserved * RECORD_BYTES;
        records = malloc(len);
        err = records == NULL ? -ENOMEM : read_whole(manifest->fd, (char *)records, len);
        if (err == 0)
            err = load(manifest, records, apply, context, report);
    }
    if (err == 0)
        err = write_file_header(manifest);
    free(records);
    if (err != 0)
        manifest_close(&manifest);
    else
        *out = manifest;
    return err;
}

void manifest_close(struct manifest **manifest)
{
    if (*manifest == NULL)
        return;
    if ((*manifest)->fd >= 0)
        close((*manifest)->fd);
    free((*manifest)->path);
    free(*manifest);
    *manifest = NULL;
}

int manifest_append(struct manifest *manifest, struct manifest_record *records, uint32_t count,
                    bool last_reserve)
{
    int err = reserve(manifest, count);

    if (err != 0 && !(last_reserve && manifest->used + count <= manifest->reserved))
        return err;
    for (uint32_t i = 0; i < count; i++)
        seal(&records[i]);
    err = write_at(manifest->fd, records, count * sizeof(*records),
                   (off_t)(manifest->used * RECORD_BYTES));
    if (err == 0)
        manifest->used += count;
    return err;
}

/* A record lies within one sector and one page: a crash leaves the old or the new one. */
int manifest_put(struct manifest *manifest, struct manifest_record *record, uint64_t *place)
{
    if (*place != 0) {
        seal(record);
        return write_at(manifest->fd, record, sizeof(*record), (off_t)(*place * RECORD_BYTES));
    }
    uint64_t end = manifest->used;
    int err = manifest_append(manifest, record, 1, false);
    if (err == 0)
        *place = end;
    return err;
}

int manifest_replace(struct manifest *manifest, struct manifest_record *records, uint32_t count)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof(path), "%s.new", manifest->path);

    if (len < 0 || (size_t)len >= sizeof(path))
        return -ENAMETOOLONG;
    struct manifest fresh = {.path = path};
    fresh.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fresh.fd < 0)
        return -errno;
    int err = write_file_header(&fresh);
    if (err == 0)
        err = manifest_append(&fresh, records, count, false);
    if (err == 0)
        err = manifest_sync(&fresh);
    if (err == 0)
        err = rename(path, manifest->path) == 0 ? 0 : -errno;
    if (err != 0) {
        close(fresh.fd);
        unlink(path);
        return err;
    }
    close(manifest->fd);
    manifest->fd = fresh.fd;
    manifest->used = fresh.used;
    manifest->reserved = fresh.reserved;
    return 0;
}

int manifest_sync(struct manifest *manifest)
{
    return fdatasync(manifest->fd) == 0 ? 0 : -errno;
}
