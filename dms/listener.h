/*
 * listener: the socket at which a shard's clients connect, bound to an endpoint as ZeroMQ names it:
 * tcp://ADDRESS:PORT, the address being one of this host's, the name of one of its interfaces, or *
 * for all, or ipc://PATH, @NAME for Linux's abstract names.
 *
 * Thread: the main thread makes it; then it is the shard's.
 */
#ifndef EDM_DMS_LISTENER_H
#define EDM_DMS_LISTENER_H

#include <stdbool.h>
#include <stddef.h>

struct listener;

/* ENDPOINT: as checked by config_check_endpoint(). A socket file that nobody listens at is
 * replaced. Returns 0, or -errno with WHY (WHY_CAP bytes) saying what is wrong and what to do. */
int listener_new(struct listener **out, const char *endpoint, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Removes the socket file. */
void listener_destroy(struct listener **listener);

/* Readable when somebody wants to connect. */
int listener_fd(const struct listener *listener);

/* The next who does, as a socket that does not block, or -errno; none: -EAGAIN. */
int listener_accept(const struct listener *listener) __attribute__((warn_unused_result));

#endif
