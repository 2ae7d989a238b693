#include "control_server.h"

#include "../ini/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUESTS_AT_ONCE = 16 }; /* of one connection: the others are there too */

struct connection {
    int fd;
    uint64_t number; /* 0: free */
    uint64_t age;    /* when it last said something */
    pid_t peer;
    bool held;
};

struct control_server {
    int listen_fd;
    control_request *request;
    void *arg;
    uint64_t count, clock;
    struct connection connections[CONTROL_CONNECTIONS];
};

int control_server_new(struct control_server **out, int listen_fd, control_request *request,
                       void *arg)
{
    struct control_server *server = calloc(1, sizeof *server);
    if (!server)
        return -ENOMEM;
    server->listen_fd = listen_fd;
    server->request = request;
    server->arg = arg;
    *out = server;
    return 0;
}

static void hang_up(struct connection *connection)
{
    if (connection->number == 0)
        return;
    close(connection->fd);
    *connection = (struct connection){0};
}

void control_server_destroy(struct control_server **server)
{
    if (!*server)
        return;
    for (int i = 0; i < CONTROL_CONNECTIONS; i++)
        hang_up(&(*server)->connections[i]);
    free(*server);
    *server = NULL;
}

static struct connection *find(const struct control_server *server, uint64_t number)
{
    for (int i = 0; i < CONTROL_CONNECTIONS && number != 0; i++)
        if (server->connections[i].number == number)
            return (struct connection *)&server->connections[i];
    return NULL;
}

void control_server_hold(struct control_server *server, uint64_t number, bool held)
{
    struct connection *connection = find(server, number);
    if (connection)
        connection->held = held;
}

bool control_server_is_open(const struct control_server *server, uint64_t number)
{
    return find(server, number) != NULL;
}

/* ---- answering ---- */

static bool send_text(int fd, const struct control_text *text)
{
    return send(fd, text->bytes, text->len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)text->len;
}

void control_server_reply(struct control_server *server, uint64_t number,
                          const struct control_text *text)
{
    struct connection *connection = find(server, number);
    if (connection && !send_text(connection->fd, text))
        hang_up(connection);
}

static void make_refusal(struct control_text *text, const char *code, const char *why)
{
    control_begin(text, "error");
    control_put(text, "code", code);
    control_put(text, "text", why);
}

void control_server_refuse(struct control_server *server, uint64_t number, const char *code,
                           const char *why)
{
    struct control_text text;
    make_refusal(&text, code, why);
    control_server_reply(server, number, &text);
}

/* ---- connections ---- */

/* Closed over a request that was not read, a connection would say ECONNRESET to the other side and
 * nothing else. */
static void turn_away(int fd, const char *code, const char *why)
{
    struct control_text text;
    char byte;
    make_refusal(&text, code, why);
    shutdown(fd, SHUT_RD);
    for (int i = 0; i < REQUESTS_AT_ONCE; i++)
        if (recv(fd, &byte, sizeof byte, MSG_DONTWAIT) <= 0)
            break;
    (void)send_text(fd, &text);
    close(fd);
}

/* A free place, or that of the one that has been silent longest. */
static struct connection *make_place(struct control_server *server)
{
    struct connection *oldest = NULL;
    for (int i = 0; i < CONTROL_CONNECTIONS; i++) {
        struct connection *connection = &server->connections[i];
        if (connection->number == 0)
            return connection;
        if (!connection->held && (!oldest || connection->age < oldest->age))
            oldest = connection;
    }
    if (oldest)
        hang_up(oldest);
    return oldest;
}

static void admit(struct control_server *server, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) ||
        (peer.uid != geteuid() && peer.uid != 0)) {
        turn_away(fd, "denied", "the run is another user's");
        return;
    }
    struct connection *place = make_place(server);
    if (!place) {
        turn_away(fd, "busy", "too many others wait for an answer");
        return;
    }
    *place = (struct connection){
        .fd = fd, .number = ++server->count, .age = ++server->clock, .peer = peer.pid};
}

static void accept_all(struct control_server *server)
{
    for (;;) {
        int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            admit(server, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN)
            log_warn("Control", "cannot take a connection: %s", strerror(errno));
        return;
    }
}

/* False when there is nothing more to be read. */
static bool take_request(struct control_server *server, struct connection *connection)
{
    char bytes[CONTROL_MESSAGE_BYTES + 1];
    struct control_message request;
    uint64_t number = connection->number;
    ssize_t got = recv(connection->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR)
        return true;
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got <= 0) {
        hang_up(connection);
        return false;
    }
    connection->age = ++server->clock;
    if (control_parse(&request, bytes, (size_t)got))
        control_server_refuse(server, number, "bad", "no message of edm's control protocol");
    else if (!request.word)
        control_server_refuse(server, number, "version", "this edm speaks version 1 alone");
    else
        server->request(server->arg, number, connection->peer, &request);
    return connection->number == number;
}

void control_server_poll_fds(const struct control_server *server, struct pollfd *out)
{
    for (int i = 0; i < CONTROL_CONNECTIONS; i++) {
        const struct connection *connection = &server->connections[i];
        out[i] = (struct pollfd){connection->number ? connection->fd : -1, POLLIN, 0};
    }
    out[CONTROL_CONNECTIONS] = (struct pollfd){server->listen_fd, POLLIN, 0};
}

void control_server_process(struct control_server *server, const struct pollfd *polled)
{
    for (int i = 0; i < CONTROL_CONNECTIONS; i++) {
        struct connection *connection = &server->connections[i];
        for (int n = 0; polled[i].revents && n < REQUESTS_AT_ONCE; n++)
            if (connection->number == 0 || !take_request(server, connection))
                break;
    }
    if (polled[CONTROL_CONNECTIONS].revents)
        accept_all(server);
}
