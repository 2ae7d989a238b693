/*
 * implant: puts the agent into a process by ptrace(2), where there is no dynamic linker to load it.
 *
 * The process is stopped, memory for the agent's image is mapped in it (by system calls that it is
 * made to carry out, through the instruction the kernel's vdso has for that), the image is written
 * there, and the stopped thread is sent through the agent's entry (agent/agent.c) with all signals
 * held back. Then it goes on where it was, its registers, signal mask and interrupted system call
 * as before, and is not traced any more.
 *
 * Thread: all calls on the same thread, which is the tracer. Nothing here waits: the agent, while
 * it is being called, talks to that very thread. As with brake.h, other threads of this process
 * must not wait for the process before it has ended.
 */
#ifndef EDM_CLIENT_IMPLANT_H
#define EDM_CLIENT_IMPLANT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct implant;

/* AT_EXEC: the process is stopped when the next image that it executes has set its first thread up
 * (or made a few system calls), else where it is. 0 or -errno (-EPERM: somebody else traces it, or
 * it is forbidden; -ESRCH). */
int implant_new(struct implant **out, pid_t pid, bool at_exec) __attribute__((warn_unused_result));

enum implant_state {
    IMPLANT_STOPPING, /* not stopped yet */
    IMPLANT_STOPPED,  /* the caller says what now: implant_go() or implant_leave() */
    IMPLANT_AT_WORK,
    IMPLANT_LEAVING, /* let go of as soon as that can be */
    IMPLANT_DONE,    /* the agent has been called, the process goes on, untraced */
    IMPLANT_FAILED,  /* it goes on, untraced, as it was */
    IMPLANT_LEFT,    /* as asked for by implant_leave() */
    IMPLANT_ENDED,   /* the process is gone */
};

/* Does what can be done now. To be called from time to time until one of the last four. */
enum implant_state implant_step(struct implant *implant);

/* The process is stopped: the agent is to come in. SOCKET: where the pager listens. MARK: the
 * process is the child of a fork, to be known by this (agent_proto.h), or 0: it is an image of its
 * own. 0, or -errno when it cannot be done (-EAGAIN: not at this moment); then it is still stopped.
 */
int implant_go(struct implant *implant, const char *socket, uint64_t mark)
    __attribute__((warn_unused_result));

/* Lets it be as it is. Returns LEFT, or LEAVING: that takes further steps. */
enum implant_state implant_leave(struct implant *implant);

/* There is nothing to be done before it executes another image, which may take long. */
bool implant_waits_for_exec(const struct implant *implant);

/* What failed, errno's value. */
int implant_error(const struct implant *implant);

/* Frees the memory; not while the process is traced, unless the tracer is about to end. */
void implant_destroy(struct implant **implant);

#endif
