/*
 * fault_disk: a disk one of whose operations goes wrong on order.
 *
 * Thread: one, also for all that uses the disk.
 */
#ifndef EDM_TESTS_DMS_FAULT_DISK_H
#define EDM_TESTS_DMS_FAULT_DISK_H

#include "../../dms/disk.h"

#include <stdbool.h>
#include <stdint.h>

enum fault {
    FAULT_FAIL,    /* nothing is done; the error is returned */
    FAULT_TEAR,    /* a write does its first half, then as FAULT_FAIL */
    FAULT_SHORT,   /* a write does its first half and says so */
    FAULT_DELAY,   /* it takes longer */
    FAULT_CORRUPT, /* of a page or more that is written a bit is another; else nothing is wrong */
    FAULT_KINDS,
};

struct fault_disk {
    struct disk disk; /* to be given to what is tested */
    enum fault kind;
    int err;             /* to be returned */
    uint64_t countdown;  /* operations up to the one that goes wrong; 0: none does */
    bool fired;          /* it has gone wrong */
    bool fired_in_sync;  /* and was a sync */
    uint64_t operations; /* so far */
};

void fault_disk_begin(struct fault_disk *fault);

/* The COUNTDOWN-th operation from now on. */
void fault_disk_order(struct fault_disk *fault, enum fault kind, int err, uint64_t countdown);

#endif
