/*
 * reply_queue: answers that are ready but must not be sent before what they say is on disk.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_REPLY_QUEUE_H
#define EDM_DMS_REPLY_QUEUE_H

#include "server.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { REPLY_QUEUE_MAX = 64 };

struct reply_copy {
    uint64_t peer;
    char *bytes; /* header and body */
    size_t header_bytes, body_bytes;
};

/* All zero: empty. */
struct reply_queue {
    struct reply_copy replies[REPLY_QUEUE_MAX];
    uint32_t count;
};

/* Copies an answer, for server_answer(). There is room for REPLY_QUEUE_MAX. 0 or -ENOMEM: the peer
 * asks again. */
int reply_queue_add(struct reply_queue *queue, uint64_t peer, const void *header,
                    size_t header_bytes, const struct iovec *parts, unsigned nparts)
    __attribute__((warn_unused_result));

/* Sends all, in order. */
void reply_queue_send(struct reply_queue *queue, struct server *server);

/* Throws all away. */
void reply_queue_clear(struct reply_queue *queue);

#endif
