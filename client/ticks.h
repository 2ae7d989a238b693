/*
 * ticks: the clocks the client goes by.
 *
 * The monotonic one (clock_gettime(2), CLOCK_MONOTONIC), from a start nobody knows, and the
 * processor time of the calling thread. Thread: any. Nothing here fails.
 */
#ifndef EDM_CLIENT_TICKS_H
#define EDM_CLIENT_TICKS_H

#include <stdint.h>

uint64_t ticks_us(void);
uint64_t ticks_ns(void);
uint64_t ticks_thread_ns(void); /* processor time of this thread */

#endif
