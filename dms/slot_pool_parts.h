/*
 * slot_pool_parts: what the files of a slot pool share.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_SLOT_POOL_PARTS_H
#define EDM_DMS_SLOT_POOL_PARTS_H

#include "ref_queue.h"
#include "slot_pool.h"

/* The segments with ready slots, with holes, with slots that wait to be marked: lists by size
 * class, from most to least wanted. */
enum slot_list { SLOT_LIST_READY, SLOT_LIST_HOLES, SLOT_LIST_UNMARKED, SLOT_LISTS };

struct slot_link {
    uint32_t previous, next;
    bool listed;
};

/* One segment file. */
struct member {
    struct segment *segment; /* NULL: none in this place */
    struct slot_pool_file file;
    uint32_t size_class;
    uint8_t *checks; /* during a scan: enum slot_check of every slot */
    struct slot_link links[SLOT_LISTS];
    bool lost; /* parts of it cannot be read: nothing more is stored there or given back of it */
    bool kept; /* the file cannot be removed */
    bool headers_lost; /* at the scan: what was in its slots nobody knows */
};

/* Where giving back blocks has got to. */
struct slot_trim {
    uint32_t member, slot;
    uint32_t left;   /* members to be looked at; 0: nothing under way */
    uint64_t seen;   /* ready bytes it has found, of those there were when it began */
    uint64_t stuck;  /* and left, the last time it had looked at all */
    bool impossible; /* the file system does not do it */
};

/* A group of a segment. */
struct slot_place {
    uint32_t member, group;
};

/* Emptying sparse groups, one class after the other: how far it has got. */
struct slot_compact {
    bool eager, never;
    enum { COMPACT_IDLE, COMPACT_SURVEY, COMPACT_MOVE } phase;
    uint32_t size_class;
    struct slot_place at; /* the group being counted, or emptied */
    struct slot_place to; /* the one being filled */
    uint64_t done;        /* slots of the group being emptied that were chosen, a bit each */
    uint32_t limit;       /* groups with fewer slots in use are emptied, those with more filled */
    uint32_t ngroups[SEGMENT_GROUP_SLOTS + 1]; /* that have so many slots in use */
    uint64_t nblocks[SEGMENT_GROUP_SLOTS + 1]; /* of all those */
    unsigned nwaits;
    int64_t due_ms, checked_ms;
    uint64_t freed[SIZE_CLASSES];  /* slots since the class was looked at */
    uint64_t filled[SIZE_CLASSES]; /* since it was checked whether it is quiet */
    bool quiet[SIZE_CLASSES];      /* in the time before that */
    bool later[SIZE_CLASSES];      /* was looked at while pages were stored: once more when idle */
    bool idle;                     /* hardly anything was stored in any class */
};

struct slot_pool {
    const struct disk *disk;
    char *dir;
    uint32_t segment_slots;
    uint32_t next_number;
    int (*note)(void *context, const struct slot_pool_file *file, bool there);
    void *note_context;
    struct member *members;
    uint32_t nmembers;
    struct {
        uint32_t head, tail;
    } lists[SLOT_LISTS][SIZE_CLASSES];
    struct segment *dying; /* unlinked, being given back piece by piece */
    uint32_t nempty;       /* segments with no slot in use */
    uint32_t nunsure;      /* segments whose holes may have blocks */
    uint64_t used, used_bytes;
    uint64_t nused[SIZE_CLASSES];
    uint64_t nready[SIZE_CLASSES];
    uint64_t ready_bytes; /* that free slots have on disk */
    uint64_t held_bytes;  /* that those in use have */
    uint64_t capacity_bytes;
    struct slot_trim trim;
    struct slot_compact compact;
    uint32_t nfaults; /* mapped_fault_total() when all was seen to */
    bool durable;
    bool changed;     /* pages were stored or dropped since the last round began */
    bool freed;       /* or slots marked free */
    bool dir_changed; /* or files made or removed */
    bool forgot;      /* slots that were to be freed could not be remembered */
    uint64_t rounds_begun, rounds_done, full_begun, full_done;
    struct ref_queue superseded; /* due by rounds_done */
    struct ref_queue dropped;    /* due by full_done; not durable: with the next flush */
};

enum { SLOT_POOL_NONE = UINT32_MAX, SLOT_POOL_MAX_NUMBER = 999999999, SLOT_POOL_NAME_BYTES = 32 };

/* Slots of the class became free: it may be worth to look how sparse its groups are. */
void slot_pool_note_freed(struct slot_pool *pool, uint32_t size_class, uint32_t nslots);

/* Fills slots [SLOT, SLOT + TAKEN) of member I, just taken. *FIRST: the first of them. Returns
 * TAKEN or -errno, and then they are given back. */
int slot_pool_fill_taken(struct slot_pool *pool, uint32_t i, uint32_t slot, uint32_t taken,
                         const struct slot_source *sources, uint64_t *first)
    __attribute__((warn_unused_result));

/* Frees a slot that nobody holds, with the next slot_pool_flush(). */
void slot_pool_free(struct slot_pool *pool, uint64_t ref);

uint64_t slot_pool_ref(uint32_t member, uint32_t slot);

/* What a slot of that class takes on disk. */
uint64_t slot_pool_slot_bytes(uint32_t size_class);

/* Makes place number I. Returns 0 or -ENOMEM. */
int slot_pool_make_member(struct slot_pool *pool, uint32_t i) __attribute__((warn_unused_result));

/* The file's path with SUFFIX. Returns 0 or -ENAMETOOLONG. */
int slot_pool_path(const struct slot_pool *pool, const struct member *member, const char *suffix,
                   char *path, size_t cap) __attribute__((warn_unused_result));

/* As slot_pool_on_file() wants it. */
int slot_pool_note(const struct slot_pool *pool, const struct member *member, bool there)
    __attribute__((warn_unused_result));

/* Takes member I, parts of which cannot be read, out of use, and logs it. */
void slot_pool_retire(struct slot_pool *pool, uint32_t i);

/* Takes member I, which has no slot in use, out of counts and lists. */
void slot_pool_forget(struct slot_pool *pool, uint32_t i);

/* NUSED slots of member I more are in use, NREADY more are ready, or fewer: brings counts and lists
 * up to date. Ready slots of lost members do not count. */
void slot_pool_account(struct slot_pool *pool, uint32_t i, int64_t nused, int64_t nready);

/* What a new segment of that class is like. */
struct segment_shape slot_pool_shape(const struct slot_pool *pool, uint32_t slot_bytes);

bool slot_pool_is_empty(const struct segment *segment);

#endif
