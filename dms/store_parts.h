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
    uint64_t id;
    uint32_t segment_slots;
    uint64_t capacity_slots;
    uint64_t region_pages; /* one region may have */
    uint32_t max_regions;
    uint64_t stamp; /* changes so far: grows with every page stored, drop and region */
    struct slot_pool *pool;
    struct region_table *regions;
    struct manifest *manifest;
    struct region *doomed; /* removed regions whose pages are being freed */
    bool trimming;         /* empty segment files are to be given back */
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

/* Hands a removed region's pages to store_work(). */
void store_doom(struct store *store, struct region *region);

/* A step of freeing the pages of removed regions. Returns whether there is more. */
bool store_free_doomed(struct store *store);

/* Opens manifest and segments in DIR and rebuilds the page tables from them. */
int store_recover(struct store *store, const char *dir, unsigned scan_threads,
                  struct store_report *report) __attribute__((warn_unused_result));

#endif
