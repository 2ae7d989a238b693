#include "segment.h"

#include "segment_parts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum {
    GROUP_HEADER_BYTES = SEGMENT_GROUP_SLOTS * SIZE_CLASS_HEADER_BYTES,
    /* A file opened may have this much more on disk than its slots in use need: what the file
     * system needs itself, a group begun. */
    UNSURE_BYTES = SEGMENT_GROUP_BYTES + (64 << 10),
};

_Static_assert(SEGMENT_GROUP_SLOTS == 64, "a group is a word of the maps");
_Static_assert(GROUP_HEADER_BYTES % SEGMENT_BLOCK_BYTES == 0, "a group has header blocks alone");

static uint32_t shape_groups(struct segment_shape shape)
{
    return shape.nslots / SEGMENT_GROUP_SLOTS;
}

/* What is kept in memory of the open FILE. On failure FILE stays the caller's. */
static int make_segment(struct segment **out, const struct segment_file *file)
{
    struct segment *segment = calloc(1, sizeof(*segment));

    if (segment == NULL)
        return -ENOMEM;
    segment->file = *file;
    segment->shape = file->shape;
    segment->headers = (const struct slot_header *)(const void *)(file->map + segment_header_offset(
                                                                                  file->shape, 0));
    segment->refs = calloc(file->shape.nslots, sizeof(*segment->refs));
    segment->reported = calloc(shape_groups(file->shape), sizeof(*segment->reported));
    *out = segment;
    if (segment->refs != NULL && segment->reported != NULL &&
        slot_map_init(&segment->free, file->shape.nslots) == 0)
        return 0;
    free(segment->refs);
    free(segment->reported);
    free(segment);
    return -ENOMEM;
}

int segment_create(struct segment **out, const struct disk *disk, const char *path,
                   struct segment_shape shape)
{
    struct segment_file file;

    assert(segment_shape_is_valid(shape));
    int err = segment_file_create(&file, disk, path, shape);
    if (err != 0)
        return err;
    err = make_segment(out, &file);
    if (err != 0) {
        segment_file_close(&file);
        int left = disk_unlink(disk, path);
        (void)left; /* opening the pool removes it */
        return err;
    }
    for (uint32_t slot = 0; slot < shape.nslots; slot++)
        slot_map_add_hole(&(*out)->free, slot);
    (*out)->filled = true;
    return 0;
}

int segment_open(struct segment **out, const struct disk *disk, const char *path,
                 struct segment_shape shape, unsigned *faults)
{
    struct segment_file file;
    int err = segment_file_open(&file, disk, path, shape, faults);

    if (err != 0)
        return err;
    err = make_segment(out, &file);
    if (err != 0) {
        segment_file_close(&file);
        return err;
    }
    (*out)->blank = calloc(shape_groups((*out)->shape), sizeof(*(*out)->blank));
    if ((*out)->blank == NULL) {
        segment_close(out);
        return -ENOMEM;
    }
    (*out)->headers_missing = (*faults & SEGMENT_BAD_HEADERS) != 0;
    /* Who wrote it last may have been killed before it synced. */
    (*out)->filled = true;
    return 0;
}

void segment_set_in_doubt(struct segment *segment)
{
    segment->in_doubt = true;
}

void segment_close(struct segment **segment)
{
    if (*segment == NULL)
        return;
    segment_file_close(&(*segment)->file);
    free((*segment)->refs);
    free((*segment)->reported);
    free((*segment)->blank);
    free((*segment)->stand_ins);
    slot_map_destroy(&(*segment)->free);
    free(*segment);
    *segment = NULL;
}

int segment_mend(struct segment *segment)
{
    bool is_mended = segment->file.unmended;
    int err = segment_file_mend(&segment->file);

    segment->filled = segment->filled || is_mended;
    return err;
}

bool segment_shrink(struct segment *segment)
{
    return segment_file_shrink(&segment->file);
}

const void *segment_bytes(const struct segment *segment, uint32_t slot)
{
    if (segment->shape.slot_bytes == 0)
        return segment->headers[slot].bytes;
    return segment->file.map + segment_slot_offset(segment->shape, slot);
}

void segment_adopt(struct segment *segment, uint32_t slot, enum slot_check check)
{
    int err = 0;

    if (check == SLOT_CHECK_EMPTY) {
        slot_map_add_hole(&segment->free, slot);
        return;
    }
    uint32_t state = atomic_load(&segment->headers[slot].state);
    segment->refs[slot] = 1;
    slot_map_set_dropped(&segment->free, slot, state == SLOT_DROPPED);
    slot_map_set_superseded(&segment->free, slot, state == SLOT_SUPERSEDED);
    /* It may be a hole, left by a file cut short: it will be read once more when it is asked for.
     */
    if (check == SLOT_CHECK_BAD_PAGE && segment->shape.slot_bytes > 0)
        err = segment_file_reserve(&segment->file, segment_slot_offset(segment->shape, slot),
                                   segment->shape.slot_bytes);
    (void)err; /* then reading it may fail, which is seen to */
}

/* Zeros beside headers that are none become headers; and the file says which groups have any. */
static int fill_blanks(struct segment *segment)
{
    int err = 0;

    for (uint32_t group = 0; err == 0 && group < shape_groups(segment->shape); group++) {
        uint64_t blank = segment->blank[group];
        bool has_headers = blank != ~(uint64_t)0;
        if (has_headers && blank != 0)
            err = segment_write_free(segment, group, blank);
        if (err == 0)
            err = segment_file_say_headers(&segment->file, group, has_headers);
    }
    return err;
}

int segment_end_adoption(struct segment *segment)
{
    uint64_t used = segment->shape.nslots - segment->free.nholes;
    uint64_t need = used * (segment->shape.slot_bytes + SIZE_CLASS_HEADER_BYTES);
    int err = segment_is_lost(segment) ? 0 : fill_blanks(segment);

    free(segment->blank);
    segment->blank = NULL;
    segment->unsure = segment_file_disk_bytes(&segment->file) > need + need / 8 + UNSURE_BYTES;
    return err;
}

bool segment_is_unsure(const struct segment *segment)
{
    return segment->unsure;
}

void segment_be_sure(struct segment *segment)
{
    segment->unsure = false;
}

static size_t group_bytes(const struct segment *segment)
{
    return (size_t)segment->shape.slot_bytes * SEGMENT_GROUP_SLOTS;
}

/* The group, which has none, gets headers. */
static int make_headers(struct segment *segment, uint32_t group)
{
    int err = segment_write_free(segment, group, ~(uint64_t)0);

    if (err == 0)
        err = segment_file_say_headers(&segment->file, group, true);
    if (err == 0)
        return 0;
    /* Half of them may be there. */
    int left = segment_file_punch(
        &segment->file, segment_header_offset(segment->shape, group * SEGMENT_GROUP_SLOTS),
        GROUP_HEADER_BYTES);
    (void)left; /* as long as the file says that there are none, it does not matter */
    return err;
}

int segment_reserve_in(struct segment *segment, uint32_t group)
{
    uint32_t first = group * SEGMENT_GROUP_SLOTS;
    size_t headers = segment_header_offset(segment->shape, first);
    size_t slots = segment_slot_offset(segment->shape, first);
    int err = segment_file_reserve(&segment->file, headers, GROUP_HEADER_BYTES);

    if (err == 0 && group_bytes(segment) > 0)
        err = segment_file_reserve(&segment->file, slots, group_bytes(segment));
    if (err == 0 && !segment_file_has_headers(&segment->file, group))
        err = make_headers(segment, group);
    return err != 0 ? err : (int)slot_map_fill_holes(&segment->free, group);
}

int segment_reserve(struct segment *segment)
{
    return segment_reserve_in(segment, slot_map_find_holes(&segment->free));
}

/* All of a group in which no slot is in use. */
static int punch_group(struct segment *segment, uint32_t group, unsigned *calls)
{
    uint32_t first = group * SEGMENT_GROUP_SLOTS;
    size_t headers = segment_header_offset(segment->shape, first);
    size_t slots = segment_slot_offset(segment->shape, first);
    int err = segment_file_say_headers(&segment->file, group, false);

    if (err == 0)
        err = segment_file_punch(&segment->file, headers, GROUP_HEADER_BYTES);
    slot_map_make_holes(&segment->free, group, ~(uint64_t)0);
    *calls -= *calls < 2 ? *calls : 2;
    if (err == 0 && group_bytes(segment) > 0)
        err = segment_file_punch(&segment->file, slots, group_bytes(segment));
    return err;
}

/* The whole blocks of the free slots FROM to TO of a group, others being in use. */
static int punch_run(struct segment *segment, uint32_t group, uint32_t from, uint32_t to,
                     unsigned *calls)
{
    size_t slot_bytes = segment->shape.slot_bytes, block = SEGMENT_BLOCK_BYTES;
    size_t base = segment_slot_offset(segment->shape, group * SEGMENT_GROUP_SLOTS);
    size_t begin = (from * slot_bytes + block - 1) / block * block;
    size_t end = to * slot_bytes / block * block;
    uint64_t touched = 0;

    if (begin >= end)
        return 0;
    for (size_t slot = begin / slot_bytes; slot * slot_bytes < end; slot++)
        touched |= (uint64_t)1 << slot;
    if ((segment->free.ready[group] & touched) == 0 && !segment->unsure)
        return 0;
    slot_map_make_holes(&segment->free, group, touched);
    --*calls;
    return segment_file_punch(&segment->file, base + begin, end - begin);
}

int segment_punch(struct segment *segment, uint32_t *slot, unsigned *calls)
{
    uint32_t group = *slot / SEGMENT_GROUP_SLOTS, from = *slot % SEGMENT_GROUP_SLOTS;
    uint64_t ready = segment->free.ready[group];
    uint64_t free = ready | segment->free.holes[group];
    bool any = ready != 0 || (segment->unsure && free != 0);
    int err = 0;

    if (any && free == ~(uint64_t)0) {
        err = punch_group(segment, group, calls);
        any = false;
    }
    while (any && err == 0 && *calls > 0 && from < SEGMENT_GROUP_SLOTS) {
        uint32_t to = from;
        while (to < SEGMENT_GROUP_SLOTS && ((free >> to) & 1) != 0)
            to++;
        err = punch_run(segment, group, from, to, calls);
        from = to + 1;
    }
    if (!any || segment->shape.slot_bytes == 0 || from > SEGMENT_GROUP_SLOTS)
        from = SEGMENT_GROUP_SLOTS;
    *slot = group * SEGMENT_GROUP_SLOTS + from;
    return err;
}

static void hold(struct segment *segment, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        segment->refs[slot] = 1;
        segment->reported[slot / SEGMENT_GROUP_SLOTS] &=
            ~((uint64_t)1 << (slot % SEGMENT_GROUP_SLOTS));
    }
}

uint32_t segment_take(struct segment *segment, uint32_t max, uint32_t *first)
{
    uint32_t count = slot_map_take(&segment->free, max, first);

    if (count > 0)
        hold(segment, *first, count);
    return count;
}

uint32_t segment_take_in(struct segment *segment, uint32_t group, uint32_t max, uint32_t *first)
{
    uint32_t count = slot_map_take_in(&segment->free, group, max, first);

    if (count > 0)
        hold(segment, *first, count);
    return count;
}

uint64_t segment_held_in(const struct segment *segment, uint32_t group)
{
    return slot_map_held(&segment->free, group);
}

uint64_t segment_free_in(const struct segment *segment, uint32_t group)
{
    return segment->free.ready[group] | segment->free.holes[group];
}

/* Writes the bytes of COUNT slots with one system call. Between slots goes what is at hand: it is
 * never read. */
static int write_slots(struct segment *segment, uint32_t first, uint32_t count,
                       const struct slot_source *sources)
{
    static const char zeros[WIRE_PAGE_BYTES];
    struct iovec iov[2 * WIRE_MAX_PAGES];
    size_t slot_bytes = segment->shape.slot_bytes;
    size_t total = 0;
    int n = 0;

    for (uint32_t i = 0; i < count; i++) {
        size_t len = sources[i].page->length_bytes;
        char *last_end = n == 0 ? NULL : (char *)iov[n - 1].iov_base + iov[n - 1].iov_len;
        if (last_end != NULL && last_end == sources[i].bytes)
            iov[n - 1].iov_len += len;
        else
            iov[n++] = (struct iovec){(void *)(uintptr_t)sources[i].bytes, len};
        total += len;
        if (len == slot_bytes || i + 1 == count)
            continue;
        iov[n++] = (struct iovec){(void *)(uintptr_t)zeros, slot_bytes - len};
        total += slot_bytes - len;
    }
    size_t offset = segment_slot_offset(segment->shape, first);
    return segment_file_write(&segment->file, iov, n, total, offset);
}

static struct slot_header make_header(const struct segment *segment, uint32_t slot,
                                      const struct slot_source *source)
{
    struct slot_header header = {
        .state = SLOT_USED,
        .length_bytes = (uint16_t)source->page->length_bytes,
        .encoding = source->page->encoding,
        .moves = source->moves,
        .region = source->region,
        .page = source->page->page,
        .sequence = source->page->sequence,
        .stamp = source->stamp,
        .checksum = source->page->checksum,
    };

    if (segment->shape.slot_bytes == 0)
        memcpy(header.bytes, source->bytes, source->page->length_bytes);
    else
        header.moved = source->moved;
    header.header_checksum = slot_header_checksum(&header, slot);
    return header;
}

int segment_fill(struct segment *segment, uint32_t first, uint32_t count,
                 const struct slot_source *sources)
{
    _Alignas(sizeof(struct slot_header)) struct slot_header headers[WIRE_MAX_PAGES];
    int err = 0;

    assert(count <= WIRE_MAX_PAGES);
    segment->filled = true;
    if (segment->shape.slot_bytes > 0)
        err = write_slots(segment, first, count, sources);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < count; i++)
        headers[i] = make_header(segment, first + i, &sources[i]);
    err = segment_write_headers(segment, first, headers, count);
    /* It is there, but what else the file held may not be: it is taken back. */
    return err == 0 && segment_is_lost(segment) ? -EIO : err;
}

uint32_t segment_ready_in(const struct segment *segment, uint32_t group)
{
    return (uint32_t)__builtin_popcountll(segment->free.ready[group]);
}

uint32_t segment_refs(const struct segment *segment, uint32_t slot)
{
    return segment->refs[slot];
}

uint32_t segment_ready_slots(const struct segment *segment)
{
    return segment->free.nready;
}

uint32_t segment_holes(const struct segment *segment)
{
    return segment->free.nholes;
}

bool segment_is_lost(const struct segment *segment)
{
    return segment->unreadable || segment_file_is_lost(&segment->file);
}

struct segment_shape segment_shape(const struct segment *segment)
{
    return segment->shape;
}

int segment_begin_sync(struct segment *segment, bool freed_too)
{
    if (!segment->filled && !(segment->freed && freed_too))
        return -1;
    segment->filled = segment->freed = false;
    return segment->file.fd;
}
