/*
 * area_map: the ranges of a program's memory that are registered, and under which numbers their
 * pages are stored.
 *
 * Pure. Ranges are of page numbers, [start, end), sorted, and do not overlap. A stored page is
 * known to the store by its key. As a rule that is the page number; when the program moves memory
 * (mremap) the keys stay with the content, so that nothing stored has to be moved: an area then has
 * a delta, key = page + delta. A fresh area whose page numbers are in use as keys of moved memory
 * gets keys from beyond all addresses.
 *
 * Thread: the pager's.
 */
#ifndef EDM_CLIENT_AREA_MAP_H
#define EDM_CLIENT_AREA_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct area {
    uint64_t start, end; /* page numbers */
    int64_t delta;       /* key = page + delta */
};

struct area_map;

int area_map_new(struct area_map **out) __attribute__((warn_unused_result));
void area_map_destroy(struct area_map **map);

/* The area that holds PAGE, or NULL. Valid until the map changes. */
const struct area *area_map_find(const struct area_map *map, uint64_t page);

/* The first area that ends after PAGE, or NULL: for walking. */
const struct area *area_map_after(const struct area_map *map, uint64_t page);

/* Adds [start, end), which must be free, with fresh keys. 0 or -ENOMEM. */
int area_map_add(struct area_map *map, uint64_t start, uint64_t end)
    __attribute__((warn_unused_result));

/* Takes [start, end) out; areas that reach beyond are cut. 0 or -ENOMEM. */
int area_map_remove(struct area_map *map, uint64_t start, uint64_t end)
    __attribute__((warn_unused_result));

/* Moves what there is of [from, from + npages) to TO, keys and all; the target must be free. */
int area_map_move(struct area_map *map, uint64_t from, uint64_t to, uint64_t npages)
    __attribute__((warn_unused_result));

/* A copy, keys and all. 0 or -ENOMEM. */
int area_map_copy(struct area_map **out, const struct area_map *from)
    __attribute__((warn_unused_result));

/* How many pages of [start, end) are in an area of one of the two and not of the other. */
uint64_t area_map_differing(const struct area_map *map, const struct area_map *other,
                            uint64_t start, uint64_t end);

size_t area_map_count(const struct area_map *map);

static inline uint64_t area_key(const struct area *area, uint64_t page)
{
    return page + (uint64_t)area->delta;
}

#endif
