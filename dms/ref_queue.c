#include "ref_queue.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

enum { FIRST_CAPACITY = 256 /* a page */ };

static void unmap(struct ref_queue *queue)
{
    if (queue->at != NULL)
        munmap(queue->at, queue->capacity * sizeof(*queue->at));
}

/* Not from malloc(), which would keep what a burst of PUTs needed. */
static int grow(struct ref_queue *queue)
{
    uint64_t capacity = queue->capacity == 0 ? FIRST_CAPACITY : 2 * queue->capacity;
    struct ref_queue_entry *at = mmap(NULL, capacity * sizeof(*at), PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        return -ENOMEM;
    for (uint64_t i = 0; i < queue->count; i++)
        at[i] = queue->at[(queue->first + i) & (queue->capacity - 1)];
    unmap(queue);
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
    unmap(queue);
    *queue = (struct ref_queue){0};
}
