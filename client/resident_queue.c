#include "resident_queue.h"

#include <errno.h>
#include <stdlib.h>

enum {
    FIRST_CAPACITY = 4096,
    YOUNG_SHARE = 10, /* a tenth */
    STALE_EVERY = 8,  /* of the pages that leave one is a proven one, in any case */
};

struct ring {
    uint64_t *entries;             /* page << 8 | generation */
    size_t head, length, capacity; /* capacity is a power of two, or 0 */
};

struct resident_queue {
    struct ring young, proven;
    unsigned pops;
};

int resident_queue_new(struct resident_queue **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -ENOMEM;
}

void resident_queue_destroy(struct resident_queue **queue)
{
    if (!*queue)
        return;
    free((*queue)->young.entries);
    free((*queue)->proven.entries);
    free(*queue);
    *queue = NULL;
}

static int grow(struct ring *ring)
{
    size_t capacity = ring->capacity ? 2 * ring->capacity : FIRST_CAPACITY;
    uint64_t *entries = malloc(capacity * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    for (size_t i = 0; i < ring->length; i++)
        entries[i] = ring->entries[(ring->head + i) & (ring->capacity - 1)];
    free(ring->entries);
    ring->entries = entries;
    ring->capacity = capacity;
    ring->head = 0;
    return 0;
}

static int append(struct ring *ring, uint64_t entry)
{
    if (ring->length == ring->capacity) {
        int err = grow(ring);
        if (err)
            return err;
    }
    ring->entries[(ring->head + ring->length++) & (ring->capacity - 1)] = entry;
    return 0;
}

static uint64_t take(struct ring *ring)
{
    uint64_t entry = ring->entries[ring->head];
    ring->head = (ring->head + 1) & (ring->capacity - 1);
    ring->length--;
    return entry;
}

int resident_queue_push(struct resident_queue *queue, struct resident_entry entry, bool proven)
{
    return append(proven ? &queue->proven : &queue->young, entry.page << 8 | entry.generation);
}

bool resident_queue_pop(struct resident_queue *queue, struct resident_entry *out)
{
    size_t all = resident_queue_length(queue);
    if (all == 0)
        return false;
    bool young = queue->young.length * YOUNG_SHARE > all && ++queue->pops % STALE_EVERY != 0;
    young = young || queue->proven.length == 0;
    uint64_t entry = take(young && queue->young.length > 0 ? &queue->young : &queue->proven);
    *out = (struct resident_entry){entry >> 8, (uint8_t)entry};
    return true;
}

size_t resident_queue_length(const struct resident_queue *queue)
{
    return queue->young.length + queue->proven.length;
}

static void compact(struct ring *ring, bool (*live)(void *, struct resident_entry), void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < ring->length; i++) {
        uint64_t entry = ring->entries[(ring->head + i) & (ring->capacity - 1)];
        if (live(arg, (struct resident_entry){entry >> 8, (uint8_t)entry}))
            ring->entries[(ring->head + kept++) & (ring->capacity - 1)] = entry;
    }
    ring->length = kept;
}

void resident_queue_compact(struct resident_queue *queue,
                            bool (*live)(void *arg, struct resident_entry entry), void *arg)
{
    compact(&queue->young, live, arg);
    compact(&queue->proven, live, arg);
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

uint32_t resident_queue_sort_once(uint64_t *pages, uint32_t npages)
{
    uint32_t kept = 0;
    qsort(pages, npages, sizeof *pages, by_number);
    for (uint32_t i = 0; i < npages; i++)
        if (kept == 0 || pages[i] != pages[kept - 1])
            pages[kept++] = pages[i];
    return kept;
}
