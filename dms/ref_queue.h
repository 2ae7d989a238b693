/*
 * ref_queue: slots that wait until a round of syncing is done, first in, first out.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_REF_QUEUE_H
#define EDM_DMS_REF_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

struct ref_queue_entry {
    uint64_t ref;
    uint64_t due; /* the round, never less than that of the entry before */
};

/* All zero: empty. */
struct ref_queue {
    struct ref_queue_entry *at;
    uint64_t first, count, capacity; /* capacity: 0 or a power of two */
};

/* Returns 0 or -ENOMEM. */
int ref_queue_push(struct ref_queue *queue, uint64_t ref, uint64_t due)
    __attribute__((warn_unused_result));

/* Takes the first entry out if it is due by round DONE. */
bool ref_queue_pop(struct ref_queue *queue, uint64_t done, uint64_t *ref);

void ref_queue_clear(struct ref_queue *queue);

#endif
