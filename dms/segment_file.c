#include "segment_file.h"

#include "size_class.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum {
    FILE_HEADER_BYTES = 4096,
    SHRINK_BYTES = 4 << 20, /* some 500 us */
};

static const char MAGIC[8] = "EDMSEGM";

/* What stands in its place once a file that was cut short is long again, until it is mended. The
 * second: slot headers are missing. */
static const char MAGIC_CUT[8] = "EDMSCUT", MAGIC_CUT_HEADERS[8] = "EDMSCUH";

struct file_header {
    char magic[8];
    uint32_t format;
    uint32_t slot_bytes;
    uint32_t nslots;
    uint32_t reserved;
    uint64_t checksum; /* of everything before it */
};

/* Behind that, in the same sector: a disk writes it whole or not at all. */
struct group_map {
    uint64_t groups[SEGMENT_GROUP_WORDS];
    uint64_t checksum; /* of everything before it */
};

enum { SECTOR_BYTES = 512 };

_Static_assert(sizeof(struct file_header) + sizeof(struct group_map) <= SECTOR_BYTES, "one sector");

bool segment_shape_is_valid(struct segment_shape shape)
{
    return size_class_find(shape.slot_bytes) < SIZE_CLASSES && shape.nslots > 0 &&
           shape.nslots <= SEGMENT_MAX_SLOTS && shape.nslots % SEGMENT_GROUP_SLOTS == 0;
}

size_t segment_header_offset(struct segment_shape shape, uint32_t slot)
{
    (void)shape;
    return FILE_HEADER_BYTES + (size_t)slot * SIZE_CLASS_HEADER_BYTES;
}

size_t segment_slot_offset(struct segment_shape shape, uint32_t slot)
{
    return segment_header_offset(shape, shape.nslots) + (size_t)slot * shape.slot_bytes;
}

static size_t bytes_of(struct segment_shape shape)
{
    return segment_slot_offset(shape, shape.nslots);
}

uint32_t segment_slots_in(uint32_t slot_bytes, uint64_t file_bytes)
{
    struct segment_shape shape = {slot_bytes, 0};
    uint64_t nslots = file_bytes / ((uint64_t)slot_bytes + SIZE_CLASS_HEADER_BYTES);

    if (nslots > SEGMENT_MAX_SLOTS + SEGMENT_GROUP_SLOTS)
        return 0;
    shape.nslots = (uint32_t)(nslots - nslots % SEGMENT_GROUP_SLOTS);
    /* The file's header may be as much as a slot, or more. */
    while (shape.nslots > 0 && bytes_of(shape) > file_bytes)
        shape.nslots -= SEGMENT_GROUP_SLOTS;
    return segment_shape_is_valid(shape) && bytes_of(shape) == file_bytes ? shape.nslots : 0;
}

int segment_file_reserve(struct segment_file *file, size_t offset, size_t len)
{
    return disk_allocate(file->disk, file->fd, (off_t)offset, (off_t)len);
}

int segment_file_punch(struct segment_file *file, size_t offset, size_t len)
{
    return disk_punch(file->disk, file->fd, (off_t)offset, (off_t)len);
}

int segment_file_write(struct segment_file *file, const struct iovec *iov, int n, size_t len,
                       size_t offset)
{
    off_t there;
    int err = disk_size(file->disk, file->fd, &there);

    if (err != 0)
        return err;
    file->cut = file->cut || (file->map != NULL && (size_t)there < file->file_bytes);
    if (file->cut && (size_t)there < offset + len)
        return -EIO;
    ssize_t wrote = disk_write(file->disk, file->fd, iov, n, (off_t)offset);
    if (wrote < 0)
        return (int)wrote;
    return (size_t)wrote == len ? 0 : -ENOSPC;
}

bool segment_file_is_lost(const struct segment_file *file)
{
    return file->cut || mapped_fault_count(file->fault) > 0;
}

uint64_t segment_file_disk_bytes(const struct segment_file *file)
{
    struct stat st;

    return fstat(file->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static int map(struct segment_file *file)
{
    size_t len = bytes_of(file->shape);
    void *map;
    int err = disk_map(file->disk, file->fd, len, &map);

    if (err != 0)
        return err;
    err = mapped_fault_watch(&file->fault, map, len);
    if (err != 0) {
        disk_unmap(file->disk, map, len);
        return err;
    }
    file->map = map;
    file->map_bytes = file->file_bytes = len;
    return 0;
}

static int write_groups(struct segment_file *file)
{
    struct group_map map;
    struct iovec iov = {&map, sizeof(map)};

    memcpy(map.groups, file->groups, sizeof(map.groups));
    map.checksum = XXH3_64bits(&map, offsetof(struct group_map, checksum));
    return segment_file_write(file, &iov, 1, sizeof(map), sizeof(struct file_header));
}

static int write_header(struct segment_file *file)
{
    struct file_header header = {
        .format = SEGMENT_FORMAT,
        .slot_bytes = file->shape.slot_bytes,
        .nslots = file->shape.nslots,
    };
    struct iovec iov = {&header, sizeof(header)};

    memcpy(header.magic, MAGIC, sizeof(MAGIC));
    header.checksum = XXH3_64bits(&header, offsetof(struct file_header, checksum));
    int err = write_groups(file);
    return err != 0 ? err : segment_file_write(file, &iov, 1, sizeof(header), 0);
}

bool segment_file_has_headers(const struct segment_file *file, uint32_t group)
{
    return ((file->groups[group / 64] >> (group % 64)) & 1) != 0;
}

static void set_group(struct segment_file *file, uint32_t group, bool has_headers)
{
    uint64_t bit = (uint64_t)1 << (group % 64);

    file->groups[group / 64] &= ~bit;
    file->groups[group / 64] |= has_headers ? bit : 0;
}

int segment_file_say_headers(struct segment_file *file, uint32_t group, bool has_headers)
{
    bool had_headers = segment_file_has_headers(file, group);

    if (has_headers == had_headers)
        return 0;
    set_group(file, group, has_headers);
    int err = write_groups(file);
    if (err == 0)
        return 0;
    /* Half of it may be there. */
    set_group(file, group, had_headers);
    int left = write_groups(file);
    (void)left; /* opening the file finds it damaged */
    return err;
}

int segment_file_create(struct segment_file *file, const struct disk *disk, const char *path,
                        struct segment_shape shape)
{
    *file = (struct segment_file){.disk = disk, .shape = shape};
    file->fd = disk_open(disk, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file->fd < 0)
        return file->fd;
    int err = disk_truncate(disk, file->fd, (off_t)bytes_of(shape));
    if (err == 0)
        err = segment_file_reserve(file, 0, FILE_HEADER_BYTES);
    if (err == 0)
        err = write_header(file);
    if (err == 0)
        err = map(file);
    if (err == 0)
        return 0;
    disk_close(disk, file->fd);
    int left = disk_unlink(disk, path);
    (void)left; /* opening the pool removes it */
    return err;
}

/* Returns 0 or -errno. If it is damaged, which is a fault, no group has headers. */
static int read_groups(struct segment_file *file, unsigned *faults)
{
    struct group_map map;
    ssize_t got = disk_read(file->disk, file->fd, &map, sizeof(map), sizeof(struct file_header));

    if (got < 0)
        return (int)got;
    if (got == sizeof(map) &&
        map.checksum == XXH3_64bits(&map, offsetof(struct group_map, checksum)))
        memcpy(file->groups, map.groups, sizeof(file->groups));
    else
        *faults |= SEGMENT_BAD_HEADER;
    return 0;
}

/* Reads the file's header. Returns 0, the shape being what it says, or -errno. A damaged one is a
 * fault, and leaves the shape as it was. */
static int read_header(struct segment_file *file, unsigned *faults)
{
    struct file_header header = {.format = 0};
    ssize_t got = disk_read(file->disk, file->fd, &header, sizeof(header), 0);
    struct segment_shape shape = {header.slot_bytes, header.nslots};

    *faults = SEGMENT_BAD_HEADER;
    if (got < 0)
        return (int)got;
    if (got == sizeof(header) && memcmp(header.magic, MAGIC_CUT, sizeof(MAGIC)) == 0)
        *faults = SEGMENT_BAD_HEADER | SEGMENT_BAD_LENGTH;
    if (got == sizeof(header) && memcmp(header.magic, MAGIC_CUT_HEADERS, sizeof(MAGIC)) == 0)
        *faults = SEGMENT_BAD_HEADER | SEGMENT_BAD_LENGTH | SEGMENT_BAD_HEADERS;
    if (got != sizeof(header) || memcmp(header.magic, MAGIC, sizeof(MAGIC)) != 0 ||
        header.checksum != XXH3_64bits(&header, offsetof(struct file_header, checksum)))
        return 0;
    if (header.format != SEGMENT_FORMAT)
        return -EPROTONOSUPPORT;
    if (!segment_shape_is_valid(shape))
        return 0;
    *faults = 0;
    file->shape = shape;
    return 0;
}

/* Makes the file as long as it must be. Its header goes first: that something is wrong with it must
 * be seen until segment_file_mend(), whatever happens in between. */
static int mend_length(struct segment_file *file, unsigned faults)
{
    const char *magic = (faults & SEGMENT_BAD_HEADERS) != 0 ? MAGIC_CUT_HEADERS : MAGIC_CUT;
    int err = disk_write_all(file->disk, file->fd, magic, sizeof(MAGIC), 0);

    return err != 0 ? err : disk_truncate(file->disk, file->fd, (off_t)bytes_of(file->shape));
}

/* Finds out the file's shape, and makes it as long as that says. */
static int look_at(struct segment_file *file, unsigned *faults)
{
    struct stat st;
    int err = read_header(file, faults);

    if (err == 0)
        err = read_groups(file, faults);
    if (err != 0)
        return err;
    if (fstat(file->fd, &st) != 0)
        return -errno;
    uint64_t len = (uint64_t)st.st_size;
    uint32_t nslots = segment_slots_in(file->shape.slot_bytes, len);
    if ((*faults & SEGMENT_BAD_HEADER) != 0 && nslots > 0)
        file->shape.nslots = nslots;
    if (len == bytes_of(file->shape))
        return 0;
    *faults |= SEGMENT_BAD_LENGTH;
    if (len < segment_slot_offset(file->shape, 0))
        *faults |= SEGMENT_BAD_HEADERS;
    return mend_length(file, *faults);
}

int segment_file_open(struct segment_file *file, const struct disk *disk, const char *path,
                      struct segment_shape shape, unsigned *faults)
{
    *file = (struct segment_file){.disk = disk, .shape = shape};
    file->fd = disk_open(disk, path, O_RDWR, 0);
    if (file->fd < 0)
        return file->fd;
    int err = look_at(file, faults);
    if (err == 0)
        err = map(file);
    if (err != 0)
        disk_close(disk, file->fd);
    file->unmended = *faults != 0;
    return err;
}

int segment_file_mend(struct segment_file *file)
{
    if (!file->unmended)
        return 0;
    int err = segment_file_reserve(file, 0, FILE_HEADER_BYTES);
    if (err == 0)
        err = write_header(file);
    file->unmended = err != 0;
    return err;
}

void segment_file_close(struct segment_file *file)
{
    mapped_fault_forget(&file->fault);
    disk_unmap(file->disk, (void *)(uintptr_t)file->map, file->map_bytes);
    disk_close(file->disk, file->fd);
}

bool segment_file_shrink(struct segment_file *file)
{
    size_t step = file->file_bytes < SHRINK_BYTES ? file->file_bytes : SHRINK_BYTES;

    if (disk_truncate(file->disk, file->fd, (off_t)(file->file_bytes - step)) != 0)
        return true;
    file->file_bytes -= step;
    return file->file_bytes == 0;
}
