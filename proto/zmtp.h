/*
 * zmtp: the ZeroMQ message transport protocol as a DEALER and a ROUTER speak it, bytes only: no
 * sockets, no memory of its own. Version 3.1 with the NULL mechanism
 * (https://rfc.zeromq.org/spec/37/; 3.0, https://rfc.zeromq.org/spec/23/, is the same here).
 *
 * A connection begins with a greeting of fixed length each way, then a READY command each way; what
 * follows are frames: a message is those up to the first without ZMTP_MORE, a command is one frame.
 *
 * Thread: any.
 */
#ifndef EDM_PROTO_ZMTP_H
#define EDM_PROTO_ZMTP_H

#include <stddef.h>
#include <stdint.h>

enum {
    ZMTP_GREETING_BYTES = 64,
    ZMTP_FRAME_BYTES = 9,         /* the longest beginning of a frame */
    ZMTP_MAX_COMMAND_BYTES = 512, /* a command's body that we bother to read */
    ZMTP_READY_BYTES = 64,        /* enough for zmtp_ready() */
    ZMTP_PING_BYTES = 32,         /* enough for zmtp_ping() and zmtp_pong() */
};

enum { ZMTP_MORE = 1, ZMTP_LONG = 2, ZMTP_COMMAND = 4 }; /* a frame's flags */

struct zmtp_frame {
    uint8_t flags;
    uint64_t len_bytes; /* of the body, below 2^63 */
};

enum zmtp_command { ZMTP_READY, ZMTP_ERROR, ZMTP_PING, ZMTP_PONG, ZMTP_OTHER };

void zmtp_greeting(unsigned char out[ZMTP_GREETING_BYTES]);

/* Looks at what has come of the peer's greeting, HAVE bytes of it. 0: nothing wrong so far;
 * -EPROTO: it is none of version 3; -ENOTSUP: it wants another mechanism than NULL. */
int zmtp_check_greeting(const unsigned char *in, size_t have) __attribute__((warn_unused_result));

/* Writes the beginning of a frame, at most ZMTP_FRAME_BYTES. Returns its length. */
size_t zmtp_frame_begin(unsigned char *out, uint8_t flags, uint64_t len_bytes);

/* Reads the beginning of a frame. Returns its length, 0 when there is not all of it yet, -EPROTO
 * for what no frame begins with. */
int zmtp_frame_read(const unsigned char *in, size_t have, struct zmtp_frame *out)
    __attribute__((warn_unused_result));

/* Whole frames. They return their lengths. READY says of what TYPE the socket is, "DEALER" or
 * "ROUTER"; PONG answers the PING whose body is given. */
size_t zmtp_ready(unsigned char out[ZMTP_READY_BYTES], const char *type);
size_t zmtp_ping(unsigned char out[ZMTP_PING_BYTES]);
size_t zmtp_pong(unsigned char out[ZMTP_PING_BYTES], const unsigned char *ping, size_t len_bytes);

/* What the body of a command says it is. */
enum zmtp_command zmtp_command(const unsigned char *body, size_t len_bytes);

/* Whether the body of a READY command says that the peer's socket is of that TYPE. 0, -EPROTO
 * (garbled) or -ENOTSUP (another type). */
int zmtp_check_ready(const unsigned char *body, size_t len_bytes, const char *type)
    __attribute__((warn_unused_result));

#endif
