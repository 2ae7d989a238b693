#include "shard_file.h"

#include "file_write.h"
#include "random_number.h"
#include "slot_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { FORMAT = 2 };

static const char MAGIC[8] = "EDMSHRD";

struct content {
    char magic[8];
    uint32_t format;
    uint32_t segment_slots;
    uint64_t id;
    uint64_t checksum; /* of everything before it */
};

static uint64_t checksum_of(const struct content *content)
{
    return XXH3_64bits(content, offsetof(struct content, checksum));
}

static int make(const struct disk *disk, const char *path, struct content *content)
{
    memcpy(content->magic, MAGIC, sizeof(MAGIC));
    content->format = FORMAT;
    int err = random_number(&content->id);
    if (err != 0)
        return err;
    content->checksum = checksum_of(content);
    return file_write_whole(disk, path, content, sizeof(*content));
}

static int check(const struct content *content)
{
    if (memcmp(content->magic, MAGIC, sizeof(MAGIC)) != 0 ||
        content->checksum != checksum_of(content))
        return -EBADMSG;
    if (content->format != FORMAT)
        return -EPROTONOSUPPORT;
    bool fits = content->segment_slots >= SLOT_POOL_MIN_SLOTS &&
                content->segment_slots <= SLOT_POOL_MAX_SLOTS && content->segment_slots % 64 == 0;
    return fits && content->id != 0 ? 0 : -EBADMSG;
}

static int path_of(const char *dir, const char *name, char *path, size_t cap)
{
    int len = snprintf(path, cap, "%s/%s", dir, name);

    return len < 0 || (size_t)len >= cap ? -ENAMETOOLONG : 0;
}

/* The manifest is made right after the shard file, and before anything else. */
static bool has_manifest(const struct disk *disk, const char *dir)
{
    char path[PATH_MAX];
    int fd = path_of(dir, "manifest", path, sizeof(path));

    if (fd == 0)
        fd = disk_open(disk, path, O_RDONLY, 0);
    if (fd >= 0)
        disk_close(disk, fd);
    return fd >= 0;
}

int shard_file_make(const struct disk *disk, const char *dir, uint64_t *id, uint32_t segment_slots)
{
    struct content content = {.segment_slots = segment_slots};
    char path[PATH_MAX];
    int err = path_of(dir, "shard", path, sizeof(path));

    if (err == 0)
        err = make(disk, path, &content);
    *id = content.id;
    return err;
}

int shard_file_open(const struct disk *disk, const char *dir, uint64_t *id, uint32_t *segment_slots)
{
    struct content content;
    char path[PATH_MAX];
    int err = path_of(dir, "shard", path, sizeof(path));

    if (err != 0)
        return err;
    int fd = disk_open(disk, path, O_RDONLY, 0);
    if (fd == -ENOENT && !has_manifest(disk, dir))
        return shard_file_make(disk, dir, id, *segment_slots);
    if (fd < 0)
        return fd == -ENOENT ? -EBADMSG : fd;
    ssize_t got = disk_read(disk, fd, &content, sizeof(content), 0);
    disk_close(disk, fd);
    err = got == sizeof(content) ? check(&content) : got < 0 ? (int)got : -EBADMSG;
    if (err != 0)
        return err;
    *id = content.id;
    *segment_slots = content.segment_slots;
    return 0;
}
