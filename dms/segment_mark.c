#include "segment_parts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

int segment_write_headers(struct segment *segment, uint32_t first,
                          const struct slot_header *headers, uint32_t count)
{
    size_t len = count * sizeof(*headers);
    struct iovec iov = {(void *)(uintptr_t)headers, len};

    return segment_file_write(&segment->file, &iov, 1, len,
                              segment_header_offset(segment->shape, first));
}

void segment_retain(struct segment *segment, uint32_t slot)
{
    segment->refs[slot]++;
}

bool segment_unhold(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] > 0);
    return --segment->refs[slot] == 0;
}

void segment_free(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] == 0);
    slot_map_add_pending(&segment->free, slot);
}

void segment_untake(struct segment *segment, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        segment->refs[slot] = 0;
        segment_free(segment, slot);
    }
}

void segment_drop(struct segment *segment, uint32_t slot, bool is_dropped)
{
    assert(segment->refs[slot] > 0);
    slot_map_set_dropped(&segment->free, slot, is_dropped);
    slot_map_mark(&segment->free, slot);
}

bool segment_is_dropped(const struct segment *segment, uint32_t slot)
{
    return slot_map_is_dropped(&segment->free, slot);
}

void segment_supersede(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] == 0);
    slot_map_set_superseded(&segment->free, slot, true);
    slot_map_mark(&segment->free, slot);
}

void segment_revive(struct segment *segment, uint32_t slot)
{
    assert(segment->refs[slot] > 0 && slot_map_is_superseded(&segment->free, slot));
    slot_map_set_superseded(&segment->free, slot, false);
    slot_map_mark(&segment->free, slot);
}

uint32_t segment_unmarked_slots(const struct segment *segment)
{
    return segment->free.npending + segment->free.nmarks;
}

/* What the file is to say of a slot that is to be marked. */
static uint32_t state_of(const struct segment *segment, uint32_t group, uint32_t i)
{
    if (((segment->free.pending[group] >> i) & 1) != 0)
        return SLOT_FREE;
    if (((segment->free.dropped[group] >> i) & 1) != 0)
        return SLOT_DROPPED;
    return ((segment->free.superseded[group] >> i) & 1) != 0 ? SLOT_SUPERSEDED : SLOT_USED;
}

/* The states only, one by one: what else of the headers is in memory may not be the file's. What is
 * beyond the end of a file that was cut short is marked by that. */
static int flush_states(struct segment *segment, uint32_t group, uint64_t marks)
{
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < SEGMENT_GROUP_SLOTS; i++) {
        uint32_t state = state_of(segment, group, i);
        struct iovec iov = {&state, sizeof(state)};
        if (((marks >> i) & 1) == 0)
            continue;
        err = segment_file_write(
            &segment->file, &iov, 1, sizeof(state),
            segment_header_offset(segment->shape, group * SEGMENT_GROUP_SLOTS + i));
        if (err == -EIO && segment->file.cut)
            err = 0;
    }
    return err;
}

/* The headers between the first and the last to be marked are written as they are. */
static int flush_group(struct segment *segment, uint32_t group)
{
    _Alignas(sizeof(struct slot_header)) struct slot_header headers[SEGMENT_GROUP_SLOTS];
    uint64_t marks = segment->free.pending[group] | segment->free.marks[group];
    uint32_t from = (uint32_t)__builtin_ctzll(marks);
    uint32_t count = SEGMENT_GROUP_SLOTS - (uint32_t)__builtin_clzll(marks) - from;
    uint32_t first = group * SEGMENT_GROUP_SLOTS + from;
    bool is_filled = (segment->free.marks[group] & ~segment->free.superseded[group]) != 0;
    int err;

    segment->filled = segment->filled || is_filled;
    segment->freed = true;
    memcpy(headers, &segment->headers[first], count * sizeof(headers[0]));
    for (uint32_t i = 0; i < count; i++) {
        if (((marks >> (from + i)) & 1) != 0)
            headers[i].state = state_of(segment, group, from + i);
    }
    /* After the copy: it may be what could not be read. */
    if (segment_is_lost(segment))
        err = flush_states(segment, group, marks);
    else
        err = segment_write_headers(segment, first, headers, count);
    if (err == -EIO && segment->file.cut)
        err = flush_states(segment, group, marks);
    if (err == 0)
        slot_map_settle(&segment->free, group);
    return err;
}

int segment_flush(struct segment *segment)
{
    int err = 0;

    while (err == 0 && segment_unmarked_slots(segment) > 0)
        err = flush_group(segment, slot_map_find_pending(&segment->free));
    return err;
}

int segment_write_free(struct segment *segment, uint32_t group, uint64_t which)
{
    _Alignas(sizeof(struct slot_header)) struct slot_header headers[SEGMENT_GROUP_SLOTS] = {0};
    uint32_t first = group * SEGMENT_GROUP_SLOTS;
    int err = 0;

    for (uint32_t i = 0; i < SEGMENT_GROUP_SLOTS; i++)
        headers[i].state = SLOT_FREE;
    for (uint32_t from = 0; err == 0 && from < SEGMENT_GROUP_SLOTS;) {
        uint32_t to = from;
        while (to < SEGMENT_GROUP_SLOTS && ((which >> to) & 1) != 0)
            to++;
        if (to > from)
            err = segment_write_headers(segment, first + from, headers, to - from);
        from = to + 1;
    }
    segment->freed = true;
    return err;
}

static bool is_zero(const struct slot_header *headers)
{
    static const char zeros[SEGMENT_GROUP_SLOTS * sizeof(*headers)];
    const char *bytes = (const char *)headers;

    return memcmp(bytes, zeros, sizeof(zeros)) == 0;
}

static int write_slot_again(struct segment *segment, uint32_t slot, void *buffer)
{
    size_t offset = segment_slot_offset(segment->shape, slot);
    int err = segment_read(segment, buffer, segment->shape.slot_bytes, offset);
    struct iovec iov = {buffer, segment->shape.slot_bytes};

    if (err == 0)
        err = segment_file_write(&segment->file, &iov, 1, iov.iov_len, offset);
    return err;
}

/* What cannot be read is in no memory either. A block of zeros was never written, or is a hole: it
 * is not to be made one that is not. */
static int write_group_again(struct segment *segment, uint32_t first, uint64_t stamp, void *buffer)
{
    _Alignas(sizeof(struct slot_header)) struct slot_header headers[SEGMENT_GROUP_SLOTS];
    int err = segment_read(segment, headers, sizeof(headers),
                           segment_header_offset(segment->shape, first));

    if (err != 0 || is_zero(headers))
        return err == -EIO ? 0 : err;
    err = segment_write_headers(segment, first, headers, SEGMENT_GROUP_SLOTS);
    for (uint32_t i = 0; err == 0 && segment->shape.slot_bytes > 0 && i < SEGMENT_GROUP_SLOTS;
         i++) {
        uint32_t state = atomic_load(&headers[i].state);
        if ((state != SLOT_USED && state != SLOT_SUPERSEDED) ||
            slot_header_written(&headers[i], segment->shape.slot_bytes) <= stamp)
            continue;
        err = write_slot_again(segment, first + i, buffer);
        if (err == -EIO)
            err = 0;
    }
    return err;
}

int segment_write_again(struct segment *segment, uint64_t stamp, void *buffer)
{
    int err = 0;

    for (uint32_t slot = 0; err == 0 && slot < segment->shape.nslots; slot += SEGMENT_GROUP_SLOTS)
        err = write_group_again(segment, slot, stamp, buffer);
    segment->filled = true;
    return err;
}
