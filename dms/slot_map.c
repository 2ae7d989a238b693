#include "slot_map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { GROUP_SLOTS = 64 };

int slot_map_init(struct slot_map *map, uint32_t nslots)
{
    *map = (struct slot_map){.ngroups = nslots / GROUP_SLOTS};
    map->ready = calloc(map->ngroups, sizeof(*map->ready));
    map->holes = calloc(map->ngroups, sizeof(*map->holes));
    map->pending = calloc(map->ngroups, sizeof(*map->pending));
    map->dropped = calloc(map->ngroups, sizeof(*map->dropped));
    map->superseded = calloc(map->ngroups, sizeof(*map->superseded));
    map->marks = calloc(map->ngroups, sizeof(*map->marks));
    if (map->ready != NULL && map->holes != NULL && map->pending != NULL && map->dropped != NULL &&
        map->superseded != NULL && map->marks != NULL)
        return 0;
    slot_map_destroy(map);
    return -ENOMEM;
}

void slot_map_destroy(struct slot_map *map)
{
    free(map->ready);
    free(map->holes);
    free(map->pending);
    free(map->dropped);
    free(map->superseded);
    free(map->marks);
    *map = (struct slot_map){0};
}

static uint64_t bit_of(uint32_t slot)
{
    return (uint64_t)1 << (slot % GROUP_SLOTS);
}

void slot_map_add_ready(struct slot_map *map, uint32_t slot)
{
    map->ready[slot / GROUP_SLOTS] |= bit_of(slot);
    map->nready++;
}

void slot_map_add_hole(struct slot_map *map, uint32_t slot)
{
    map->holes[slot / GROUP_SLOTS] |= bit_of(slot);
    map->nholes++;
}

static void look_from(struct slot_map *map, uint32_t group)
{
    if (group < map->pending_low)
        map->pending_low = group;
}

void slot_map_add_pending(struct slot_map *map, uint32_t slot)
{
    uint32_t group = slot / GROUP_SLOTS;

    map->pending[group] |= bit_of(slot);
    map->npending++;
    map->nmarks -= (map->marks[group] & bit_of(slot)) != 0;
    map->marks[group] &= ~bit_of(slot);
    map->dropped[group] &= ~bit_of(slot);
    map->superseded[group] &= ~bit_of(slot);
    look_from(map, group);
}

static void set(uint64_t *bits, uint32_t slot, bool is_set)
{
    if (is_set)
        bits[slot / GROUP_SLOTS] |= bit_of(slot);
    else
        bits[slot / GROUP_SLOTS] &= ~bit_of(slot);
}

void slot_map_set_dropped(struct slot_map *map, uint32_t slot, bool is_dropped)
{
    set(map->dropped, slot, is_dropped);
}

void slot_map_set_superseded(struct slot_map *map, uint32_t slot, bool is_superseded)
{
    set(map->superseded, slot, is_superseded);
}

bool slot_map_is_superseded(const struct slot_map *map, uint32_t slot)
{
    return (map->superseded[slot / GROUP_SLOTS] & bit_of(slot)) != 0;
}

bool slot_map_is_dropped(const struct slot_map *map, uint32_t slot)
{
    return (map->dropped[slot / GROUP_SLOTS] & bit_of(slot)) != 0;
}

void slot_map_mark(struct slot_map *map, uint32_t slot)
{
    uint32_t group = slot / GROUP_SLOTS;

    map->nmarks += (map->marks[group] & bit_of(slot)) == 0;
    map->marks[group] |= bit_of(slot);
    look_from(map, group);
}

/* Takes the run that begins with GROUP's first ready slot and goes on to END at most. */
static uint32_t take_run(struct slot_map *map, uint32_t group, uint32_t end, uint32_t max,
                         uint32_t *first)
{
    uint32_t slot = group * GROUP_SLOTS + (uint32_t)__builtin_ctzll(map->ready[group]);
    uint32_t count = 0;

    *first = slot;
    for (; count < max && slot < end && (map->ready[slot / GROUP_SLOTS] & bit_of(slot)) != 0;
         slot++, count++)
        map->ready[slot / GROUP_SLOTS] &= ~bit_of(slot);
    map->nready -= count;
    return count;
}

uint32_t slot_map_take(struct slot_map *map, uint32_t max, uint32_t *first)
{
    if (map->nready == 0 || max == 0)
        return 0;
    while (map->ready[map->ready_hint] == 0)
        map->ready_hint = (map->ready_hint + 1) % map->ngroups;
    return take_run(map, map->ready_hint, map->ngroups * GROUP_SLOTS, max, first);
}

uint32_t slot_map_take_in(struct slot_map *map, uint32_t group, uint32_t max, uint32_t *first)
{
    if (map->ready[group] == 0 || max == 0)
        return 0;
    return take_run(map, group, (group + 1) * GROUP_SLOTS, max, first);
}

uint64_t slot_map_held(const struct slot_map *map, uint32_t group)
{
    return ~(map->ready[group] | map->holes[group] | map->pending[group] | map->dropped[group] |
             map->superseded[group]);
}

uint32_t slot_map_find_holes(struct slot_map *map)
{
    assert(map->nholes > 0);
    while (map->holes[map->hole_hint] == 0)
        map->hole_hint = (map->hole_hint + 1) % map->ngroups;
    return map->hole_hint;
}

uint32_t slot_map_find_pending(struct slot_map *map)
{
    assert(map->npending + map->nmarks > 0);
    while ((map->pending[map->pending_low] | map->marks[map->pending_low]) == 0)
        map->pending_low++;
    return map->pending_low;
}

void slot_map_settle(struct slot_map *map, uint32_t group)
{
    uint32_t count = (uint32_t)__builtin_popcountll(map->pending[group]);

    map->ready[group] |= map->pending[group];
    map->pending[group] = 0;
    map->nmarks -= (uint32_t)__builtin_popcountll(map->marks[group]);
    map->marks[group] = 0;
    map->nready += count;
    map->npending -= count;
}

uint32_t slot_map_fill_holes(struct slot_map *map, uint32_t group)
{
    uint32_t count = (uint32_t)__builtin_popcountll(map->holes[group]);

    map->ready[group] |= map->holes[group];
    map->holes[group] = 0;
    map->nready += count;
    map->nholes -= count;
    return count;
}

uint32_t slot_map_make_holes(struct slot_map *map, uint32_t group, uint64_t which)
{
    uint64_t made = map->ready[group] & which;
    uint32_t count = (uint32_t)__builtin_popcountll(made);

    map->ready[group] &= ~made;
    map->holes[group] |= made;
    map->nready -= count;
    map->nholes += count;
    return count;
}
