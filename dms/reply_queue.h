/*
 * reply_queue: replies that are ready but must not be sent before what they say is on disk.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_REPLY_QUEUE_H
#define EDM_DMS_REPLY_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <zmq.h>

enum { REPLY_QUEUE_MAX = 64 };

struct reply_message {
    zmq_msg_t identity, header, body;
    bool has_body;
};

/* All zero: empty. */
struct reply_queue {
    struct reply_message replies[REPLY_QUEUE_MAX];
    uint32_t count;
};

/* Sends REPLY, whose messages are taken over. A peer that is gone, or does not read its replies,
 * loses them: it asks again. */
void reply_message_send(struct reply_message *reply, void *socket);

/* Takes REPLY over. There is room for REPLY_QUEUE_MAX. */
void reply_queue_add(struct reply_queue *queue, struct reply_message *reply);

/* Sends all, in order. */
void reply_queue_send(struct reply_queue *queue, void *socket);

/* Throws all away. */
void reply_queue_clear(struct reply_queue *queue);

#endif
