/*
 * fork_moment: which changes of a program's mappings came before its fork.
 *
 * The kernel tells of a fork, of an unmapping and of a move when they are over; where several
 * threads do these it tells in any order. What the child has registered says which changes it has
 * gone along with, and where it has seals of pages that are outside: such as are about the same
 * memory are taken together, and of these as many have come, in the order in which they were told,
 * as make what the parent had most like what the child has. DESIGN.md, "Fork", says what else is
 * known.
 *
 * Pure.
 */
#ifndef EDM_CLIENT_FORK_MOMENT_H
#define EDM_CLIENT_FORK_MOMENT_H

#include "area_map.h"
#include "agent/agent_proto.h"

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>

struct change {
    struct uffd_msg message; /* of events, any but EVENT_FORK */
    uint64_t number;         /* for the caller */
    bool has_come;           /* what is found: it came before the fork */
    uint32_t group;          /* private: the first change that it is linked with by memory */
};

/* What is mapped otherwise after CHANGE, in page numbers: where it was, and where it went. Returns
 * how many ranges: none where memory is only emptied. */
int change_ranges(const struct change *change, struct agent_range ranges[2]);

/* What a process has, in pages: what is registered, and where pages that are outside are sealed
 * (uffd.h). */
struct fork_maps {
    struct area_map *areas, *seals;
};

/* Sets HAS_COME of all COUNT changes, which are in the order in which they were told. The first
 * CERTAIN have come; the fork was told after the first BEFORE, which decides where nothing else
 * does. PARENT had that before all of them, and is changed. CHILD has that of the changes' ranges.
 * 0 or -ENOMEM. */
int fork_moment_find(struct change *changes, uint32_t count, uint32_t certain, uint32_t before,
                     struct fork_maps *parent, const struct fork_maps *child)
    __attribute__((warn_unused_result));

#endif
