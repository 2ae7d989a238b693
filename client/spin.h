/*
 * spin: whether to look again and again for a little while instead of going to sleep.
 *
 * To be woken up takes tens of microseconds where the processor sleeps meanwhile (a virtual
 * machine's), about as long as a page takes to come. Where a processor has nothing else to do the
 * time is better spent looking. Where anybody else would have to wait for that, never: the kernel
 * is asked how many tasks want to run, before and all along. Spins that find nothing get rarer and
 * rarer.
 *
 * Thread: one owner.
 */
#ifndef EDM_CLIENT_SPIN_H
#define EDM_CLIENT_SPIN_H

#include <stdbool.h>
#include <stdint.h>

enum { SPIN_US = 100 }; /* for one, at most */

/* Plain data so that it can be part of its owner. */
struct spin {
    int loadavg;         /* descriptor; -1: never spins */
    uint32_t processors; /* that the owner may run on */
    uint32_t in_vain;    /* spins in a row */
    uint32_t skip;       /* so many times it sleeps at once */
};

/* From the thread that will spin: which processors it may run on is looked up once. Where the
 * kernel cannot be asked, or there is one processor only, it never spins. */
void spin_begin(struct spin *spin);
void spin_end(struct spin *spin);

/* About to sleep although something may come soon: whether to spin instead. */
bool spin_is_due(struct spin *spin);

/* Whether nobody has to wait for a processor. To be asked between two looks. */
bool spin_is_free(const struct spin *spin);

/* It has spun: has it found something? */
void spin_learn(struct spin *spin, bool found);

/* How many tasks want to run, by the text of /proc/loadavg; 0 when it does not say. */
uint32_t spin_parse(const char *text);

#endif
