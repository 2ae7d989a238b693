/*
 * page_table: what the pager knows of each page of a program.
 *
 * Pure: no system call, no clock. Pages are numbers (address / 4096). A page nobody asked about is
 * NATIVE. Memory is kept for extents of 512 pages of which at least one is not NATIVE: about 3
 * bytes a page, and 16 more once a page of the extent has been stored (its hash).
 *
 *   NATIVE    nothing known: never touched since it is registered, or left to the kernel
 *   RESIDENT  in the program's memory
 *   MOVING    the agent has been told to take it out
 *   STAGED    in the pool; not yet acknowledged by the store
 *   REMOTE    only the store has it
 *   FETCHING  asked for
 *   READY     here, in the pager's memory, not yet in the program (read ahead); the store has it
 * too ZERO      known to be all zero; nobody keeps it
 *
 * A page that is out (MOVING to READY) may be sealed: the kernel has a seal of ours at its place in
 * the program's own page table (uffd.h), which is gone when the program has given it up in whatever
 * way. It is sealed no more when it comes in or becomes ZERO or NATIVE.
 *
 * Beside the state a page has: a stored hash (of the content the store holds under the page's key,
 * if any), a generation (grows each time the page comes in; tells old entries of the resident queue
 * from the current one) and the time of its last eviction.
 *
 * Thread: the pager's. Illegal transitions are mistakes of ours and end the process (assert).
 */
#ifndef EDM_CLIENT_PAGE_TABLE_H
#define EDM_CLIENT_PAGE_TABLE_H

#include "page_hash.h"

#include <stddef.h>
#include <stdint.h>

enum page_state {
    PAGE_NATIVE,
    PAGE_RESIDENT,
    PAGE_MOVING,
    PAGE_STAGED,
    PAGE_REMOTE,
    PAGE_FETCHING,
    PAGE_READY,
    PAGE_ZERO,
    PAGE_NSTATES,
};

struct page_table;

/* Returns 0 or -ENOMEM. */
int page_table_new(struct page_table **out) __attribute__((warn_unused_result));
void page_table_destroy(struct page_table **table);

enum page_state page_table_state(const struct page_table *table, uint64_t page);

/* Changes a page's state. Running out of memory for the table ends the process: nothing safe could
 * be done with the page. */
void page_table_set(struct page_table *table, uint64_t page, enum page_state state);

/* True for the transitions that page_table_set() accepts. */
bool page_table_may(enum page_state from, enum page_state to);

uint64_t page_table_count(const struct page_table *table, enum page_state state);

/* Generation: see above. page_table_renew() makes a new one and returns it. */
uint8_t page_table_generation(const struct page_table *table, uint64_t page);
uint8_t page_table_renew(struct page_table *table, uint64_t page);

/* The hash of what the store holds. Returns false when it holds nothing that we know of. */
bool page_table_stored(const struct page_table *table, uint64_t page, struct page_hash *out);
void page_table_set_stored(struct page_table *table, uint64_t page, struct page_hash hash);
void page_table_clear_stored(struct page_table *table, uint64_t page);

/* Time of the last eviction, in units the caller chooses (modulo 65536). */
uint16_t page_table_evicted_at(const struct page_table *table, uint64_t page);
void page_table_set_evicted_at(struct page_table *table, uint64_t page, uint16_t time);

bool page_table_sealed(const struct page_table *table, uint64_t page);
void page_table_seal(struct page_table *table, uint64_t page);

/* The first page >= FROM and < END that is not NATIVE; END if there is none.
 * Costs what is known, not the size of the range. */
uint64_t page_table_next(const struct page_table *table, uint64_t from, uint64_t end);

/* Moves everything known of page FROM to page TO (which must be NATIVE) and leaves FROM NATIVE. */
void page_table_rename(struct page_table *table, uint64_t from, uint64_t to);

/* A copy for the child of a fork: pages that are asked for or read ahead are only REMOTE there. No
 * page may be MOVING or STAGED. Returns 0 or -ENOMEM. */
int page_table_copy(struct page_table **out, const struct page_table *from)
    __attribute__((warn_unused_result));

/* Bytes of memory the table uses. */
size_t page_table_bytes(const struct page_table *table);

const char *page_state_name(enum page_state state);

#endif
