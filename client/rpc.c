#include "rpc.h"

#include "../ini/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

enum {
    FIRST_RETRY_MS = 1000, /* longer than a busy server takes, shorter than people notice */
    LAST_RETRY_MS = 4000,
    UNSENT_RETRY_MS = 5, /* not connected: only a look at the socket, nothing is sent */
    RECONNECT_MS = 20,
    RECONNECT_MAX_MS = 500,
    HEARTBEAT_MS = 5000,
    COMPLAIN_AFTER_MS = 2000,
    COMPLAIN_EVERY_MS = 5000,
};

struct call {
    struct call *next, *previous;
    uint64_t id;
    uint32_t shard;
    uint8_t method;
    bool sent;
    uint64_t begun_us, due_us;
    uint32_t retry_ms;
    zmq_msg_t header, body;
    bool has_body;
    char why[WIRE_MAX_DETAIL_BYTES + 1]; /* what the shard said when it put the call off */
    rpc_callback *callback;
    void *arg;
};

struct rpc {
    void *sockets[64];
    const char *endpoints[64];
    uint64_t complained_us[64];
    uint32_t nshards;
    uint32_t wait_ms;
    const char *part;
    uint64_t next_id;
    struct call calls; /* list head, oldest first */
    uint32_t outstanding;
    uint64_t next_due_us;
    struct rpc_counters counters;
    struct wire_reply reply; /* large: kept here */
};

struct rpc_body {
    zmq_msg_t message;
};

uint64_t rpc_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) ? -errno : 0;
}

static int open_socket(void *zmq, const char *endpoint, void **out)
{
    void *socket = zmq_socket(zmq, ZMQ_DEALER);
    if (!socket)
        return -errno;
    static const int options[][2] = {
        {ZMQ_LINGER, 0},
        {ZMQ_SNDHWM, 0}, /* rpc's callers bound what is under way */
        {ZMQ_RCVHWM, 0},
        {ZMQ_IMMEDIATE, 1}, /* nothing is queued for a server that is not there */
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
        {ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS},
        {ZMQ_HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS},
    };
    int err = 0;
    for (size_t i = 0; i < sizeof options / sizeof *options && !err; i++)
        err = set_option(socket, options[i][0], options[i][1]);
    int64_t most =
        WIRE_MAX_BODY_BYTES > WIRE_MAX_HEADER_BYTES ? WIRE_MAX_BODY_BYTES : WIRE_MAX_HEADER_BYTES;
    if (!err && zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most))
        err = -errno;
    if (!err && zmq_connect(socket, endpoint))
        err = -errno;
    if (err) {
        zmq_close(socket);
        return err;
    }
    *out = socket;
    return 0;
}

int rpc_new(struct rpc **out, void *zmq, char *const *endpoints, uint32_t nshards, uint32_t wait_ms,
            const char *part)
{
    struct rpc *rpc = calloc(1, sizeof *rpc);
    if (!rpc)
        return -ENOMEM;
    assert(nshards <= sizeof rpc->sockets / sizeof *rpc->sockets);
    rpc->calls.next = rpc->calls.previous = &rpc->calls;
    rpc->wait_ms = wait_ms;
    rpc->part = part;
    rpc->next_id = 1;
    for (uint32_t i = 0; i < nshards; i++) {
        int err = open_socket(zmq, endpoints[i], &rpc->sockets[i]);
        if (err) {
            rpc_destroy(&rpc);
            return err;
        }
        rpc->endpoints[i] = endpoints[i];
        rpc->nshards++;
    }
    *out = rpc;
    return 0;
}

static void remove_call(struct rpc *rpc, struct call *call)
{
    call->next->previous = call->previous;
    call->previous->next = call->next;
    rpc->outstanding--;
}

static void free_call(struct call *call)
{
    zmq_msg_close(&call->header);
    if (call->has_body)
        zmq_msg_close(&call->body);
    free(call);
}

void rpc_destroy(struct rpc **rpc)
{
    if (!*rpc)
        return;
    while ((*rpc)->calls.next != &(*rpc)->calls) {
        struct call *call = (*rpc)->calls.next;
        remove_call(*rpc, call);
        free_call(call);
    }
    for (uint32_t i = 0; i < (*rpc)->nshards; i++)
        zmq_close((*rpc)->sockets[i]);
    free(*rpc);
    *rpc = NULL;
}

/* Sends a copy that shares the bytes, so that the call can be sent again. */
static int send_frame(struct rpc *rpc, struct call *call, zmq_msg_t *frame, int flags)
{
    zmq_msg_t copy;
    zmq_msg_init(&copy);
    if (zmq_msg_copy(&copy, frame) || zmq_msg_send(&copy, rpc->sockets[call->shard], flags) < 0) {
        int err = -errno;
        zmq_msg_close(&copy);
        return err;
    }
    rpc->counters.bytes_sent += zmq_msg_size(frame);
    return 0;
}

static void send_call(struct rpc *rpc, struct call *call, uint64_t now)
{
    int err =
        send_frame(rpc, call, &call->header, ZMQ_DONTWAIT | (call->has_body ? ZMQ_SNDMORE : 0));
    if (err == 0 && call->has_body)
        /* Once the first part is taken, the others are: a message is sent whole or not at all. */
        err = send_frame(rpc, call, &call->body, 0);
    call->sent = err == 0;
    call->due_us = now + 1000ull * (call->sent ? call->retry_ms : UNSENT_RETRY_MS);
    if (call->sent && call->retry_ms < LAST_RETRY_MS)
        call->retry_ms *= 2;
    if (rpc->next_due_us == 0 || call->due_us < rpc->next_due_us)
        rpc->next_due_us = call->due_us;
}

int rpc_call(struct rpc *rpc, uint32_t shard, struct wire_request *request, const void *body,
             size_t body_bytes, rpc_callback *callback, void *arg)
{
    assert(shard < rpc->nshards);
    char header[WIRE_MAX_HEADER_BYTES];
    request->id = rpc->next_id++;
    request->deadline_ms = rpc->wait_ms;
    ssize_t header_bytes = wire_pack_request(request, header, sizeof header);
    if (header_bytes < 0)
        return (int)header_bytes;
    struct call *call = calloc(1, sizeof *call);
    if (!call)
        return -ENOMEM;
    if (zmq_msg_init_size(&call->header, (size_t)header_bytes)) {
        free(call);
        return -ENOMEM;
    }
    memcpy(zmq_msg_data(&call->header), header, (size_t)header_bytes);
    if (body_bytes > 0) {
        if (zmq_msg_init_size(&call->body, body_bytes)) {
            free_call(call);
            return -ENOMEM;
        }
        memcpy(zmq_msg_data(&call->body), body, body_bytes);
        call->has_body = true;
    }
    call->id = request->id;
    call->shard = shard;
    call->method = request->method;
    call->callback = callback;
    call->arg = arg;
    call->begun_us = rpc_now_us();
    call->retry_ms = FIRST_RETRY_MS;
    call->previous = rpc->calls.previous;
    call->next = &rpc->calls;
    call->previous->next = call;
    rpc->calls.previous = call;
    rpc->outstanding++;
    send_call(rpc, call, call->begun_us);
    return 0;
}

static struct call *find_call(struct rpc *rpc, uint32_t shard, uint64_t id)
{
    for (struct call *call = rpc->calls.next; call != &rpc->calls; call = call->next)
        if (call->id == id && call->shard == shard)
            return call;
    return NULL;
}

static void finish(struct rpc *rpc, struct call *call, struct rpc_answer *answer)
{
    remove_call(rpc, call);
    answer->shard = call->shard;
    call->callback(call->arg, answer);
    free_call(call);
}

/* One answer of one or two frames; others are no answers. */
static int take_answer(struct rpc *rpc, uint32_t shard, zmq_msg_t *header, zmq_msg_t *body)
{
    size_t body_bytes = body ? zmq_msg_size(body) : 0;
    rpc->counters.bytes_received += zmq_msg_size(header) + body_bytes;
    struct wire_reply *reply = &rpc->reply;
    int err = wire_unpack_reply(reply, zmq_msg_data(header), zmq_msg_size(header), body_bytes);
    struct call *call = err && err != -EPROTONOSUPPORT ? NULL : find_call(rpc, shard, reply->id);
    if (!call || (!err && call->method != reply->method)) {
        rpc->counters.strays++;
        return 0;
    }
    if (!err && reply->status == WIRE_UNAVAILABLE) {
        /* "Later": as if there were no answer yet, but for the reason. */
        memcpy(call->why, reply->detail, sizeof call->why);
        return 0;
    }
    struct rpc_body kept;
    struct rpc_answer answer = {.status = reply->status, .reply = reply, .detail = reply->detail};
    if (err) {
        answer.status = WIRE_FAILED_PRECONDITION;
        answer.detail = "it speaks another version of the protocol";
    }
    if (body) {
        /* Moved into place so that the callback can keep it. */
        zmq_msg_init(&kept.message);
        zmq_msg_move(&kept.message, body);
        answer.body = zmq_msg_data(&kept.message);
        answer.body_bytes = body_bytes;
        answer.kept = &kept;
    }
    rpc->complained_us[shard] = 0;
    finish(rpc, call, &answer);
    if (body)
        zmq_msg_close(&kept.message);
    return 1;
}

struct rpc_body *rpc_keep_body(struct rpc_answer *answer)
{
    struct rpc_body *body = malloc(sizeof *body);
    if (!body)
        return NULL;
    zmq_msg_init(&body->message);
    if (answer->kept)
        zmq_msg_move(&body->message, &answer->kept->message);
    return body;
}

const char *rpc_body_bytes(const struct rpc_body *body)
{
    return zmq_msg_data((zmq_msg_t *)&body->message);
}

void rpc_body_destroy(struct rpc_body **body)
{
    if (!*body)
        return;
    zmq_msg_close(&(*body)->message);
    free(*body);
    *body = NULL;
}

static int receive(struct rpc *rpc, uint32_t shard)
{
    int ran = 0;
    for (;;) {
        zmq_msg_t frames[2];
        zmq_msg_init(&frames[0]);
        if (zmq_msg_recv(&frames[0], rpc->sockets[shard], ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frames[0]);
            return ran;
        }
        int nframes = 1;
        for (zmq_msg_t *last = &frames[0]; zmq_msg_more(last); nframes++) {
            zmq_msg_t *into = &frames[1];
            if (nframes > 1)
                zmq_msg_close(into);
            zmq_msg_init(into);
            if (zmq_msg_recv(into, rpc->sockets[shard], 0) < 0)
                break;
            last = into;
        }
        if (nframes <= 2)
            ran += take_answer(rpc, shard, &frames[0], nframes == 2 ? &frames[1] : NULL);
        else
            rpc->counters.strays++;
        zmq_msg_close(&frames[0]);
        if (nframes > 1)
            zmq_msg_close(&frames[1]);
    }
}

static void complain(struct rpc *rpc, const struct call *call, uint64_t now)
{
    uint64_t waited_ms = (now - call->begun_us) / 1000;
    uint64_t *last = &rpc->complained_us[call->shard];
    if (waited_ms < COMPLAIN_AFTER_MS || (*last && now - *last < 1000ull * COMPLAIN_EVERY_MS))
        return;
    *last = now;
    log_error(rpc->part, "no answer from %s for %.1f s (%s); trying for %.0f s in all",
              rpc->endpoints[call->shard], (double)waited_ms / 1000,
              call->why[0] ? call->why
              : call->sent ? "request sent"
                           : "not connected",
              rpc->wait_ms / 1000.0);
}

static int give_up(struct rpc *rpc, struct call *call)
{
    bool put_off = call->why[0] != '\0';
    struct rpc_answer answer = {
        .status = WIRE_UNAVAILABLE,
        .put_off = put_off,
        .detail = put_off ? call->why : "no answer",
    };
    finish(rpc, call, &answer);
    return 1;
}

static int send_due(struct rpc *rpc)
{
    uint64_t now = rpc_now_us();
    if (rpc->outstanding == 0 || now < rpc->next_due_us)
        return 0;
    int ran = 0;
    rpc->next_due_us = 0;
    for (struct call *call = rpc->calls.next, *next; call != &rpc->calls; call = next) {
        next = call->next;
        if (now >= call->due_us) {
            if (now - call->begun_us >= 1000ull * rpc->wait_ms) {
                ran += give_up(rpc, call);
                /* The callback may have changed the list. */
                next = rpc->calls.next;
                rpc->next_due_us = 0;
                continue;
            }
            rpc->counters.retries += call->sent;
            complain(rpc, call, now);
            send_call(rpc, call, now);
        }
        if (rpc->next_due_us == 0 || call->due_us < rpc->next_due_us)
            rpc->next_due_us = call->due_us;
    }
    return ran;
}

int rpc_process(struct rpc *rpc)
{
    int ran = 0;
    for (uint32_t i = 0; i < rpc->nshards; i++)
        ran += receive(rpc, i);
    return ran + send_due(rpc);
}

uint32_t rpc_poll_fds(struct rpc *rpc, struct pollfd *out)
{
    for (uint32_t i = 0; i < rpc->nshards; i++) {
        size_t size = sizeof out[i].fd;
        out[i].events = POLLIN;
        if (zmq_getsockopt(rpc->sockets[i], ZMQ_FD, &out[i].fd, &size))
            out[i].fd = -1;
    }
    return rpc->nshards;
}

int rpc_timeout_ms(const struct rpc *rpc)
{
    if (rpc->outstanding == 0)
        return -1;
    uint64_t now = rpc_now_us();
    return rpc->next_due_us <= now ? 0 : (int)((rpc->next_due_us - now) / 1000 + 1);
}

uint32_t rpc_outstanding(const struct rpc *rpc)
{
    return rpc->outstanding;
}

bool rpc_is_waiting(const struct rpc *rpc)
{
    const struct call *oldest = rpc->calls.next;
    return oldest != &rpc->calls && rpc_now_us() - oldest->begun_us > 1000ull * COMPLAIN_AFTER_MS;
}

struct rpc_counters rpc_counters(const struct rpc *rpc)
{
    return rpc->counters;
}
