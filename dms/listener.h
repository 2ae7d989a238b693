/*
 * listener: the bound ROUTER socket of a shard.
 *
 * Thread: the main thread makes it; then it is the shard's.
 */
#ifndef EDM_DMS_LISTENER_H
#define EDM_DMS_LISTENER_H

#include <stddef.h>

struct listener;

/* Binds ENDPOINT (as checked by config_check_endpoint()). A socket file that nobody listens at is
 * replaced. Returns 0, or -errno with WHY (WHY_CAP bytes) saying what is wrong and what to do. */
int listener_new(struct listener **out, const char *endpoint, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Ends the socket and its connections; answers on their way have a moment to leave. */
void listener_destroy(struct listener **listener);

/* The ZeroMQ socket, owned by the listener. */
void *listener_socket(const struct listener *listener);

#endif
