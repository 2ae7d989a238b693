/*
 * brake: stops a program's threads for a moment.
 *
 * Memory that the program has just mapped is not registered yet: touching it raises no fault, so
 * nothing holds a program back that maps and fills memory faster than pages can be stored. Then its
 * threads are stopped (PTRACE_SEIZE and PTRACE_INTERRUPT, ptrace(2)) until there is room again.
 *
 * A stop ends some system calls that sleep, as SIGSTOP and SIGCONT do (signal(7)): epoll_wait()
 * returns EINTR, a write() of much into a pipe returns short. So a thread that sleeps in a call is
 * left alone, for it fills nothing; as soon as it is found awake it is stopped. A thread that runs
 * may be in a call too, between two sleeps: that cannot be told from outside, and it is stopped.
 *
 * Thread: all calls for one brake on the same thread, which is the tracer for that time. Nothing
 * here waits. Other threads of this process must not wait for the program before it has ended: they
 * would take the stops away.
 */
#ifndef EDM_CLIENT_BRAKE_H
#define EDM_CLIENT_BRAKE_H

#include "proc_map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* All zero to begin with. */
struct brake {
    bool on;
    pid_t leader;   /* the program's first thread */
    pid_t spared;   /* never stopped */
    pid_t *threads; /* attached; they stop in their own time */
    size_t count, capacity;
    uint64_t watch_us; /* when to look again at who was left alone */
};

/* Has all threads of PID but SPARED stop, those that sleep in a call when they are found out of it.
 * PROC is PID's. Returns 0, or -errno when one must be stopped and none can be (-EPERM: somebody
 * else traces it, or it is forbidden). */
int brake_stop(struct brake *brake, const struct proc_map *proc, pid_t pid, pid_t spared)
    __attribute__((warn_unused_result));

/* While it is on, to be called from time to time: stops who is awake now, and new threads. It looks
 * only as often as costs a fifth of the time, once a millisecond at most. 0, or -errno as above. */
int brake_watch(struct brake *brake, const struct proc_map *proc, uint64_t now_us)
    __attribute__((warn_unused_result));

/* Lets all go on. A thread that has not come to its stop yet can only be let go then: brake_poll()
 * does that, to be called from time to time while brake_is_busy(). It asks the thread to stop once
 * more each time, for exec() forgets that. A stop may come as the program's next image. */
void brake_release(struct brake *brake);
void brake_poll(struct brake *brake);
bool brake_is_busy(const struct brake *brake);

/* Frees the memory; nothing may be attached any more. */
void brake_clear(struct brake *brake);

#endif
