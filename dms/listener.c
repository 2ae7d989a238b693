#include "listener.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 512, MAX_HOST = 256 };

struct listener {
    int fd;
    bool is_tcp;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)]; /* to be removed; "": none */
};

struct address {
    struct sockaddr_storage place;
    socklen_t bytes;
};

static const char IPC[] = "ipc://";
static const char TCP[] = "tcp://";

/* ---- paths ---- */

static int path_address(const char *path, struct address *out)
{
    struct sockaddr_un *place = (struct sockaddr_un *)&out->place;

    if (strlen(path) >= sizeof(place->sun_path))
        return -ENAMETOOLONG;
    place->sun_family = AF_UNIX;
    memcpy(place->sun_path, path, strlen(path));
    out->bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
    if (*path == '@') {
        /* Linux's abstract names: not files, and their length counts. */
        place->sun_path[0] = '\0';
        out->bytes--;
    }
    return 0;
}

/* Whether a process listens at the socket file: 1, 0, or -errno. */
static int is_served(const struct address *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    int err =
        connect(fd, (const struct sockaddr *)&address->place, address->bytes) == 0 ? 0 : errno;
    close(fd);
    if (err == ECONNREFUSED || err == ENOENT)
        return 0;
    return err == 0 || err == EAGAIN ? 1 : -err;
}

/* A file left by a process that was killed is removed, everything else is not. */
static int clear_path(const char *path, const struct address *address, char *why, size_t why_cap)
{
    struct stat st;

    if (*path == '@' || lstat(path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode)) {
        snprintf(why, why_cap, "%s is there and is not a socket: name another path with --listen",
                 path);
        return -EEXIST;
    }
    int served = is_served(address);
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

/* ---- hosts ---- */

/* The first address of the interface NAME, IPv4 before IPv6. 0 or -ENODEV. */
static int interface_address(const char *name, struct address *out)
{
    struct ifaddrs *all = NULL;

    if (getifaddrs(&all) != 0)
        return -errno;
    for (const struct ifaddrs *each = all; each != NULL; each = each->ifa_next) {
        int family = each->ifa_addr == NULL ? AF_UNSPEC : each->ifa_addr->sa_family;
        bool better = family == AF_INET || (family == AF_INET6 && out->bytes == 0);
        if (!better || strcmp(each->ifa_name, name) != 0)
            continue;
        out->bytes = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(&out->place, each->ifa_addr, out->bytes);
        if (family == AF_INET)
            break;
    }
    freeifaddrs(all);
    return out->bytes > 0 ? 0 : -ENODEV;
}

static void set_port(struct address *address, const char *port)
{
    in_port_t number = htons((uint16_t)atoi(port));

    if (address->place.ss_family == AF_INET)
        ((struct sockaddr_in *)&address->place)->sin_port = number;
    else
        ((struct sockaddr_in6 *)&address->place)->sin6_port = number;
}

/* PLACE is HOST:PORT. */
static int host_address(const char *place, struct address *out)
{
    const char *colon = strrchr(place, ':');
    struct addrinfo hints = {
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
        .ai_socktype = SOCK_STREAM,
    };
    struct addrinfo *found = NULL;
    char host[MAX_HOST];

    if (colon == NULL || (size_t)(colon - place) >= sizeof(host))
        return -EINVAL;
    bool bare = *place == '[' && colon > place + 1;
    snprintf(host, sizeof(host), "%.*s", (int)(colon - place) - 2 * bare, place + bare);
    /* All of them: of IPv4, as ZeroMQ has it. [::] is all of both. */
    if (strcmp(host, "*") == 0)
        hints.ai_family = AF_INET;
    if (getaddrinfo(*host == '*' ? NULL : host, colon + 1, &hints, &found) != 0) {
        int err = interface_address(host, out);
        if (err == 0)
            set_port(out, colon + 1);
        return err;
    }
    memcpy(&out->place, found->ai_addr, found->ai_addrlen);
    out->bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* ---- both ---- */

static void explain(int err, const char *endpoint, char *why, size_t why_cap)
{
    const char *advice = "name another endpoint with --listen";

    switch (-err) {
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
    snprintf(why, why_cap, "cannot listen at %s: %s: %s", endpoint, strerror(-err), advice);
}

static int bind_socket(struct listener *listener, const struct address *address)
{
    int one = 1;

    listener->fd = socket(address->place.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return -errno;
    /* What is left of connections of a server before must not be in the way of this one. */
    if (listener->is_tcp &&
        setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0)
        return -errno;
    if (bind(listener->fd, (const struct sockaddr *)&address->place, address->bytes) != 0 ||
        listen(listener->fd, BACKLOG) != 0)
        return -errno;
    return 0;
}

int listener_new(struct listener **out, const char *endpoint, char *why, size_t why_cap)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    struct address address = {0};

    *why = '\0';
    if (listener == NULL) {
        snprintf(why, why_cap, "out of memory");
        return -ENOMEM;
    }
    listener->fd = -1;
    listener->is_tcp = strncmp(endpoint, TCP, strlen(TCP)) == 0;
    const char *place = endpoint + strlen(listener->is_tcp ? TCP : IPC);
    int err = listener->is_tcp ? host_address(place, &address) : path_address(place, &address);
    if (err == 0 && !listener->is_tcp)
        err = clear_path(place, &address, why, why_cap);
    if (err == 0)
        err = bind_socket(listener, &address);
    if (err == 0 && !listener->is_tcp && *place != '@')
        snprintf(listener->path, sizeof(listener->path), "%s", place);
    if (err != 0) {
        if (*why == '\0')
            explain(err, endpoint, why, why_cap);
        listener_destroy(&listener);
        return err;
    }
    *out = listener;
    return 0;
}

void listener_destroy(struct listener **listener)
{
    if (*listener == NULL)
        return;
    if ((*listener)->fd >= 0)
        close((*listener)->fd);
    if ((*listener)->path[0] != '\0')
        unlink((*listener)->path);
    free(*listener);
    *listener = NULL;
}

int listener_fd(const struct listener *listener)
{
    return listener->fd;
}

int listener_accept(const struct listener *listener)
{
    int one = 1;
    int fd;

    do {
        fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        /* It was gone again before it was taken. */
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    if (listener->is_tcp && (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
                             setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)) != 0)) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}
