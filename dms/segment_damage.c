#include "segment_parts.h"

#include "slot_identify.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, MAX_NEAR_PAGES = SEGMENT_GROUP_SLOTS + 1 };

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
    uint32_t slot_bytes = segment->shape.slot_bytes;

    if (!slot_identify(&segment->headers[slot], slot, slot_bytes, &found.header))
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

const struct slot_header *segment_header(const struct segment *segment, uint32_t slot)
{
    const struct stand_in *found = segment->nstand_ins == 0 ? NULL : find_stand_in(segment, slot);

    /* Once the slot was filled anew, it says itself what it is. */
    if (found != NULL && segment_check(segment, slot, false) == SLOT_CHECK_BAD_HEADER)
        return &found->header;
    return &segment->headers[slot];
}

int segment_lose(struct segment *segment, uint32_t slot, const struct slot_header *source)
{
    _Alignas(sizeof(struct slot_header)) struct slot_header header = {
        .state = SLOT_USED,
        .encoding = SLOT_LOST,
        .moves = source->moves,
        .region = source->region,
        .page = source->page,
        .sequence = source->sequence,
        .stamp = source->stamp,
        .checksum = wire_checksum(source->page, "", 0),
    };

    if (segment->shape.slot_bytes > 0)
        header.moved = source->moved;
    header.header_checksum = slot_header_checksum(&header, slot);
    segment->filled = true;
    return segment_write_headers(segment, slot, &header, 1);
}

bool segment_is_reported(const struct segment *segment, uint32_t slot)
{
    return (segment->reported[slot / SEGMENT_GROUP_SLOTS] >> (slot % SEGMENT_GROUP_SLOTS)) & 1;
}

void segment_set_reported(struct segment *segment, uint32_t slot)
{
    segment->reported[slot / SEGMENT_GROUP_SLOTS] |= (uint64_t)1 << (slot % SEGMENT_GROUP_SLOTS);
}

/* Holes may never be in memory: only what is held counts. */
bool segment_is_near(const struct segment *segment, uint32_t first, uint32_t count)
{
    unsigned char near[MAX_NEAR_PAGES];
    size_t slot_bytes = segment->shape.slot_bytes;
    size_t begin = segment_slot_offset(segment->shape, first) / PAGE;
    size_t end = (segment_slot_offset(segment->shape, first + count) + PAGE - 1) / PAGE;
    char *bytes = (char *)(uintptr_t)segment->file.map + begin * PAGE;

    assert(count <= SEGMENT_GROUP_SLOTS);
    if (slot_bytes == 0 || mincore(bytes, (end - begin) * PAGE, near) != 0)
        return true;
    for (uint32_t slot = first; slot < first + count; slot++) {
        size_t offset = segment_slot_offset(segment->shape, slot);
        size_t from = offset / PAGE - begin, to = (offset + slot_bytes - 1) / PAGE - begin;
        if (segment->refs[slot] > 0 && ((near[from] & 1) == 0 || (near[to] & 1) == 0)) {
            madvise(bytes, (end - begin) * PAGE, MADV_WILLNEED);
            return false;
        }
    }
    return true;
}
