#include "histogram.h"

/* Below 16 us each microsecond has a slot; above, every power of two has 16. */
static unsigned slot_of(uint64_t us)
{
    if (us < HISTOGRAM_STEPS)
        return (unsigned)us;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(us);
    unsigned slot = (exponent - 3) * HISTOGRAM_STEPS + (unsigned)(us >> (exponent - 4) & 15);
    return slot < HISTOGRAM_SLOTS ? slot : HISTOGRAM_SLOTS - 1;
}

static uint64_t upper_us(unsigned slot)
{
    if (slot < HISTOGRAM_STEPS)
        return slot;
    unsigned exponent = slot / HISTOGRAM_STEPS + 3;
    return ((uint64_t)(HISTOGRAM_STEPS + slot % HISTOGRAM_STEPS + 1) << (exponent - 4)) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t us)
{
    histogram->slots[slot_of(us)]++;
    histogram->count++;
    if (us > histogram->max_us)
        histogram->max_us = us;
}

uint64_t histogram_quantile_us(const struct histogram *histogram, double part)
{
    uint64_t wanted = (uint64_t)((double)histogram->count * part);
    uint64_t seen = 0;
    for (unsigned slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += histogram->slots[slot];
        if (seen > wanted) {
            uint64_t us = upper_us(slot);
            return us < histogram->max_us ? us : histogram->max_us;
        }
    }
    return histogram->max_us;
}
