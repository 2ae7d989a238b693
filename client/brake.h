/*
 * brake: stops a program's threads for a moment.
 *
 * Memory that the program has just mapped is not registered yet: touching it raises no fault, so
 * nothing holds a program back that maps and fills memory faster than pages can be stored. Then its
 * threads are stopped (PTRACE_SEIZE and PTRACE_INTERRUPT, ptrace(2): nothing the program can see,
 * but that some system calls return EINTR, as after SIGSTOP and SIGCONT) until there is room again.
 *
 * Thread: all calls for one brake on the same thread, which is the tracer for that time. Nothing
 * here waits. Other threads of this process must not wait for the program before it has ended: they
 * would take the stops away.
 */
#ifndef EDM_CLIENT_BRAKE_H
#define EDM_CLIENT_BRAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* All zero to begin with. */
struct brake {
    bool on;
    pid_t leader;   /* the program's first thread */
    pid_t *threads; /* attached; they stop in their own time */
    size_t count, capacity;
};

/* Has all threads of PID but SPARED stop. Returns 0, or -errno when none can be stopped (-EPERM:
 * somebody else traces it, or it is forbidden). */
int brake_stop(struct brake *brake, pid_t pid, pid_t spared) __attribute__((warn_unused_result));

/* Lets all go on. A thread that has not come to its stop yet can only be let go then: brake_poll()
 * does that, to be called from time to time while brake_is_busy(). It asks the thread to stop once
 * more each time, for exec() forgets that. A stop may come as the program's next image. */
void brake_release(struct brake *brake);
void brake_poll(struct brake *brake);
bool brake_is_busy(const struct brake *brake);

/* Frees the memory; nothing may be attached any more. */
void brake_clear(struct brake *brake);

#endif
