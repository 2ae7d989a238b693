#include "reply_queue.h"

#include <assert.h>

static void close_message(struct reply_message *reply)
{
    zmq_msg_close(&reply->identity);
    zmq_msg_close(&reply->header);
    if (reply->has_body)
        zmq_msg_close(&reply->body);
}

void reply_message_send(struct reply_message *reply, void *socket)
{
    bool sent = zmq_msg_send(&reply->identity, socket, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
                zmq_msg_send(&reply->header, socket,
                             (reply->has_body ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT) >= 0;

    if (sent && reply->has_body)
        sent = zmq_msg_send(&reply->body, socket, ZMQ_DONTWAIT) >= 0;
    (void)sent;
    close_message(reply); /* what was sent is empty now */
}

void reply_queue_add(struct reply_queue *queue, struct reply_message *reply)
{
    assert(queue->count < REPLY_QUEUE_MAX);
    queue->replies[queue->count++] = *reply;
}

void reply_queue_send(struct reply_queue *queue, void *socket)
{
    for (uint32_t i = 0; i < queue->count; i++)
        reply_message_send(&queue->replies[i], socket);
    queue->count = 0;
}

void reply_queue_clear(struct reply_queue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++)
        close_message(&queue->replies[i]);
    queue->count = 0;
}
