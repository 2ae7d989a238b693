/*
 * leaving: ranges whose pages the program has given up but that may still be there.
 *
 * The kernel tells of madvise(MADV_DONTNEED) before it drops the first page. Pages of such a range
 * that are found in memory are not to be taken for the program's: were they to leave before its
 * thread has dropped them, they would come back. A range ends when it is known that the thread has
 * left that call (settle() in pager_look.c), which is told by stamps: each range has the
 * number of the event that made it.
 *
 * Pure. Ranges are of page numbers, [start, end), sorted, and do not overlap. There is room for a
 * fixed number; beyond it those that lie nearest to each other become one with what is between
 * them, which errs on the safe side.
 *
 * Thread: the pager's.
 */
#ifndef EDM_CLIENT_LEAVING_H
#define EDM_CLIENT_LEAVING_H

#include <stdbool.h>
#include <stdint.h>

enum { LEAVING_RANGES = 64 };

/* All zero to begin with. */
struct leaving {
    uint64_t stamp; /* of the last event */
    uint32_t count;
    struct leaving_range {
        uint64_t start, end, stamp;
    } ranges[LEAVING_RANGES + 1]; /* one more while a range is being added */
};

/* An event says that [start, end) is being given up. */
void leaving_add(struct leaving *leaving, uint64_t start, uint64_t end);

/* [start, end) is no more what it was: unmapped. */
void leaving_cut(struct leaving *leaving, uint64_t start, uint64_t end);

/* Ends the ranges of all events up to STAMP. */
void leaving_end(struct leaving *leaving, uint64_t stamp);

bool leaving_has(const struct leaving *leaving, uint64_t page);

/* The first range that ends after PAGE, or NULL: for walking. Valid until the next change. */
const struct leaving_range *leaving_after(const struct leaving *leaving, uint64_t page);

#endif
