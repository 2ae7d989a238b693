/*
 * handoff: passes pointers from one thread to another, in order.
 *
 * A ring of fixed size for exactly one thread that gives and one that takes, and an eventfd that is
 * readable when there may be something to take.
 *
 * Thread: handoff_give() on one thread, handoff_take() and handoff_fd() on one other.
 */
#ifndef EDM_CLIENT_HANDOFF_H
#define EDM_CLIENT_HANDOFF_H

#include <stdbool.h>
#include <stdint.h>

struct handoff;

/* CAPACITY: how many pointers fit; a power of two. 0 or -errno. */
int handoff_new(struct handoff **out, uint32_t capacity) __attribute__((warn_unused_result));
void handoff_destroy(struct handoff **handoff);

/* ITEM must not be NULL. Returns false when the ring is full. */
bool handoff_give(struct handoff *handoff, void *item);

/* The oldest item, or NULL. */
void *handoff_take(struct handoff *handoff);

/* To poll for POLLIN. handoff_calm() makes it unreadable; call it before handoff_take(). */
int handoff_fd(const struct handoff *handoff);
void handoff_calm(struct handoff *handoff);

#endif
