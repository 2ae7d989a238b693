#include "manifest.h"

#include "stamp.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
    const struct disk *disk;
    char *path;
    int fd;
    int sync_fd;           /* for manifest_sync(): a descriptor is told of an error once */
    uint64_t used;         /* records, the file's header included */
    uint64_t reserved;     /* records the file has room for */
    uint64_t synced_place; /* of the MANIFEST_SYNCED, 0: none */
    bool changed;
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
    record->checksum = checksum_of(record);
}

static bool is_sound(const struct manifest_record *record)
{
    return record->magic == MAGIC && record->checksum == checksum_of(record) &&
           record->stamp <= STAMP_MAX &&
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
    int err = disk_allocate(manifest->disk, manifest->fd, from, len);
    if (err != 0)
        return err;
    manifest->reserved = want;
    return 0;
}

static int note_damage(struct damage_list *damage, uint64_t place,
                       const struct manifest_record *record)
{
    return damage_add(damage, &(struct damage){
                                  .kind = place == 0 ? DAMAGE_FILE_HEADER : DAMAGE_RECORD,
                                  .file = "manifest",
                                  .place = place,
                                  .region = record->region,
                              });
}

static int check_format(struct damage_list *damage, const struct manifest_record *header)
{
    if (header->stamp == MANIFEST_FORMAT)
        return 0;
    int err = damage_add(damage, &(struct damage){.kind = DAMAGE_FORMAT, .file = "manifest"});
    return err != 0 ? err : -EPROTONOSUPPORT;
}

/* Says APPLY of every record of the file and finds its end. */
static int load(struct manifest *manifest, const struct manifest_record *records,
                int (*apply)(void *context, const struct manifest_record *record), void *context,
                struct damage_list *damage, struct manifest_report *report)
{
    uint64_t end = manifest->reserved;
    int err = 0;

    while (end > 0 && is_zero(&records[end - 1]))
        end--;
    manifest->used = end;
    for (uint64_t i = 0; err == 0 && i < end; i++) {
        if (is_zero(&records[i])) {
            report->unwritten++;
        } else if (!is_sound(&records[i]) || (i == 0) != (records[i].type == FILE_HEADER)) {
            report->damaged++;
            err = note_damage(damage, i, &records[i]);
        } else if (i == 0) {
            err = check_format(damage, &records[i]);
        } else {
            report->records++;
            if (records[i].type == MANIFEST_SYNCED)
                manifest->synced_place = i;
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
        err = disk_write_all(manifest->disk, manifest->fd, &header, sizeof(header), 0);
    if (err == 0 && manifest->used == 0)
        manifest->used = 1;
    manifest->changed = true;
    return err;
}

static int open_file(struct manifest *manifest, const struct disk *disk, const char *path)
{
    struct stat st;

    manifest->disk = disk;
    manifest->path = strdup(path);
    if (manifest->path == NULL)
        return -ENOMEM;
    manifest->fd = disk_open(disk, path, O_RDWR | O_CREAT, 0600);
    if (manifest->fd < 0)
        return manifest->fd;
    manifest->sync_fd = disk_open(disk, path, O_RDWR, 0600);
    if (manifest->sync_fd < 0)
        return manifest->sync_fd;
    if (fstat(manifest->fd, &st) != 0)
        return -errno;
    manifest->reserved = (uint64_t)st.st_size / RECORD_BYTES;
    return 0;
}

int manifest_open(struct manifest **out, const struct disk *disk, const char *path,
                  int (*apply)(void *context, const struct manifest_record *record), void *context,
                  struct damage_list *damage, struct manifest_report *report)
{
    struct manifest *manifest = calloc(1, sizeof(*manifest));
    struct manifest_record *records = NULL;

    if (manifest == NULL)
        return -ENOMEM;
    *report = (struct manifest_report){0};
    manifest->fd = manifest->sync_fd = -1;
    int err = open_file(manifest, disk, path);
    if (err == 0 && manifest->reserved > 0) {
        size_t len = manifest->reserved * RECORD_BYTES;
        records = malloc(len);
        err = records == NULL ? -ENOMEM : disk_read_all(disk, manifest->fd, records, len, 0);
        if (err == 0)
            err = load(manifest, records, apply, context, damage, report);
        /* After a sync that failed, it may be in memory only. */
        if (err == 0)
            err = disk_write_all(disk, manifest->fd, records, manifest->used * RECORD_BYTES, 0);
    }
    report->was_empty = manifest->used == 0;
    report->is_cut = !report->was_empty && manifest->used == manifest->reserved;
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
        disk_close((*manifest)->disk, (*manifest)->fd);
    if ((*manifest)->sync_fd >= 0)
        disk_close((*manifest)->disk, (*manifest)->sync_fd);
    free((*manifest)->path);
    free(*manifest);
    *manifest = NULL;
}

/* Nothing of a record that was refused may be found after a restart. If this fails too, the next
 * record is written over it. */
static void wipe(struct manifest *manifest, uint64_t from, uint32_t count)
{
    static const struct manifest_record zero;
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < count; i++)
        err = disk_write_all(manifest->disk, manifest->fd, &zero, sizeof(zero),
                             (off_t)((from + i) * RECORD_BYTES));
}

int manifest_append(struct manifest *manifest, struct manifest_record *records, uint32_t count,
                    bool last_reserve)
{
    int err = reserve(manifest, count);

    if (err != 0 && !(last_reserve && manifest->used + count <= manifest->reserved))
        return err;
    for (uint32_t i = 0; i < count; i++)
        seal(&records[i]);
    err = disk_write_all(manifest->disk, manifest->fd, records, count * sizeof(*records),
                         (off_t)(manifest->used * RECORD_BYTES));
    if (err == 0)
        manifest->used += count;
    else
        wipe(manifest, manifest->used, count);
    manifest->changed = true;
    return err;
}

/* A record lies within one sector and one page: a crash leaves the old or the new one. */
int manifest_put(struct manifest *manifest, struct manifest_record *record, uint64_t *place)
{
    if (*place != 0) {
        seal(record);
        manifest->changed = true;
        return disk_write_all(manifest->disk, manifest->fd, record, sizeof(*record),
                              (off_t)(*place * RECORD_BYTES));
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
    struct manifest fresh = {.disk = manifest->disk, .path = path};
    fresh.fd = disk_open(fresh.disk, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fresh.fd < 0)
        return fresh.fd;
    fresh.sync_fd = disk_open(fresh.disk, path, O_RDWR, 0600);
    int err = fresh.sync_fd < 0 ? fresh.sync_fd : write_file_header(&fresh);
    if (err == 0)
        err = manifest_append(&fresh, records, count, false);
    if (err == 0)
        err = manifest_sync(&fresh);
    if (err == 0)
        err = disk_rename(fresh.disk, path, manifest->path);
    if (err != 0) {
        disk_close(fresh.disk, fresh.fd);
        if (fresh.sync_fd >= 0)
            disk_close(fresh.disk, fresh.sync_fd);
        int left = disk_unlink(fresh.disk, path);
        (void)left; /* the next one writes over it */
        return err;
    }
    disk_close(manifest->disk, manifest->fd);
    disk_close(manifest->disk, manifest->sync_fd);
    manifest->fd = fresh.fd;
    manifest->sync_fd = fresh.sync_fd;
    manifest->used = fresh.used;
    manifest->reserved = fresh.reserved;
    manifest->synced_place = 0;
    return disk_sync_parent(manifest->disk, manifest->path);
}

bool manifest_has_note(const struct manifest *manifest)
{
    return manifest->synced_place != 0;
}

int manifest_note_synced(struct manifest *manifest, struct manifest_record *record)
{
    record->type = MANIFEST_SYNCED;
    return manifest_put(manifest, record, &manifest->synced_place);
}

void manifest_note_later(struct manifest *manifest, struct manifest_record *record,
                         struct sync_job *job)
{
    _Static_assert(sizeof(job->note) == sizeof(*record), "a note is a record");
    assert(manifest->synced_place != 0);
    record->type = MANIFEST_SYNCED;
    seal(record);
    memcpy(job->note, record, sizeof(*record));
    job->note_fd = manifest->fd;
    job->note_offset = (off_t)(manifest->synced_place * RECORD_BYTES);
}

bool manifest_changed(const struct manifest *manifest)
{
    return manifest->changed;
}

int manifest_begin_sync(struct manifest *manifest)
{
    manifest->changed = false;
    return manifest->fd;
}

int manifest_sync(struct manifest *manifest)
{
    return disk_sync(manifest->disk, manifest->sync_fd);
}
