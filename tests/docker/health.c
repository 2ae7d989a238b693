/*
 * edm-health: asks shards how they are: a HELLO and a STAT to each endpoint, by the protocol
 * itself, so that a port that is open but answers nothing is not taken for health. One line an
 * endpoint.
 *
 *     edm-health [ENDPOINT ...]          tcp://127.0.0.1:7600 if none is given
 *
 * Ends with 0 when every shard answered OK in time, with 1 otherwise, as Docker's HEALTHCHECK
 * wants.
 */
#include "proto/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

/* Below the time limit of the image's HEALTHCHECK, so that it is this program that says why. */
enum { ANSWER_MS = 3000, HELLO_ID = 1, STAT_ID = 2 };

/* Kept off the stack: each is some 14 KiB and more. */
static struct wire_request request;
static struct wire_reply reply;
static char frame[WIRE_MAX_HEADER_BYTES];

static int send_request(void *socket)
{
    ssize_t len = wire_pack_request(&request, frame, sizeof(frame));

    if (len < 0)
        return (int)len;
    return zmq_send(socket, frame, (size_t)len, ZMQ_DONTWAIT) < 0 ? -zmq_errno() : 0;
}

static int receive_reply(void *socket)
{
    int len = zmq_recv(socket, frame, sizeof(frame), 0);

    if (len < 0)
        return zmq_errno() == EAGAIN ? -ETIMEDOUT : -zmq_errno();
    if ((size_t)len > sizeof(frame))
        return -EMSGSIZE;
    int more = 0;
    size_t more_bytes = sizeof(more);
    if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes) != 0)
        return -zmq_errno();
    /* Neither of the two replies has a body. */
    if (more)
        return -EBADMSG;
    return wire_unpack_reply(&reply, frame, (size_t)len, 0);
}

static int ask(void *socket, enum wire_method method, uint64_t id)
{
    request.method = (uint8_t)method;
    request.id = id;
    request.deadline_ms = ANSWER_MS;
    int err = send_request(socket);
    if (err == 0)
        err = receive_reply(socket);
    if (err == 0 && (reply.method != method || reply.id != id))
        err = -EBADMSG;
    return err;
}

static bool answered(const char *endpoint, const char *what, int err)
{
    if (err == 0 && reply.status == WIRE_OK)
        return true;
    if (err != 0)
        printf("%s: no %s: %s\n", endpoint, what, strerror(-err));
    else
        printf("%s: %s: %s: %s\n", endpoint, what, wire_status_name(reply.status), reply.detail);
    return false;
}

static bool check_shard(void *socket, const char *endpoint)
{
    memset(&request, 0, sizeof(request));
    request.version_min = WIRE_VERSION;
    request.version_max = WIRE_VERSION;
    snprintf(request.name, sizeof(request.name), "edm-health-%d", (int)getpid());
    if (!answered(endpoint, "HELLO", ask(socket, WIRE_HELLO, HELLO_ID)))
        return false;
    uint32_t version = reply.version;
    uint32_t shard = reply.shard;
    uint32_t nshards = reply.nshards;

    memset(&request, 0, sizeof(request));
    if (!answered(endpoint, "STAT", ask(socket, WIRE_STAT, STAT_ID)))
        return false;
    printf("%s: protocol %" PRIu32 " shard %" PRIu32 " of %" PRIu32 " regions %" PRIu64
           " pages %" PRIu64 " requests %" PRIu64 "\n",
           endpoint, version, shard, nshards, reply.shard_info.nregions, reply.shard_info.npages,
           reply.shard_info.requests);
    return true;
}

static bool check_endpoint(void *context, const char *endpoint)
{
    static const int answer_ms = ANSWER_MS;
    static const int linger_ms = 0;
    bool healthy = false;
    void *socket = zmq_socket(context, ZMQ_DEALER);

    if (socket != NULL &&
        zmq_setsockopt(socket, ZMQ_RCVTIMEO, &answer_ms, sizeof(answer_ms)) == 0 &&
        zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)) == 0 &&
        zmq_connect(socket, endpoint) == 0)
        healthy = check_shard(socket, endpoint);
    else
        printf("%s: %s\n", endpoint, zmq_strerror(zmq_errno()));
    if (socket != NULL)
        zmq_close(socket);
    return healthy;
}

int main(int argc, char **argv)
{
    static char default_endpoint[] = "tcp://127.0.0.1:7600";
    static char *default_endpoints[] = {default_endpoint};
    char **endpoints = argc > 1 ? argv + 1 : default_endpoints;
    int nendpoints = argc > 1 ? argc - 1 : 1;
    void *context = zmq_ctx_new();

    if (context == NULL) {
        printf("edm-health: %s\n", zmq_strerror(zmq_errno()));
        return EXIT_FAILURE;
    }
    int status = EXIT_SUCCESS;
    for (int i = 0; i < nendpoints; i++) {
        if (!check_endpoint(context, endpoints[i]))
            status = EXIT_FAILURE;
    }
    zmq_ctx_term(context);
    return status;
}
