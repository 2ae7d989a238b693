#include "segment.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    FILE_HEADER_BYTES = 4096,
    WORD_BITS = 64,
    /* Writing a page through the mapping costs a fault when it was never touched; a system call
     * costs about as much as a page. Measured: from some pages on, the call is far cheaper. */
    LEAST_RUN = 4,
    SHRINK_BYTES = 4 << 20, /* some 500 us */
};

static const char MAGIC[8] = "EDMSEGM";

struct file_header {
    char magic[8];
    uint32_t format;
    uint32_t slot_bytes;
    uint32_t nslots;
    uint32_t reserved;
    uint64_t checksum; /* of everything before it */
};

struct segment {
    int fd;
    uint32_t nslots;
    uint32_t nfree;
    uint32_t hint; /* word of the free map to look at first */
    size_t map_bytes;
    size_t file_bytes; /* less than is mapped once it is shrunk */
    size_t data_offset;
    char *map;
    struct slot_header *headers;
    uint32_t *refs;
    uint64_t free_map[SEGMENT_MAX_SLOTS / WORD_BITS];
};

static size_t data_offset_of(uint32_t nslots)
{
    size_t end = FILE_HEADER_BYTES + (size_t)nslots * sizeof(struct slot_header);

    return (end + SEGMENT_SLOT_BYTES - 1) & ~(size_t)(SEGMENT_SLOT_BYTES - 1);
}

static size_t file_bytes(uint32_t nslots)
{
    return data_offset_of(nslots) + (size_t)nslots * SEGMENT_SLOT_BYTES;
}

/* Reserves the file's blocks. Returns 0 or -errno. */
static int reserve(int fd, size_t bytes)
{
    int err;

    do
        err = fallocate(fd, 0, 0, (off_t)bytes) == 0 ? 0 : errno;
    while (err == EINTR);
    if (err == EOPNOTSUPP)
        err = posix_fallocate(fd, 0, (off_t)bytes);
    return -err;
}

static void fill_file_header(struct segment *segment)
{
    struct file_header header = {
        .format = SEGMENT_FORMAT,
        .slot_bytes = SEGMENT_SLOT_BYTES,
        .nslots = segment->nslots,
    };

    memcpy(header.magic, MAGIC, sizeof(MAGIC));
    header.checksum = XXH3_64bits(&header, offsetof(struct file_header, checksum));
    memcpy(segment->map, &header, sizeof(header));
}

/* Maps FD, whose size is right. On failure FD stays the caller's. */
static int map_segment(struct segment **out, int fd, uint32_t nslots)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    uint32_t *refs = calloc(nslots, sizeof(*refs));
    int err = -ENOMEM;

    if (segment == NULL || refs == NULL)
        goto out;
    segment->map_bytes = file_bytes(nslots);
    segment->map = mmap(NULL, segment->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (segment->map == MAP_FAILED) {
        err = -errno;
        goto out;
    }
    segment->file_bytes = segment->map_bytes;
    segment->fd = fd;
    segment->nslots = nslots;
    segment->refs = refs;
    segment->data_offset = data_offset_of(nslots);
    segment->headers = (struct slot_header *)(void *)(segment->map + FILE_HEADER_BYTES);
    *out = segment;
    return 0;
out:
    free(refs);
    free(segment);
    return err;
}

int segment_create(struct segment **out, const char *path, uint32_t nslots)
{
    assert(nslots >= SEGMENT_MIN_SLOTS && nslots <= SEGMENT_MAX_SLOTS && nslots % WORD_BITS == 0);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    struct segment *segment = NULL;
    int err = reserve(fd, file_bytes(nslots));
    if (err == 0)
        err = map_segment(&segment, fd, nslots);
    if (segment == NULL) {
        close(fd);
        unlink(path);
        return err;
    }
    fill_file_header(segment);
    memset(segment->free_map, 0xff, nslots / 8);
    segment->nfree = nslots;
    *out = segment;
    return 0;
}

/* Checks the file's header. Returns 1 when it is damaged, 0, or -errno. */
static int check_file_header(int fd, uint32_t nslots)
{
    struct file_header header;
    ssize_t got = pread(fd, &header, sizeof(header), 0);

    if (got < 0)
        return -errno;
    if (got != sizeof(header) || memcmp(header.magic, MAGIC, sizeof(MAGIC)) != 0 ||
        header.checksum != XXH3_64bits(&header, offsetof(struct file_header, checksum)))
        return 1;
    if (header.format != SEGMENT_FORMAT)
        return -EPROTONOSUPPORT;
    return header.slot_bytes == SEGMENT_SLOT_BYTES && header.nslots == nslots ? 0 : 1;
}

int segment_open(struct segment **out, const char *path, uint32_t nslots, bool *repaired)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int err = check_file_header(fd, nslots);
    *repaired = err > 0;
    if (err >= 0)
        err = fstat(fd, &st) == 0 ? 0 : -errno;
    if (err == 0 && (size_t)st.st_size != file_bytes(nslots)) {
        *repaired = true;
        err = ftruncate(fd, (off_t)file_bytes(nslots)) == 0 ? 0 : -errno;
    }
    /* A hole, left by a file cut short or a copy made sparse, would be a SIGBUS on a full disk. */
    if (err == 0 && (*repaired || (size_t)st.st_blocks * 512 < file_bytes(nslots)))
        err = reserve(fd, file_bytes(nslots));
    if (err == 0)
        err = map_segment(out, fd, nslots);
    if (err != 0) {
        close(fd);
        return err;
    }
    if (*repaired)
        fill_file_header(*out);
    return 0;
}

void segment_close(struct segment **segment)
{
    if (*segment == NULL)
        return;
    munmap((*segment)->map, (*segment)->map_bytes);
    close((*segment)->fd);
    free((*segment)->refs);
    free(*segment);
    *segment = NULL;
}

bool segment_shrink(struct segment *segment)
{
    size_t step = segment->file_bytes < SHRINK_BYTES ? segment->file_bytes : SHRINK_BYTES;

    if (ftruncate(segment->fd, (off_t)(segment->file_bytes - step)) != 0)
        return true;
    segment->file_bytes -= step;
    return segment->file_bytes == 0;
}

static char *bytes_of(const struct segment *segment, uint32_t slot)
{
    return segment->map + segment->data_offset + (size_t)slot * SEGMENT_SLOT_BYTES;
}

static uint64_t header_checksum(const struct slot_header *header, uint32_t slot)
{
    size_t from = offsetof(struct slot_header, length_bytes);
    size_t to = offsetof(struct slot_header, header_checksum);

    return XXH3_64bits_withSeed((const char *)header + from, to - from, slot);
}

/* What was never stored cannot be there, whatever its checksum: no reply could carry it. */
static bool is_page(const struct slot_header *header)
{
    struct wire_page page = {
        .page = header->page,
        .sequence = header->sequence,
        .length_bytes = header->length_bytes,
        .encoding = header->encoding,
    };

    return header->region != 0 && wire_page_is_valid(&page);
}

enum slot_check segment_check(const struct segment *segment, uint32_t slot, bool read_page)
{
    struct slot_header *header = &segment->headers[slot];
    uint32_t state = atomic_load_explicit(&header->state, memory_order_acquire);

    if (state == SLOT_UNUSED || state == SLOT_FREE)
        return SLOT_CHECK_EMPTY;
    if (state != SLOT_USED || header->header_checksum != header_checksum(header, slot) ||
        !is_page(header))
        return SLOT_CHECK_BAD_HEADER;
    if (read_page && header->checksum !=
                         wire_checksum(header->page, bytes_of(segment, slot), header->length_bytes))
        return SLOT_CHECK_BAD_PAGE;
    return SLOT_CHECK_GOOD;
}

static void mark_free(struct segment *segment, uint32_t slot)
{
    segment->free_map[slot / WORD_BITS] |= (uint64_t)1 << (slot % WORD_BITS);
    segment->nfree++;
}

void segment_adopt(struct segment *segment, uint32_t slot, uint32_t refs)
{
    segment->refs[slot] = refs;
    if (refs == 0)
        mark_free(segment, slot);
}

static bool is_free(const struct segment *segment, uint32_t slot)
{
    return (segment->free_map[slot / WORD_BITS] >> (slot % WORD_BITS)) & 1;
}

uint32_t segment_take(struct segment *segment, uint32_t max, uint32_t *first)
{
    if (segment->nfree == 0 || max == 0)
        return 0;
    while (segment->free_map[segment->hint] == 0)
        segment->hint = (segment->hint + 1) % (segment->nslots / WORD_BITS);
    uint64_t word = segment->free_map[segment->hint];
    uint32_t slot = segment->hint * WORD_BITS + (uint32_t)__builtin_ctzll(word);
    uint32_t count = 0;
    *first = slot;
    for (; count < max && slot < segment->nslots && is_free(segment, slot); slot++, count++) {
        segment->free_map[slot / WORD_BITS] &= ~((uint64_t)1 << (slot % WORD_BITS));
        segment->refs[slot] = 1;
    }
    segment->nfree -= count;
    return count;
}

void segment_untake(struct segment *segment, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        segment->refs[slot] = 0;
        mark_free(segment, slot);
    }
}

/* Writes the bytes of COUNT slots with one system call, each filled up to the slot's end. */
static int write_run(struct segment *segment, uint32_t first, uint32_t count,
                     const struct slot_source *sources)
{
    static const char zeros[SEGMENT_SLOT_BYTES];
    struct iovec iov[2 * WIRE_MAX_PAGES];
    int n = 0;

    for (uint32_t i = 0; i < count; i++) {
        size_t len = sources[i].page->length_bytes;
        char *last_end = n == 0 ? NULL : (char *)iov[n - 1].iov_base + iov[n - 1].iov_len;
        if (last_end != NULL && last_end == sources[i].bytes)
            iov[n - 1].iov_len += len;
        else
            iov[n++] = (struct iovec){(void *)(uintptr_t)sources[i].bytes, len};
        if (len < SEGMENT_SLOT_BYTES)
            iov[n++] = (struct iovec){(void *)(uintptr_t)zeros, SEGMENT_SLOT_BYTES - len};
    }
    off_t offset = (off_t)(segment->data_offset + (size_t)first * SEGMENT_SLOT_BYTES);
    ssize_t total = (ssize_t)count * SEGMENT_SLOT_BYTES;
    ssize_t wrote;
    do
        wrote = pwritev(segment->fd, iov, n, offset);
    while (wrote < 0 && errno == EINTR);
    if (wrote < 0)
        return -errno;
    return wrote == total ? 0 : -ENOSPC;
}

static void fill_header(struct segment *segment, uint32_t slot, const struct slot_source *source)
{
    struct slot_header *header = &segment->headers[slot];

    header->length_bytes = source->page->length_bytes;
    header->region = source->region;
    header->page = source->page->page;
    header->sequence = source->page->sequence;
    header->stamp = source->stamp;
    header->checksum = source->page->checksum;
    header->encoding = source->page->encoding;
    memset(header->reserved, 0, sizeof(header->reserved));
    header->header_checksum = header_checksum(header, slot);
    atomic_store_explicit(&header->state, SLOT_USED, memory_order_release);
}

int segment_fill(struct segment *segment, uint32_t first, uint32_t count,
                 const struct slot_source *sources)
{
    assert(count <= WIRE_MAX_PAGES);
    if (count >= LEAST_RUN) {
        int err = write_run(segment, first, count, sources);
        if (err != 0)
            return err;
    } else {
        for (uint32_t i = 0; i < count; i++)
            memcpy(bytes_of(segment, first + i), sources[i].bytes, sources[i].page->length_bytes);
    }
    for (uint32_t i = 0; i < count; i++)
        fill_header(segment, first + i, &sources[i]);
    return 0;
}

void segment_retain(struct segment *segment, uint32_t slot)
{
    segment->refs[slot]++;
}

bool segment_release(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] > 0);
    if (--segment->refs[slot] > 0)
        return false;
    atomic_store_explicit(&segment->headers[slot].state, SLOT_FREE, memory_order_release);
    mark_free(segment, slot);
    return true;
}

uint32_t segment_refs(const struct segment *segment, uint32_t slot)
{
    return segment->refs[slot];
}

const struct slot_header *segment_header(const struct segment *segment, uint32_t slot)
{
    return &segment->headers[slot];
}

const void *segment_bytes(const struct segment *segment, uint32_t slot)
{
    return bytes_of(segment, slot);
}

uint32_t segment_free_slots(const struct segment *segment)
{
    return segment->nfree;
}

uint32_t segment_slots(const struct segment *segment)
{
    return segment->nslots;
}

int segment_sync(struct segment *segment)
{
    return fdatasync(segment->fd) == 0 ? 0 : -errno;
}
