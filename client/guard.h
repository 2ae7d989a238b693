/*
 * guard: a small process that outlives edm, so that nothing else does.
 *
 * Whatever ends edm, kill -9 included: the guard then ends the program before it could run on over
 * pages nobody brings back (it holds the program's userfaultfd open until the program is dead),
 * ends the private DMS, and removes the run's directory.
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

/* Makes the guard responsible for ending a child process of ours. */
void guard_end_with_us(int fd, pid_t pid);

/* Gives the guard a copy of a descriptor, to be held until all is over. */
void guard_keep(int fd, int descriptor);

/* Orderly end: the guard does its work now; waits for it. */
void guard_finish(int fd, pid_t pid);

#endif
