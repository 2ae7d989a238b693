/*
 * pages: memory whose every page says what it is, and ways to get it out of the program.
 *
 * For test programs that run under edm and, to compare, without it. What
 * goes wrong ends the process: one line on standard error, exit 1.
 *
 * Thread: any, but pages_press() one at a time.
 */
#ifndef EDM_TESTS_RUN_PAGES_H
#define EDM_TESTS_RUN_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8 };

/* Where pages are when a test begins. */
enum pages_where { PAGES_RESIDENT, PAGES_STAGED, PAGES_REMOTE, PAGES_FLIGHT, PAGES_NWHERE };

extern const char *const pages_where_names[PAGES_NWHERE];

/* Says what is being done, for messages. */
void pages_name(const char *what);
_Noreturn void pages_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Unless WELL, the end of the process, with CALL and what errno says. */
void pages_must(bool well, const char *call);

/* Makes the ballast: memory that pushes the rest out. */
void pages_start(size_t ballast_bytes);

/* True when edm runs this program. */
bool pages_managed(void);

/* Anonymous memory, or the end of the process. */
char *pages_map(size_t npages);

/* Page I of the memory that was filled under the name ID, and the check of it. */
void pages_fill(char *at, uint64_t id, size_t first, size_t npages);
void pages_check(const char *at, uint64_t id, size_t first, size_t npages);
void pages_check_zero(const char *at, size_t npages);

/* How many are in memory now. */
size_t pages_present(const char *at, size_t npages);

/* Touches ballast until none of the pages is in memory; without edm it does nothing. */
void pages_press(const char *at, size_t npages);

/* The same for pages of which some may stay: the kernel's zero page is no memory, and of what
 * became memory through it without a fault EDM leaves a few MiB where they are. */
void pages_press_some(const char *at, size_t npages);

/* At the end: not too many stayed. */
void pages_end(void);

/* Brings filled pages to where they shall be; FLIGHT: a thread keeps asking for them until
 * pages_land(). */
void pages_put(char *at, size_t npages, enum pages_where where);
void pages_land(void);

#endif
