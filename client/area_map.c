#include "area_map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Addresses have at most 57 bits, page numbers 45; keys may have 52 (PROTOCOL.md). */
#define FIRST_FRESH_KEY ((uint64_t)1 << 45)

struct area_map {
    struct area *areas;
    size_t count, capacity;
    size_t moved; /* areas with a delta */
    uint64_t next_fresh_key;
};

int area_map_new(struct area_map **out)
{
    struct area_map *map = calloc(1, sizeof *map);
    if (!map)
        return -ENOMEM;
    map->next_fresh_key = FIRST_FRESH_KEY;
    *out = map;
    return 0;
}

void area_map_destroy(struct area_map **map)
{
    if (!*map)
        return;
    free((*map)->areas);
    free(*map);
    *map = NULL;
}

/* Index of the first area that ends after PAGE. */
static size_t seek(const struct area_map *map, uint64_t page)
{
    size_t low = 0;
    size_t high = map->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (map->areas[middle].end <= page)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct area *area_map_after(const struct area_map *map, uint64_t page)
{
    size_t i = seek(map, page);
    return i < map->count ? &map->areas[i] : NULL;
}

const struct area *area_map_find(const struct area_map *map, uint64_t page)
{
    const struct area *area = area_map_after(map, page);
    return area && area->start <= page ? area : NULL;
}

static int insert(struct area_map *map, struct area area)
{
    size_t at = seek(map, area.start);
    assert(at == map->count || map->areas[at].start >= area.end);
    /* Grown heaps and stacks of mappings would otherwise make thousands of areas. */
    if (at > 0 && map->areas[at - 1].end == area.start && map->areas[at - 1].delta == area.delta) {
        map->areas[at - 1].end = area.end;
        return 0;
    }
    if (map->count == map->capacity) {
        size_t capacity = map->capacity ? 2 * map->capacity : 64;
        struct area *areas = realloc(map->areas, capacity * sizeof *areas);
        if (!areas)
            return -ENOMEM;
        map->areas = areas;
        map->capacity = capacity;
    }
    memmove(map->areas + at + 1, map->areas + at, (map->count - at) * sizeof *map->areas);
    map->areas[at] = area;
    map->count++;
    map->moved += area.delta != 0;
    return 0;
}

static bool key_in_use(const struct area_map *map, uint64_t start, uint64_t end)
{
    for (size_t i = 0; map->moved > 0 && i < map->count; i++) {
        const struct area *area = &map->areas[i];
        if (area->delta != 0 && area_key(area, area->start) < end &&
            start < area_key(area, area->end))
            return true;
    }
    return false;
}

int area_map_add(struct area_map *map, uint64_t start, uint64_t end)
{
    assert(start < end);
    struct area area = {start, end, 0};
    if (key_in_use(map, start, end)) {
        area.delta = (int64_t)(map->next_fresh_key - start);
        map->next_fresh_key += end - start;
    }
    return insert(map, area);
}

int area_map_remove(struct area_map *map, uint64_t start, uint64_t end)
{
    size_t i = seek(map, start);
    if (i == map->count)
        return 0;
    if (i < map->count && map->areas[i].start < start && map->areas[i].end > end) {
        struct area rest = map->areas[i];
        rest.start = end;
        map->areas[i].end = start;
        return insert(map, rest);
    }
    if (i < map->count && map->areas[i].start < start)
        map->areas[i++].end = start;
    size_t last = i;
    while (last < map->count && map->areas[last].end <= end)
        map->moved -= map->areas[last++].delta != 0;
    memmove(map->areas + i, map->areas + last, (map->count - last) * sizeof *map->areas);
    map->count -= last - i;
    if (i < map->count && map->areas[i].start < end)
        map->areas[i].start = end;
    return 0;
}

int area_map_move(struct area_map *map, uint64_t from, uint64_t to, uint64_t npages)
{
    int64_t shift = (int64_t)(from - to);
    for (;;) {
        size_t i = seek(map, from);
        if (i == map->count || map->areas[i].start >= from + npages)
            return 0;
        struct area part = map->areas[i];
        if (part.start < from)
            part.start = from;
        if (part.end > from + npages)
            part.end = from + npages;
        int err = area_map_remove(map, part.start, part.end);
        if (err)
            return err;
        part.start -= (uint64_t)shift;
        part.end -= (uint64_t)shift;
        part.delta += shift;
        err = insert(map, part);
        if (err)
            return err;
    }
}

int area_map_copy(struct area_map **out, const struct area_map *from)
{
    struct area_map *map = calloc(1, sizeof *map);
    struct area *areas = calloc(from->count ? from->count : 1, sizeof *areas);
    if (!map || !areas) {
        free(map);
        free(areas);
        return -ENOMEM;
    }
    if (from->count)
        memcpy(areas, from->areas, from->count * sizeof *areas);
    *map = *from;
    map->areas = areas;
    map->capacity = from->count ? from->count : 1;
    *out = map;
    return 0;
}

/* Where, after PAGE, an area begins or ends; END at most. */
static uint64_t next_edge(const struct area_map *map, uint64_t page, uint64_t end)
{
    const struct area *area = area_map_after(map, page);
    uint64_t edge = !area ? end : area->start > page ? area->start : area->end;
    return edge < end ? edge : end;
}

uint64_t area_map_differing(const struct area_map *map, const struct area_map *other,
                            uint64_t start, uint64_t end)
{
    uint64_t count = 0;
    for (uint64_t next, page = start; page < end; page = next) {
        uint64_t edge = next_edge(other, page, end);
        next = next_edge(map, page, end);
        if (edge < next)
            next = edge;
        if (!area_map_find(map, page) != !area_map_find(other, page))
            count += next - page;
    }
    return count;
}

size_t area_map_count(const struct area_map *map)
{
    return map->count;
}
