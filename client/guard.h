/*
 * guard: a small process that outlives edm, so that nothing else does.
 *
 * Whatever ends edm, kill -9 included: the guard then ends the program and its children before they
 * could run on over pages nobody brings back (it holds their userfaultfds open until they are
 * dead), ends the private DMS, and removes the run's directory.
 *
 * Thread: guard_start() from the main thread, before there are others. guard_keep() from any
 * thread.
 */
#ifndef EDM_CLIENT_GUARD_H
#define EDM_CLIENT_GUARD_H

#include <sys/types.h>

/* Forks the guard. DIRECTORY is removed in the end, with all that is in it. Returns 0 and its
 * socket in *FD (close-on-exec), or -errno. */
int guard_start(const char *directory, int *fd, pid_t *pid) __attribute__((warn_unused_result));

/* Makes the guard responsible for ending process PID. Nothing happens if that is gone. */
void guard_end_with_us(int fd, pid_t pid);

/* Gives the guard a copy of a userfaultfd, to be held at least as long as the memory behind it is
 * there. A process that is known by it alone is ended when it faults. DESCRIPTOR stays the
 * caller's. */
void guard_keep(int fd, int descriptor);

/* The copy of that one, the last that was given under this number, is closed: what is behind it has
 * all of its memory. */
void guard_let_go(int fd, int descriptor);

/* Orderly end: the guard does its work now; waits for it. */
void guard_finish(int fd, pid_t pid);

#endif
