#include "connection.h"

#include "zmtp.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_BYTES = 16 * 1024,      /* a page and its header come in one read */
    DIRECT_BYTES = 4096,       /* what is missing of a body is read into place from so much on */
    MOST_READS = 64,           /* one after the other: others want to be served, too */
    MOST_FRAMES = 8,           /* of a message; what is right has two */
    UNIX_SEND_BYTES = 1 << 20, /* a Unix socket takes 208 KiB at once unless told otherwise */
    KEPT_BYTES = 256 * 1024,   /* of memory for what waits, when nothing waits any more */
};

struct connection {
    enum connection_role role;
    enum connection_step step;
    int fd;
    bool readable, writable, ended; /* as far as known */
    bool heard;
    bool corked;
    size_t max_header_bytes, max_body_bytes;

    /* The frame under way, and where it goes (NULL: nowhere). */
    bool in_frame;
    struct zmtp_frame frame;
    char *into;
    uint64_t filled;
    /* The message under way, or the last one. */
    unsigned nframes;
    bool complete;
    size_t header_bytes;
    char *body;
    size_t body_bytes;

    /* What the socket has not taken. */
    char *out;
    size_t out_at, out_end, out_capacity;

    unsigned char command[ZMTP_MAX_COMMAND_BYTES];
    /* What has been read and not looked at. */
    size_t in_at, in_end;
    unsigned char in[IN_BYTES];
    char header[]; /* max_header_bytes */
};

int connection_new(struct connection **out, enum connection_role role, size_t max_header_bytes,
                   size_t max_body_bytes)
{
    /* The buffers are not touched before they are needed: of a connection that is idle little is
     * in memory. */
    struct connection *connection = malloc(sizeof(*connection) + max_header_bytes);

    if (connection == NULL)
        return -ENOMEM;
    memset(connection, 0, offsetof(struct connection, in));
    connection->role = role;
    connection->fd = -1;
    connection->max_header_bytes = max_header_bytes;
    connection->max_body_bytes = max_body_bytes;
    *out = connection;
    return 0;
}

static void free_out(struct connection *connection)
{
    free(connection->out);
    connection->out = NULL;
    connection->out_at = connection->out_end = connection->out_capacity = 0;
}

static void free_body(struct connection *connection)
{
    free(connection->body);
    connection->body = NULL;
    connection->body_bytes = 0;
}

void connection_close(struct connection *connection)
{
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->step = CONNECTION_CLOSED;
    connection->readable = connection->writable = connection->ended = false;
    connection->heard = connection->corked = false;
    connection->in_at = connection->in_end = 0;
    connection->in_frame = false;
    connection->nframes = 0;
    connection->complete = false;
    free_body(connection);
    free_out(connection);
}

void connection_destroy(struct connection **connection)
{
    if (*connection == NULL)
        return;
    connection_close(*connection);
    free(*connection);
    *connection = NULL;
}

enum connection_step connection_step(const struct connection *connection)
{
    return connection->step;
}

int connection_fd(const struct connection *connection)
{
    return connection->fd;
}

void connection_polled(struct connection *connection, bool readable, bool writable, bool ended)
{
    connection->readable = connection->readable || readable || ended;
    connection->writable = connection->writable || writable || ended;
    connection->ended = connection->ended || ended;
}

bool connection_is_readable(const struct connection *connection)
{
    return connection->readable;
}

bool connection_heard(struct connection *connection)
{
    bool heard = connection->heard;

    connection->heard = false;
    return heard;
}

size_t connection_unsent(const struct connection *connection)
{
    return connection->out_end - connection->out_at;
}

size_t connection_held(const struct connection *connection)
{
    return connection->out_capacity + (connection->body == NULL ? 0 : connection->body_bytes);
}

/* ---- sending ---- */

/* Room for MORE bytes behind what waits. 0 or -ENOMEM. */
static int make_room(struct connection *connection, size_t more)
{
    size_t waiting = connection_unsent(connection);

    if (connection->out_at > 0 &&
        (waiting == 0 || connection->out_end + more > connection->out_capacity)) {
        memmove(connection->out, connection->out + connection->out_at, waiting);
        connection->out_at = 0;
        connection->out_end = waiting;
    }
    if (waiting + more <= connection->out_capacity)
        return 0;
    size_t capacity = connection->out_capacity + connection->out_capacity / 2;
    if (capacity < waiting + more)
        capacity = waiting + more;
    char *grown = realloc(connection->out, capacity);
    if (grown == NULL)
        return -ENOMEM;
    connection->out = grown;
    connection->out_capacity = capacity;
    return 0;
}

/* Keeps PARTS but for the first SENT bytes. 0 or -ENOMEM. */
static int keep(struct connection *connection, const struct iovec *parts, unsigned nparts,
                size_t sent)
{
    size_t all = 0;

    for (unsigned i = 0; i < nparts; i++)
        all += parts[i].iov_len;
    if (all == sent)
        return 0;
    int err = make_room(connection, all - sent);
    for (unsigned i = 0; err == 0 && i < nparts; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;
        size_t len = parts[i].iov_len - skip;
        memcpy(connection->out + connection->out_end, (char *)parts[i].iov_base + skip, len);
        connection->out_end += len;
        sent -= skip;
    }
    return err;
}

/* What the socket takes of PARTS: bytes, or -errno. */
static ssize_t offer(struct connection *connection, struct iovec *parts, unsigned nparts)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = nparts};
    int more = connection->corked ? MSG_MORE : 0;
    ssize_t sent = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL | more);

    if (sent >= 0)
        return sent;
    if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
        return -errno;
    connection->writable = false;
    return 0;
}

static int send_parts(struct connection *connection, struct iovec *parts, unsigned nparts)
{
    ssize_t sent = connection_unsent(connection) == 0 ? offer(connection, parts, nparts) : 0;

    return sent < 0 ? (int)sent : keep(connection, parts, nparts, (size_t)sent);
}

int connection_flush(struct connection *connection)
{
    while (connection->writable && connection_unsent(connection) > 0) {
        struct iovec rest = {connection->out + connection->out_at, connection_unsent(connection)};
        ssize_t sent = offer(connection, &rest, 1);
        if (sent < 0)
            return (int)sent;
        connection->out_at += (size_t)sent;
    }
    if (connection_unsent(connection) == 0 && connection->out_capacity > KEPT_BYTES)
        free_out(connection);
    return 0;
}

static int send_bytes(struct connection *connection, unsigned char *bytes, size_t len)
{
    struct iovec part = {bytes, len};

    return send_parts(connection, &part, 1);
}

int connection_send(struct connection *connection, const void *header, size_t header_bytes,
                    const struct iovec *body, unsigned nbody)
{
    struct iovec parts[3 + CONNECTION_MAX_PARTS];
    unsigned char begin[2][ZMTP_FRAME_BYTES];
    unsigned nparts = 0;
    size_t body_bytes = 0;

    if (connection->step != CONNECTION_UP)
        return -ENOTCONN;
    assert(nbody <= CONNECTION_MAX_PARTS);
    for (unsigned i = 0; i < nbody; i++)
        body_bytes += body[i].iov_len;
    size_t len = zmtp_frame_begin(begin[0], nbody > 0 ? ZMTP_MORE : 0, header_bytes);
    parts[nparts++] = (struct iovec){begin[0], len};
    parts[nparts++] = (struct iovec){(void *)(uintptr_t)header, header_bytes};
    if (nbody > 0) {
        len = zmtp_frame_begin(begin[1], 0, body_bytes);
        parts[nparts++] = (struct iovec){begin[1], len};
        memcpy(parts + nparts, body, nbody * sizeof(*body));
        nparts += nbody;
    }
    return send_parts(connection, parts, nparts);
}

bool connection_has_next(const struct connection *connection)
{
    size_t have = connection->in_end - connection->in_at;
    struct zmtp_frame frame;

    if (connection->in_frame)
        return false;
    int begin = zmtp_frame_read(connection->in + connection->in_at, have, &frame);
    return begin > 0 && (frame.flags & (ZMTP_MORE | ZMTP_COMMAND)) == 0 &&
           frame.len_bytes <= have - (size_t)begin;
}

void connection_cork(struct connection *connection, bool more)
{
    connection->corked = more;
}

void connection_push(struct connection *connection)
{
    int one = 1;

    if (!connection->corked)
        return;
    connection->corked = false;
    /* Set or not before, this sends what waits (tcp(7)). A Unix socket has nothing that waits. */
    (void)setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int connection_ping(struct connection *connection)
{
    unsigned char ping[ZMTP_PING_BYTES];

    return send_bytes(connection, ping, zmtp_ping(ping));
}

/* ---- receiving ---- */

/* Reads what is there: into the frame under way as far as it needs it, the rest into the buffer,
 * which is empty but for the beginning of a frame. 0, -EAGAIN, or another -errno. */
static int fill(struct connection *connection)
{
    if (!connection->readable)
        return -EAGAIN;
    if (connection->in_at > 0) {
        memmove(connection->in, connection->in + connection->in_at,
                connection->in_end - connection->in_at);
        connection->in_end -= connection->in_at;
        connection->in_at = 0;
    }
    struct iovec parts[2] = {{NULL, 0},
                             {connection->in + connection->in_end, IN_BYTES - connection->in_end}};
    uint64_t missing = connection->in_frame ? connection->frame.len_bytes - connection->filled : 0;
    bool direct = connection->into != NULL && connection->in_end == 0 && missing >= DIRECT_BYTES;
    if (direct)
        parts[0] = (struct iovec){connection->into + connection->filled, (size_t)missing};
    ssize_t got = readv(connection->fd, parts + !direct, 1 + direct);
    if (got < 0 && errno == EINTR)
        return 0;
    if (got < 0 && errno == EAGAIN) {
        connection->readable = false;
        return -EAGAIN;
    }
    if (got <= 0)
        return got < 0 ? -errno : -ECONNRESET;
    connection->heard = true;
    /* Less than there is room for: that was all, and poll() will tell of more. It has told of the
     * end already. */
    if ((size_t)got < parts[0].iov_len + parts[1].iov_len && !connection->ended)
        connection->readable = false;
    size_t placed = !direct ? 0 : (uint64_t)got > missing ? (size_t)missing : (size_t)got;
    connection->filled += placed;
    connection->in_end += (size_t)got - placed;
    return 0;
}

static void begin_message(struct connection *connection)
{
    free_body(connection);
    connection->header_bytes = 0;
    connection->nframes = 0;
    connection->complete = false;
}

/* Where the frame that begins now is to go. 0 or -errno. */
static int place_frame(struct connection *connection)
{
    uint64_t len = connection->frame.len_bytes;

    connection->filled = 0;
    connection->into = NULL;
    if ((connection->frame.flags & ZMTP_COMMAND) != 0) {
        connection->into = (char *)connection->command;
        return len <= sizeof(connection->command) ? 0 : -EMSGSIZE;
    }
    if (connection->step != CONNECTION_UP)
        return -EPROTO;
    if (connection->complete)
        begin_message(connection);
    bool is_header = connection->nframes == 0;
    if (len > (is_header ? connection->max_header_bytes : connection->max_body_bytes) ||
        connection->nframes >= MOST_FRAMES)
        return -EMSGSIZE;
    if (is_header) {
        connection->into = connection->header;
        connection->header_bytes = (size_t)len;
    } else if (connection->nframes == 1) {
        connection->body = malloc(len > 0 ? (size_t)len : 1);
        if (connection->body == NULL)
            return -ENOMEM;
        connection->into = connection->body;
        connection->body_bytes = (size_t)len;
    }
    return 0;
}

/* 1: the handshake is over. 0 or -errno. */
static int on_command(struct connection *connection)
{
    unsigned char out[ZMTP_PING_BYTES];
    size_t len = (size_t)connection->frame.len_bytes;
    int err;

    switch (zmtp_command(connection->command, len)) {
    case ZMTP_PING:
        /* Who does not read its answers gets no more of them. */
        if (connection_unsent(connection) > KEPT_BYTES)
            return 0;
        return send_bytes(connection, out, zmtp_pong(out, connection->command, len));
    case ZMTP_READY:
        if (connection->step != CONNECTION_SHAKING)
            return -EPROTO;
        err = zmtp_check_ready(connection->command, len,
                               connection->role == CONNECTION_DEALER ? "ROUTER" : "DEALER");
        if (err != 0)
            return err;
        connection->step = CONNECTION_UP;
        return 1;
    case ZMTP_ERROR:
        return -ENOTSUP;
    default:
        return 0; /* others mean nothing to us; unknown ones are to be passed over */
    }
}

/* The frame under way is there. 1: it ends a message or the handshake. 0 or -errno. */
static int end_frame(struct connection *connection)
{
    connection->in_frame = false;
    if ((connection->frame.flags & ZMTP_COMMAND) != 0)
        return on_command(connection);
    connection->nframes++;
    connection->complete = (connection->frame.flags & ZMTP_MORE) == 0;
    return connection->complete;
}

/* The beginning of a frame, if it is there: 1, 0 or -errno. */
static int begin_frame(struct connection *connection)
{
    int begin = zmtp_frame_read(connection->in + connection->in_at,
                                connection->in_end - connection->in_at, &connection->frame);

    if (begin <= 0)
        return begin;
    connection->in_at += (size_t)begin;
    connection->in_frame = true;
    int err = place_frame(connection);
    return err != 0 ? err : 1;
}

/* Goes through what has been read. 1: a message is complete, or the handshake. 0: more has to be
 * read. */
static int take_frames(struct connection *connection)
{
    for (;;) {
        int begun = connection->in_frame ? 1 : begin_frame(connection);
        if (begun <= 0)
            return begun;
        size_t have = connection->in_end - connection->in_at;
        uint64_t missing = connection->frame.len_bytes - connection->filled;
        size_t part = missing < have ? (size_t)missing : have;
        if (connection->into != NULL)
            memcpy(connection->into + connection->filled, connection->in + connection->in_at, part);
        connection->in_at += part;
        connection->filled += part;
        if (connection->filled < connection->frame.len_bytes)
            return 0;
        int done = end_frame(connection);
        if (done != 0)
            return done;
    }
}

/* Reads until take_frames() has something (1), nothing more is there or it has been long (0), or it
 * fails. */
static int take(struct connection *connection)
{
    for (int i = 0; i < MOST_READS; i++) {
        int got = take_frames(connection);
        if (got != 0)
            return got;
        got = fill(connection);
        if (got != 0)
            return got == -EAGAIN ? 0 : got;
    }
    return take_frames(connection);
}

int connection_receive(struct connection *connection, struct connection_message *out)
{
    int got = connection->step == CONNECTION_UP ? 1 : connection_shake(connection);

    if (got > 0)
        got = take(connection);
    if (got <= 0)
        return got;
    *out = (struct connection_message){.too_many = connection->nframes > 2};
    if (out->too_many)
        return 1;
    out->header = connection->header;
    out->header_bytes = connection->header_bytes;
    out->body = connection->body;
    out->body_bytes = connection->body_bytes;
    return 1;
}

size_t connection_partial(const struct connection *connection)
{
    bool is_body =
        connection->in_frame && connection->into != NULL && connection->into == connection->body;

    return is_body ? (size_t)connection->filled : 0;
}

char *connection_take_body(struct connection *connection)
{
    char *body = connection->body;

    connection->body = NULL;
    return body;
}

/* ---- first words ---- */

int connection_open(struct connection *connection, int fd)
{
    unsigned char words[ZMTP_GREETING_BYTES + ZMTP_READY_BYTES];
    int domain = 0, bytes = UNIX_SEND_BYTES;
    socklen_t size = sizeof(domain);

    connection->fd = fd;
    connection->step = CONNECTION_GREETING;
    /* So that a message is sent in one go. Without the right to it, in more. */
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) != 0)
        return -errno;
    zmtp_greeting(words);
    /* The peer reads our READY when it has sent its own greeting. */
    size_t len = zmtp_ready(words + ZMTP_GREETING_BYTES,
                            connection->role == CONNECTION_DEALER ? "DEALER" : "ROUTER");
    return send_bytes(connection, words, ZMTP_GREETING_BYTES + len);
}

/* 1: the peer has greeted. 0: not all of it has come. */
static int take_greeting(struct connection *connection)
{
    for (;;) {
        size_t have = connection->in_end - connection->in_at;
        int err = zmtp_check_greeting(connection->in + connection->in_at, have);
        if (err == 0 && have >= ZMTP_GREETING_BYTES) {
            connection->in_at += ZMTP_GREETING_BYTES;
            return 1;
        }
        if (err == 0)
            err = fill(connection);
        if (err != 0)
            return err == -EAGAIN ? 0 : err;
    }
}

int connection_shake(struct connection *connection)
{
    int got = 1;

    if (connection->step == CONNECTION_GREETING) {
        got = take_greeting(connection);
        if (got > 0)
            connection->step = CONNECTION_SHAKING;
    }
    /* Until the READY has come. What is right behind it stays where it is. */
    if (connection->step == CONNECTION_SHAKING)
        got = take(connection);
    return got;
}
