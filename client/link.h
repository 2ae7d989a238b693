/*
 * link: the connection to one shard, as a ZeroMQ DEALER's, on a socket of its own.
 *
 * The bytes are ZMTP's (proto/connection.h), so that the shard's ROUTER sees a DEALER. But whoever
 * owns the link sends and receives on the socket itself, where libzmq would hand every message to a
 * thread of its own and wake that up: two wake-ups less on the way of a page (DESIGN.md has the
 * figures).
 *
 * It connects by itself, again and again: a lost connection is nothing the owner is asked about.
 * What was sent over it and not answered is the owner's to send again (link_turn() tells when).
 *
 * Thread: whoever made it. Nothing blocks.
 */
#ifndef EDM_CLIENT_LINK_H
#define EDM_CLIENT_LINK_H

#include "../proto/connection.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct link;

/* ENDPOINT: as checked by config_check_endpoint(). Connects from the first link_turn() on. 0 or
 * -errno. */
int link_new(struct link **out, const char *endpoint) __attribute__((warn_unused_result));
void link_destroy(struct link **link);

/* Goes on with connecting, with what could not be sent at once, and with asking a silent shard for
 * a sign of life. True: the connection is new; what was sent before will not be answered any more.
 */
bool link_turn(struct link *link, uint64_t now_us);

bool link_is_up(const struct link *link);

/* Why it is not up, for people: "Connection refused". */
const char *link_why(const struct link *link);

/* Whether its rates can be known: it is a TCP connection. Any other is memory. */
bool link_has_rate(const struct link *link);

/* Bytes a second that the connection carried when it was what held up the sender (the kernel's own
 * measure, tcpi_delivery_rate; Cheng and others, draft-cheng-iccrg-delivery-rate-estimation). 0:
 * not known, for it has not been that lately, or has no rate. */
uint64_t link_send_rate(const struct link *link);

/* The same for what comes, see flow.h. 0: not known, for nothing large has come yet, or it has
 * none. */
uint64_t link_receive_rate(const struct link *link);

/* Whether something of what was sent still waits to leave. */
bool link_is_choked(const struct link *link);

/* Sends a message of one frame, or two if NBODY is not 0. What the socket does not take is copied.
 * 0, -ENOTCONN, or -ENOMEM: not sent. */
int link_send(struct link *link, const void *header, size_t header_bytes, const struct iovec *body,
              uint32_t nbody) __attribute__((warn_unused_result));

/* The next message there is, valid until the next call for this link. False: none. */
bool link_receive(struct link *link, struct connection_message *out);

/* Takes the body of the message link_receive() has just given; to be freed. */
char *link_take_body(struct link *link);

/* What to wait for (fd -1: nothing), and what poll() said of it: nothing is read or written that it
 * has not been told of. */
struct pollfd link_pollfd(const struct link *link);
void link_polled(struct link *link, short revents);

/* When link_turn() has something to do of itself, on ticks_us()'s clock. */
uint64_t link_due_us(const struct link *link);

#endif
