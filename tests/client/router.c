#include "router.h"

#include "temp_dir.h"
#include "test.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

void router_init(struct router *router, void *zmq, int number)
{
    char name[32];
    static int tests;
    *router = (struct router){.zmq = zmq};
    snprintf(name, sizeof name, "router-%d-%d", number, tests++);
    snprintf(router->endpoint, sizeof router->endpoint, "ipc://%s", temp_path(name));
}

void router_bind(struct router *router)
{
    int none = 0;
    router->socket = zmq_socket(router->zmq, ZMQ_ROUTER);
    assert_non_null(router->socket);
    assert_int_equal(zmq_setsockopt(router->socket, ZMQ_LINGER, &none, sizeof none), 0);
    assert_int_equal(zmq_setsockopt(router->socket, ZMQ_SNDHWM, &none, sizeof none), 0);
    assert_int_equal(zmq_setsockopt(router->socket, ZMQ_RCVHWM, &none, sizeof none), 0);
    /* The address is free again a moment after the socket that had it was closed. */
    for (int i = 0; zmq_bind(router->socket, router->endpoint); i++) {
        assert_true(i < 6000);
        poll(NULL, 0, 10);
    }
}

void router_close(struct router *router)
{
    if (router->socket)
        assert_int_equal(zmq_close(router->socket), 0);
    router->socket = NULL;
}

struct router_request *router_request_new(void)
{
    struct router_request *request = calloc(1, sizeof *request);
    assert_non_null(request);
    request->body = malloc(WIRE_MAX_BODY_BYTES);
    assert_non_null(request->body);
    return request;
}

void router_request_destroy(struct router_request **request)
{
    free((*request)->body);
    free(*request);
    *request = NULL;
}

static bool has_more(void *socket)
{
    int more;
    size_t size = sizeof more;
    assert_int_equal(zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size), 0);
    return more;
}

bool router_receive(struct router *router, struct router_request *out, int timeout_ms)
{
    static char header[WIRE_MAX_HEADER_BYTES];
    zmq_pollitem_t item = {.socket = router->socket, .events = ZMQ_POLLIN};
    if (zmq_poll(&item, 1, timeout_ms) <= 0)
        return false;
    int got = zmq_recv(router->socket, out->peer, sizeof out->peer, 0);
    assert_true(got > 0 && has_more(router->socket));
    out->peer_bytes = (size_t)got;
    int header_bytes = zmq_recv(router->socket, header, sizeof header, 0);
    assert_in_range(header_bytes, 1, sizeof header);
    out->body_bytes = 0;
    if (has_more(router->socket)) {
        got = zmq_recv(router->socket, out->body, WIRE_MAX_BODY_BYTES, 0);
        assert_in_range(got, 1, WIRE_MAX_BODY_BYTES);
        out->body_bytes = (size_t)got;
    }
    assert_false(has_more(router->socket));
    assert_int_equal(
        wire_unpack_request(&out->request, header, (size_t)header_bytes, out->body_bytes), 0);
    return true;
}

void router_reply_to(const struct router_request *request, uint8_t status, struct wire_reply *out)
{
    memset(out, 0, sizeof *out);
    out->method = request->request.method;
    out->id = request->request.id;
    out->status = status;
}

void router_send(struct router *router, const struct router_request *to,
                 const struct wire_reply *reply, const void *body, size_t body_bytes)
{
    static char header[WIRE_MAX_HEADER_BYTES];
    ssize_t len = wire_pack_reply(reply, header, sizeof header);
    assert_true(len > 0);
    const void *const frames[] = {header, body};
    const size_t lens[] = {(size_t)len, body_bytes};
    router_send_frames(router, to, body ? 2 : 1, frames, lens);
}

void router_send_frames(struct router *router, const struct router_request *to, int nframes,
                        const void *const *frames, const size_t *lens)
{
    int sent = zmq_send(router->socket, to->peer, to->peer_bytes, ZMQ_SNDMORE);
    assert_int_equal(sent, to->peer_bytes);
    for (int i = 0; i < nframes; i++) {
        sent = zmq_send(router->socket, frames[i], lens[i], i + 1 < nframes ? ZMQ_SNDMORE : 0);
        assert_int_equal(sent, lens[i]);
    }
}
