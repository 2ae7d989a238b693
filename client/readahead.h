/*
 * readahead: which pages will be wanted next.
 *
 * Pure. Follows several streams at once, ascending and descending, told apart by place. A fault
 * close behind another one begins a stream; each fault where the stream was expected doubles its
 * window, up to READAHEAD_MAX_PAGES. Behind the window that is fetched for the fault (the demand)
 * lies a second one (the ahead) that is fetched at the same time but kept by the pager until a
 * fault shows that it is wanted: so a stream waits for the network only at its beginning. Once a
 * stream with the largest window has met pages that were ready (a hit), more is asked for: each hit
 * on what was asked for last doubles how far beyond it that reaches, up to a limit. A fault where
 * the stream was not expected, or on pages that were not ready, begins small again.
 *
 * A stream is sparse as long as the page before the one that faults is not in memory: the program
 * passes pages over (it goes down a column of a matrix, say). What is fetched for it comes cheaper
 * together than one by one, but most of it will not be used, and is not to take anybody's room.
 *
 * Thread: the pager's.
 */
#ifndef EDM_CLIENT_READAHEAD_H
#define EDM_CLIENT_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

enum { READAHEAD_STREAMS = 32, READAHEAD_MAX_PAGES = 64 };

struct readahead_stream {
    uint64_t next;     /* where the next fault is expected */
    uint64_t edge;     /* the first page not asked for yet */
    int32_t direction; /* +1, -1; 0: one fault only so far */
    uint32_t window;   /* pages */
    uint32_t reach;    /* so many pages beyond the window a hit is in are asked for */
    uint64_t mark;     /* where what was asked for last begins: a hit from there on asks for more */
    uint64_t used_at;
    bool sparse;
};

/* Plain data so that it can be part of its owner; all zero to begin with. */
struct readahead {
    struct readahead_stream streams[READAHEAD_STREAMS];
    uint64_t clock;
};

struct readahead_fault {
    uint64_t page;
    bool out_below,
        out_above; /* its neighbours are not in memory, nor has anybody asked for them */
};

/* Pages as [first, first + npages); npages may be 0. */
struct readahead_range {
    uint64_t first;
    uint32_t npages;
};

struct readahead_plan {
    struct readahead_range demand; /* holds the faulting page */
    struct readahead_range ahead;
    int32_t direction; /* of the stream; 0: none */
    bool proven; /* what is ahead will most probably be used: it may be put in when it comes */
    bool sparse; /* only the pages that fault are to be put in */
};

/* A fault on a page that has to be fetched. */
struct readahead_plan readahead_miss(struct readahead *readahead, struct readahead_fault fault);

/* A fault on a page that had been fetched ahead: what to fetch next. demand is empty. MOST: pages
 * to be had ahead; two windows are in any case. */
struct readahead_plan readahead_hit(struct readahead *readahead, struct readahead_fault fault,
                                    uint32_t most);

#endif
