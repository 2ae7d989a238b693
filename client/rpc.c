#include "rpc.h"

#include "link.h"
#include "ticks.h"
#include "../ini/config.h"
#include "../ini/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_RETRY_MS = 1000, /* longer than a busy server takes, shorter than people notice */
    LAST_RETRY_MS = 4000,
    COMPLAIN_AFTER_MS = 2000,
    COMPLAIN_EVERY_MS = 5000,
};

struct call {
    struct call *next, *previous;
    uint64_t id;
    uint32_t shard;
    uint8_t method;
    bool sent; /* on the connection there is now, */
    bool left; /* or on one before it */
    uint64_t begun_us, due_us;
    uint32_t retry_ms;
    char why[WIRE_MAX_DETAIL_BYTES + 1]; /* what the shard said when it put the call off */
    rpc_callback *callback;
    void *arg;
    uint32_t nbody;
    size_t header_bytes;
    struct iovec *body; /* behind the call itself; then the header */
};

struct rpc {
    struct link *links[CONFIG_MAX_SHARDS];
    const char *endpoints[CONFIG_MAX_SHARDS];
    uint64_t complained_us[CONFIG_MAX_SHARDS];
    uint32_t nshards;
    uint32_t wait_ms;
    const char *part;
    uint64_t (*now_us)(void);
    bool polled; /* the owner has told what there is, since the last rpc_process() */
    uint64_t next_id;
    struct call calls; /* list head, oldest first */
    uint32_t outstanding;
    uint64_t next_due_us; /* of a call; 0: none */
    struct rpc_counters counters;
    struct wire_reply reply; /* large: kept here */
};

/* A buffer that malloc() made. */
struct rpc_body {
    char first;
};

int rpc_new(struct rpc **out, char *const *endpoints, uint32_t nshards, uint32_t wait_ms,
            const char *part)
{
    struct rpc *rpc = calloc(1, sizeof *rpc);
    if (!rpc)
        return -ENOMEM;
    assert(nshards <= CONFIG_MAX_SHARDS);
    rpc->calls.next = rpc->calls.previous = &rpc->calls;
    rpc->wait_ms = wait_ms;
    rpc->part = part;
    rpc->now_us = ticks_us;
    rpc->next_id = 1;
    for (uint32_t i = 0; i < nshards; i++) {
        int err = link_new(&rpc->links[i], endpoints[i]);
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

void rpc_set_clock(struct rpc *rpc, uint64_t (*now_us)(void))
{
    rpc->now_us = now_us;
}

static void remove_call(struct rpc *rpc, struct call *call)
{
    call->next->previous = call->previous;
    call->previous->next = call->next;
    rpc->outstanding--;
}

void rpc_destroy(struct rpc **rpc)
{
    if (!*rpc)
        return;
    while ((*rpc)->calls.next != &(*rpc)->calls) {
        struct call *call = (*rpc)->calls.next;
        remove_call(*rpc, call);
        free(call);
    }
    for (uint32_t i = 0; i < (*rpc)->nshards; i++)
        link_destroy(&(*rpc)->links[i]);
    free(*rpc);
    *rpc = NULL;
}

static void note_due(struct rpc *rpc, const struct call *call)
{
    if (rpc->next_due_us == 0 || call->due_us < rpc->next_due_us)
        rpc->next_due_us = call->due_us;
}

/* Sends it if there is a connection and it takes something; what does not leave now leaves when
 * there is a new one, or is tried again when it is due. */
static void send_call(struct rpc *rpc, struct call *call, uint64_t now)
{
    struct link *link = rpc->links[call->shard];
    const char *header = (const char *)(call->body + call->nbody);
    uint64_t end_us = call->begun_us + 1000ull * rpc->wait_ms;
    call->due_us = now + 1000ull * call->retry_ms;
    if (call->due_us > end_us && now < end_us)
        call->due_us = end_us;
    note_due(rpc, call);
    /* Behind what waits already it would only wait as well. */
    if (call->sent && link_is_choked(link))
        return;
    if (link_send(link, header, call->header_bytes, call->body, call->nbody))
        return;
    rpc->counters.retries += call->left;
    rpc->counters.bytes_sent += call->header_bytes;
    for (uint32_t i = 0; i < call->nbody; i++)
        rpc->counters.bytes_sent += call->body[i].iov_len;
    call->sent = call->left = true;
    if (call->retry_ms < LAST_RETRY_MS)
        call->retry_ms *= 2;
}

int rpc_call(struct rpc *rpc, uint32_t shard, struct wire_request *request,
             const struct iovec *body, uint32_t nbody, rpc_callback *callback, void *arg)
{
    assert(shard < rpc->nshards);
    char header[WIRE_MAX_HEADER_BYTES];
    request->id = rpc->next_id++;
    request->deadline_ms = rpc->wait_ms;
    ssize_t header_bytes = wire_pack_request(request, header, sizeof header);
    if (header_bytes < 0)
        return (int)header_bytes;
    struct call *call = malloc(sizeof *call + nbody * sizeof *body + (size_t)header_bytes);
    if (!call)
        return -ENOMEM;
    uint64_t now = rpc->now_us();
    *call = (struct call){
        .id = request->id,
        .shard = shard,
        .method = request->method,
        .callback = callback,
        .arg = arg,
        .begun_us = now,
        .retry_ms = FIRST_RETRY_MS,
        .previous = rpc->calls.previous,
        .next = &rpc->calls,
        .nbody = nbody,
        .body = (struct iovec *)(call + 1),
        .header_bytes = (size_t)header_bytes,
    };
    if (nbody > 0)
        memcpy(call->body, body, nbody * sizeof *body);
    memcpy(call->body + nbody, header, (size_t)header_bytes);
    call->previous->next = call;
    rpc->calls.previous = call;
    rpc->outstanding++;
    send_call(rpc, call, now);
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
    free(call);
}

static int take_answer(struct rpc *rpc, uint32_t shard, const struct connection_message *message)
{
    rpc->counters.bytes_received += message->header_bytes + message->body_bytes;
    struct wire_reply *reply = &rpc->reply;
    int err = message->too_many ? -EPROTO
                                : wire_unpack_reply(reply, message->header, message->header_bytes,
                                                    message->body_bytes);
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
    /* The callback may make the link lose its connection, and with it what it has read. */
    char *body = message->body ? link_take_body(rpc->links[shard]) : NULL;
    struct rpc_answer answer = {
        .status = reply->status,
        .reply = reply,
        .detail = reply->detail,
        .body = body,
        .body_bytes = message->body_bytes,
        .kept = &body,
    };
    if (err) {
        answer.status = WIRE_FAILED_PRECONDITION;
        answer.detail = "it speaks another version of the protocol";
    }
    rpc->complained_us[shard] = 0;
    finish(rpc, call, &answer);
    free(body);
    return 1;
}

struct rpc_body *rpc_keep_body(struct rpc_answer *answer)
{
    char *body = answer->body ? *answer->kept : malloc(sizeof(struct rpc_body));
    if (answer->body)
        *answer->kept = NULL;
    return (struct rpc_body *)body;
}

const char *rpc_body_bytes(const struct rpc_body *body)
{
    return &body->first;
}

void rpc_body_destroy(struct rpc_body **body)
{
    free(*body);
    *body = NULL;
}

static int receive(struct rpc *rpc, uint32_t shard)
{
    struct connection_message message;
    int ran = 0;
    while (link_receive(rpc->links[shard], &message))
        ran += take_answer(rpc, shard, &message);
    return ran;
}

static void complain(struct rpc *rpc, const struct call *call, uint64_t now)
{
    const struct link *link = rpc->links[call->shard];
    bool up = link_is_up(link);

    uint64_t waited_ms = (now - call->begun_us) / 1000;
    uint64_t *last = &rpc->complained_us[call->shard];
    if (waited_ms < COMPLAIN_AFTER_MS || (*last && now - *last < 1000ull * COMPLAIN_EVERY_MS))
        return;
    *last = now;
    log_error(rpc->part, "no answer from %s for %.1f s (%s%s); trying for %.0f s in all",
              rpc->endpoints[call->shard], (double)waited_ms / 1000, !up ? "not connected: " : "",
              !up            ? link_why(link)
              : call->why[0] ? call->why
                             : "request sent",
              rpc->wait_ms / 1000.0);
}

static int give_up(struct rpc *rpc, struct call *call)
{
    const struct link *link = rpc->links[call->shard];
    bool put_off = call->why[0] != '\0';
    struct rpc_answer answer = {
        .status = WIRE_UNAVAILABLE,
        .put_off = put_off,
        .detail = put_off            ? call->why
                  : link_is_up(link) ? "connected"
                                     : link_why(link),
    };
    finish(rpc, call, &answer);
    return 1;
}

static int send_due(struct rpc *rpc, uint64_t now)
{
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
            complain(rpc, call, now);
            send_call(rpc, call, now);
        }
        note_due(rpc, call);
    }
    return ran;
}

/* A new connection: whatever was sent over the one before will not be answered. */
static void send_all(struct rpc *rpc, uint32_t shard, uint64_t now)
{
    for (struct call *call = rpc->calls.next; call != &rpc->calls; call = call->next)
        if (call->shard == shard) {
            call->sent = false;
            send_call(rpc, call, now);
        }
}

/* Asks the kernel what the owner has not told. */
static void look(struct rpc *rpc)
{
    struct pollfd fds[CONFIG_MAX_SHARDS];
    if (poll(fds, rpc_poll_fds(rpc, fds), 0) >= 0)
        rpc_polled(rpc, fds);
}

int rpc_process(struct rpc *rpc)
{
    int ran = 0;
    if (!rpc->polled)
        look(rpc);
    rpc->polled = false;
    uint64_t now = rpc->now_us();
    for (uint32_t i = 0; i < rpc->nshards; i++) {
        ran += receive(rpc, i);
        if (link_turn(rpc->links[i], now)) {
            send_all(rpc, i, now);
            ran += receive(rpc, i);
        }
    }
    return ran + send_due(rpc, now);
}

uint32_t rpc_poll_fds(const struct rpc *rpc, struct pollfd *out)
{
    for (uint32_t i = 0; i < rpc->nshards; i++)
        out[i] = link_pollfd(rpc->links[i]);
    return rpc->nshards;
}

void rpc_polled(struct rpc *rpc, const struct pollfd *fds)
{
    for (uint32_t i = 0; i < rpc->nshards; i++)
        link_polled(rpc->links[i], fds[i].revents);
    rpc->polled = true;
}

int rpc_timeout_ms(const struct rpc *rpc)
{
    uint64_t due = rpc->outstanding > 0 ? rpc->next_due_us : UINT64_MAX;
    for (uint32_t i = 0; i < rpc->nshards; i++) {
        uint64_t link_due = link_due_us(rpc->links[i]);
        if (link_due < due)
            due = link_due;
    }
    uint64_t now = rpc->now_us();
    return due <= now ? 0 : (int)((due - now) / 1000 + 1);
}

uint32_t rpc_outstanding(const struct rpc *rpc)
{
    return rpc->outstanding;
}

bool rpc_is_waiting(const struct rpc *rpc)
{
    const struct call *oldest = rpc->calls.next;
    return oldest != &rpc->calls && rpc->now_us() - oldest->begun_us > 1000ull * COMPLAIN_AFTER_MS;
}

bool rpc_has_rate(const struct rpc *rpc, uint32_t shard)
{
    return link_has_rate(rpc->links[shard]);
}

uint64_t rpc_send_rate(const struct rpc *rpc, uint32_t shard)
{
    return link_send_rate(rpc->links[shard]);
}

uint64_t rpc_receive_rate(const struct rpc *rpc, uint32_t shard)
{
    return link_receive_rate(rpc->links[shard]);
}

struct rpc_counters rpc_counters(const struct rpc *rpc)
{
    return rpc->counters;
}
