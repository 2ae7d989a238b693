#include "segment.h"

#include "mapped_fault.h"
#include "slot_identify.h"
#include "stamp.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/* What a slot's damaged header was. */
struct stand_in {
    uint32_t slot;
    struct slot_header header;
};

struct segment {
    const struct disk *disk;
    int fd;
    uint32_t nslots;
    uint32_t nfree;
    uint32_t hint;      /* word of the free map to look at first */
    bool filled, freed; /* since the last sync */
    size_t map_bytes;
    size_t file_bytes; /* less than is mapped once it is shrunk */
    size_t data_offset;
    char *map;
    struct mapped_fault *fault;
    struct slot_header *headers;
    uint32_t *refs;
    uint64_t free_map[SEGMENT_MAX_SLOTS / WORD_BITS];
    uint64_t reported[SEGMENT_MAX_SLOTS / WORD_BITS];
    struct stand_in *stand_ins; /* in the order of the slots */
    uint32_t nstand_ins;
    bool unmended;
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

uint32_t segment_slots_in(uint64_t bytes)
{
    uint64_t nslots = bytes / (SEGMENT_SLOT_BYTES + sizeof(struct slot_header));

    nslots -= nslots % WORD_BITS;
    bool fits = nslots >= SEGMENT_MIN_SLOTS && nslots <= SEGMENT_MAX_SLOTS;
    return fits && file_bytes((uint32_t)nslots) == bytes ? (uint32_t)nslots : 0;
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
static int map_segment(struct segment **out, const struct disk *disk, int fd, uint32_t nslots)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    uint32_t *refs = calloc(nslots, sizeof(*refs));
    void *map;
    int err = -ENOMEM;

    if (segment == NULL || refs == NULL)
        goto out;
    segment->map_bytes = file_bytes(nslots);
    err = disk_map(disk, fd, segment->map_bytes, &map);
    if (err != 0)
        goto out;
    err = mapped_fault_watch(&segment->fault, map, segment->map_bytes);
    if (err != 0) {
        disk_unmap(disk, map, segment->map_bytes);
        goto out;
    }
    segment->map = map;
    segment->disk = disk;
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

int segment_create(struct segment **out, const struct disk *disk, const char *path, uint32_t nslots)
{
    assert(nslots >= SEGMENT_MIN_SLOTS && nslots <= SEGMENT_MAX_SLOTS && nslots % WORD_BITS == 0);
    int fd = disk_open(disk, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return fd;
    struct segment *segment = NULL;
    int err = disk_allocate(disk, fd, 0, (off_t)file_bytes(nslots));
    if (err == 0)
        err = map_segment(&segment, disk, fd, nslots);
    if (segment == NULL) {
        disk_close(disk, fd);
        int left = disk_unlink(disk, path);
        (void)left; /* opening the pool removes it */
        return err;
    }
    fill_file_header(segment);
    segment->filled = true;
    memset(segment->free_map, 0xff, nslots / 8);
    segment->nfree = nslots;
    *out = segment;
    return 0;
}

/* Checks the file's header. Returns 1 when it is damaged, 0, or -errno. */
static int check_file_header(const struct disk *disk, int fd, uint32_t nslots)
{
    struct file_header header;
    ssize_t got = disk_read(disk, fd, &header, sizeof(header), 0);

    if (got < 0)
        return (int)got;
    if (got != sizeof(header) || memcmp(header.magic, MAGIC, sizeof(MAGIC)) != 0 ||
        header.checksum != XXH3_64bits(&header, offsetof(struct file_header, checksum)))
        return 1;
    if (header.format != SEGMENT_FORMAT)
        return -EPROTONOSUPPORT;
    return header.slot_bytes == SEGMENT_SLOT_BYTES && header.nslots == nslots ? 0 : 1;
}

/* Makes the file as long as it must be. Its header goes first: that something is wrong with it must
 * be seen until segment_mend(), whatever happens in between. */
static int mend_length(const struct disk *disk, int fd, uint32_t nslots)
{
    static const char no_magic[sizeof(MAGIC)] = "";
    int err = disk_write_all(disk, fd, no_magic, sizeof(no_magic), 0);

    return err != 0 ? err : disk_truncate(disk, fd, (off_t)file_bytes(nslots));
}

int segment_open(struct segment **out, const struct disk *disk, const char *path, uint32_t nslots,
                 unsigned *faults)
{
    struct stat st;
    int fd = disk_open(disk, path, O_RDWR, 0);

    if (fd < 0)
        return fd;
    int err = check_file_header(disk, fd, nslots);
    *faults = err > 0 ? SEGMENT_BAD_HEADER : 0;
    if (err >= 0)
        err = fstat(fd, &st) == 0 ? 0 : -errno;
    if (err == 0 && (size_t)st.st_size != file_bytes(nslots)) {
        *faults |= SEGMENT_BAD_LENGTH;
        if ((size_t)st.st_size < data_offset_of(nslots))
            *faults |= SEGMENT_BAD_HEADERS;
        err = mend_length(disk, fd, nslots);
    }
    /* A hole, left by a file cut short or a copy made sparse, would be a SIGBUS on a full disk. */
    if (err == 0 && (*faults != 0 || (size_t)st.st_blocks * 512 < file_bytes(nslots)))
        err = disk_allocate(disk, fd, 0, (off_t)file_bytes(nslots));
    if (err == 0)
        err = map_segment(out, disk, fd, nslots);
    if (err != 0) {
        disk_close(disk, fd);
        return err;
    }
    (*out)->unmended = *faults != 0;
    /* Who wrote it last may have been killed before it synced. */
    (*out)->filled = true;
    return 0;
}

void segment_close(struct segment **segment)
{
    if (*segment == NULL)
        return;
    mapped_fault_forget(&(*segment)->fault);
    disk_unmap((*segment)->disk, (*segment)->map, (*segment)->map_bytes);
    disk_close((*segment)->disk, (*segment)->fd);
    free((*segment)->refs);
    free((*segment)->stand_ins);
    free(*segment);
    *segment = NULL;
}

bool segment_shrink(struct segment *segment)
{
    size_t step = segment->file_bytes < SHRINK_BYTES ? segment->file_bytes : SHRINK_BYTES;

    if (disk_truncate(segment->disk, segment->fd, (off_t)(segment->file_bytes - step)) != 0)
        return true;
    segment->file_bytes -= step;
    return segment->file_bytes == 0;
}

static char *bytes_of(const struct segment *segment, uint32_t slot)
{
    return segment->map + segment->data_offset + (size_t)slot * SEGMENT_SLOT_BYTES;
}

uint64_t segment_header_checksum(const struct slot_header *header, uint32_t slot)
{
    size_t from = offsetof(struct slot_header, length_bytes);
    size_t to = offsetof(struct slot_header, header_checksum);

    return XXH3_64bits_withSeed((const char *)header + from, to - from, slot);
}

bool segment_header_is_page(const struct slot_header *header)
{
    struct wire_page page = {
        .page = header->page,
        .sequence = header->sequence,
        .length_bytes = header->length_bytes,
        .encoding = header->encoding,
    };

    if (header->region == 0 || header->stamp > STAMP_MAX)
        return false;
    if (header->encoding == SLOT_LOST)
        return page.page < WIRE_MAX_PAGE && page.sequence != 0 && page.length_bytes == 0;
    return wire_page_is_valid(&page);
}

enum slot_check segment_check(const struct segment *segment, uint32_t slot, bool read_page)
{
    struct slot_header *header = &segment->headers[slot];
    uint32_t state = atomic_load_explicit(&header->state, memory_order_acquire);

    if (state == SLOT_UNUSED || state == SLOT_FREE)
        return SLOT_CHECK_EMPTY;
    if ((state != SLOT_USED && state != SLOT_DROPPED && state != SLOT_SUPERSEDED) ||
        header->header_checksum != segment_header_checksum(header, slot) ||
        !segment_header_is_page(header))
        return SLOT_CHECK_BAD_HEADER;
    if (state == SLOT_DROPPED)
        return SLOT_CHECK_DROPPED;
    if (read_page && header->checksum !=
                         wire_checksum(header->page, bytes_of(segment, slot), header->length_bytes))
        return SLOT_CHECK_BAD_PAGE;
    return state == SLOT_USED ? SLOT_CHECK_GOOD : SLOT_CHECK_SUPERSEDED;
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
        segment->reported[slot / WORD_BITS] &= ~((uint64_t)1 << (slot % WORD_BITS));
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
    ssize_t wrote = disk_write(segment->disk, segment->fd, iov, n, offset);
    if (wrote < 0)
        return (int)wrote;
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
    header->header_checksum = segment_header_checksum(header, slot);
    atomic_store_explicit(&header->state, SLOT_USED, memory_order_release);
}

int segment_fill(struct segment *segment, uint32_t first, uint32_t count,
                 const struct slot_source *sources)
{
    assert(count <= WIRE_MAX_PAGES);
    segment->filled = true;
    if (count >= LEAST_RUN) {
        int err = write_run(segment, first, count, sources);
        if (err != 0)
            return err;
    } else {
        for (uint32_t i = 0; i < count; i++)
            memcpy(bytes_of(segment, first + i), sources[i].bytes, sources[i].page->length_bytes);
    }
    /* What was written to a page that is not the file's is nowhere. */
    if (segment_is_lost(segment))
        return -EIO;
    for (uint32_t i = 0; i < count; i++)
        fill_header(segment, first + i, &sources[i]);
    if (!segment_is_lost(segment))
        return 0;
    for (uint32_t i = 0; i < count; i++)
        atomic_store_explicit(&segment->headers[first + i].state, SLOT_FREE, memory_order_release);
    return -EIO;
}

void segment_retain(struct segment *segment, uint32_t slot)
{
    segment->refs[slot]++;
}

bool segment_release(struct segment *segment, uint32_t slot)
{
    if (!segment_unhold(segment, slot))
        return false;
    segment_free(segment, slot);
    return true;
}

bool segment_read_headers(const struct segment *segment)
{
    for (size_t at = 0; at < segment->data_offset; at += SEGMENT_SLOT_BYTES)
        (void)*(volatile const char *)(segment->map + at);
    return !segment_is_lost(segment);
}

bool segment_is_lost(const struct segment *segment)
{
    return mapped_fault_count(segment->fault) > 0;
}

bool segment_unhold(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] > 0);
    return --segment->refs[slot] == 0;
}

void segment_free(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] == 0);
    atomic_store_explicit(&segment->headers[slot].state, SLOT_FREE, memory_order_release);
    segment->freed = true;
    mark_free(segment, slot);
}

void segment_drop(struct segment *segment, uint32_t slot)
{
    atomic_store_explicit(&segment->headers[slot].state, SLOT_DROPPED, memory_order_release);
    segment->filled = true;
}

void segment_supersede(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] == 0);
    atomic_store_explicit(&segment->headers[slot].state, SLOT_SUPERSEDED, memory_order_release);
    segment->freed = true;
}

void segment_revive(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] > 0 && segment->headers[slot].state == SLOT_SUPERSEDED);
    atomic_store_explicit(&segment->headers[slot].state, SLOT_USED, memory_order_release);
    segment->filled = true;
}

uint32_t segment_refs(const struct segment *segment, uint32_t slot)
{
    return segment->refs[slot];
}

static struct stand_in *find_stand_in(const struct segment *segment, uint32_t slot)
{
    uint32_t from = 0, to = segment->nstand_ins;

    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (segment->stand_ins[middle].slot < slot)
            from = middle + 1;
        else
            to = middle;
    }
    bool found = from < segment->nstand_ins && segment->stand_ins[from].slot == slot;
    return found ? &segment->stand_ins[from] : NULL;
}

bool segment_identify(struct segment *segment, uint32_t slot)
{
    struct stand_in found = {.slot = slot};

    if (!slot_identify(&segment->headers[slot], slot, &found.header))
        return false;
    struct stand_in *there = find_stand_in(segment, slot);
    if (there != NULL) {
        *there = found;
        return true;
    }
    size_t size = (segment->nstand_ins + (size_t)1) * sizeof(found);
    struct stand_in *stand_ins = realloc(segment->stand_ins, size);
    if (stand_ins == NULL)
        return false;
    segment->stand_ins = stand_ins;
    uint32_t at = segment->nstand_ins++;
    for (; at > 0 && stand_ins[at - 1].slot > slot; at--)
        stand_ins[at] = stand_ins[at - 1];
    stand_ins[at] = found;
    return true;
}

int segment_lose(struct segment *segment, uint32_t slot, const struct slot_header *source)
{
    struct slot_header header = {
        .state = SLOT_USED,
        .encoding = SLOT_LOST,
        .region = source->region,
        .page = source->page,
        .sequence = source->sequence,
        .stamp = source->stamp,
        .checksum = wire_checksum(source->page, "", 0),
    };

    header.header_checksum = segment_header_checksum(&header, slot);
    segment->filled = true;
    return disk_write_all(segment->disk, segment->fd, &header, sizeof(header),
                          (off_t)(FILE_HEADER_BYTES + slot * sizeof(header)));
}

int segment_mend(struct segment *segment)
{
    if (segment->unmended)
        fill_file_header(segment);
    segment->unmended = false;
    return 0;
}

bool segment_is_reported(const struct segment *segment, uint32_t slot)
{
    return (segment->reported[slot / WORD_BITS] >> (slot % WORD_BITS)) & 1;
}

void segment_set_reported(struct segment *segment, uint32_t slot)
{
    segment->reported[slot / WORD_BITS] |= (uint64_t)1 << (slot % WORD_BITS);
}

bool segment_is_near(const struct segment *segment, uint32_t first, uint32_t count)
{
    unsigned char near[WORD_BITS];
    char *bytes = bytes_of(segment, first);
    size_t len = (size_t)count * SEGMENT_SLOT_BYTES;

    assert(count <= WORD_BITS);
    if (mincore(bytes, len, near) != 0)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        if ((near[i] & 1) == 0) {
            madvise(bytes, len, MADV_WILLNEED);
            return false;
        }
    }
    return true;
}

const struct slot_header *segment_header(const struct segment *segment, uint32_t slot)
{
    const struct stand_in *found = segment->nstand_ins == 0 ? NULL : find_stand_in(segment, slot);

    /* Once the slot was filled anew, it says itself what it is. */
    if (found != NULL && segment_check(segment, slot, false) == SLOT_CHECK_BAD_HEADER)
        return &found->header;
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

int segment_begin_sync(struct segment *segment, bool freed_too)
{
    if (!segment->filled && !(segment->freed && freed_too))
        return -1;
    segment->filled = segment->freed = false;
    return segment->fd;
}

/* What cannot be read is in no memory either. */
static int write_page_again(struct segment *segment, size_t offset)
{
    int err = disk_write_all(segment->disk, segment->fd, segment->map + offset, SEGMENT_SLOT_BYTES,
                             (off_t)offset);

    return err == -EFAULT ? 0 : err;
}

int segment_write_again(struct segment *segment, uint64_t stamp)
{
    int err = 0;

    for (size_t at = 0; err == 0 && at < segment->data_offset; at += SEGMENT_SLOT_BYTES)
        err = write_page_again(segment, at);
    for (uint32_t slot = 0; err == 0 && slot < segment->nslots; slot++) {
        const struct slot_header *header = &segment->headers[slot];
        uint32_t state = atomic_load(&header->state);
        if ((state == SLOT_USED || state == SLOT_SUPERSEDED) && header->stamp > stamp)
            err = write_page_again(segment, (size_t)(bytes_of(segment, slot) - segment->map));
    }
    segment->filled = true;
    return err;
}
