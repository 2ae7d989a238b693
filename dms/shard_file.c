#include "shard_file.h"

#include "file_write.h"
#include "random_number.h"
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { FORMAT = 1 };

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

static int make(const char *path, struct content *content)
{
    memcpy(content->magic, MAGIC, sizeof(MAGIC));
    content->format = FORMAT;
    int err = random_number(&content->id);
    if (err != 0)
        return err;
    content->checksum = checksum_of(content);
    return file_write_whole(path, content, sizeof(*content));
}

static int check(const struct content *content)
{
    if (memcmp(content->magic, MAGIC, sizeof(MAGIC)) != 0 ||
        content->checksum != checksum_of(content))
        return -EBADMSG;
    if (content->format != FORMAT)
        return -EPROTONOSUPPORT;
    bool fits = content->segment_slots >= SEGMENT_MIN_SLOTS &&
                content->segment_slots <= SEGMENT_MAX_SLOTS && content->segment_slots % 64 == 0;
    return fits && content->id != 0 ? 0 : -EBADMSG;
}

int shard_file_open(const char *dir, uint64_t *id, uint32_t *segment_slots)
{
    struct content content = {.segment_slots = *segment_slots};
    char path[PATH_MAX];
    int len = snprintf(path, sizeof(path), "%s/shard", dir);

    if (len < 0 || (size_t)len >= sizeof(path))
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int err = 0;
    if (fd >= 0) {
        ssize_t got = read(fd, &content, sizeof(content));
        err = got == sizeof(content) ? check(&content) : got < 0 ? -errno : -EBADMSG;
        close(fd);
    } else {
        err = errno == ENOENT ? make(path, &content) : -errno;
    }
    *id = content.id;
    *segment_slots = content.segment_slots;
    return err;
}
