/*
 * slot_map: which slots of a segment are free: ready to be filled, or holes, whose blocks must be
 * reserved first, or pending: not marked free in the file yet. Of the others, which are dropped or
 * superseded, and which must still be marked so, or not so, in the file. 64 slots that follow each
 * other are a group; group I is bit by bit the slots from 64 * I on.
 *
 * Thread: one owner.
 */
#ifndef EDM_DMS_SLOT_MAP_H
#define EDM_DMS_SLOT_MAP_H

#include <stdbool.h>
#include <stdint.h>

struct slot_map {
    uint32_t nready, nholes, npending;
    uint32_t nmarks; /* slots that are not free and to be marked */
    uint32_t ngroups;
    uint32_t ready_hint, hole_hint; /* groups to look at first */
    uint32_t pending_low;           /* no group before it has pending slots, or such to be marked */
    uint64_t *ready, *holes, *pending, *dropped, *superseded, *marks;
};

/* NSLOTS, a multiple of 64, none of them free. Returns 0 or -ENOMEM. */
int slot_map_init(struct slot_map *map, uint32_t nslots) __attribute__((warn_unused_result));
void slot_map_destroy(struct slot_map *map);

/* A slot that is not free becomes so, and is not dropped or superseded any more. */
void slot_map_add_ready(struct slot_map *map, uint32_t slot);
void slot_map_add_hole(struct slot_map *map, uint32_t slot);
void slot_map_add_pending(struct slot_map *map, uint32_t slot);

/* Takes up to MAX ready slots that follow each other and stores their first in *FIRST. Returns how
 * many; 0 only when no slot is ready. */
uint32_t slot_map_take(struct slot_map *map, uint32_t max, uint32_t *first);

/* As slot_map_take(), from GROUP alone. */
uint32_t slot_map_take_in(struct slot_map *map, uint32_t group, uint32_t max, uint32_t *first);

/* The slots of GROUP that somebody holds, a bit each: neither free nor waiting to be. */
uint64_t slot_map_held(const struct slot_map *map, uint32_t group);

/* A group that has holes; there must be one. */
uint32_t slot_map_find_holes(struct slot_map *map);

/* A slot that is not free is dropped or superseded, or not; slot_map_mark(): to be marked so. */
void slot_map_set_dropped(struct slot_map *map, uint32_t slot, bool is_dropped);
bool slot_map_is_dropped(const struct slot_map *map, uint32_t slot);
void slot_map_set_superseded(struct slot_map *map, uint32_t slot, bool is_superseded);
bool slot_map_is_superseded(const struct slot_map *map, uint32_t slot);
void slot_map_mark(struct slot_map *map, uint32_t slot);

/* The first group that has pending slots or such to be marked; there must be one. */
uint32_t slot_map_find_pending(struct slot_map *map);

/* The group is marked in the file: its pending slots become ready. */
void slot_map_settle(struct slot_map *map, uint32_t group);

/* The group's holes become ready, and its ready slots among WHICH holes. Returns how many. */
uint32_t slot_map_fill_holes(struct slot_map *map, uint32_t group);
uint32_t slot_map_make_holes(struct slot_map *map, uint32_t group, uint64_t which);

#endif
