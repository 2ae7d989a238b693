/*
 * rpc: requests to the shards, and their answers.
 *
 * One link a shard. A request is sent again until it is answered (every method may be repeated, see
 * PROTOCOL.md), at once when there is a new connection, or until it has waited as long as the run
 * is configured to wait. Its callback runs exactly once, from rpc_process(), if rpc_call() returned
 * 0, and never otherwise. Answers that are late, unknown or double are counted and dropped.
 *
 * Thread: whoever made it; the callback runs on that thread.
 */
#ifndef EDM_CLIENT_RPC_H
#define EDM_CLIENT_RPC_H

#include "../proto/wire.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct rpc;

struct rpc_counters {
    uint64_t bytes_sent, bytes_received; /* headers and bodies, as sent and received */
    uint64_t retries;                    /* requests sent again */
    uint64_t strays;                     /* answers nobody waited for, or not understood */
};

/* The answer to one request. BODY lies in memory that is valid until the callback returns; to keep
 * it, take it with rpc_keep_body(). STATUS is the reply's, or WIRE_UNAVAILABLE when none came
 * (DETAIL is why not. PUT_OFF: there were such that said: later); then REPLY is NULL. */
struct rpc_answer {
    uint8_t status;
    bool put_off;
    uint32_t shard;
    const struct wire_reply *reply;
    const char *body;
    size_t body_bytes;
    const char *detail; /* for people; never NULL */
    char **kept;        /* rpc's own */
};

typedef void rpc_callback(void *arg, struct rpc_answer *answer);

/* A body taken out of an answer. */
struct rpc_body;
struct rpc_body *rpc_keep_body(struct rpc_answer *answer); /* NULL: no memory */
const char *rpc_body_bytes(const struct rpc_body *body);
void rpc_body_destroy(struct rpc_body **body);

/* ENDPOINTS: as checked by config_check_endpoint(). PART: the
 * name for log lines. 0 or -errno. */
int rpc_new(struct rpc **out, char *const *endpoints, uint32_t nshards, uint32_t wait_ms,
            const char *part) __attribute__((warn_unused_result));

/* From now on NOW_US tells it the time, in place of ticks_us(): for tests. */
void rpc_set_clock(struct rpc *rpc, uint64_t (*now_us)(void));

/* Ends all requests without calling back, and closes the sockets. */
void rpc_destroy(struct rpc **rpc);

/* Sends REQUEST (its id is set here) to a shard, with a body that lies in NBODY pieces: these have
 * to stay as they are until the callback has run or rpc_destroy(). 0 or -errno. */
int rpc_call(struct rpc *rpc, uint32_t shard, struct wire_request *request,
             const struct iovec *body, uint32_t nbody, rpc_callback *callback, void *arg)
    __attribute__((warn_unused_result));

/* Takes in what has arrived, sends again what is due, and runs callbacks. Does not block. Returns
 * the number of callbacks run. */
int rpc_process(struct rpc *rpc);

/* What to wait for: one descriptor a shard (-1: not now). They change: ask before each poll(). */
uint32_t rpc_poll_fds(const struct rpc *rpc, struct pollfd *out);

/* What poll() has said of them. It saves rpc_process() a look of its own. */
void rpc_polled(struct rpc *rpc, const struct pollfd *fds);

/* Milliseconds until rpc_process() has something to do of itself. */
int rpc_timeout_ms(const struct rpc *rpc);

uint32_t rpc_outstanding(const struct rpc *rpc);

/* Whether some shard has left a request unanswered for a while. */
bool rpc_is_waiting(const struct rpc *rpc);

/* Bytes a second that the connection to SHARD carries, if it has a rate (link.h); 0: not known. */
bool rpc_has_rate(const struct rpc *rpc, uint32_t shard);
uint64_t rpc_send_rate(const struct rpc *rpc, uint32_t shard);
uint64_t rpc_receive_rate(const struct rpc *rpc, uint32_t shard);

struct rpc_counters rpc_counters(const struct rpc *rpc);

#endif
