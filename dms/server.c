#include "server.h"

#include "listener.h"
#include "notice.h"
#include "../ini/log.h"
#include "../proto/connection.h"
#include "../proto/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    /* Beyond the limit, and still told so: an eighth of the limit and a few. */
    FEW_REFUSED = 16,
    EVENTS = 64,
    MOST_LOOKS = 256, /* at what is no request: there is more to do than that */
    FIRST_PEERS = 16,
    /* Answers of a peer that wait: no further request of it is read. */
    UNREAD_BYTES = 1 << 20,
    /* For greeting and handshake, as libzmq has it. */
    SHAKE_MS = 30000,
    TURN_MS = 1000,
};

/* What all peers together make us hold: requests that are not whole and answers that wait. */
static const size_t MAX_HELD_BYTES = 256 << 20;

/* No place. */
static const uint32_t NONE = UINT32_MAX;

/* By what epoll tells of others than peers: names that no peer has. */
static const uint64_t LISTENER = UINT32_MAX, WATCHED = UINT32_MAX - 1, NOBODY = UINT32_MAX - 2;

struct peer {
    struct connection *connection; /* NULL: not in use */
    uint32_t generation;           /* of the place; grows with each use */
    uint32_t next;                 /* among those that may have something, or the free ones */
    bool is_queued;                /* it is among those */
    bool is_admitted;
    uint64_t begun_ms;
    size_t held; /* as counted last */
};

struct server {
    struct server_options options;
    struct listener *listener;
    int epoll;
    int spare_fd; /* given up to tell a peer that no descriptors are left */
    struct peer *peers;
    uint32_t npeers, nopen, nadmitted;
    uint32_t free;        /* the first place that is free */
    uint32_t first, last; /* those that may have something to be read or sent */
    uint64_t current;     /* whose request was given out last, by name; NOBODY */
    void *left;           /* the body of that, when its peer was closed since */
    uint32_t nshaking;    /* not up yet */
    uint64_t turned_ms;
    size_t held;
    struct notice refused, closed, bad, full, no_room;
};

static uint64_t name_of(const struct server *server, uint32_t place)
{
    return (uint64_t)server->peers[place].generation << 32 | place;
}

/* ---- places ---- */

static int make_places(struct server *server)
{
    uint32_t count = server->npeers == 0 ? FIRST_PEERS : 2 * server->npeers;
    struct peer *peers = realloc(server->peers, count * sizeof(*peers));

    if (peers == NULL)
        return -ENOMEM;
    server->peers = peers;
    for (uint32_t i = count; i > server->npeers; i--) {
        peers[i - 1] = (struct peer){.next = server->free};
        server->free = i - 1;
    }
    server->npeers = count;
    return 0;
}

/* It has something to be looked at. */
static void queue(struct server *server, uint32_t place)
{
    struct peer *peer = &server->peers[place];

    if (peer->is_queued)
        return;
    peer->is_queued = true;
    peer->next = NONE;
    if (server->first == NONE)
        server->first = place;
    else
        server->peers[server->last].next = place;
    server->last = place;
}

static uint32_t unqueue(struct server *server)
{
    uint32_t place = server->first;

    server->first = server->peers[place].next;
    server->peers[place].is_queued = false;
    return place;
}

/* A place in the queue is found empty, and is free, when its turn comes. */
static void close_peer(struct server *server, uint32_t place)
{
    struct peer *peer = &server->peers[place];

    server->nopen--;
    server->nadmitted -= peer->is_admitted;
    server->nshaking -= connection_step(peer->connection) != CONNECTION_UP;
    server->held -= peer->held;
    /* Its request may still be being answered: an answer to one before it has failed. */
    if (name_of(server, place) == server->current)
        server->left = connection_take_body(peer->connection);
    connection_destroy(&peer->connection);
    if (peer->is_queued)
        return;
    peer->next = server->free;
    server->free = place;
}

static void close_bad(struct server *server, uint32_t place, int err)
{
    const char *what = err == -EPROTO     ? "what is no ZMTP 3"
                       : err == -ENOTSUP  ? "being no DEALER"
                       : err == -EMSGSIZE ? "a message that does not end, or a frame too large"
                       : err == -ENOMEM   ? "want of memory"
                                          : NULL;
    uint64_t count;

    close_peer(server, place);
    /* Everything else is a connection that has ended. */
    if (what != NULL && notice_is_due(&server->bad, &count))
        log_warn(server->options.part, "%" PRIu64 " connections closed, the last one for %s", count,
                 what);
}

/* ---- what they hold ---- */

static void close_largest(struct server *server)
{
    uint32_t largest = 0;
    uint64_t count;

    for (uint32_t i = 1; i < server->npeers; i++) {
        if (server->peers[i].connection != NULL &&
            (server->peers[largest].connection == NULL ||
             server->peers[i].held > server->peers[largest].held))
            largest = i;
    }
    size_t held = server->peers[largest].held;
    close_peer(server, largest);
    if (notice_is_due(&server->full, &count))
        log_warn(server->options.part,
                 "%" PRIu64 " connections closed, the last one for holding %zu KiB of all that may "
                 "wait",
                 count, held >> 10);
}

static void count_held(struct server *server, uint32_t place)
{
    struct peer *peer = &server->peers[place];
    size_t held = connection_held(peer->connection);

    server->held += held - peer->held;
    peer->held = held;
    while (server->held > MAX_HELD_BYTES)
        close_largest(server);
}

/* ---- new ones ---- */

static int add(struct server *server, int fd)
{
    if (server->free == NONE && make_places(server) != 0) {
        close(fd);
        return -ENOMEM;
    }
    uint32_t place = server->free;
    struct peer *peer = &server->peers[place];
    int err = connection_new(&peer->connection, CONNECTION_ROUTER, WIRE_MAX_HEADER_BYTES,
                             server->options.max_body_bytes);
    if (err != 0) {
        close(fd);
        return err;
    }
    server->free = peer->next;
    *peer = (struct peer){
        .connection = peer->connection,
        .generation = peer->generation + 1,
        .next = NONE,
        .begun_ms = notice_now_ms(),
    };
    server->nopen++;
    server->nshaking++;
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.u64 = name_of(server, place),
    };
    err = connection_open(peer->connection, fd);
    if (err == 0 && epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        err = -errno;
    if (err != 0)
        close_peer(server, place);
    return err;
}

/* No descriptor is left for a connection that waits: it is taken and closed with one that was kept
 * for this. Left alone, it would wake us up again and again. */
static bool turn_away(struct server *server)
{
    uint64_t count;

    if (server->spare_fd >= 0)
        close(server->spare_fd);
    int fd = listener_accept(server->listener);
    if (fd >= 0)
        close(fd);
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (notice_is_due(&server->no_room, &count))
        log_warn(server->options.part,
                 "%" PRIu64 " connections turned away: no further file can be opened (ulimit -n)",
                 count);
    return fd >= 0;
}

static void close_beyond(struct server *server, int fd)
{
    uint64_t count;

    close(fd);
    if (notice_is_due(&server->closed, &count))
        log_warn(server->options.part,
                 "%" PRIu32 " connections is the limit (--max-connections), and there are %" PRIu32
                 ": %" PRIu64 " closed",
                 server->options.max_connections, server->nopen, count);
}

static void take_new(struct server *server)
{
    uint64_t most = server->options.max_connections;

    for (;;) {
        int fd = listener_accept(server->listener);
        if ((fd == -EMFILE || fd == -ENFILE) && turn_away(server))
            continue;
        if (fd < 0)
            return;
        if (server->nopen >= most + most / 8 + FEW_REFUSED) {
            close_beyond(server, fd);
            continue;
        }
        int err = add(server, fd);
        if (err != 0)
            log_debug(server->options.part, "a connection came to nothing: %s", strerror(-err));
    }
}

static bool admit(struct server *server, struct peer *peer)
{
    uint64_t count;

    if (peer->is_admitted)
        return true;
    if (server->nadmitted < server->options.max_connections) {
        peer->is_admitted = true;
        server->nadmitted++;
        return true;
    }
    if (notice_is_due(&server->refused, &count))
        log_warn(server->options.part,
                 "%" PRIu32 " connections is the limit (--max-connections): %" PRIu64
                 " refusals to others",
                 server->options.max_connections, count);
    return false;
}

/* ---- waiting ---- */

static struct peer *find(const struct server *server, uint64_t name)
{
    uint32_t place = (uint32_t)name;

    if (place >= server->npeers || server->peers[place].connection == NULL ||
        name_of(server, place) != name)
        return NULL;
    return &server->peers[place];
}

static void take_event(struct server *server, const struct epoll_event *event)
{
    struct peer *peer = find(server, event->data.u64);

    if (event->data.u64 == LISTENER)
        take_new(server);
    if (peer == NULL)
        return;
    connection_polled(peer->connection, (event->events & EPOLLIN) != 0,
                      (event->events & EPOLLOUT) != 0,
                      (event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
    queue(server, (uint32_t)event->data.u64);
}

int server_wait(struct server *server, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(server->epoll, events, EVENTS, server->first == NONE ? timeout_ms : 0);

    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++)
        take_event(server, &events[i]);
    return 0;
}

int server_watch(struct server *server, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WATCHED};

    if (fd < 0 || epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    return -errno;
}

/* ---- requests and answers ---- */

/* What PLACE has: 1, a request; 0, nothing for now; -errno, it is to be closed. */
static int look_at(struct server *server, uint32_t place, struct connection_message *message)
{
    struct connection *connection = server->peers[place].connection;
    bool was_up = connection_step(connection) == CONNECTION_UP;
    int err = connection_flush(connection);

    if (err != 0)
        return err;
    if (connection_unsent(connection) >= UNREAD_BYTES)
        return 0;
    int got = connection_receive(connection, message);
    if (!was_up && connection_step(connection) == CONNECTION_UP)
        server->nshaking--;
    return got;
}

/* The request given out last is done with. */
static void let_go(struct server *server)
{
    struct peer *peer = find(server, server->current);
    uint32_t place = (uint32_t)server->current;

    server->current = NOBODY;
    free(server->left);
    server->left = NULL;
    if (peer == NULL)
        return;
    free(connection_take_body(peer->connection));
    count_held(server, place);
}

bool server_next(struct server *server, struct server_request *out)
{
    struct connection_message message;

    let_go(server);
    for (int looks = 0; looks < MOST_LOOKS && server->first != NONE; looks++) {
        uint32_t place = unqueue(server);
        struct peer *peer = &server->peers[place];
        if (peer->connection == NULL) {
            peer->next = server->free;
            server->free = place;
            continue;
        }
        int got = look_at(server, place, &message);
        if (got < 0) {
            close_bad(server, place, got);
            continue;
        }
        if (got == 0) {
            if (connection_is_readable(peer->connection) &&
                connection_unsent(peer->connection) < UNREAD_BYTES)
                queue(server, place);
            count_held(server, place);
            continue;
        }
        server->current = name_of(server, place);
        queue(server, place); /* behind the others: there may be more */
        *out = (struct server_request){
            .peer = name_of(server, place),
            .header = message.header,
            .header_bytes = message.header_bytes,
            .body = message.body,
            .body_bytes = message.body_bytes,
            .too_many = message.too_many,
            .refused = !admit(server, peer),
        };
        return true;
    }
    return false;
}

void server_answer(struct server *server, uint64_t name, const void *header, size_t header_bytes,
                   const struct iovec *parts, unsigned nparts)
{
    struct peer *peer = find(server, name);

    if (peer == NULL)
        return;
    int err = connection_send(peer->connection, header, header_bytes, parts, nparts);
    if (err != 0)
        close_bad(server, (uint32_t)name, err);
    else
        count_held(server, (uint32_t)name);
}

int server_turn(struct server *server)
{
    if (server->nshaking == 0)
        return -1;
    uint64_t now = notice_now_ms();
    if (now - server->turned_ms < TURN_MS)
        return TURN_MS;
    server->turned_ms = now;
    for (uint32_t i = 0; i < server->npeers; i++) {
        const struct peer *peer = &server->peers[i];
        if (peer->connection != NULL && connection_step(peer->connection) != CONNECTION_UP &&
            now - peer->begun_ms > SHAKE_MS)
            close_peer(server, i);
    }
    return TURN_MS;
}

/* ---- beginning and end ---- */

int server_new(struct server **out, const struct server_options *options, char *why, size_t why_cap)
{
    struct server *server = calloc(1, sizeof(*server));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = LISTENER};
    int err = -ENOMEM;

    snprintf(why, why_cap, "out of memory");
    if (server == NULL)
        return err;
    server->options = *options;
    server->free = server->first = server->last = NONE;
    server->current = NOBODY;
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll < 0 || server->spare_fd < 0) {
        err = -errno;
        snprintf(why, why_cap, "cannot make a socket: %s", strerror(-err));
        server_destroy(&server);
        return err;
    }
    err = listener_new(&server->listener, options->endpoint, why, why_cap);
    if (err == 0 &&
        epoll_ctl(server->epoll, EPOLL_CTL_ADD, listener_fd(server->listener), &event) != 0) {
        err = -errno;
        snprintf(why, why_cap, "cannot wait for connections: %s", strerror(-err));
    }
    if (err != 0)
        server_destroy(&server);
    else
        *out = server;
    return err;
}

void server_end(struct server *server, int timeout_ms)
{
    uint64_t end_ms = notice_now_ms() + (uint64_t)timeout_ms;

    for (;;) {
        size_t unsent = 0;
        for (uint32_t i = 0; i < server->npeers; i++) {
            struct connection *connection = server->peers[i].connection;
            if (connection == NULL)
                continue;
            int err = connection_flush(connection);
            unsent += err == 0 ? connection_unsent(connection) : 0;
        }
        uint64_t now = notice_now_ms();
        if (unsent == 0 || now >= end_ms || server_wait(server, (int)(end_ms - now)) != 0)
            return;
    }
}

void server_destroy(struct server **server)
{
    if (*server == NULL)
        return;
    for (uint32_t i = 0; i < (*server)->npeers; i++)
        connection_destroy(&(*server)->peers[i].connection);
    free((*server)->peers);
    free((*server)->left);
    listener_destroy(&(*server)->listener);
    if ((*server)->epoll >= 0)
        close((*server)->epoll);
    if ((*server)->spare_fd >= 0)
        close((*server)->spare_fd);
    free(*server);
    *server = NULL;
}
