/*
 * fuzz_connection: any bytes from a peer, in pieces of any size.
 *
 * The first byte says which end is tried (bit 0: a DEALER), and whether the bytes come behind a
 * right greeting and READY (bit 1) or are the first words themselves. Then each piece is its length
 * in two bytes and so many bytes. Whatever comes, a message that is given out is within its bounds,
 * what is held is bounded, and the end is an error and not a message.
 */
#include "../../proto/connection.h"
#include "../../proto/zmtp.h"
#include "fuzz_input.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER_BYTES = 512, BODY_BYTES = 4096, MOST_PIECE = 32768 };

static void tell(struct connection *connection)
{
    struct pollfd fd = {connection_fd(connection), POLLIN | POLLOUT, 0};

    fuzz_require(poll(&fd, 1, 0) >= 0);
    connection_polled(connection, (fd.revents & POLLIN) != 0, (fd.revents & POLLOUT) != 0,
                      (fd.revents & (POLLHUP | POLLERR)) != 0);
}

static void look_at(const struct connection_message *message)
{
    unsigned sum = 0;

    if (message->too_many)
        return;
    fuzz_require(message->header_bytes <= HEADER_BYTES && message->body_bytes <= BODY_BYTES);
    for (size_t i = 0; i < message->header_bytes; i++)
        sum += (unsigned char)message->header[i];
    for (size_t i = 0; i < message->body_bytes; i++)
        sum += (unsigned char)message->body[i];
    fuzz_require(sum <= 255 * (HEADER_BYTES + BODY_BYTES));
}

/* What has come: 0 or -errno, after which it is to be closed. */
static int take_all(struct connection *connection, bool take_body)
{
    struct connection_message message;
    int got;

    tell(connection);
    while ((got = connection_receive(connection, &message)) > 0) {
        look_at(&message);
        if (take_body)
            free(connection_take_body(connection));
    }
    /* PONGs that the peer does not read wait here; there are no more of them than of PINGs. */
    fuzz_require(connection_held(connection) <= BODY_BYTES + 4 * MOST_PIECE);
    return got;
}

static void drain(int fd)
{
    char sink[4096];

    while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t choice = fuzz_byte(&input);
    struct connection *connection;
    int fds[2], err = 0;

    fuzz_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    fuzz_require(connection_new(&connection, choice & 1 ? CONNECTION_DEALER : CONNECTION_ROUTER,
                                HEADER_BYTES, BODY_BYTES) == 0);
    fuzz_require(connection_open(connection, fds[1]) == 0);
    if (choice & 2) {
        unsigned char words[ZMTP_GREETING_BYTES + ZMTP_READY_BYTES];
        zmtp_greeting(words);
        size_t len = ZMTP_GREETING_BYTES +
                     zmtp_ready(words + ZMTP_GREETING_BYTES, choice & 1 ? "ROUTER" : "DEALER");
        fuzz_require(send(fds[0], words, len, MSG_NOSIGNAL) == (ssize_t)len);
        fuzz_require(take_all(connection, false) == 0);
        fuzz_require(connection_step(connection) == CONNECTION_UP);
    }
    while (err == 0 && input.left > 0) {
        size_t len = (size_t)fuzz_number(&input, 2) % MOST_PIECE, got;
        const uint8_t *bytes = fuzz_bytes(&input, len, &got);
        fuzz_require(send(fds[0], bytes, got, MSG_NOSIGNAL) == (ssize_t)got);
        err = take_all(connection, choice & 4);
        drain(fds[0]);
    }
    close(fds[0]);
    if (err == 0)
        fuzz_require(take_all(connection, false) < 0);
    connection_destroy(&connection);
    return 0;
}
