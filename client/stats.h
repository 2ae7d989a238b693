/*
 * stats: the figures of a run, as one JSON object in a file.
 *
 * Thread: main.
 */
#ifndef EDM_CLIENT_STATS_H
#define EDM_CLIENT_STATS_H

#include "pager.h"

#include <stdbool.h>

struct stats {
    const char *program;
    const char *region;
    bool ended; /* exit_status is known */
    int exit_status;
    double wall_s;
    uint64_t local_limit_bytes;
    uint32_t nshards;
    struct pager_counters pager;
    struct write_back_counters write_back;
};

/* Replaces the file at PATH as a whole (a reader never sees half of it). What is no file (a
 * terminal, a pipe) is written to. 0 or -errno. */
int stats_write(const struct stats *stats, const char *path) __attribute__((warn_unused_result));

/* Whether stats_write() could, as far as can be told now. 0 or -errno. */
int stats_check(const char *path) __attribute__((warn_unused_result));

#endif
