/*
 * store: the pages and regions of one shard, in a directory of its own.
 *
 * It knows nothing of sockets or messages; it takes the wire's pages and ranges as they are. What
 * it has said to be stored, dropped, made or removed is so after a kill -9 also. What survives a
 * power cut is what a round of syncing that began later has made sure of.
 *
 * Errors the operations share: -ENOENT there is no such region; -ESTALE the epoch is not the one
 * in force; -EROFS the region is frozen; -ENOSPC capacity or file system is exhausted;
 * -EUSERS there are as many regions as there may be; -ENOMEM; others: the file system failed. Once
 * a sync has failed, every change is refused with its error: nobody knows what is on disk.
 *
 * Thread: the shard's. Nothing blocks but on the file system.
 */
#ifndef EDM_DMS_STORE_H
#define EDM_DMS_STORE_H

#include "../proto/wire.h"
#include "damage.h"
#include "disk.h"
#include "region.h"
#include "sync_job.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct store;

enum store_durability {
    STORE_NONE,     /* never syncs, and knows nothing of power cuts */
    STORE_INTERVAL, /* the owner runs rounds now and then */
    STORE_ALWAYS,   /* the owner runs a round before it says that something is done */
};

enum store_purpose {
    STORE_SERVE,
    STORE_EXAMINE, /* to see what is there: goes on past a damaged shard file. For dry disks */
    STORE_REPAIR,  /* to make the damage found part of the past: see store_open() */
};

/* When pages are moved to slots where they take less room. The others are for tests. */
enum store_moves {
    STORE_MOVES_WORTH,   /* when there is much to gain, and little is stored */
    STORE_MOVES_EAGERLY, /* whenever that saves a group of slots */
    STORE_MOVES_NEVER,
};

struct store_options {
    const struct disk *disk; /* NULL: the real one; outlives the store */
    const char *dir;         /* exists and is locked by the caller */
    uint64_t capacity_bytes; /* of slots: size_class_charge() of every page */
    uint64_t region_bytes;   /* of pages, 4096 for each, of one region; 0: no limit of its own */
    uint32_t max_regions;    /* with a name; 0: REGION_MAX */
    enum store_durability durability;
    unsigned scan_threads; /* to read a store back with, at least 1 */
    enum store_purpose purpose;
    enum store_moves moves;
    /* What is wrong with the files is added to it, also when opening fails. NULL: is only counted.
     */
    struct damage_list *damage;
};

/* What opening found. */
struct store_report {
    uint64_t pages;           /* slots in use */
    uint64_t regions;         /* with a name, the recovered ones included */
    uint64_t damaged_headers; /* slots set aside: nobody knows whose page is lost */
    uint64_t damaged_pages;   /* pages that will be answered with DATA_LOSS */
    uint64_t damaged_records; /* of the manifest, skipped */
    uint64_t damaged_files;   /* with a damaged header, cut short, or missing */
    uint64_t lost_pages;      /* damaged before, and marked so by a repair */
    uint64_t recovered;       /* regions known only by their pages: named recovered-ID */
    bool power_cut;      /* the machine was started anew since the last sync that is known of */
    uint64_t unfinished; /* after that: pages and branches that were never made sure of */
};

/* Opens the store in the directory, making it if the directory is empty. Returns 0 or -errno:
 * -EPROTONOSUPPORT a file has another format; -EBADMSG the file that names the shard is damaged, or
 * missing while there are others.
 *
 * Damaged pages are answered with -EBADMSG. Where pages may have been lost that nobody knows of,
 * the regions there are become REGION_INCOMPLETE. Damaged slots stay as they are, to be seen again
 * at the next opening; files are made whole. With STORE_REPAIR damaged pages are marked as lost,
 * slots of unknown pages are freed, and the manifest is written anew; a crash in between leaves a
 * store that can be repaired again. */
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
 * -EBADMSG: the bytes of page *BAD do not match their checksum. -ENODATA: what is stored of page
 * *BAD is damaged so that nobody can tell which of the two is newer. -E2BIG: the region would hold
 * more than one may. */
int store_put(struct store *store, uint64_t id, uint64_t epoch, const struct wire_page *pages,
              uint32_t npages, const void *body, uint64_t *bad) __attribute__((warn_unused_result));

/* Where the pages of a get are. */
struct store_found {
    uint64_t refs[WIRE_MAX_PAGES]; /* 0: absent */
    size_t body_bytes;
};

/* Finds NPAGES pages, filling in what PAGES says of them beside the number. -EBADMSG: page *BAD is
 * damaged. -ENODATA: it may be lost, the region or one it came from being REGION_INCOMPLETE. */
int store_locate(struct store *store, uint64_t id, uint64_t epoch, struct wire_page *pages,
                 uint32_t npages, struct store_found *found, uint64_t *bad)
    __attribute__((warn_unused_result));

/* Where their bytes are, found->body_bytes of them, in NPARTS (at most NPAGES) parts: until the
 * store is used again; nothing may have changed since store_locate(). They were checked; what the
 * disk makes of them afterwards is for whoever gets them to check again. -EBADMSG: page *BAD is
 * damaged. */
int store_view(const struct store *store, const struct wire_page *pages, uint32_t npages,
               const struct store_found *found, struct iovec *parts, unsigned *nparts,
               uint64_t *bad) __attribute__((warn_unused_result));

/* Drops the pages in the ranges that were stored with at most this SEQUENCE. */
int store_drop(struct store *store, uint64_t id, uint64_t epoch, uint64_t sequence,
               const struct wire_range *ranges, uint32_t nranges)
    __attribute__((warn_unused_result));

/* Fills in all but the requests. */
void store_stat(const struct store *store, struct wire_shard_info *info);

/* Whether no request of the largest size has room within the capacity: what that refuses is one of
 * those. */
bool store_is_full(const struct store *store);

/* Reads on at slot *REF (0: the beginning; set to 0 at the end), as many slots as are in MAX pages.
 * *BYTES grows by what was read. *AGAIN: nothing was, it is still on its
 * way into memory, which HURRY does not wait for. True: a damaged slot was found, *DAMAGE, that was
 * not said before. */
bool store_scrub(struct store *store, uint64_t *ref, uint32_t max, bool hurry, uint64_t *bytes,
                 bool *again, struct damage *damage);

/* What a person is told of DAMAGE, in one line without its end. */
void store_describe_damage(const struct store *store, const struct damage *damage, char *text,
                           size_t cap);

/* A small step of what can wait: freeing the pages of removed regions, giving back empty files and
 * blocks of free slots, moving pages so that there are more of those. Returns whether there is more
 * to be done now. */
bool store_work(struct store *store);

/* How many pages were moved since the store was opened. */
uint64_t store_moved(const struct store *store);

/* After store_work() returned false: in how many ms it may have something to do, though nothing
 * changes and no round of syncing ends; -1: it will not. */
int store_pause_ms(const struct store *store);

/* Whether there are changes since the last round began; never so with STORE_NONE. */
bool store_changed(const struct store *store);

/* Whether a full round has something to do, be it for freed slots only. */
bool store_unsettled(const struct store *store);

/* A round of syncing begins: *JOB, to be run in any thread, makes all changes so far survive a
 * power cut. The store may be used on meanwhile, but not closed. FULL: also what only frees slots
 * for good. Returns 0 (store_end_sync() must follow) or -errno. */
int store_begin_sync(struct store *store, bool full, struct sync_job **job)
    __attribute__((warn_unused_result));

/* The job has run and returned ERR. Returns that, or what another sync failed with meanwhile. */
int store_end_sync(struct store *store, int err) __attribute__((warn_unused_result));

/* A whole round. Blocks. None may be under way. */
int store_commit(struct store *store, bool full) __attribute__((warn_unused_result));

/* What a sync failed with, 0: none has. */
int store_failure(const struct store *store);

/* Before an orderly end: makes all sure, and writes down that it is. Blocks. */
int store_settle(struct store *store) __attribute__((warn_unused_result));

#endif
