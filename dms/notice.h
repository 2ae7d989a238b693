/*
 * notice: a line of the log that is not said each time.
 *
 * Thread: the owner's of what it is about.
 */
#ifndef EDM_DMS_NOTICE_H
#define EDM_DMS_NOTICE_H

#include <stdbool.h>
#include <stdint.h>

/* Zeroed before it is used first. */
struct notice {
    uint64_t said_ms;
    uint64_t count;
};

/* It has happened once more. Whether it is time for a line about it: the first time, and then once
 * in ten seconds at most; *COUNT is how often it was since the last one. */
bool notice_is_due(struct notice *notice, uint64_t *count);

/* Monotonic time, never 0. */
uint64_t notice_now_ms(void);

#endif
