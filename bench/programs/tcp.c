#include "tcp.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "pages.h"

#define BLOCK_BYTES (256u << 10)
#define REQUEST_BYTES 32u

static void no_delay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
        err(1, "TCP_NODELAY");
}

int tcp_serve(void (*serve)(int fd, void *arg), void *arg)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listening < 0 || bind(listening, (struct sockaddr *)&address, len) != 0 ||
        listen(listening, 1) != 0 || getsockname(listening, (struct sockaddr *)&address, &len) != 0)
        err(1, "listen");
    pid_t child = fork();
    if (child < 0)
        err(1, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = accept(listening, NULL, NULL);
        if (fd < 0)
            err(1, "accept");
        no_delay(fd);
        serve(fd, arg);
        _exit(0);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, len) != 0)
        err(1, "connect");
    no_delay(fd);
    close(listening);
    return fd;
}

int tcp_read(int fd, void *bytes, size_t len_bytes)
{
    for (size_t done = 0; done < len_bytes;) {
        ssize_t got = read(fd, (char *)bytes + done, len_bytes - done);
        if (got < 0 && errno != EINTR)
            err(1, "read");
        if (got == 0)
            return 0;
        if (got > 0)
            done += (size_t)got;
    }
    return 1;
}

void tcp_write(int fd, const void *bytes, size_t len_bytes)
{
    for (size_t done = 0; done < len_bytes;) {
        ssize_t put = send(fd, (const char *)bytes + done, len_bytes - done, MSG_NOSIGNAL);
        if (put < 0 && (errno == EPIPE || errno == ECONNRESET))
            _exit(0);
        if (put < 0 && errno != EINTR)
            err(1, "send");
        if (put > 0)
            done += (size_t)put;
    }
}

static void serve_stream(int fd, void *arg)
{
    size_t len_bytes = *(size_t *)arg;
    char *block = malloc(BLOCK_BYTES);
    if (block == NULL)
        err(1, "malloc");
    memset(block, 1, BLOCK_BYTES);
    char start = 0;
    if (tcp_read(fd, &start, 1) == 0)
        return;
    for (size_t done = 0; done < len_bytes; done += BLOCK_BYTES)
        tcp_write(fd, block, BLOCK_BYTES);
    tcp_read(fd, &start, 1);
}

double tcp_stream(size_t len_bytes)
{
    int fd = tcp_serve(serve_stream, &len_bytes);
    char *block = malloc(BLOCK_BYTES);
    if (block == NULL)
        err(1, "malloc");
    memset(block, 0, BLOCK_BYTES);
    uint64_t begun = clock_ns();
    tcp_write(fd, "s", 1);
    for (size_t done = 0; done < len_bytes; done += BLOCK_BYTES)
        if (tcp_read(fd, block, BLOCK_BYTES) == 0)
            errx(1, "the stream ended early");
    double seconds = (double)(clock_ns() - begun) / 1e9;
    free(block);
    close(fd);
    return (double)len_bytes / 1e6 / seconds;
}

static void serve_round_trips(int fd, void *arg)
{
    (void)arg;
    static char page[PAGE_BYTES];
    char request[REQUEST_BYTES];
    while (tcp_read(fd, request, sizeof(request)))
        tcp_write(fd, page, sizeof(page));
}

size_t tcp_round_trips(double seconds, unsigned *samples, size_t nsamples)
{
    int fd = tcp_serve(serve_round_trips, NULL);
    static char page[PAGE_BYTES];
    char request[REQUEST_BYTES] = {0};
    uint64_t end = clock_ns() + (uint64_t)(seconds * 1e9);
    size_t count = 0;
    for (uint64_t now = clock_ns(); now < end && count < nsamples;) {
        tcp_write(fd, request, sizeof(request));
        if (tcp_read(fd, page, sizeof(page)) == 0)
            errx(1, "the connection ended early");
        uint64_t after = clock_ns();
        samples[count++] = (unsigned)(after - now);
        now = after;
    }
    close(fd);
    return count;
}
