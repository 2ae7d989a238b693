/*
 * mutex_pages: where the program has robust mutexes.
 *
 * When a thread ends that holds one the kernel writes to it, and cannot wait for a page: so these
 * pages stay in memory. The agent keeps a list of them in the program (struct agent_mutexes), where
 * it is read before pages are chosen to leave.
 *
 * Thread: the pager's.
 */
#ifndef EDM_CLIENT_MUTEX_PAGES_H
#define EDM_CLIENT_MUTEX_PAGES_H

#include "proc_map.h"

#include <stdbool.h>
#include <stdint.h>

struct mutex_pages; /* NULL: none were ever seen */

/* Reads the list at ADDRESS again, where it has changed. *PAGES is made when there is something in
 * it. What cannot be read stays as it was. */
void mutex_pages_read(struct mutex_pages **pages, const struct proc_map *map, uint64_t address);
void mutex_pages_destroy(struct mutex_pages **pages);

bool mutex_pages_has(const struct mutex_pages *pages, uint64_t page);

#endif
