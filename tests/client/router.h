/*
 * router: the server's end of the wire in the hands of a test, which decides what is answered, when
 * and how.
 *
 * Thread: the test's. Every failure of the test's own tools ends the test.
 */
#ifndef EDM_TESTS_CLIENT_ROUTER_H
#define EDM_TESTS_CLIENT_ROUTER_H

#include "../../proto/wire.h"

#include <stdbool.h>
#include <stddef.h>

struct router {
    void *zmq; /* not owned */
    void *socket;
    char endpoint[128];
};

struct router_request {
    unsigned char peer[256];
    size_t peer_bytes;
    struct wire_request request;
    char *body; /* WIRE_MAX_BODY_BYTES, owned */
    size_t body_bytes;
};

/* An endpoint of the test's own; nothing is bound yet. NUMBER tells several apart. */
void router_init(struct router *router, void *zmq, int number);
void router_bind(struct router *router);

/* Closes the socket, with all that waits in it; it may be bound again. */
void router_close(struct router *router);

struct router_request *router_request_new(void);
void router_request_destroy(struct router_request **request);

/* The next request, which must be a good one. False when none came in time. */
bool router_receive(struct router *router, struct router_request *out, int timeout_ms);

/* The reply that REQUEST is waiting for, as far as it is the same for all. */
void router_reply_to(const struct router_request *request, uint8_t status, struct wire_reply *out);

void router_send(struct router *router, const struct router_request *to,
                 const struct wire_reply *reply, const void *body, size_t body_bytes);

/* Frames as they are, to the peer REQUEST came from. */
void router_send_frames(struct router *router, const struct router_request *to, int nframes,
                        const void *const *frames, const size_t *lens);

#endif
