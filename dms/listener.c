#include "listener.h"

#include "../proto/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum {
    LINGER_MS = 200,
    /* Messages waiting for and from one connection. More requests wait in the kernel; more answers
     * are lost. */
    MAX_WAITING = 64,
    MAX_ANSWERS = 256,
};

struct listener {
    void *context;
    void *socket;
    struct peer_table *peers;
};

static const char IPC[] = "ipc://";
static const char TCP[] = "tcp://";
static const char DOMAIN[] = "edm";

/* Whether a process listens at the socket file PATH: 1, 0, or -errno. */
static int is_served(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int err = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
    close(fd);
    if (err == ECONNREFUSED || err == ENOENT)
        return 0;
    return err == 0 || err == EAGAIN ? 1 : -err;
}

/* ZeroMQ would take the path over from a process that listens there, without a word. */
static int clear_path(const char *path, char *why, size_t why_cap)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode)) {
        snprintf(why, why_cap, "%s is there and is not a socket: name another path with --listen",
                 path);
        return -EEXIST;
    }
    int served = is_served(path);
    if (served > 0) {
        snprintf(why, why_cap,
                 "another process listens at ipc://%s: stop it, or name another path with --listen",
                 path);
        return -EADDRINUSE;
    }
    if (served < 0 || unlink(path) != 0) {
        snprintf(why, why_cap, "cannot take the socket %s: %s", path,
                 strerror(served < 0 ? -served : errno));
        return served < 0 ? served : -errno;
    }
    return 0;
}

static int set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) == 0 ? 0 : -errno;
}

/* ZeroMQ ends a connection that sends a larger frame. */
static uint32_t most_frame_bytes(const struct listener_options *options)
{
    return options->max_body_bytes > WIRE_MAX_HEADER_BYTES ? options->max_body_bytes
                                                           : WIRE_MAX_HEADER_BYTES;
}

static int set_options(void *socket, const struct listener_options *options)
{
    const char *endpoint = options->endpoint;
    int64_t most = most_frame_bytes(options);
    int err = set_option(socket, ZMQ_LINGER, LINGER_MS);

    if (err == 0)
        err = set_option(socket, ZMQ_RCVHWM, MAX_WAITING);
    if (err == 0)
        err = set_option(socket, ZMQ_SNDHWM, MAX_ANSWERS);
    if (err == 0)
        err = set_option(socket, ZMQ_TCP_KEEPALIVE, 1);
    if (err == 0 && strchr(endpoint, '[') != NULL)
        err = set_option(socket, ZMQ_IPV6, 1);
    /* Nobody is asked about this domain. But where there is one, ZeroMQ takes no peers that speak
     * ZMTP 1 or 2, and such a one could make it abort while the socket is being closed. */
    if (err == 0 && zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, DOMAIN, strlen(DOMAIN)) != 0)
        err = -errno;
    if (err == 0 && zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof(most)) != 0)
        err = -errno;
    return err;
}

static void explain_bind(int err, const char *endpoint, char *why, size_t why_cap)
{
    const char *advice = "name another endpoint with --listen";

    switch (err) {
    case EADDRINUSE:
        advice = "another process listens there: stop it, or name another endpoint with --listen";
        break;
    case EADDRNOTAVAIL:
    case ENODEV:
        advice = "it must be an address or interface of this host, or * for all of them";
        break;
    case EACCES:
        if (strncmp(endpoint, TCP, strlen(TCP)) == 0)
            advice = "ports below 1024 are for root: name a higher one with --listen";
        else
            advice = "the directory must be one this user may write to";
        break;
    default:
        break;
    }
    snprintf(why, why_cap, "cannot listen at %s: %s: %s", endpoint, zmq_strerror(err), advice);
}

static int follow_peers(struct listener *listener, const struct listener_options *options)
{
    struct peer_table_options peers = {
        .part = options->part,
        .is_tcp = strncmp(options->endpoint, TCP, strlen(TCP)) == 0,
        .max_connections = options->max_connections,
        .max_message_bytes = WIRE_MAX_HEADER_BYTES + options->max_body_bytes,
    };

    return peer_table_new(&listener->peers, listener->context, listener->socket, &peers);
}

int listener_new(struct listener **out, const struct listener_options *options, char *why,
                 size_t why_cap)
{
    const char *endpoint = options->endpoint;
    int err = 0;

    if (strncmp(endpoint, IPC, strlen(IPC)) == 0)
        err = clear_path(endpoint + strlen(IPC), why, why_cap);
    if (err != 0)
        return err;
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL)
        err = -ENOMEM;
    if (err == 0 && (listener->context = zmq_ctx_new()) == NULL)
        err = -errno;
    if (err == 0 && (listener->socket = zmq_socket(listener->context, ZMQ_ROUTER)) == NULL)
        err = -errno;
    if (err == 0)
        err = set_options(listener->socket, options);
    if (err == 0)
        err = follow_peers(listener, options);
    if (err != 0) {
        snprintf(why, why_cap, "cannot make a socket: %s", strerror(-err));
    } else if (zmq_bind(listener->socket, endpoint) != 0) {
        err = -errno;
        explain_bind(errno, endpoint, why, why_cap);
    }
    if (err != 0)
        listener_destroy(&listener);
    else
        *out = listener;
    return err;
}

void listener_destroy(struct listener **listener)
{
    if (*listener == NULL)
        return;
    peer_table_destroy(&(*listener)->peers);
    if ((*listener)->socket != NULL)
        zmq_close((*listener)->socket);
    while ((*listener)->context != NULL && zmq_ctx_term((*listener)->context) != 0 &&
           errno == EINTR)
        ;
    free(*listener);
    *listener = NULL;
}

void *listener_socket(const struct listener *listener)
{
    return listener->socket;
}

struct peer_table *listener_peers(const struct listener *listener)
{
    return listener->peers;
}
