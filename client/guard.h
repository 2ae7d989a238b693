/*
 * guard: a small process that outlives edm, so that nothing else does.
 *
 * Whatever ends edm, kill -9 included: the guard then ends the program and its children before they
 * could run on over pages nobody brings back (it holds their userfaultfds open until they are
 * dead), looks for processes of the run that edm did not know yet, ends the private DMS, and
 * removes the run's directory.
 *
 * Thread: guard_start() from the main thread, before there are others; guard_finish() from the main
 * thread. guard_keep() and what is beside it from any thread.
 */
#ifndef EDM_CLIENT_GUARD_H
#define EDM_CLIENT_GUARD_H

#include "stragglers.h"

#include <stdbool.h>
#include <sys/types.h>

struct guard;

struct guard_config {
    const char *directory;         /* removed in the end, with all that is in it */
    bool whole_tree;               /* every process of the run goes with edm, */
    struct stragglers_marks marks; /* which have these */
};

/* Forks the guard. 0 or -errno. */
int guard_start(struct guard **out, const struct guard_config *config)
    __attribute__((warn_unused_result));

/* The socket to it, for the functions below (close-on-exec), and its process. */
int guard_fd(const struct guard *guard);
pid_t guard_pid(const struct guard *guard);

/* Makes the guard responsible for ending process PID. Nothing happens if that is gone. */
void guard_end_with_us(int fd, pid_t pid);

/* Gives the guard a copy of a userfaultfd, to be held at least as long as the memory behind it is
 * there. A process that is known by it alone is ended when it faults. DESCRIPTOR stays the
 * caller's. */
void guard_keep(int fd, int descriptor);

/* The copy of that one, the last that was given under this number, is closed: what is behind it has
 * all of its memory. */
void guard_let_go(int fd, int descriptor);

/* Orderly end, no process of the run is left that has to go: the guard does the rest of its work
 * now; waits for it. */
void guard_finish(struct guard **guard);

#endif
