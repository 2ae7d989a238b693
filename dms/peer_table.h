/*
 * peer_table: the connections of a listener, and what each of them makes ZeroMQ hold.
 *
 * ZeroMQ counts whole messages, and bounds neither the frames of one nor what has come of one that
 * never ends; some 30 bytes of memory go for each byte of such a message. Nor does it bound how
 * many connections there are. So this table follows the listener's connections (a socket monitor
 * tells of them) and compares, for TCP, what the kernel has received and had acknowledged for each
 * with what was taken out and put in here. A connection that holds more than a bound is shut down:
 * its peer connects again and repeats its requests.
 *
 * Connections beyond the limit are not admitted: their requests are to be refused. Far beyond it
 * they are shut down as soon as they are there.
 *
 * A descriptor may be closed by ZeroMQ, and be another connection's, before the table hears of it.
 * Then that one is counted or shut down instead, which does no more harm than a network does.
 *
 * Thread: the main thread makes it; then it is the shard's. Nothing blocks.
 */
#ifndef EDM_DMS_PEER_TABLE_H
#define EDM_DMS_PEER_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer_table;

struct peer_table_options {
    const char *part;         /* the shard's name in the log */
    bool is_tcp;              /* others cannot be measured */
    uint32_t max_connections; /* admitted at a time */
    size_t max_message_bytes; /* on the wire, of one message */
};

/* Begins to follow SOCKET, which is not bound yet, of CONTEXT; both outlive the table. Returns 0 or
 * -errno. */
int peer_table_new(struct peer_table **out, void *context, void *socket,
                   const struct peer_table_options *options) __attribute__((warn_unused_result));

/* To be called before SOCKET is closed. */
void peer_table_destroy(struct peer_table **table);

/* Readable when there may be news for peer_table_follow(), told once (as ZMQ_FD does). */
int peer_table_fd(const struct peer_table *table);

/* Takes in which connections have come and gone. */
void peer_table_follow(struct peer_table *table);

/* CLOSING: it was shut down, and ZeroMQ frees what it holds when all of it is taken: nothing is to
 * be answered. */
enum peer_standing { PEER_ADMITTED, PEER_REFUSED, PEER_CLOSING };

/* A message of so many bytes on the wire was taken from connection FD, was put in for it. */
enum peer_standing peer_table_take(struct peer_table *table, int fd, size_t wire_bytes);
void peer_table_put(struct peer_table *table, int fd, size_t wire_bytes);

/* Bytes on the wire of a frame of LEN bytes. */
size_t peer_table_frame_bytes(size_t len);

/* Looks at every connection, if it is time to (WAIT_MS: in how long; -1: there are none). */
int peer_table_measure(struct peer_table *table);

/* To be called after messages were taken out; ALL_TAKEN: none waits any more. What was measured
 * before that and was not taken out belongs to messages that are not whole; and while some always
 * wait, what connections hold from which none comes. */
void peer_table_judge(struct peer_table *table, bool all_taken);

uint32_t peer_table_count(const struct peer_table *table);

#endif
