#include "size_class.h"

#include <assert.h>

/* Classes FIRST + 1 on have slots of FROM_BYTES + STEP_BYTES, + 2 STEP_BYTES and so on. */
static const struct range {
    uint32_t first, from_bytes, step_bytes;
} RANGES[] = {{24, 2048, 256}, {16, 1024, 128}, {0, 0, 64}};

uint32_t size_class_of(uint32_t length_bytes)
{
    const struct range *range = RANGES;

    assert(length_bytes <= 4096);
    if (length_bytes <= SIZE_CLASS_INLINE_BYTES)
        return 0;
    while (length_bytes <= range->from_bytes)
        range++;
    return range->first +
           (length_bytes - range->from_bytes + range->step_bytes - 1) / range->step_bytes;
}

uint32_t size_class_bytes(uint32_t size_class)
{
    const struct range *range = RANGES;

    assert(size_class < SIZE_CLASSES);
    while (size_class < range->first)
        range++;
    return range->from_bytes + (size_class - range->first) * range->step_bytes;
}

uint32_t size_class_find(uint32_t slot_bytes)
{
    uint32_t size_class = 0;

    while (size_class < SIZE_CLASSES && size_class_bytes(size_class) != slot_bytes)
        size_class++;
    return size_class;
}

uint32_t size_class_charge(uint32_t size_class)
{
    return size_class == 0 ? SIZE_CLASS_HEADER_BYTES : size_class_bytes(size_class);
}
