// The least pager there can be, to measure EDM against: userfaultfd, a thread that answers one
// fault after the other with one blocking request over raw TCP, and no features. It writes nothing
// back: its server has all pages in memory from the start (pages.h, version 0), and the oldest page
// is dropped when a new one is over the budget. Where anything fails the process ends.
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <stddef.h>

// Serves npages from addr, which must be mapped and untouched. Returns when faults are answered.
void floor_start(void *addr, size_t npages, size_t budget_npages);

#endif
