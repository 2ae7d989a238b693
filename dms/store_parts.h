/*
 * store_parts: what the files of the store share: its parts, and how it is read back.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_STORE_PARTS_H
#define EDM_DMS_STORE_PARTS_H

#include "manifest.h"
#include "region.h"
#include "slot_pool.h"
#include "store.h"

struct store {
    const struct disk *disk;
    uint64_t id;
    uint32_t segment_slots;
    uint64_t capacity_bytes;
    uint64_t region_pages; /* one region may have */
    uint32_t max_regions;
    uint64_t stamp; /* changes so far: grows with every page stored, drop and region */
    struct slot_pool *pool;
    struct region_table *regions;
    struct manifest *manifest;
    struct region *doomed; /* removed regions whose pages are being freed */
    struct region *unsure; /* removed, without pages, that a power cut could bring back */
    bool any_incomplete;   /* a region is REGION_INCOMPLETE */
    uint64_t hidden;       /* damage_hidden(), as the manifest has it */
    enum store_durability durability;
    int failed;           /* what a sync failed with: nothing may change any more */
    uint64_t boot[2];     /* disk_boot() */
    bool was_synced;      /* the manifest has a note of what is on disk */
    uint64_t noted_stamp; /* the note's */
    bool unmarked;        /* slots could not be marked, as the manifest says */
    bool serving;         /* it was read back, and rounds of syncing are run */
    uint64_t rounds_begun;
    bool in_round, round_full;
    uint64_t round_stamp; /* what the round under way makes sure of */
    struct sync_job job;
    uint64_t moved; /* pages, since it was opened */
    int pause_ms;   /* until there may be pages to be moved, -1: no need to look */
};

extern const struct page_tree_ops store_tree_ops;

/* The region ID if EPOCH may use it. TO_CHANGE: frozen ones are refused. */
int store_check(const struct store *store, uint64_t id, uint64_t epoch, bool to_change,
                struct region **out) __attribute__((warn_unused_result));

/* A region with an empty page table, not yet in the table. */
int store_new_region(struct store *store, struct region **out, uint64_t id, const char *name)
    __attribute__((warn_unused_result));

/* The record that makes REGION, and adding it to the manifest. */
struct manifest_record store_describe_region(const struct region *region);
int store_log_region(struct store *store, const struct region *region)
    __attribute__((warn_unused_result));

/* The store was read back: from now on it is known what is on disk, or noted that it is not. */
int store_begin_durability(struct store *store) __attribute__((warn_unused_result));

/* Marks slots in the files, as slot_pool_flush(). What cannot be marked is tried again with the
 * next; until then the manifest says that there is something. If it cannot, nothing may change any
 * more: a page that was replaced might be served later. */
void store_mark(struct store *store);

/* The record that says whether there are slots that could not be marked. */
struct manifest_record store_describe_unmarked(bool unmarked);

/* Hands a removed region's pages to store_work(). */
void store_doom(struct store *store, struct region *region);

/* A step of freeing the pages of removed regions. Returns whether there is more. */
bool store_free_doomed(struct store *store);

/* A step of moving pages from groups with few to groups with more. Returns whether there is more.
 */
bool store_move_pages(struct store *store);

/* A removed region has no pages any more: frees it, once it cannot come back. As long as it can,
 * its parent has to take it for a child: its slots must not say what is dropped. */
void store_bury(struct store *store, struct region *region);

/* Opens manifest and segments and rebuilds the page tables from them. LIST: options->damage or, if
 * that is NULL, another. */
int store_recover(struct store *store, const struct store_options *options,
                  struct damage_list *list, struct store_report *report)
    __attribute__((warn_unused_result));

/* Takes out of LIST what concerns no region, counts the rest in REPORT, and where pages may be lost
 * that nobody knows of makes the regions incomplete. */
int store_settle_damage(struct store *store, struct damage_list *list, struct store_report *report)
    __attribute__((warn_unused_result));

/* Whether something in LIST hides pages that the manifest does not speak of yet. */
bool store_hides_more(const struct store *store, const struct damage_list *list);

/* What there is to say of slot REF. */
void store_find_damage(const struct store *store, uint64_t ref, enum damage_kind kind,
                       struct damage *damage);

/* The record that says whether segment FILE is there, and adding it to the manifest. */
struct manifest_record store_describe_file(const struct slot_pool_file *file, bool there);
int store_note_file(void *store, const struct slot_pool_file *file, bool there)
    __attribute__((warn_unused_result));

/* What the manifest says about that, and taking it from there. */
struct manifest_record store_describe_hidden(const struct store *store);
struct manifest_record store_describe_doubt(const struct region *region);
void store_apply_incomplete(struct store *store, const struct manifest_record *record);

/* The two halves of a repair: slots of damaged pages say that these are lost; then, when the
 * manifest says what is incomplete, slots of unknown pages are freed. */
int store_lose_pages(struct store *store, const struct damage_list *list)
    __attribute__((warn_unused_result));
void store_free_unknown(struct store *store, const struct damage_list *list);

#endif
