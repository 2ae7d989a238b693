#include "region.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 64 };

/* Pointers to regions in ascending order. */
struct sorted {
    struct region **at;
    uint32_t count, capacity;
};

struct region_table {
    struct sorted ids;
    struct sorted names;
};

int region_table_new(struct region_table **out)
{
    *out = calloc(1, sizeof(**out));
    return *out == NULL ? -ENOMEM : 0;
}

void region_table_destroy(struct region_table **table)
{
    if (*table == NULL)
        return;
    for (uint32_t i = 0; i < (*table)->ids.count; i++) {
        page_tree_destroy(&(*table)->ids.at[i]->pages);
        free((*table)->ids.at[i]);
    }
    free((*table)->ids.at);
    free((*table)->names.at);
    free(*table);
    *table = NULL;
}

static int make_room(struct sorted *sorted)
{
    if (sorted->count < sorted->capacity)
        return 0;
    uint32_t capacity = sorted->capacity == 0 ? FIRST_CAPACITY : 2 * sorted->capacity;
    struct region **at = realloc(sorted->at, capacity * sizeof(*at)); /* NOLINT: of pointers */
    if (at == NULL)
        return -ENOMEM;
    sorted->at = at;
    sorted->capacity = capacity;
    return 0;
}

int region_table_prepare(struct region_table *table)
{
    if (table->names.count >= REGION_MAX)
        return -ENOSPC;
    int err = make_room(&table->ids);
    return err != 0 ? err : make_room(&table->names);
}

static void insert(struct sorted *sorted, uint32_t i, struct region *region)
{
    memmove(&sorted->at[i + 1], &sorted->at[i], (sorted->count - i) * sizeof(struct region *));
    sorted->at[i] = region;
    sorted->count++;
}

static void take_out(struct sorted *sorted, uint32_t i)
{
    sorted->count--;
    memmove(&sorted->at[i], &sorted->at[i + 1], (sorted->count - i) * sizeof(struct region *));
}

/* Where the first region with an id of at least ID is. */
static uint32_t place_of_id(const struct region_table *table, uint64_t id)
{
    uint32_t low = 0, high = table->ids.count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->ids.at[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Where the first region with a name of at least NAME (AFTER: beyond NAME) is. */
static uint32_t place_of_name(const struct region_table *table, const char *name, bool after)
{
    uint32_t low = 0, high = table->names.count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(table->names.at[middle]->name, name);
        if (order < 0 || (after && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void region_table_add(struct region_table *table, struct region *region)
{
    assert(table->ids.count < table->ids.capacity && table->names.count < table->names.capacity);
    insert(&table->ids, place_of_id(table, region->id), region);
    if (!region->removed)
        insert(&table->names, place_of_name(table, region->name, false), region);
    struct region *parent = region_table_find(table, region->parent);
    if (parent != NULL)
        parent->nchildren++;
}

void region_table_unname(struct region_table *table, struct region *region)
{
    uint32_t i = place_of_name(table, region->name, false);

    assert(i < table->names.count && table->names.at[i] == region);
    take_out(&table->names, i);
    region->removed = true;
}

void region_table_delete(struct region_table *table, struct region *region)
{
    while (region != NULL) {
        assert(region->removed && region->nchildren == 0);
        struct region *parent = region_table_find(table, region->parent);
        take_out(&table->ids, place_of_id(table, region->id));
        page_tree_destroy(&region->pages);
        free(region);
        if (parent == NULL)
            return;
        parent->nchildren--;
        bool done = parent->removed && parent->pages == NULL && parent->nchildren == 0 &&
                    parent->removal_round == 0;
        region = done ? parent : NULL;
    }
}

struct region *region_table_find(const struct region_table *table, uint64_t id)
{
    uint32_t i = place_of_id(table, id);

    return i < table->ids.count && table->ids.at[i]->id == id ? table->ids.at[i] : NULL;
}

struct region *region_table_find_name(const struct region_table *table, const char *name)
{
    uint32_t i = place_of_name(table, name, false);

    if (i == table->names.count || strcmp(table->names.at[i]->name, name) != 0)
        return NULL;
    return table->names.at[i];
}

struct region *region_table_after(const struct region_table *table, const char *name)
{
    uint32_t i = place_of_name(table, name, true);

    return i < table->names.count ? table->names.at[i] : NULL;
}

uint32_t region_table_count(const struct region_table *table)
{
    return table->names.count;
}

uint32_t region_table_size(const struct region_table *table)
{
    return table->ids.count;
}

struct region *region_table_at(const struct region_table *table, uint32_t i)
{
    return table->ids.at[i];
}
