/*
 * fd_message: one message over a SOCK_SEQPACKET Unix socket, descriptors and all (SCM_RIGHTS,
 * unix(7)).
 *
 * Thread: any. Blocks only where FLAGS (of sendmsg(2) and recvmsg(2)) do not say MSG_DONTWAIT.
 */
#ifndef EDM_CLIENT_FD_MESSAGE_H
#define EDM_CLIENT_FD_MESSAGE_H

#include <stddef.h>

enum { FD_MESSAGE_FDS = 2 };

/* Sends BYTES from FROM with NFDS descriptors, two at most (copies; ours stay ours). 0 or -errno:
 * -EAGAIN it would block, -EPIPE the other side is gone. */
int fd_message_send(int connection, const void *from, size_t bytes, const int *fds, size_t nfds,
                    int flags) __attribute__((warn_unused_result));

/* Receives a message of exactly BYTES, and up to two descriptors that are ours then (-1: none).
 * 0 or -errno: -EAGAIN nothing there yet, -ECONNRESET the other side is gone, -EPROTO a message of
 * another size. No descriptor is left open but those in FDS. */
int fd_message_receive(int connection, void *to, size_t bytes, int fds[FD_MESSAGE_FDS], int flags)
    __attribute__((warn_unused_result));

#endif
