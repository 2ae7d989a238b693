/*
 * config: what a run is told, from the command line and the ini file.
 *
 * Every option has a key in the file; the command line wins. Bad input gives one line that names
 * the place (option, or file, line and key), the value and what is allowed.
 *
 * Thread: whoever calls; nothing is kept between calls.
 */
#ifndef EDM_INI_CONFIG_H
#define EDM_INI_CONFIG_H

#include "log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_mode {
    CONFIG_MODE_CLIENT,
    CONFIG_MODE_DMS,
    CONFIG_MODE_CHECK,
    CONFIG_MODE_LIMIT,
    CONFIG_MODE_STATUS,
};

enum { CONFIG_MAX_SHARDS = 64, CONFIG_REASON_BYTES = 128 };

enum config_compress { CONFIG_COMPRESS_AUTO, CONFIG_COMPRESS_YES, CONFIG_COMPRESS_NO };

struct client_config {
    char *dms[CONFIG_MAX_SHARDS];           /* endpoints, checked; owned */
    size_t ndms;                            /* 0: start a private DMS */
    uint64_t local_bytes;                   /* local budget, at least 16 MiB */
    char *region;                           /* NULL: generate a name */
    char *stats_path;                       /* NULL: none */
    uint32_t stats_interval_ms;             /* 0: write the statistics only at the end */
    uint64_t start_addr, end_addr;          /* manage only memory in [start_addr, end_addr) */
    uint32_t low_threshold, high_threshold; /* percent of local_bytes; low < high <= 100 */
    bool follow;                            /* manage the program's children too */
    enum config_compress compress;          /* pages that are sent; AUTO: while it pays */
    uint32_t wait_s; /* how long the program may be held when no DMS can serve it */
    char **argv;     /* program and arguments, NULL at the end; not owned */
};

enum config_durability { CONFIG_SYNC_NONE, CONFIG_SYNC_INTERVAL, CONFIG_SYNC_ALWAYS };

struct dms_config {
    char *listen;            /* shard 0's endpoint; owned */
    char *data;              /* directory; owned */
    uint64_t capacity_bytes; /* 0: 80 % of the file system's free space */
    uint32_t nshards;
    uint64_t start_addr;      /* pages below this address are refused; 0: none */
    uint32_t max_connections; /* to each shard */
    uint32_t max_regions;     /* of each shard */
    uint64_t region_bytes;    /* of pages, of one region; 0: no limit */
    uint64_t request_bytes;   /* of pages, of one request */
    enum config_durability durability;
    uint32_t sync_interval_ms;
    uint64_t scrub_bytes; /* read again a second, by all shards together; 0: nothing */
};

/* --mode=limit and --mode=status: which running client is asked for what. */
struct ask_config {
    const char *region; /* its region's name, or its pid; NULL (status only): all; not owned */
    const char *size;   /* limit only: a good value for --local; not owned */
    uint32_t wait_s;    /* limit only: how long to wait until the budget is kept */
};

struct config {
    enum config_mode mode;
    struct client_config client;
    struct ask_config ask;
    struct dms_config dms; /* --mode=check: only the directory counts */
    bool repair;           /* --mode=check */
    char *log_path;        /* NULL: see log_open(); owned */
    enum log_level log_level;
};

enum config_result { CONFIG_RUN, CONFIG_DONE, CONFIG_BAD };

/* Reads ARGV (and the file it names). CONFIG_RUN: *OUT is filled, give it to config_clear() in the
 * end. CONFIG_DONE: --help or --version was asked for and printed to standard output.
 * CONFIG_BAD: ERROR (ERROR_CAP bytes) holds the line to print. */
enum config_result config_read(struct config *out, int argc, char **argv, char *error,
                               size_t error_cap) __attribute__((warn_unused_result));
void config_clear(struct config *config);

/* "256M", "2G", "4096", "1.5G" (K M G T, powers of 1024, an optional B or iB) and, where
 * PERCENT_OF_BYTES is not 0, "50%". Returns 0 or -EINVAL. */
int config_parse_size(const char *text, uint64_t percent_of_bytes, uint64_t *out_bytes)
    __attribute__((warn_unused_result));

/* A local budget as --local takes it. 0, or -EINVAL with what is allowed in WHY. */
int config_parse_local(const char *text, uint64_t *out_bytes, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Checks "tcp://host:port" (port 1 to 65535) or "ipc://path" (path of at most 100 bytes).
 * Returns 0, or -EINVAL with a reason of at most REASON_CAP bytes. */
int config_check_endpoint(const char *endpoint, char *reason, size_t reason_cap)
    __attribute__((warn_unused_result));

/* Endpoint of shard SHARD of a DMS that listens at BASE: the port plus SHARD, or for ipc the path
 * followed by ".SHARD" (shard 0: BASE itself). Returns a new string, or NULL when there is no such
 * port or no memory. */
char *config_shard_endpoint(const char *base, uint32_t shard);

#endif
