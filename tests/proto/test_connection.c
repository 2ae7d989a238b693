/* Two connections, a DEALER and a ROUTER, at the ends of a socket pair; and a ROUTER whose peer is
 * the test itself. tests/client/test_link.c does the same from the DEALER's side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../proto/connection.h"
#include "../../proto/zmtp.h"

enum { HEADER_BYTES = 3000, BODY_BYTES = 1 << 20, STEPS = 100000 };

struct pair {
    struct connection *ends[2]; /* DEALER, ROUTER */
};

static uint64_t seed;

static size_t below(size_t limit)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(seed >> 33) % limit;
}

static void make_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void open_pair(struct pair *pair)
{
    int fds[2];

    seed = 20261126;
    make_pair(fds);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(connection_new(&pair->ends[i],
                                        i == 0 ? CONNECTION_DEALER : CONNECTION_ROUTER,
                                        HEADER_BYTES, BODY_BYTES),
                         0);
        assert_int_equal(connection_step(pair->ends[i]), CONNECTION_CLOSED);
        assert_int_equal(connection_open(pair->ends[i], fds[i]), 0);
    }
}

static void close_pair(struct pair *pair)
{
    connection_destroy(&pair->ends[0]);
    connection_destroy(&pair->ends[1]);
}

static void tell(struct connection *connection)
{
    struct pollfd fd = {connection_fd(connection), POLLIN | POLLOUT, 0};

    assert_true(poll(&fd, 1, 0) >= 0);
    connection_polled(connection, (fd.revents & POLLIN) != 0, (fd.revents & POLLOUT) != 0,
                      (fd.revents & (POLLHUP | POLLERR)) != 0);
}

static void shake_hands(struct pair *pair)
{
    int up[2] = {0, 0};

    for (int i = 0; i < STEPS && (!up[0] || !up[1]); i++) {
        struct connection *end = pair->ends[i % 2];
        tell(end);
        if (!up[i % 2])
            up[i % 2] = connection_shake(end);
        assert_true(up[i % 2] >= 0);
    }
    assert_int_equal(connection_step(pair->ends[0]), CONNECTION_UP);
    assert_int_equal(connection_step(pair->ends[1]), CONNECTION_UP);
}

/* Of a message by its number, so that the receiver knows what it must be. */
struct shape {
    size_t header_bytes, body_bytes;
    bool has_body;
};

static struct shape shape_of(uint32_t number)
{
    struct shape shape = {0};

    shape.header_bytes = 4 + number * 37u % (HEADER_BYTES - 4);
    shape.has_body = number % 3 != 0;
    if (shape.has_body)
        shape.body_bytes = number % 7 == 0 ? BODY_BYTES : number * 7919u % 20000;
    return shape;
}

static char byte_of(uint32_t number, size_t at)
{
    return (char)(number * 31 + at * 7 + at / 251);
}

static void send_number(struct connection *connection, uint32_t number)
{
    static char header[HEADER_BYTES], body[BODY_BYTES];
    struct shape shape = shape_of(number);
    struct iovec parts[CONNECTION_MAX_PARTS];
    unsigned nparts = 0;
    size_t at = 0;

    for (size_t i = 0; i < shape.header_bytes; i++)
        header[i] = byte_of(number, i);
    for (size_t i = 0; i < shape.body_bytes; i++)
        body[i] = byte_of(number + 1, i);
    while (shape.has_body && (at < shape.body_bytes || nparts == 0)) {
        size_t part = shape.body_bytes - at;
        if (nparts + 1 < CONNECTION_MAX_PARTS && part > 0)
            part = 1 + below(part < 9000 ? part : 9000);
        parts[nparts++] = (struct iovec){body + at, part};
        at += part;
    }
    assert_int_equal(connection_send(connection, header, shape.header_bytes, parts, nparts), 0);
    memset(header, '!', sizeof(header)); /* it was taken or copied */
    memset(body, '!', sizeof(body));
}

static void check_number(const struct connection_message *message, uint32_t number)
{
    struct shape shape = shape_of(number);

    assert_false(message->too_many);
    assert_int_equal(message->header_bytes, shape.header_bytes);
    assert_int_equal(message->body_bytes, shape.body_bytes);
    assert_int_equal(message->body != NULL, shape.has_body);
    for (size_t i = 0; i < shape.header_bytes; i++)
        assert_int_equal(message->header[i], byte_of(number, i));
    for (size_t i = 0; i < shape.body_bytes; i += 1 + shape.body_bytes / 997)
        assert_int_equal(message->body[i], byte_of(number + 1, i));
}

/* Both ways at once, more than the socket holds, each end working now and then. */
static void test_both_ways(void **state)
{
    enum { MESSAGES = 300, AHEAD = 20 };
    struct pair pair;
    uint32_t sent[2] = {0}, received[2] = {0};

    (void)state;
    open_pair(&pair);
    shake_hands(&pair);
    for (int i = 0; received[0] < MESSAGES || received[1] < MESSAGES; i++) {
        size_t which = below(2);
        struct connection *end = pair.ends[which];
        struct connection_message message;
        assert_true(i < STEPS);
        if (sent[which] < MESSAGES && sent[which] < received[1 - which] + AHEAD)
            send_number(end, sent[which]++);
        if (below(3) == 0)
            continue;
        tell(end);
        assert_int_equal(connection_flush(end), 0);
        for (int got; (got = connection_receive(end, &message)) != 0;) {
            assert_int_equal(got, 1);
            check_number(&message, received[which]++);
            if (below(2) == 0)
                free(connection_take_body(end));
        }
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(connection_unsent(pair.ends[i]), 0);
        assert_true(connection_heard(pair.ends[i]));
        assert_false(connection_heard(pair.ends[i]));
    }
    close_pair(&pair);
}

/* What the peer does not take is held, counted, and given back when it has been taken. */
static void test_held(void **state)
{
    struct pair pair;
    struct connection_message message;
    uint32_t received = 0;

    (void)state;
    open_pair(&pair);
    shake_hands(&pair);
    for (int i = 0; i < 8; i++)
        send_number(pair.ends[1], 7); /* a large one */
    size_t unsent = connection_unsent(pair.ends[1]);
    assert_true(unsent > 5 * BODY_BYTES);
    assert_true(connection_held(pair.ends[1]) >= unsent);
    for (int i = 0; received < 8; i++) {
        assert_true(i < STEPS);
        tell(pair.ends[0]);
        int got = connection_receive(pair.ends[0], &message);
        assert_true(got >= 0);
        if (got > 0) {
            check_number(&message, 7);
            assert_true(connection_held(pair.ends[0]) >= BODY_BYTES);
            received++;
        }
        tell(pair.ends[1]);
        assert_int_equal(connection_flush(pair.ends[1]), 0);
    }
    assert_int_equal(connection_held(pair.ends[1]), 0);
    free(connection_take_body(pair.ends[0]));
    assert_int_equal(connection_held(pair.ends[0]), 0);
    close_pair(&pair);
}

/* The end comes right behind the last message: epoll tells of both at once, and never again. */
static void test_ended_behind_a_message(void **state)
{
    struct pair pair;
    struct connection_message message;

    (void)state;
    open_pair(&pair);
    shake_hands(&pair);
    send_number(pair.ends[0], 3);
    connection_close(pair.ends[0]);
    assert_int_equal(connection_fd(pair.ends[0]), -1);
    connection_polled(pair.ends[1], true, true, true);
    assert_int_equal(connection_receive(pair.ends[1], &message), 1);
    check_number(&message, 3);
    assert_int_equal(connection_receive(pair.ends[1], &message), -ECONNRESET);
    close_pair(&pair);
}

/* Nothing is read before poll() has said that there is something. */
static void test_not_told(void **state)
{
    struct pair pair;
    struct connection_message message;

    (void)state;
    open_pair(&pair);
    shake_hands(&pair);
    assert_int_equal(connection_receive(pair.ends[1], &message), 0);
    send_number(pair.ends[0], 4);
    assert_int_equal(connection_receive(pair.ends[1], &message), 0);
    tell(pair.ends[1]);
    assert_int_equal(connection_receive(pair.ends[1], &message), 1);
    check_number(&message, 4);
    close_pair(&pair);
}

static void test_opened_again(void **state)
{
    struct pair pair;
    struct connection_message message;

    (void)state;
    open_pair(&pair);
    shake_hands(&pair);
    for (int i = 0; i < 8; i++)
        send_number(pair.ends[0], 7);
    tell(pair.ends[1]);
    (void)!connection_receive(pair.ends[1], &message); /* half of something */
    int fds[2];
    make_pair(fds);
    for (int i = 0; i < 2; i++) {
        connection_close(pair.ends[i]);
        assert_int_equal(connection_held(pair.ends[i]), 0);
        assert_int_equal(connection_send(pair.ends[i], "x", 1, NULL, 0), -ENOTCONN);
        assert_int_equal(connection_open(pair.ends[i], fds[i]), 0);
    }
    shake_hands(&pair);
    send_number(pair.ends[0], 5);
    tell(pair.ends[1]);
    assert_int_equal(connection_receive(pair.ends[1], &message), 1);
    check_number(&message, 5);
    close_pair(&pair);
}

/* ---- several messages in one go ---- */

static size_t frame(unsigned char *out, uint8_t flags, const void *body, size_t len)
{
    size_t begin = zmtp_frame_begin(out, flags, len);

    memcpy(out + begin, body, len);
    return begin + len;
}

static size_t first_words(unsigned char *out, const char *type)
{
    zmtp_greeting(out);
    return ZMTP_GREETING_BYTES + zmtp_ready(out + ZMTP_GREETING_BYTES, type);
}

static void make_tcp_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fds[0] >= 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, len), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listener);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
        assert_int_equal(setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
    }
}

/* Bytes that the kernel holds back (tcp(7)). */
static int held_back(struct connection *connection)
{
    int bytes = -1;

    assert_int_equal(ioctl(connection_fd(connection), SIOCOUTQNSD, &bytes), 0);
    return bytes;
}

static void receive_number(struct connection *connection, uint32_t number)
{
    struct connection_message message;
    struct pollfd fd = {connection_fd(connection), POLLIN, 0};

    if (!connection_has_next(connection))
        assert_int_equal(poll(&fd, 1, 60000), 1);
    tell(connection);
    assert_int_equal(connection_receive(connection, &message), 1);
    check_number(&message, number);
}

static void test_cork(void **state)
{
    struct pair pair;
    int unix_fds[2], fds[2];
    const uint32_t small = 3; /* without a body */

    (void)state;
    open_pair(&pair);
    make_tcp_pair(fds);
    for (int i = 0; i < 2; i++) {
        connection_close(pair.ends[i]);
        assert_int_equal(connection_open(pair.ends[i], fds[i]), 0);
    }
    shake_hands(&pair);
    assert_false(connection_has_next(pair.ends[1]));
    /* What is sent last takes along what was held back. */
    connection_cork(pair.ends[0], true);
    send_number(pair.ends[0], small);
    assert_true(held_back(pair.ends[0]) > 0);
    connection_cork(pair.ends[0], false);
    send_number(pair.ends[0], small);
    assert_int_equal(held_back(pair.ends[0]), 0);
    receive_number(pair.ends[1], small);
    assert_true(connection_has_next(pair.ends[1]));
    receive_number(pair.ends[1], small);
    assert_false(connection_has_next(pair.ends[1]));
    /* Or it is pushed. */
    connection_cork(pair.ends[0], true);
    send_number(pair.ends[0], small);
    assert_true(held_back(pair.ends[0]) > 0);
    connection_push(pair.ends[0]);
    assert_int_equal(held_back(pair.ends[0]), 0);
    receive_number(pair.ends[1], small);
    /* A Unix socket holds nothing back. */
    make_pair(unix_fds);
    for (int i = 0; i < 2; i++) {
        connection_close(pair.ends[i]);
        assert_int_equal(connection_open(pair.ends[i], unix_fds[i]), 0);
    }
    shake_hands(&pair);
    connection_cork(pair.ends[0], true);
    send_number(pair.ends[0], small);
    receive_number(pair.ends[1], small);
    connection_push(pair.ends[0]);
    send_number(pair.ends[0], small);
    receive_number(pair.ends[1], small);
    close_pair(&pair);
}

/* Half a message is no next one, nor is one of two frames, whose second may not have come. */
static void test_has_next(void **state)
{
    unsigned char words[256];
    struct connection *router;
    struct connection_message message;
    int fds[2];

    (void)state;
    make_pair(fds);
    assert_int_equal(connection_new(&router, CONNECTION_ROUTER, HEADER_BYTES, BODY_BYTES), 0);
    assert_int_equal(connection_open(router, fds[1]), 0);
    size_t len = first_words(words, "DEALER");
    for (int i = 0; i < 3; i++)
        len += frame(words + len, i == 2 ? ZMTP_MORE : 0, "some", 4);
    assert_int_equal(send(fds[0], words, len, MSG_NOSIGNAL), len);
    tell(router);
    assert_int_equal(connection_receive(router, &message), 1);
    assert_true(connection_has_next(router));
    assert_int_equal(connection_receive(router, &message), 1);
    assert_false(connection_has_next(router));
    len = frame(words, 0, "body", 4) - 2;
    assert_int_equal(send(fds[0], words, len, MSG_NOSIGNAL), len);
    tell(router);
    assert_int_equal(connection_receive(router, &message), 0);
    assert_false(connection_has_next(router));
    connection_destroy(&router);
    close(fds[0]);
}

/* ---- a peer that breaks the rules ---- */

/* What a ROUTER makes of LEN bytes, and then the end, if END. */
static int hear(const unsigned char *bytes, size_t len, bool end, int *nmessages, bool *too_many)
{
    struct connection *router;
    struct connection_message message;
    int fds[2], got = 0;
    size_t at = 0;

    make_pair(fds);
    assert_int_equal(connection_new(&router, CONNECTION_ROUTER, HEADER_BYTES, BODY_BYTES), 0);
    assert_int_equal(connection_open(router, fds[1]), 0);
    *nmessages = 0;
    *too_many = false;
    while (got >= 0 && at <= len) {
        size_t part = len - at < 60000 ? len - at : 60000;
        if (part > 0)
            assert_int_equal(send(fds[0], bytes + at, part, MSG_NOSIGNAL), part);
        at += part + (part == 0);
        if (part == 0 && end)
            shutdown(fds[0], SHUT_WR);
        tell(router);
        while ((got = connection_receive(router, &message)) > 0) {
            ++*nmessages;
            *too_many = *too_many || message.too_many;
        }
    }
    connection_destroy(&router);
    close(fds[0]);
    return got;
}

static void test_wrong_types(void **state)
{
    unsigned char words[256];
    bool too_many;
    int nmessages;

    (void)state;
    assert_int_equal(hear(words, first_words(words, "DEALER"), false, &nmessages, &too_many), 0);
    static const char *const types[] = {"ROUTER", "REQ", "PUB", "DEALERS", "DEALE", ""};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        assert_int_equal(hear(words, first_words(words, types[i]), false, &nmessages, &too_many),
                         -ENOTSUP);
    assert_int_equal(
        hear((const unsigned char *)"GET / HTTP/1.1\r\n\r\n", 18, true, &nmessages, &too_many),
        -EPROTO);
    assert_int_equal(hear(words, 30, true, &nmessages, &too_many), -ECONNRESET);
}

static void test_frames(void **state)
{
    static unsigned char words[4096];
    size_t begin = first_words(words, "DEALER"), len = begin;
    bool too_many;
    int nmessages;

    (void)state;
    /* Eight frames are read, nine are not. */
    for (int i = 0; i < 7; i++)
        len += frame(words + len, ZMTP_MORE, "more", 4);
    size_t before_last = len;
    len += frame(words + len, 0, "last", 4);
    len += frame(words + len, 0, "next", 4);
    assert_int_equal(hear(words, len, false, &nmessages, &too_many), 0);
    assert_int_equal(nmessages, 2);
    assert_true(too_many);
    len = before_last + frame(words + before_last, ZMTP_MORE, "more", 4);
    len += frame(words + len, 0, "last", 4);
    assert_int_equal(hear(words, len, false, &nmessages, &too_many), -EMSGSIZE);
    assert_int_equal(nmessages, 0);
    /* Just as large as they may be, and larger. */
    for (size_t over = 0; over < 2; over++) {
        static unsigned char large[HEADER_BYTES + BODY_BYTES + 4096];
        size_t at = first_words(large, "DEALER");
        at += zmtp_frame_begin(large + at, ZMTP_MORE, HEADER_BYTES) + HEADER_BYTES;
        at += zmtp_frame_begin(large + at, 0, BODY_BYTES + over) + BODY_BYTES + over;
        assert_int_equal(hear(large, at, false, &nmessages, &too_many), over ? -EMSGSIZE : 0);
        assert_int_equal(nmessages, !over);
    }
    len = begin + zmtp_frame_begin(words + begin, 0, HEADER_BYTES + 1);
    assert_int_equal(hear(words, len, false, &nmessages, &too_many), -EMSGSIZE);
    len = begin + zmtp_frame_begin(words + begin, ZMTP_COMMAND, ZMTP_MAX_COMMAND_BYTES + 1);
    assert_int_equal(hear(words, len, false, &nmessages, &too_many), -EMSGSIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),    cmocka_unit_test(test_held),
        cmocka_unit_test(test_not_told),     cmocka_unit_test(test_ended_behind_a_message),
        cmocka_unit_test(test_opened_again), cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_frames),       cmocka_unit_test(test_cork),
        cmocka_unit_test(test_has_next),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
