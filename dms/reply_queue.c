#include "reply_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int reply_queue_add(struct reply_queue *queue, uint64_t peer, const void *header,
                    size_t header_bytes, const struct iovec *parts, unsigned nparts)
{
    struct reply_copy *reply = &queue->replies[queue->count];
    size_t body_bytes = 0;

    assert(queue->count < REPLY_QUEUE_MAX);
    for (unsigned i = 0; i < nparts; i++)
        body_bytes += parts[i].iov_len;
    char *bytes = malloc(header_bytes + body_bytes);
    if (bytes == NULL)
        return -ENOMEM;
    *reply = (struct reply_copy){peer, bytes, header_bytes, body_bytes};
    memcpy(bytes, header, header_bytes);
    bytes += header_bytes;
    for (unsigned i = 0; i < nparts; i++) {
        memcpy(bytes, parts[i].iov_base, parts[i].iov_len);
        bytes += parts[i].iov_len;
    }
    queue->count++;
    return 0;
}

void reply_queue_send(struct reply_queue *queue, struct server *server)
{
    for (uint32_t i = 0; i < queue->count; i++) {
        const struct reply_copy *reply = &queue->replies[i];
        struct iovec body = {reply->bytes + reply->header_bytes, reply->body_bytes};
        bool more = i + 1 < queue->count && queue->replies[i + 1].peer == reply->peer;
        server_answer(server, reply->peer, reply->bytes, reply->header_bytes, &body,
                      reply->body_bytes > 0, more);
    }
    reply_queue_clear(queue);
}

void reply_queue_clear(struct reply_queue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++)
        free(queue->replies[i].bytes);
    queue->count = 0;
}
