/*
 * connection: one ZMTP connection (zmtp.h) over a stream socket, from the greeting on: whole
 * messages in and out. A DEALER's or a ROUTER's end of it, which differ in what they say they are.
 *
 * The owner makes the socket, waits for it with poll() or epoll (level or edge) and tells what
 * that said; nothing is read or written that the connection has not been told of. Whatever fails,
 * the owner closes the connection and may open it again on another socket.
 *
 * A message is one frame, the header, or two, with a body. More frames are read and thrown away, up
 * to a number that nobody sends in good faith.
 *
 * Thread: the owner's. Nothing blocks.
 */
#ifndef EDM_PROTO_CONNECTION_H
#define EDM_PROTO_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct connection;

enum connection_role { CONNECTION_DEALER, CONNECTION_ROUTER };

/* In their order. GREETING: the peer has not greeted yet; SHAKING: nor said what it is. */
enum connection_step {
    CONNECTION_CLOSED,
    CONNECTION_GREETING,
    CONNECTION_SHAKING,
    CONNECTION_UP,
};

enum { CONNECTION_MAX_PARTS = 512 }; /* of a body that is sent */

/* A message that came. It stays valid until the next call for this connection. */
struct connection_message {
    const char *header;
    size_t header_bytes;
    const char *body; /* NULL: there was none */
    size_t body_bytes;
    bool too_many; /* frames: more than two. Then there is nothing else in here */
};

/* A closed one, for messages with headers and bodies of at most so many bytes. 0 or -ENOMEM. */
int connection_new(struct connection **out, enum connection_role role, size_t max_header_bytes,
                   size_t max_body_bytes) __attribute__((warn_unused_result));
void connection_destroy(struct connection **connection);

/* Takes FD over, a connected socket that does not block, also when it fails, and says the first
 * words. 0 or -errno: it is to be closed. */
int connection_open(struct connection *connection, int fd) __attribute__((warn_unused_result));

/* Forgets all there is of it, what has not been sent included. */
void connection_close(struct connection *connection);

enum connection_step connection_step(const struct connection *connection);
int connection_fd(const struct connection *connection); /* -1: closed */

/* What can be done. ENDED: with or without an error, nothing more will come. */
void connection_polled(struct connection *connection, bool readable, bool writable, bool ended);

/* Goes on with greeting and handshake. 1: it is up. 0: not yet. -errno: to be closed; -EPROTO, it
 * is no ZMTP 3; -ENOTSUP, the peer is not what it should be, or wants another mechanism;
 * -ECONNRESET, it has ended. */
int connection_shake(struct connection *connection) __attribute__((warn_unused_result));

/* Whether there may be something to read. */
bool connection_is_readable(const struct connection *connection);

/* The next message: 1; 0, there is none, or so much else has come that others should have their
 * turn (then connection_is_readable() is still true). -errno as above, and -EMSGSIZE, a frame or a
 * message is larger than it may be; -ENOMEM. Shakes hands first if need be. */
int connection_receive(struct connection *connection, struct connection_message *out)
    __attribute__((warn_unused_result));

/* Bytes that have come of a body that is not whole yet. */
size_t connection_partial(const struct connection *connection);

/* Takes the body of the message that connection_receive() has just given; to be freed. */
char *connection_take_body(struct connection *connection);

/* Sends a message of one frame, or two if NBODY is not 0 (at most CONNECTION_MAX_PARTS). What the
 * socket does not take is copied. 0; -ENOTCONN: it is not up, nothing was sent; another -errno: to
 * be closed. */
int connection_send(struct connection *connection, const void *header, size_t header_bytes,
                    const struct iovec *body, unsigned nbody) __attribute__((warn_unused_result));

/* Whether another message of one frame has been read and will be given out next. */
bool connection_has_next(const struct connection *connection);

/* MORE: what is sent from now on may wait in the kernel for what is sent after it, so that both go
 * together. Not MORE: the next that is sent takes it along. Should there be no next,
 * connection_push() sends what waits. (The kernel waits 0.2 s at most.) */
void connection_cork(struct connection *connection, bool more);
void connection_push(struct connection *connection);

/* Asks for a sign of life. Errors as with connection_send(). */
int connection_ping(struct connection *connection) __attribute__((warn_unused_result));

/* Sends on what is waiting. 0 or -errno: to be closed. */
int connection_flush(struct connection *connection) __attribute__((warn_unused_result));

/* Bytes that wait to be sent. */
size_t connection_unsent(const struct connection *connection);

/* Bytes of memory that the peer makes it hold: for a body, and for what is not sent. */
size_t connection_held(const struct connection *connection);

/* Whether anything has come since the last time this was asked. */
bool connection_heard(struct connection *connection);

#endif
