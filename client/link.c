#include "link.h"

#include "flow.h"
#include "lookup.h"
#include "ticks.h"
#include "../proto/wire.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    FIRST_RETRY_MS = 2, /* a DMS that is just being started is there after some milliseconds */
    LAST_RETRY_MS = 500,
    LOOKUP_MS = 5,       /* between two looks whether the name is known by now */
    CONNECT_MS = 5000,   /* for the connection */
    SHAKE_MS = 10000,    /* and for the peer's first words */
    SILENT_MS = 5000,    /* of silence: ask for a sign of life */
    LIFELESS_MS = 15000, /* without one: the connection is lost */
};

/* Its steps, in their order. */
enum step { WAITING, LOOKING_UP, CONNECTING, SHAKING, UP };

struct link {
    bool is_tcp;
    char *host, *port; /* TCP */
    struct sockaddr_un path;
    socklen_t path_bytes;

    enum step step;
    int fd;            /* CONNECTING; after that it is the connection's. -1: none */
    bool is_connected; /* or it has failed to */
    bool is_news;      /* up, and link_turn() has not said so yet */
    uint64_t due_us;   /* what the step has to be over by, or is done again at */
    uint32_t retry_ms;
    bool is_asked; /* for a sign of life, and none has come */
    struct lookup *lookup;
    const struct addrinfo *next_address;
    char why[96];
    struct connection *connection;
    struct flow flow; /* of what comes */
};

/* ---- making one ---- */

static int set_path(struct link *link, const char *path)
{
    size_t len = strlen(path);
    if (len >= sizeof link->path.sun_path)
        return -ENAMETOOLONG;
    link->path.sun_family = AF_UNIX;
    memcpy(link->path.sun_path, path, len);
    link->path_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    if (*path == '@') {
        /* Linux's abstract names: not files, and their length counts. */
        link->path.sun_path[0] = '\0';
        link->path_bytes--;
    }
    return 0;
}

static int set_host(struct link *link, const char *place)
{
    const char *colon = strrchr(place, ':');
    if (!colon)
        return -EINVAL;
    bool bare = place[0] == '[' && colon > place + 1;
    link->host = strndup(place + bare, (size_t)(colon - place) - 2 * bare);
    link->port = strdup(colon + 1);
    link->is_tcp = true;
    return link->host && link->port ? 0 : -ENOMEM;
}

int link_new(struct link **out, const char *endpoint)
{
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return -ENOMEM;
    link->fd = -1;
    link->step = WAITING;
    link->due_us = 1; /* long ago */
    link->retry_ms = FIRST_RETRY_MS;
    int err = strncmp(endpoint, "ipc://", 6) == 0   ? set_path(link, endpoint + 6)
              : strncmp(endpoint, "tcp://", 6) == 0 ? set_host(link, endpoint + 6)
                                                    : -EINVAL;
    if (!err)
        err = connection_new(&link->connection, CONNECTION_DEALER, WIRE_MAX_HEADER_BYTES,
                             WIRE_MAX_BODY_BYTES);
    if (err) {
        link_destroy(&link);
        return err;
    }
    *out = link;
    return 0;
}

/* Forgets all that belongs to the connection. */
static void drop(struct link *link)
{
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->is_connected = false;
    link->is_news = false;
    if (link->connection)
        connection_close(link->connection);
    flow_reset(&link->flow);
}

void link_destroy(struct link **link)
{
    if (!*link)
        return;
    drop(*link);
    connection_destroy(&(*link)->connection);
    lookup_destroy(&(*link)->lookup);
    free((*link)->host);
    free((*link)->port);
    free(*link);
    *link = NULL;
}

/* The connection is lost, or did not come about: it is tried again after a while. */
static void lose(struct link *link, const char *why)
{
    drop(link);
    snprintf(link->why, sizeof link->why, "%s", why);
    link->step = WAITING;
    link->due_us = 0; /* link_turn() knows what time it is */
}

static void lose_for(struct link *link, int err)
{
    lose(link, err == -EPROTO     ? "it does not speak ZeroMQ"
               : err == -ENOTSUP  ? "it is no DMS"
               : err == -EMSGSIZE ? "it sends what no DMS sends"
                                  : strerror(-err));
}

/* ---- messages ---- */

int link_send(struct link *link, const void *header, size_t header_bytes, const struct iovec *body,
              uint32_t nbody)
{
    if (link->step != UP)
        return -ENOTCONN;
    int err = connection_send(link->connection, header, header_bytes, body, nbody);
    if (err)
        lose_for(link, err); /* half a message cannot be taken back */
    return err == -ENOMEM ? err : err ? -ENOTCONN : 0;
}

/* A message has come whole, with a body of BODY_BYTES, or (0) as far as it has come. */
static void note_flow(struct link *link, size_t body_bytes)
{
    if (!link_has_rate(link))
        return;
    size_t partial = connection_partial(link->connection);
    if (body_bytes > 0)
        flow_end(&link->flow, body_bytes, ticks_ns());
    else if (partial > 0 && link->flow.begun_ns == 0)
        flow_pause(&link->flow, partial, ticks_ns());
}

bool link_receive(struct link *link, struct connection_message *out)
{
    if (link->step != UP)
        return false;
    int got = connection_receive(link->connection, out);
    if (got < 0)
        lose_for(link, got);
    else
        note_flow(link, got > 0 ? out->body_bytes : 0);
    return got > 0;
}

char *link_take_body(struct link *link)
{
    return connection_take_body(link->connection);
}

/* ---- connecting ---- */

static int open_socket(struct link *link, const struct sockaddr *address, socklen_t len)
{
    int one = 1;
    link->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (link->fd < 0)
        return -errno;
    if (link->is_tcp && setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        return -errno;
    if (connect(link->fd, address, len) && errno != EINPROGRESS)
        return -errno;
    return 0;
}

static void start_connecting(struct link *link, const struct sockaddr *address, socklen_t len,
                             uint64_t now_us)
{
    int err = open_socket(link, address, len);
    if (err) {
        lose_for(link, err);
        return;
    }
    link->step = CONNECTING;
    link->due_us = now_us + 1000ull * CONNECT_MS;
}

/* The next of the addresses that are known, or a new lookup when they have all been tried. */
static void start(struct link *link, uint64_t now_us)
{
    if (!link->is_tcp) {
        start_connecting(link, (struct sockaddr *)&link->path, link->path_bytes, now_us);
    } else if (link->next_address) {
        const struct addrinfo *address = link->next_address;
        link->next_address = address->ai_next;
        start_connecting(link, address->ai_addr, address->ai_addrlen, now_us);
    } else {
        lookup_destroy(&link->lookup);
        int err = lookup_new(&link->lookup, link->host, link->port);
        if (err) {
            lose_for(link, err);
            return;
        }
        link->step = LOOKING_UP;
        link->due_us = now_us;
    }
}

static void look_up(struct link *link, uint64_t now_us)
{
    const char *why;
    int err = lookup_result(link->lookup, &link->next_address, &why);
    if (err == -EAGAIN) {
        link->due_us = now_us + 1000ull * LOOKUP_MS;
    } else if (err) {
        link->next_address = NULL;
        lose(link, why);
    } else {
        start(link, now_us);
    }
}

static void greet(struct link *link, uint64_t now_us)
{
    int err = 0;
    socklen_t len = sizeof err;
    if (!link->is_connected)
        return;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &err, &len) || err) {
        lose_for(link, -(err ? err : errno));
        return;
    }
    int fd = link->fd;
    link->fd = -1;
    link->step = SHAKING;
    link->due_us = now_us + 1000ull * SHAKE_MS;
    err = connection_open(link->connection, fd);
    if (err)
        lose_for(link, err);
}

static void shake(struct link *link)
{
    int got = connection_shake(link->connection);
    if (got < 0) {
        lose_for(link, got);
    } else if (got > 0) {
        link->step = UP;
        link->is_news = true;
        link->retry_ms = FIRST_RETRY_MS;
        link->next_address = NULL; /* the next time the host is looked up anew */
    }
}

static void wait_to_retry(struct link *link, uint64_t now_us)
{
    if (link->next_address) {
        link->due_us = now_us; /* another address of the same host */
        return;
    }
    link->due_us = now_us + 1000ull * link->retry_ms;
    link->retry_ms = 2 * link->retry_ms < LAST_RETRY_MS ? 2 * link->retry_ms : LAST_RETRY_MS;
}

/* Whether the peer is still there shows in its answers; when there are none, in a PONG. */
static void watch(struct link *link, uint64_t now_us)
{
    if (connection_heard(link->connection) || link->is_news) {
        link->is_asked = false;
        link->due_us = now_us + 1000ull * SILENT_MS;
    }
    if (now_us < link->due_us)
        return;
    if (link->is_asked) {
        lose(link, "no sign of life");
        return;
    }
    link->is_asked = true;
    link->due_us = now_us + 1000ull * LIFELESS_MS;
    int err = connection_ping(link->connection);
    if (err)
        lose_for(link, err);
}

bool link_turn(struct link *link, uint64_t now_us)
{
    if (link->step == WAITING && link->due_us > 0 && now_us >= link->due_us)
        start(link, now_us);
    if (link->step == LOOKING_UP && now_us >= link->due_us)
        look_up(link, now_us);
    if (link->step == CONNECTING)
        greet(link, now_us);
    if (link->step == SHAKING)
        shake(link);
    if (link->step > LOOKING_UP && link->step < UP && now_us >= link->due_us)
        lose(link, link->step == CONNECTING ? "Connection timed out" : "it does not answer");
    int err = link->step >= SHAKING ? connection_flush(link->connection) : 0;
    if (err)
        lose_for(link, err);
    bool is_news = link->is_news;
    if (link->step == UP)
        watch(link, now_us);
    link->is_news = false;
    if (link->step == WAITING && link->due_us == 0)
        wait_to_retry(link, now_us);
    return is_news;
}

/* ---- what the owner sees ---- */

bool link_is_up(const struct link *link)
{
    return link->step == UP;
}

const char *link_why(const struct link *link)
{
    if (link->why[0])
        return link->why;
    switch (link->step) {
    case WAITING:
        return "not tried yet";
    case LOOKING_UP:
        return "its name has not been found yet";
    case CONNECTING:
        return "nobody has taken the connection yet";
    case SHAKING:
        return connection_step(link->connection) == CONNECTION_GREETING
                   ? "it has not said anything yet"
                   : "it has not said yet what it is";
    case UP:
        break;
    }
    return "connected";
}

bool link_has_rate(const struct link *link)
{
    return link->is_tcp;
}

uint64_t link_send_rate(const struct link *link)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    if (!link->is_tcp || link->step != UP ||
        getsockopt(connection_fd(link->connection), IPPROTO_TCP, TCP_INFO, &info, &len) ||
        info.tcpi_delivery_rate_app_limited)
        return 0;
    return info.tcpi_delivery_rate;
}

uint64_t link_receive_rate(const struct link *link)
{
    return link->flow.rate;
}

bool link_is_choked(const struct link *link)
{
    return connection_unsent(link->connection) > 0;
}

struct pollfd link_pollfd(const struct link *link)
{
    if (link->step == CONNECTING)
        return (struct pollfd){link->fd, POLLOUT, 0};
    short events = (short)(POLLIN | (link_is_choked(link) ? POLLOUT : 0));
    return (struct pollfd){connection_fd(link->connection), events, 0};
}

void link_polled(struct link *link, short revents)
{
    bool broken = revents & (POLLERR | POLLHUP | POLLNVAL);
    if (link->step == CONNECTING)
        link->is_connected = revents & POLLOUT || broken;
    else
        connection_polled(link->connection, revents & POLLIN, revents & POLLOUT, broken);
}

uint64_t link_due_us(const struct link *link)
{
    return link->due_us;
}
