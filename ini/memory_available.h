/*
 * memory_available: how much memory this process may use: what the kernel says is there, bounded by
 * the limits of its control groups (versions 1 and 2, every level).
 *
 * Thread: any; nothing is kept.
 */
#ifndef EDM_INI_MEMORY_AVAILABLE_H
#define EDM_INI_MEMORY_AVAILABLE_H

#include <stdint.h>

/* ROOT stands before every path that is read ("" for the machine itself; tests have their own).
 * Both return 0 when /proc/meminfo cannot be read. */

/* Bytes available without swapping: MemAvailable, or the lowest limit where that is less. */
uint64_t memory_available_bytes(const char *root);

/* Bytes of RAM this process could ever have: MemTotal, or the lowest limit where that is less. */
uint64_t memory_total_bytes(const char *root);

#endif
