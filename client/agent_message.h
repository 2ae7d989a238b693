/*
 * agent_message: one message to or from an agent, descriptors and all (agent/agent_proto.h).
 *
 * Thread: any. Nothing here blocks.
 */
#ifndef EDM_CLIENT_AGENT_MESSAGE_H
#define EDM_CLIENT_AGENT_MESSAGE_H

#include <stddef.h>

enum { AGENT_MESSAGE_FDS = 2 };

/* Sends BYTES from FROM with NFDS descriptors (copies; ours stay ours). 0 or -errno. */
int agent_message_send(int connection, const void *from, size_t bytes, const int *fds, size_t nfds)
    __attribute__((warn_unused_result));

/* Receives a message of exactly BYTES, and up to two descriptors that are ours then (-1: none).
 * 0 or -errno: -EAGAIN nothing there yet, -ECONNRESET the other side is gone, -EPROTO a message of
 * another size. No descriptor is left open but those in FDS. */
int agent_message_receive(int connection, void *to, size_t bytes, int fds[AGENT_MESSAGE_FDS])
    __attribute__((warn_unused_result));

#endif
