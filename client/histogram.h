/*
 * histogram: how long things took, in microseconds, with steps of about 6 %.
 *
 * Thread: whoever owns the structure; plain data, all zero to begin with.
 */
#ifndef EDM_CLIENT_HISTOGRAM_H
#define EDM_CLIENT_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_STEPS = 16, HISTOGRAM_SLOTS = 40 * HISTOGRAM_STEPS };

struct histogram {
    uint64_t slots[HISTOGRAM_SLOTS];
    uint64_t count, max_us;
};

void histogram_add(struct histogram *histogram, uint64_t us);

/* The value below which PART (0 to 1) of all lie; 0 when there are none. */
uint64_t histogram_quantile_us(const struct histogram *histogram, double part);

#endif
