/*
 * store: the pages and regions of one shard, in a directory of its own.
 *
 * It knows nothing of sockets or messages; it takes the wire's pages and ranges as they are. What
 * it has said to be stored, dropped, made or removed is so after a kill -9 also.
 *
 * Errors the operations share: -ENOENT there is no such region; -ESTALE the epoch is not the one
 * in force; -EROFS the region is frozen; -ENOSPC capacity or file system is exhausted;
 * -EUSERS there are as many regions as there may be; -ENOMEM; others: the file system failed.
 *
 * Thread: the shard's. Nothing blocks but on the file system.
 */
#ifndef EDM_DMS_STORE_H
#define EDM_DMS_STORE_H

#include "../proto/wire.h"
#include "region.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

struct store_options {
    const char *dir;         /* exists and is locked by the caller */
    uint64_t capacity_bytes; /* of pages */
    uint64_t region_bytes;   /* of pages, of one region; 0: no limit of its own */
    uint32_t max_regions;    /* with a name; 0: REGION_MAX */
    unsigned scan_threads;   /* to read a store back with, at least 1 */
};

/* What opening found. */
struct store_report {
    uint64_t pages;           /* slots in use */
    uint64_t regions;         /* with a name, the recovered ones included */
    uint64_t damaged_headers; /* slots set aside */
    uint64_t damaged_pages;   /* pages that will be answered with DATA_LOSS */
    uint64_t damaged_records; /* of the manifest, skipped */
    uint64_t damaged_files;   /* segment files whose file header was written anew */
    uint64_t recovered;       /* regions known only by their pages: named recovered-ID */
};

/* Opens the store in the directory, making it if the directory is empty. Returns 0 or -errno:
 * -EPROTONOSUPPORT a file has another format; -EBADMSG the file that names the shard is damaged. */
int store_open(struct store **out, const struct store_options *options, struct store_report *report)
    __attribute__((warn_unused_result));
void store_close(struct store **store);

/* Random, made with the store. */
uint64_t store_id(const struct store *store);

/* Finds or makes the region NAME and makes EPOCH the one in force. EPOCH 0: the next one, unless
 * CLAIM (not 0; a number for the request) is that of the claim in force: then that one again.
 * -ESTALE when a higher one is in force. A frozen region is found, and its epoch left alone. */
int store_claim(struct store *store, const char *name, uint64_t epoch, uint64_t claim,
                const struct region **out) __attribute__((warn_unused_result));

/* Makes region NAME with the pages that region ID has now; FROZEN: for good, which a frozen region
 * refuses. Where NAME is such a region already, that is the answer. -EEXIST: NAME is another. */
int store_branch(struct store *store, uint64_t id, uint64_t epoch, const char *name, bool frozen,
                 const struct region **out) __attribute__((warn_unused_result));

/* The region goes at once, its pages with store_work(). */
int store_remove(struct store *store, uint64_t id, uint64_t epoch)
    __attribute__((warn_unused_result));

/* NULL when there is none. */
const struct region *store_find(const struct store *store, uint64_t id);

/* The region whose name is the first after NAME, NULL at the end. */
const struct region *store_after(const struct store *store, const char *name);

/* Stores NPAGES pages (valid, each number once) whose bytes follow each other at BODY. Pages not
 * newer than what is stored are left out. All or nothing, unless the file system fails midway.
 * -EBADMSG: the bytes of page *BAD do not match their checksum. -E2BIG: the region
 * would hold more than one may. */
int store_put(struct store *store, uint64_t id, uint64_t epoch, const struct wire_page *pages,
              uint32_t npages, const void *body, uint64_t *bad) __attribute__((warn_unused_result));

/* Where the pages of a get are. */
struct store_found {
    uint64_t refs[WIRE_MAX_PAGES]; /* 0: absent */
    size_t body_bytes;
};

/* Finds NPAGES pages, filling in what PAGES says of them beside the number. -EBADMSG: page *BAD is
 * damaged. */
int store_locate(struct store *store, uint64_t id, uint64_t epoch, struct wire_page *pages,
                 uint32_t npages, struct store_found *found, uint64_t *bad)
    __attribute__((warn_unused_result));

/* Copies their bytes, found->body_bytes of them, to BODY; nothing may have changed since
 * store_locate(). -EBADMSG: page *BAD is damaged. */
int store_read(const struct store *store, const struct wire_page *pages, uint32_t npages,
               const struct store_found *found, void *body, uint64_t *bad)
    __attribute__((warn_unused_result));

/* Drops the pages in the ranges that were stored with at most this SEQUENCE. */
int store_drop(struct store *store, uint64_t id, uint64_t epoch, uint64_t sequence,
               const struct wire_range *ranges, uint32_t nranges)
    __attribute__((warn_unused_result));

/* Fills in all but the requests. */
void store_stat(const struct store *store, struct wire_shard_info *info);

/* A small step of what can wait: freeing the pages of removed regions, giving back empty files.
 * Returns whether there is more. */
bool store_work(struct store *store);

/* Makes everything so far survive a power cut. Blocks. */
int store_sync(struct store *store) __attribute__((warn_unused_result));

#endif
