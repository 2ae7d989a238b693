/*
 * region: the regions of one shard, by id and by name.
 *
 * A region whose name was removed stays in the table, without a name, while its pages are being
 * freed and as long as regions branched from it exist: their pages may still carry its id.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_REGION_H
#define EDM_DMS_REGION_H

#include "../proto/wire.h"
#include "page_tree.h"

#include <stdbool.h>
#include <stdint.h>

enum { REGION_MAX = 65536 }; /* named regions of a shard */

/* INCOMPLETE: pages of it may be lost of which nothing is left that says so. What it does not have
 * is not known to be absent, and what it has from others is not known not to have been replaced.
 * Nor is what it had itself when it was branched: doubt_stamp.
 * ORPHAN: its record was lost; what it had from others is not known. */
enum region_flag { REGION_FROZEN = 1, REGION_INCOMPLETE = 2, REGION_ORPHAN = 4 };

/* Those of regions that may have lost something nobody knows of. */
enum { REGION_DOUBTFUL = REGION_INCOMPLETE | REGION_ORPHAN };

struct region {
    uint64_t id;              /* random, not 0 */
    uint64_t parent;          /* id of the region it was branched or frozen from; 0: none */
    uint64_t epoch;           /* of the owner in force */
    uint64_t sequence;        /* highest stored */
    uint64_t logged_sequence; /* what the manifest says the highest is */
    uint64_t sequence_place;  /* of that in the manifest, 0: nowhere */
    uint64_t stamp;           /* the store's count of changes when it was made */
    uint64_t claim;           /* number of the request that made the epoch the one in force */
    uint64_t last_branched;   /* stamp of the last branch made of it that is known at the start */
    uint64_t doubt_stamp;     /* pages of its own up to this stamp may have been replaced */
    uint32_t flags;           /* enum region_flag */
    uint32_t nchildren;       /* regions in the table whose parent this is */
    uint64_t removal_round;   /* of syncing, that makes the removal sure; 0: none is waited for */
    bool removed;
    bool dropped_from; /* while starting: what the manifest says was dropped from it counts */
    bool solid;        /* all that it was branched from was on disk before it */
    char name[WIRE_MAX_NAME_BYTES + 1];
    struct page_tree *pages;    /* NULL once a removed region's pages are all freed */
    struct region *next_doomed; /* the store's list of removed regions */
};

struct region_table;

int region_table_new(struct region_table **out) __attribute__((warn_unused_result));

/* Frees the table, its regions and their page tables. */
void region_table_destroy(struct region_table **table);

/* Makes sure that the next region_table_add() cannot fail. Returns 0, -ENOMEM, or -ENOSPC when
 * there are REGION_MAX regions. */
int region_table_prepare(struct region_table *table) __attribute__((warn_unused_result));

/* Takes over REGION, whose id and name (unless it is removed) are not in the table yet. */
void region_table_add(struct region_table *table, struct region *region);

/* Takes the name away; the region stays. */
void region_table_unname(struct region_table *table, struct region *region);

/* Frees the region, which has no name and no children, and its page table; then its parent, should
 * that be removed for sure, without pages and now without children. */
void region_table_delete(struct region_table *table, struct region *region);

/* NULL when there is none. By id, removed regions are found too. */
struct region *region_table_find(const struct region_table *table, uint64_t id);
struct region *region_table_find_name(const struct region_table *table, const char *name);

/* The named region whose name is the first after NAME in byte order, NULL when there is none. */
struct region *region_table_after(const struct region_table *table, const char *name);

/* Regions with a name. */
uint32_t region_table_count(const struct region_table *table);

/* All regions, removed ones too, in no particular order: I from 0 to region_table_size() - 1. */
uint32_t region_table_size(const struct region_table *table);
struct region *region_table_at(const struct region_table *table, uint32_t i);

#endif
