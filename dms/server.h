/*
 * server: the connections of a shard, as a ZeroMQ ROUTER has them: requests come in from any of
 * them, answers go out to the one that asked. All in the shard's own thread: where libzmq hands
 * every message to a thread of its own, in both directions, and wakes that up each time (DESIGN.md
 * has the figures).
 *
 * What peers make it hold is bounded. Of each at most one request is in memory, none while its
 * answers are not read; what all together hold has a limit, beyond which those with most are
 * closed. Connections beyond the number allowed are not admitted: their requests are to be refused.
 * Far beyond it they are closed at once. Whoever is closed connects again and repeats its requests.
 *
 * Thread: the main thread makes it; then it is the shard's. Only server_wait() and server_end()
 * block.
 */
#ifndef EDM_DMS_SERVER_H
#define EDM_DMS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct server;

struct server_options {
    const char *endpoint; /* as checked by config_check_endpoint() */
    const char *part;     /* the shard's name in the log */
    uint32_t max_connections;
    uint32_t max_body_bytes; /* of a request */
    uint32_t shake_ms;       /* for a peer's greeting and handshake, at least 30 */
};

/* A message that came in. It stays valid until the next call of server_next(). */
struct server_request {
    uint64_t peer; /* who sent it: never the same for two connections */
    const char *header;
    size_t header_bytes;
    const char *body; /* NULL: there was none */
    size_t body_bytes;
    bool too_many; /* frames: more than two. Then there is nothing else in here */
    bool refused;  /* there are too many connections */
};

/* Binds the endpoint. A socket file that nobody listens at is replaced. Returns 0, or -errno with
 * WHY (WHY_CAP bytes) saying what is wrong and what to do. */
int server_new(struct server **out, const struct server_options *options, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Closes all. */
void server_destroy(struct server **server);

/* server_wait() returns, too, when FD is readable. -1 is passed over. 0 or -errno. */
int server_watch(struct server *server, int fd) __attribute__((warn_unused_result));

/* Waits for something to do, at most TIMEOUT_MS (-1: no limit; 0: only looks). 0 or -errno. */
int server_wait(struct server *server, int timeout_ms) __attribute__((warn_unused_result));

/* The next request there is, from one peer after the other. False: none, or what has come is none
 * (then server_wait() does not wait). */
bool server_next(struct server *server, struct server_request *out);

/* Sends PEER an answer with a body of NPARTS parts, 0: without. What is not sent at once is copied.
 * A peer that is gone loses it: it asks again. MORE: another answer of that peer's follows, and may
 * go together with this one; they also do where its next request has been read already. */
void server_answer(struct server *server, uint64_t peer, const void *header, size_t header_bytes,
                   const struct iovec *parts, unsigned nparts, bool more);

/* Closes what has not said what it is for too long. Returns in how many milliseconds it should be
 * called again, -1: no need. */
int server_turn(struct server *server);

/* Before the end: waits until all answers are sent, at most TIMEOUT_MS. */
void server_end(struct server *server, int timeout_ms);

#endif
