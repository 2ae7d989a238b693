/*
 * listener: the bound ROUTER socket of a shard.
 *
 * Thread: the main thread makes it; then it is the shard's.
 */
#ifndef EDM_DMS_LISTENER_H
#define EDM_DMS_LISTENER_H

#include "peer_table.h"

#include <stddef.h>

struct listener;

struct listener_options {
    const char *endpoint; /* as checked by config_check_endpoint() */
    const char *part;     /* the shard's name in the log */
    uint32_t max_connections;
    uint32_t max_body_bytes; /* of a request */
};

/* Binds the endpoint. A socket file that nobody listens at is
 * replaced. Returns 0, or -errno with WHY (WHY_CAP bytes) saying what is wrong and what to do. */
int listener_new(struct listener **out, const struct listener_options *options, char *why,
                 size_t why_cap) __attribute__((warn_unused_result));

/* Ends the socket and its connections; answers on their way have a moment to leave. */
void listener_destroy(struct listener **listener);

/* The ZeroMQ socket, owned by the listener. */
void *listener_socket(const struct listener *listener);

/* Its connections, owned by the listener. */
struct peer_table *listener_peers(const struct listener *listener);

#endif
