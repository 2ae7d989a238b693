#include "ref_queue.h"

#include <errno.h>
#include <stdlib.h>

enum { FIRST_CAPACITY = 256 };

static int grow(struct ref_queue *queue)
{
    uint64_t capacity = queue->capacity == 0 ? FIRST_CAPACITY : 2 * queue->capacity;
    struct ref_queue_entry *at = malloc(capacity * sizeof(*at));

    if (at == NULL)
        return -ENOMEM;
    for (uint64_t i = 0; i < queue->count; i++)
        at[i] = queue->at[(queue->first + i) & (queue->capacity - 1)];
    free(queue->at);
    queue->at = at;
    queue->first = 0;
    queue->capacity = capacity;
    return 0;
}

int ref_queue_push(struct ref_queue *queue, uint64_t ref, uint64_t due)
{
    if (queue->count == queue->capacity) {
        int err = grow(queue);
        if (err != 0)
            return err;
    }
    uint64_t end = (queue->first + queue->count++) & (queue->capacity - 1);
    queue->at[end] = (struct ref_queue_entry){ref, due};
    return 0;
}

bool ref_queue_pop(struct ref_queue *queue, uint64_t done, uint64_t *ref)
{
    if (queue->count == 0 || queue->at[queue->first].due > done)
        return false;
    *ref = queue->at[queue->first].ref;
    queue->first = (queue->first + 1) & (queue->capacity - 1);
    queue->count--;
    if (queue->count == 0)
        ref_queue_clear(queue);
    return true;
}

void ref_queue_clear(struct ref_queue *queue)
{
    free(queue->at);
    *queue = (struct ref_queue){0};
}
