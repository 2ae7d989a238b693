/*
 * control_find: the clients that run on this machine, found by their control sockets.
 *
 * A run's directory lies in $TMPDIR, /tmp, /var/tmp or /dev/shm (run_dir.h); with another $TMPDIR
 * than ours the kernel's list of sockets (/proc/net/unix) has it. What a dead run has left is
 * passed over. A socket in another user's directory is asked only by root, and believed only if its
 * listener is that user's.
 *
 * Thread: any. Blocks while a client does not answer, for some seconds each.
 */
#ifndef EDM_CLIENT_CONTROL_FIND_H
#define EDM_CLIENT_CONTROL_FIND_H

#include "control_message.h"

#include <sys/types.h>

struct control_run {
    struct control_run *next;
    int fd; /* connected */
    pid_t pid;
    uid_t uid;
    struct control_message status; /* its answer to "status" */
};

struct control_finding {
    struct control_run *runs; /* by pid */
    unsigned nforeign;        /* other users', which were not asked */
    unsigned nsilent;         /* did not answer, or not as we know it */
    pid_t silent_pid;         /* one of those; 0: not known */
};

/* NAME: only runs of that region, or with that pid; by the name alone, if there are such. NULL:
 * all. 0 or -errno; OUT is to be freed in any case. */
int control_find(struct control_finding *out, const char *name) __attribute__((warn_unused_result));
void control_finding_free(struct control_finding *finding);

/* Sends TEXT and waits for the answer, up to WAIT_MS. 0 or -errno: -ETIMEDOUT none came,
 * -ECONNRESET the client is gone, -EPROTO it cannot be understood. */
int control_ask(int fd, const struct control_text *text, uint64_t wait_ms,
                struct control_message *answer) __attribute__((warn_unused_result));

#endif
