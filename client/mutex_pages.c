#include "mutex_pages.h"

#include "agent/agent_proto.h"

#include <stdlib.h>

struct mutex_pages {
    uint64_t changes; /* of what has been read */
    size_t count;
    uint64_t page[2 * AGENT_MUTEXES]; /* sorted; one may be there twice */
};

static int by_number(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
    return one < other ? -1 : one > other;
}

static void take(struct mutex_pages *pages, const struct agent_mutexes *mutexes)
{
    pages->count = 0;
    for (size_t i = 0; i < AGENT_MUTEXES; i++) {
        uint64_t at = mutexes->at[i];
        if (at == 0)
            continue;
        pages->page[pages->count++] = at / AGENT_PAGE_BYTES;
        pages->page[pages->count++] = (at + AGENT_MUTEX_BYTES - 1) / AGENT_PAGE_BYTES;
    }
    qsort(pages->page, pages->count, sizeof pages->page[0], by_number);
    pages->changes = mutexes->changes;
}

void mutex_pages_read(struct mutex_pages **pages, const struct proc_map *map, uint64_t address)
{
    uint64_t changes;
    if (address == 0 || !proc_map_read(map, address, &changes, sizeof changes) ||
        changes == (*pages ? (*pages)->changes : 0))
        return;
    struct agent_mutexes mutexes;
    if (!*pages)
        *pages = calloc(1, sizeof **pages);
    if (*pages && proc_map_read(map, address, &mutexes, sizeof mutexes)) {
        /* What has been changed since may be in there or not: it is read once more. */
        mutexes.changes = changes;
        take(*pages, &mutexes);
    }
}

void mutex_pages_destroy(struct mutex_pages **pages)
{
    free(*pages);
    *pages = NULL;
}

bool mutex_pages_has(const struct mutex_pages *pages, uint64_t page)
{
    return pages && pages->count > 0 &&
           bsearch(&page, pages->page, pages->count, sizeof page, by_number);
}
