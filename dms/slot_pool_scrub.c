#include "slot_pool_parts.h"

/* Looks at COUNT slots. Returns the first damaged one that was not reported, or FIRST + COUNT. */
static uint32_t scrub_slots(struct segment *segment, uint32_t first, uint32_t count,
                            uint64_t *bytes)
{
    uint32_t slot = first;

    for (; slot < first + count; slot++) {
        if (segment_refs(segment, slot) == 0 || segment_is_reported(segment, slot))
            continue;
        enum slot_check check = segment_check(segment, slot, true);
        *bytes += slot_pool_slot_bytes(size_class_find(segment_shape(segment).slot_bytes));
        if (check == SLOT_CHECK_BAD_PAGE || !segment_is_sound(segment, slot))
            break;
    }
    return slot;
}

static bool any_in_use(const struct segment *segment, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        if (segment_refs(segment, slot) > 0)
            return true;
    }
    return false;
}

/* As many slots as are in MAX pages, headers included; no more than a group. */
static uint32_t step_slots(const struct segment *segment, uint32_t max)
{
    uint64_t each = segment_shape(segment).slot_bytes + SIZE_CLASS_HEADER_BYTES;
    uint64_t count = (uint64_t)max * WIRE_PAGE_BYTES / each;

    if (count > SEGMENT_GROUP_SLOTS)
        return SEGMENT_GROUP_SLOTS;
    return count == 0 ? 1 : (uint32_t)count;
}

/* The slot *REF, or the first of the next file if it is beyond its end. Returns the segment, or
 * NULL: there is none. */
static struct segment *find_place(const struct slot_pool *pool, uint64_t *ref)
{
    uint32_t i = *ref == 0 ? 0 : (uint32_t)(*ref >> 32) - 1;
    uint32_t first = (uint32_t)*ref;

    while (i < pool->nmembers && (pool->members[i].segment == NULL ||
                                  first >= segment_shape(pool->members[i].segment).nslots)) {
        i++;
        first = 0;
    }
    *ref = i < pool->nmembers ? slot_pool_ref(i, first) : 0;
    return *ref == 0 ? NULL : pool->members[i].segment;
}

uint64_t slot_pool_scrub(struct slot_pool *pool, uint64_t *ref, uint32_t max, bool hurry,
                         uint64_t *bytes, bool *again)
{
    struct segment *segment = find_place(pool, ref);
    uint32_t first = (uint32_t)*ref;

    *again = false;
    if (segment == NULL)
        return 0;
    uint32_t left = segment_shape(segment).nslots - first, count = step_slots(segment, max);
    count = count < left ? count : left;
    if (any_in_use(segment, first, count)) {
        *again = !hurry && !segment_is_near(segment, first, count);
        if (*again)
            return 0;
        uint32_t stop = scrub_slots(segment, first, count, bytes);
        if (stop < first + count) {
            segment_set_reported(segment, stop);
            if (!segment_is_sound(segment, stop))
                (void)segment_identify(segment, stop);
            uint64_t found = *ref + (stop - first);
            *ref = found + 1;
            return found;
        }
    }
    *ref += count;
    return 0;
}
