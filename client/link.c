#include "link.h"

#include "lookup.h"
#include "../proto/wire.h"
#include "../proto/zmtp.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    IN_BYTES = 16 * 1024, /* a page and its header come in one read */
    DIRECT_BYTES = 4096,  /* what is missing of a body is read into place from so much on */
    MAX_PARTS = 2 * WIRE_MAX_PAGES,
    FIRST_RETRY_MS = 20,
    LAST_RETRY_MS = 500,
    LOOKUP_MS = 5,       /* between two looks whether the name is known by now */
    CONNECT_MS = 5000,   /* for the connection */
    SHAKE_MS = 10000,    /* and for the peer's first words */
    SILENT_MS = 5000,    /* of silence: ask for a sign of life */
    LIFELESS_MS = 15000, /* without one: the connection is lost */
};

/* Its steps, in their order. */
enum step { WAITING, LOOKING_UP, CONNECTING, GREETING, SHAKING, UP };

struct link {
    bool is_tcp;
    char *host, *port; /* TCP */
    struct sockaddr_un path;
    socklen_t path_bytes;

    enum step step;
    int fd;
    bool readable, writable; /* as far as known */
    bool is_news;            /* up, and link_turn() has not said so yet */
    uint64_t due_us;         /* what the step has to be over by, or is done again at */
    uint32_t retry_ms;
    bool heard;    /* something, since the last turn */
    bool is_asked; /* for a sign of life, and none has come */
    struct lookup *lookup;
    const struct addrinfo *next_address;
    char why[96];

    /* What has been read and not looked at. */
    unsigned char in[IN_BYTES];
    size_t in_at, in_end;
    /* The frame under way, and where it goes (NULL: nowhere). */
    bool in_frame;
    struct zmtp_frame frame;
    char *into;
    uint64_t filled;
    unsigned char command[ZMTP_MAX_COMMAND_BYTES];
    /* The message under way, or the last one. */
    uint32_t nframes;
    bool complete;
    char header[WIRE_MAX_HEADER_BYTES];
    size_t header_bytes;
    char *body;
    size_t body_bytes;

    /* What the socket has not taken. */
    char *out;
    size_t out_at, out_end, out_capacity;
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
    link->in_at = link->in_end = 0;
    link->out_at = link->out_end = 0;
    link->in_frame = false;
    link->nframes = 0;
    link->complete = false;
    link->is_news = false;
    free(link->body);
    link->body = NULL;
}

void link_destroy(struct link **link)
{
    if (!*link)
        return;
    drop(*link);
    lookup_destroy(&(*link)->lookup);
    free((*link)->out);
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

/* ---- sending ---- */

static int keep(struct link *link, const struct iovec *parts, uint32_t nparts, size_t sent)
{
    size_t more = 0;
    for (uint32_t i = 0; i < nparts; i++)
        more += parts[i].iov_len;
    more -= sent;
    if (more == 0)
        return 0;
    if (link->out_at > 0 && link->out_at == link->out_end)
        link->out_at = link->out_end = 0;
    if (link->out_end + more > link->out_capacity && link->out_at > 0) {
        memmove(link->out, link->out + link->out_at, link->out_end - link->out_at);
        link->out_end -= link->out_at;
        link->out_at = 0;
    }
    if (link->out_end + more > link->out_capacity) {
        size_t capacity = 2 * (link->out_end + more);
        char *grown = realloc(link->out, capacity);
        if (!grown)
            return -ENOMEM;
        link->out = grown;
        link->out_capacity = capacity;
    }
    for (uint32_t i = 0; i < nparts; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;
        sent -= skip;
        memcpy(link->out + link->out_end, (char *)parts[i].iov_base + skip,
               parts[i].iov_len - skip);
        link->out_end += parts[i].iov_len - skip;
    }
    return 0;
}

/* What the socket takes of PARTS: bytes, or -errno (none: -EAGAIN). */
static ssize_t offer(struct link *link, struct iovec *parts, uint32_t nparts)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = nparts};
    ssize_t sent = sendmsg(link->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0)
        return sent;
    if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
        return -errno;
    link->writable = false;
    return -EAGAIN;
}

static int send_parts(struct link *link, struct iovec *parts, uint32_t nparts)
{
    ssize_t sent = 0;
    if (link->out_at == link->out_end) {
        sent = offer(link, parts, nparts);
        if (sent < 0 && sent != -EAGAIN) {
            lose_for(link, (int)sent);
            return -ENOTCONN;
        }
        if (sent < 0)
            sent = 0;
    }
    int err = keep(link, parts, nparts, (size_t)sent);
    if (err)
        lose_for(link, err); /* half a message cannot be taken back */
    return err;
}

static void flush(struct link *link)
{
    while (link->writable && link->out_at < link->out_end) {
        struct iovec rest = {link->out + link->out_at, link->out_end - link->out_at};
        ssize_t sent = offer(link, &rest, 1);
        if (sent == -EAGAIN)
            return;
        if (sent < 0) {
            lose_for(link, (int)sent);
            return;
        }
        link->out_at += (size_t)sent;
    }
}

static int send_bytes(struct link *link, unsigned char *bytes, size_t len)
{
    struct iovec part = {bytes, len};
    return send_parts(link, &part, 1);
}

int link_send(struct link *link, const void *header, size_t header_bytes, const struct iovec *body,
              uint32_t nbody)
{
    struct iovec parts[3 + MAX_PARTS];
    unsigned char begin[2][ZMTP_FRAME_BYTES];
    uint32_t nparts = 0;
    size_t body_bytes = 0;
    if (link->step != UP)
        return -ENOTCONN;
    assert(nbody <= MAX_PARTS);
    for (uint32_t i = 0; i < nbody; i++)
        body_bytes += body[i].iov_len;
    parts[nparts++] = (struct iovec){
        begin[0], zmtp_frame_begin(begin[0], nbody > 0 ? ZMTP_MORE : 0, header_bytes)};
    parts[nparts++] = (struct iovec){(void *)header, header_bytes};
    if (nbody > 0) {
        parts[nparts++] = (struct iovec){begin[1], zmtp_frame_begin(begin[1], 0, body_bytes)};
        memcpy(parts + nparts, body, nbody * sizeof *body);
        nparts += nbody;
    }
    return send_parts(link, parts, nparts);
}

/* ---- receiving ---- */

/* Reads what is there: into the frame under way as far as it needs it, the rest into the buffer,
 * which is empty but for the beginning of a frame. 0, -EAGAIN, or another -errno. */
static int fill(struct link *link)
{
    if (!link->readable)
        return -EAGAIN;
    if (link->in_at > 0) {
        memmove(link->in, link->in + link->in_at, link->in_end - link->in_at);
        link->in_end -= link->in_at;
        link->in_at = 0;
    }
    struct iovec parts[2] = {{NULL, 0}, {link->in + link->in_end, IN_BYTES - link->in_end}};
    uint64_t missing = link->in_frame ? link->frame.len_bytes - link->filled : 0;
    bool direct = link->into && link->in_end == 0 && missing >= DIRECT_BYTES;
    if (direct)
        parts[0] = (struct iovec){link->into + link->filled, (size_t)missing};
    ssize_t got = readv(link->fd, parts + !direct, 1 + direct);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        link->readable = errno == EINTR;
        return errno == EINTR ? 0 : -EAGAIN;
    }
    if (got <= 0)
        return got < 0 ? -errno : -ECONNRESET;
    link->heard = true;
    if ((size_t)got < parts[0].iov_len + parts[1].iov_len)
        link->readable = false; /* or poll() will say so again */
    size_t placed = direct && (uint64_t)got > missing ? (size_t)missing : direct ? (size_t)got : 0;
    link->filled += placed;
    link->in_end += (size_t)got - placed;
    return 0;
}

/* Where the frame that begins now is to go. */
static int place_frame(struct link *link)
{
    uint64_t len = link->frame.len_bytes;
    link->filled = 0;
    link->into = NULL;
    if (link->frame.flags & ZMTP_COMMAND) {
        link->into = (char *)link->command;
        return len <= sizeof link->command ? 0 : -EMSGSIZE;
    }
    if (link->step != UP)
        return -EPROTO;
    if (link->complete) {
        /* A new message. */
        free(link->body);
        link->body = NULL;
        link->body_bytes = link->header_bytes = 0;
        link->nframes = 0;
        link->complete = false;
    }
    if (len > (link->nframes == 0 ? WIRE_MAX_HEADER_BYTES : WIRE_MAX_BODY_BYTES))
        return -EMSGSIZE;
    if (link->nframes == 0) {
        link->into = link->header;
        link->header_bytes = (size_t)len;
    } else if (link->nframes == 1) {
        link->body = malloc(len > 0 ? (size_t)len : 1);
        if (!link->body)
            return -ENOMEM;
        link->into = link->body;
        link->body_bytes = (size_t)len;
    }
    return 0;
}

static int on_command(struct link *link)
{
    unsigned char out[ZMTP_PING_BYTES];
    size_t len = (size_t)link->frame.len_bytes;
    switch (zmtp_command(link->command, len)) {
    case ZMTP_PING:
        return send_bytes(link, out, zmtp_pong(out, link->command, len));
    case ZMTP_READY:
        if (link->step != SHAKING)
            return -EPROTO;
        int err = zmtp_check_ready(link->command, len);
        if (err)
            return err;
        link->step = UP;
        link->is_news = true;
        link->retry_ms = FIRST_RETRY_MS;
        link->next_address = NULL; /* the next time the host is looked up anew */
        return 1;
    case ZMTP_ERROR:
        return -ENOTSUP;
    default:
        return 0; /* others mean nothing to us; unknown ones are to be passed over */
    }
}

/* The frame under way is there. Returns 1 when it ends a message or the handshake, else 0 or
 * -errno.
 */
static int end_frame(struct link *link)
{
    link->in_frame = false;
    if (link->frame.flags & ZMTP_COMMAND)
        return on_command(link);
    link->nframes += link->nframes < 3;
    link->complete = !(link->frame.flags & ZMTP_MORE);
    return link->complete;
}

/* Goes through what has been read. 1: a message is complete, or the handshake. 0: more has to be
 * read. */
static int take_frames(struct link *link)
{
    for (;;) {
        size_t have = link->in_end - link->in_at;
        if (!link->in_frame) {
            int begin = zmtp_frame_read(link->in + link->in_at, have, &link->frame);
            if (begin <= 0)
                return begin;
            link->in_at += (size_t)begin;
            have -= (size_t)begin;
            link->in_frame = true;
            int err = place_frame(link);
            if (err)
                return err;
        }
        uint64_t missing = link->frame.len_bytes - link->filled;
        size_t part = missing < have ? (size_t)missing : have;
        if (link->into)
            memcpy(link->into + link->filled, link->in + link->in_at, part);
        link->in_at += part;
        link->filled += part;
        if (link->filled < link->frame.len_bytes)
            return 0;
        int done = end_frame(link);
        if (done)
            return done;
    }
}

/* Reads until a message is complete (1), nothing more is there (0), or it fails. */
static int take_message(struct link *link)
{
    for (;;) {
        int got = take_frames(link);
        if (got)
            return got;
        got = fill(link);
        if (got)
            return got == -EAGAIN ? 0 : got;
    }
}

bool link_receive(struct link *link, struct link_message *out)
{
    if (link->step != UP)
        return false;
    int got = take_message(link);
    if (got < 0)
        lose_for(link, got);
    if (got <= 0)
        return false;
    *out = (struct link_message){.too_many = link->nframes > 2};
    if (out->too_many)
        return true;
    out->header = link->header;
    out->header_bytes = link->header_bytes;
    out->body = link->nframes == 2 ? link->body : NULL;
    out->body_bytes = link->nframes == 2 ? link->body_bytes : 0;
    return true;
}

char *link_take_body(struct link *link)
{
    char *body = link->body;
    link->body = NULL;
    return body;
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
    link->readable = false;
    link->writable = false;
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
    if (!link->writable)
        return;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &err, &len) || err) {
        lose_for(link, -(err ? err : errno));
        return;
    }
    unsigned char greeting[ZMTP_GREETING_BYTES + ZMTP_READY_BYTES];
    zmtp_greeting(greeting);
    /* The peer reads our READY when it has sent its own greeting. */
    size_t ready = zmtp_ready(greeting + ZMTP_GREETING_BYTES);
    link->step = GREETING;
    link->due_us = now_us + 1000ull * SHAKE_MS;
    if (send_bytes(link, greeting, ZMTP_GREETING_BYTES + ready))
        return; /* lost */
}

static void take_greeting(struct link *link)
{
    for (;;) {
        size_t have = link->in_end - link->in_at;
        int err = zmtp_check_greeting(link->in + link->in_at, have);
        if (!err && have >= ZMTP_GREETING_BYTES) {
            link->in_at += ZMTP_GREETING_BYTES;
            link->step = SHAKING;
            return;
        }
        if (!err)
            err = fill(link);
        if (err == -EAGAIN)
            return;
        if (err) {
            lose_for(link, err);
            return;
        }
    }
}

/* Until the READY has come. What is right behind it stays where it is. */
static void shake(struct link *link)
{
    while (link->step == SHAKING) {
        int err = take_frames(link);
        if (err == 0)
            err = fill(link);
        if (err == -EAGAIN)
            return;
        if (err < 0)
            lose_for(link, err);
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
    if (link->heard || link->is_news) {
        link->heard = false;
        link->is_asked = false;
        link->due_us = now_us + 1000ull * SILENT_MS;
    }
    if (now_us < link->due_us)
        return;
    if (link->is_asked) {
        lose(link, "no sign of life");
        return;
    }
    unsigned char ping[ZMTP_PING_BYTES];
    link->is_asked = true;
    link->due_us = now_us + 1000ull * LIFELESS_MS;
    if (send_bytes(link, ping, zmtp_ping(ping)))
        return; /* lost */
}

bool link_turn(struct link *link, uint64_t now_us)
{
    if (link->step == WAITING && link->due_us > 0 && now_us >= link->due_us)
        start(link, now_us);
    if (link->step == LOOKING_UP && now_us >= link->due_us)
        look_up(link, now_us);
    if (link->step == CONNECTING)
        greet(link, now_us);
    if (link->step == GREETING)
        take_greeting(link);
    if (link->step == SHAKING)
        shake(link);
    if (link->step > LOOKING_UP && link->step < UP && now_us >= link->due_us)
        lose(link, link->step == CONNECTING ? "Connection timed out" : "it does not answer");
    flush(link);
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
    static const char *const steps[] = {
        [WAITING] = "not tried yet",
        [LOOKING_UP] = "its name has not been found yet",
        [CONNECTING] = "nobody has taken the connection yet",
        [GREETING] = "it has not said anything yet",
        [SHAKING] = "it has not said yet what it is",
        [UP] = "connected",
    };
    return link->why[0] ? link->why : steps[link->step];
}

bool link_is_choked(const struct link *link)
{
    return link->out_at < link->out_end;
}

struct pollfd link_pollfd(const struct link *link)
{
    short events = link->step == CONNECTING ? POLLOUT : POLLIN;
    if (link_is_choked(link))
        events |= POLLOUT;
    return (struct pollfd){link->fd, events, 0};
}

void link_polled(struct link *link, short revents)
{
    short broken = POLLERR | POLLHUP | POLLNVAL;
    link->readable = revents & (POLLIN | broken);
    if (revents & (POLLOUT | broken))
        link->writable = true;
}

uint64_t link_due_us(const struct link *link)
{
    return link->due_us;
}
