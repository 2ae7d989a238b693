/*
 * resident_queue: in which order resident pages are to leave.
 *
 * Two queues, first in first out, after S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are
 * all you need for cache eviction", SOSP 2023): pages start in the young queue and leave from it as
 * long as it holds more than a tenth of all; a page that is asked for soon after it left enters the
 * main queue (one that is merely read ahead does not). The paper's third part, the ghost queue, is
 * the eviction time in the page table. Whether a page in the main queue is still used nobody can
 * see: so every eighth that leaves is from there in any case, and shows it by coming back.
 *
 * Pure. Entries carry the page's generation and are not removed when a page goes: whoever takes one
 * compares generations and passes over old ones.
 *
 * Thread: the pager's.
 */
#ifndef EDM_CLIENT_RESIDENT_QUEUE_H
#define EDM_CLIENT_RESIDENT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct resident_queue;

struct resident_entry {
    uint64_t page; /* below 2^56 */
    uint8_t generation;
};

int resident_queue_new(struct resident_queue **out) __attribute__((warn_unused_result));
void resident_queue_destroy(struct resident_queue **queue);

/* Puts a page in at the young end, or the main queue's when it has PROVEN to be used again.
 * 0 or -ENOMEM. */
int resident_queue_push(struct resident_queue *queue, struct resident_entry entry, bool proven)
    __attribute__((warn_unused_result));

/* Takes out the entry that should leave next; false when there is none. */
bool resident_queue_pop(struct resident_queue *queue, struct resident_entry *out);

/* Sorts the pages of entries that were taken out and hold, and leaves each in once. An entry whose
 * page was unmapped stays in the queue, and generations begin anew after 256: a page that is mapped
 * again and again can be there twice. Returns how many are left. */
uint32_t resident_queue_sort_once(uint64_t *pages, uint32_t npages);

/* Entries, old ones included. */
size_t resident_queue_length(const struct resident_queue *queue);

/* Drops the entries for which LIVE(ARG, entry) is false. To be called when the length is far above
 * the number of resident pages. */
void resident_queue_compact(struct resident_queue *queue,
                            bool (*live)(void *arg, struct resident_entry entry), void *arg);

#endif
