/*
 * control_server: the connections of a client's control socket: who may connect, what they ask, and
 * whether they are still there for the answer. What the requests mean is control.h's affair.
 *
 * Only processes of the same user, and root's, are listened to: the kernel says whose they are
 * (SO_PEERCRED, unix(7)). Nothing here blocks.
 *
 * Thread: main.
 */
#ifndef EDM_CLIENT_CONTROL_SERVER_H
#define EDM_CLIENT_CONTROL_SERVER_H

#include "control_message.h"

#include <poll.h>
#include <sys/types.h>

struct control_server;

/* At once. When there are more, the one that has been silent longest goes; never one that is held
 * (see control_server_hold()). */
enum { CONTROL_CONNECTIONS = 32, CONTROL_POLL_FDS = CONTROL_CONNECTIONS + 1 };

/* A request has come over CONNECTION (never 0) from process PEER. It may be answered now or later,
 * and must not be kept. */
typedef void control_request(void *arg, uint64_t connection, pid_t peer,
                             const struct control_message *request);

/* LISTEN_FD stays the caller's; it does not block. 0 or -errno. */
int control_server_new(struct control_server **out, int listen_fd, control_request *request,
                       void *arg) __attribute__((warn_unused_result));
/* Closes all connections. */
void control_server_destroy(struct control_server **server);

/* Fills in CONTROL_POLL_FDS of what is to be waited for, some of them -1. */
void control_server_poll_fds(const struct control_server *server, struct pollfd *out);
/* Does what poll() found in the same. Calls back. */
void control_server_process(struct control_server *server, const struct pollfd *polled);

/* Who has hung up gets nothing, and one that does not read is hung up on. */
void control_server_reply(struct control_server *server, uint64_t connection,
                          const struct control_text *text);
void control_server_refuse(struct control_server *server, uint64_t connection, const char *code,
                           const char *why);

/* It waits for an answer that is still to come, or does not any more. */
void control_server_hold(struct control_server *server, uint64_t connection, bool held);
bool control_server_is_open(const struct control_server *server, uint64_t connection);

#endif
