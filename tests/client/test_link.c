/* link against a peer made of a plain socket, which says what it likes, in pieces of any size. */
#include "../../client/link.h"
#include "../../proto/wire.h"
#include "../../proto/zmtp.h"
#include "temp_dir.h"
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    SECOND_US = 1000000,
    STEPS = 2000, /* each waits for at most STEP_MS */
    STEP_MS = 5,
    LARGE_BYTES = WIRE_MAX_BODY_BYTES,
};

struct fixture {
    int listener, peer;
    char endpoint[128];
    struct link *link;
    uint64_t now_us; /* the clock as the link sees it */
    int news;        /* how often it said that it was new */
};

static void listen_here(struct fixture *fixture)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fixture->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fixture->listener >= 0);
    assert_int_equal(bind(fixture->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fixture->listener, 8), 0);
    assert_int_equal(getsockname(fixture->listener, (struct sockaddr *)&address, &len), 0);
    snprintf(fixture->endpoint, sizeof fixture->endpoint, "tcp://localhost:%d",
             ntohs(address.sin_port));
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->peer = -1;
    fixture->now_us = SECOND_US;
    listen_here(fixture);
    assert_int_equal(link_new(&fixture->link, fixture->endpoint), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    link_destroy(&fixture->link);
    if (fixture->peer >= 0)
        close(fixture->peer);
    close(fixture->listener);
    free(fixture);
    return 0;
}

/* One turn, as an owner's loop makes it, waiting for at most STEP_MS. The link's clock runs faster
 * where it only waits to connect again. */
static void step(struct fixture *fixture)
{
    struct pollfd fd = link_pollfd(fixture->link);
    assert_true(poll(&fd, 1, fd.fd < 0 ? 1 : STEP_MS) >= 0);
    link_polled(fixture->link, fd.revents);
    fixture->now_us += fd.fd < 0 ? 100000 : 1000;
    fixture->news += link_turn(fixture->link, fixture->now_us);
}

/* The peer takes the link's connection. */
static void take_up(struct fixture *fixture)
{
    struct pollfd fd = {fixture->listener, POLLIN, 0};
    if (fixture->peer >= 0)
        close(fixture->peer);
    for (int i = 0; poll(&fd, 1, 0) == 0; i++) {
        assert_true(i < STEPS);
        step(fixture);
    }
    fixture->peer = accept4(fixture->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fixture->peer >= 0);
}

static void say(struct fixture *fixture, const void *bytes, size_t len)
{
    assert_int_equal(send(fixture->peer, bytes, len, MSG_NOSIGNAL), len);
}

static void hear(struct fixture *fixture, void *bytes, size_t len)
{
    char *at = bytes;
    for (int i = 0; len > 0; i++) {
        assert_true(i < STEPS);
        step(fixture);
        ssize_t got = recv(fixture->peer, at, len, MSG_DONTWAIT);
        assert_true(got != 0 && (got > 0 || errno == EAGAIN));
        if (got > 0) {
            at += got;
            len -= (size_t)got;
        }
    }
}

static size_t router_ready(unsigned char *out)
{
    static const char body[] = "\5READY\13Socket-Type\0\0\0\6ROUTER";
    size_t begin = zmtp_frame_begin(out, ZMTP_COMMAND, sizeof body - 1);
    memcpy(out + begin, body, sizeof body - 1);
    return begin + sizeof body - 1;
}

/* What a ROUTER says first. Returns its length. */
static size_t first_words(unsigned char *out)
{
    zmtp_greeting(out);
    return ZMTP_GREETING_BYTES + router_ready(out + ZMTP_GREETING_BYTES);
}

static void hear_first_words(struct fixture *fixture)
{
    unsigned char heard[ZMTP_GREETING_BYTES + ZMTP_READY_BYTES], expected[sizeof heard];
    zmtp_greeting(expected);
    size_t len = ZMTP_GREETING_BYTES + zmtp_ready(expected + ZMTP_GREETING_BYTES, "DEALER");
    hear(fixture, heard, len);
    assert_memory_equal(heard, expected, len);
}

static void connect_both(struct fixture *fixture)
{
    unsigned char words[256];
    int before = fixture->news;
    take_up(fixture);
    hear_first_words(fixture);
    say(fixture, words, first_words(words));
    for (int i = 0; !link_is_up(fixture->link); i++) {
        assert_true(i < STEPS);
        step(fixture);
    }
    assert_int_equal(fixture->news, before + 1);
}

static bool receive(struct fixture *fixture, struct connection_message *message)
{
    for (int i = 0; i < STEPS && link_is_up(fixture->link); i++) {
        if (link_receive(fixture->link, message))
            return true;
        step(fixture);
    }
    return false;
}

/* Until the link has given its connection up. */
static void wait_for_loss(struct fixture *fixture, const char *why)
{
    struct connection_message message;
    char sink[256];
    for (int i = 0; link_pollfd(fixture->link).fd >= 0; i++) {
        assert_true(i < STEPS);
        assert_false(link_receive(fixture->link, &message));
        step(fixture);
        while (recv(fixture->peer, sink, sizeof sink, MSG_DONTWAIT) > 0)
            ;
    }
    assert_false(link_is_up(fixture->link));
    assert_string_equal(link_why(fixture->link), why);
}

/* ---- what goes well ---- */

static void test_first_words_in_pieces(void **state)
{
    struct fixture *fixture = *state;
    unsigned char words[256];
    take_up(fixture);
    hear_first_words(fixture);
    size_t len = first_words(words);
    for (size_t i = 0; i < len; i++) {
        assert_false(link_is_up(fixture->link));
        say(fixture, words + i, 1);
        step(fixture);
    }
    for (int i = 0; !link_is_up(fixture->link) && i < STEPS; i++)
        step(fixture);
    assert_true(link_is_up(fixture->link));
    assert_int_equal(fixture->news, 1);
}

static size_t frame(unsigned char *out, uint8_t flags, const void *body, size_t len)
{
    size_t begin = zmtp_frame_begin(out, flags, len);
    if (len > 0)
        memcpy(out + begin, body, len);
    return begin + len;
}

/* Messages of all kinds in one stream, with commands between the frames, torn at random places. */
static void test_messages_in_pieces(void **state)
{
    struct fixture *fixture = *state;
    enum { MESSAGES = 400, MOST = 20000 };
    uint64_t seed = 20261124;
    unsigned char *stream = malloc(MESSAGES * 2 * (MOST + 64));
    char *noise = malloc(MOST);
    static uint32_t bodies[MESSAGES], headers[MESSAGES];
    size_t len = first_words(stream), at = 0;
    assert_non_null(stream);
    assert_non_null(noise);
    for (int i = 0; i < MOST; i++)
        noise[i] = (char)(i * 7 + i / 256);
    for (int i = 0; i < MESSAGES; i++) {
        headers[i] = (uint32_t)(test_random(&seed) % 600);
        bodies[i] = (uint32_t)(test_random(&seed) % (i % 4 == 0 ? 10 : MOST));
        len += frame(stream + len, i % 3 ? ZMTP_MORE : 0, noise, headers[i]);
        if (i % 5 == 0)
            len += zmtp_ping(stream + len);
        if (i % 3)
            len += frame(stream + len, i % 3 == 2 ? ZMTP_MORE : 0, noise + i, bodies[i] / 2);
        if (i % 3 == 2)
            len += frame(stream + len, 0, noise, bodies[i]);
    }
    take_up(fixture);
    int received = 0;
    while (at < len || received < MESSAGES) {
        struct connection_message message;
        size_t part = 1 + (size_t)(test_random(&seed) % (received % 2 ? 30 : 9000));
        if (part > len - at)
            part = len - at;
        ssize_t sent =
            part ? send(fixture->peer, stream + at, part, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        assert_true(sent >= 0 || errno == EAGAIN);
        at += sent > 0 ? (size_t)sent : 0;
        step(fixture);
        while (link_receive(fixture->link, &message)) {
            int i = received++;
            assert_true(i < MESSAGES);
            assert_int_equal(message.too_many, i % 3 == 2);
            if (message.too_many)
                continue;
            assert_int_equal(message.header_bytes, headers[i]);
            assert_memory_equal(message.header, noise, headers[i]);
            assert_int_equal(message.body != NULL, i % 3 == 1);
            assert_int_equal(message.body_bytes, i % 3 == 1 ? bodies[i] / 2 : 0);
            if (!message.body)
                continue;
            assert_memory_equal(message.body, noise + i, message.body_bytes);
            char *kept = i % 2 ? link_take_body(fixture->link) : NULL;
            if (kept)
                assert_memory_equal(kept, noise + i, message.body_bytes);
            free(kept);
        }
        assert_true(at < len || received == MESSAGES || link_is_up(fixture->link));
    }
    free(noise);
    free(stream);
}

/* More than the sockets hold, in pieces: the rest waits inside, and all arrives in order. */
static void test_choked(void **state)
{
    struct fixture *fixture = *state;
    enum { SENT = 12 };
    uint64_t seed = 7;
    char *body = malloc(LARGE_BYTES), *heard = malloc(LARGE_BYTES);
    assert_non_null(body);
    assert_non_null(heard);
    connect_both(fixture);
    for (int i = 0; i < SENT; i++) {
        memset(body, 'a' + i, LARGE_BYTES);
        struct iovec pieces[100];
        char *at = body;
        for (int j = 0; j < 100; j++) {
            size_t len = j == 99 ? (size_t)(body + LARGE_BYTES - at) : test_random(&seed) % 9000;
            pieces[j] = (struct iovec){at, len};
            at += len;
        }
        assert_int_equal(link_send(fixture->link, "header", 6, pieces, 100), 0);
        memset(body, '!', LARGE_BYTES); /* it was taken or copied */
    }
    assert_true(link_is_choked(fixture->link));
    for (int i = 0; i < SENT; i++) {
        unsigned char begin[8 + ZMTP_FRAME_BYTES], expected[sizeof begin] = {ZMTP_MORE, 6};
        memcpy(expected + 2, "header", 6);
        zmtp_frame_begin(expected + 8, 0, LARGE_BYTES);
        hear(fixture, begin, sizeof begin);
        assert_memory_equal(begin, expected, sizeof begin);
        hear(fixture, heard, LARGE_BYTES);
        memset(body, 'a' + i, LARGE_BYTES);
        assert_memory_equal(heard, body, LARGE_BYTES);
    }
    assert_false(link_is_choked(fixture->link));
    free(body);
    free(heard);
}

static void test_ping_is_answered(void **state)
{
    struct fixture *fixture = *state;
    static const unsigned char ping[] = "\4\12\4PING\0\1abc", pong[] = "\4\10\4PONGabc";
    unsigned char heard[sizeof pong - 1];
    connect_both(fixture);
    say(fixture, ping, sizeof ping - 1);
    struct connection_message message;
    for (int i = 0; i < 3; i++) {
        step(fixture);
        assert_false(link_receive(fixture->link, &message));
    }
    hear(fixture, heard, sizeof heard);
    assert_memory_equal(heard, pong, sizeof heard);
}

/* Silence: it asks, a PONG is enough, and none is the end. */
static void test_silence(void **state)
{
    struct fixture *fixture = *state;
    unsigned char ping[ZMTP_PING_BYTES], heard[sizeof ping];
    size_t len = zmtp_ping(ping);
    connect_both(fixture);
    for (int i = 0; i < 2; i++) {
        fixture->now_us += 6 * SECOND_US;
        hear(fixture, heard, len);
        assert_memory_equal(heard, ping, len);
        say(fixture, "\4\5\4PONG", 7);
        struct connection_message message;
        for (int j = 0; j < 3; j++) {
            step(fixture);
            assert_false(link_receive(fixture->link, &message));
        }
        assert_true(link_is_up(fixture->link));
    }
    fixture->now_us += 6 * SECOND_US;
    hear(fixture, heard, len);
    fixture->now_us += 14 * SECOND_US;
    step(fixture);
    assert_true(link_is_up(fixture->link));
    fixture->now_us += SECOND_US;
    wait_for_loss(fixture, "no sign of life");
}

/* A stopped process finds its clock far ahead: what has come meanwhile counts. */
static void test_clock_jumps(void **state)
{
    struct fixture *fixture = *state;
    unsigned char out[16];
    struct connection_message message;
    connect_both(fixture);
    fixture->now_us += 6 * SECOND_US;
    step(fixture); /* asks */
    say(fixture, out, frame(out, 0, "x", 1));
    fixture->now_us += 600 * (uint64_t)SECOND_US;
    struct pollfd fd = link_pollfd(fixture->link);
    assert_int_equal(poll(&fd, 1, 1000), 1);
    link_polled(fixture->link, fd.revents);
    assert_true(link_receive(fixture->link, &message));
    link_turn(fixture->link, fixture->now_us);
    assert_true(link_is_up(fixture->link));
}

static void test_connects_again(void **state)
{
    struct fixture *fixture = *state;
    struct connection_message message;
    unsigned char out[16];
    connect_both(fixture);
    /* Half a message is no message. */
    say(fixture, out, frame(out, 0, "abcdef", 6) - 3);
    close(fixture->peer);
    fixture->peer = -1;
    assert_false(receive(fixture, &message));
    assert_int_equal(link_send(fixture->link, "x", 1, NULL, 0), -ENOTCONN);
    connect_both(fixture);
    say(fixture, out, frame(out, 0, "abcdef", 6));
    assert_true(receive(fixture, &message));
    assert_int_equal(message.header_bytes, 6);
    assert_memory_equal(message.header, "abcdef", 6);
}

static void test_unix_socket(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", temp_path("link"));
    snprintf(fixture->endpoint, sizeof fixture->endpoint, "ipc://%s", address.sun_path);
    link_destroy(&fixture->link);
    assert_int_equal(link_new(&fixture->link, fixture->endpoint), 0);
    for (int i = 0; i < 3; i++)
        step(fixture);
    assert_string_equal(link_why(fixture->link), strerror(ENOENT));
    close(fixture->listener);
    fixture->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fixture->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fixture->listener, 8), 0);
    connect_both(fixture);
    unlink(address.sun_path);
    assert_false(link_has_rate(fixture->link));
}

/* A large message of which the end comes 20 ms after what has been read: so many bytes a second. */
static void test_receive_rate(void **state)
{
    struct fixture *fixture = *state;
    enum { BODY = 96 * 1024, FIRST = 32 * 1024, PAUSE_US = 20000 };
    struct connection_message message;
    unsigned char *out = calloc(1, BODY + 64);
    assert_non_null(out);
    connect_both(fixture);
    assert_true(link_has_rate(fixture->link));
    assert_int_equal(link_receive_rate(fixture->link), 0);
    size_t begin = frame(out, ZMTP_MORE, "header", 6);
    size_t len = begin + zmtp_frame_begin(out + begin, 0, BODY) + BODY;
    say(fixture, out, FIRST);
    for (int i = 0; i < 10; i++) {
        step(fixture);
        assert_false(link_receive(fixture->link, &message));
    }
    usleep(PAUSE_US);
    say(fixture, out + FIRST, len - FIRST);
    assert_true(receive(fixture, &message));
    assert_int_equal(message.body_bytes, BODY);
    assert_in_range(link_receive_rate(fixture->link), 1, (uint64_t)BODY * 1000000 / PAUSE_US);
    /* Of another connection nothing is known. */
    close(fixture->peer);
    fixture->peer = -1;
    wait_for_loss(fixture, "Connection reset by peer");
    assert_int_equal(link_receive_rate(fixture->link), 0);
    free(out);
}

/* ---- what does not ---- */

static void test_refused(void **state)
{
    struct fixture *fixture = *state;
    uint64_t most = 0, before = fixture->now_us;
    close(fixture->listener);
    fixture->listener = -1;
    for (int i = 0; i < 100; i++) {
        step(fixture);
        assert_int_equal(link_send(fixture->link, "x", 1, NULL, 0), -ENOTCONN);
        if (link_due_us(fixture->link) > fixture->now_us && link_pollfd(fixture->link).fd < 0)
            most = link_due_us(fixture->link) - fixture->now_us > most
                       ? link_due_us(fixture->link) - fixture->now_us
                       : most;
        fixture->now_us += 50000;
    }
    assert_string_equal(link_why(fixture->link), strerror(ECONNREFUSED));
    assert_true(most > 0 && most <= SECOND_US / 2);
    assert_true(fixture->now_us > before);
    assert_int_equal(fixture->news, 0);
}

static void test_unknown_host(void **state)
{
    struct fixture *fixture = *state;
    link_destroy(&fixture->link);
    assert_int_equal(link_new(&fixture->link, "tcp://no-such-host.invalid:7600"), 0);
    for (int i = 0; i < 20; i++)
        step(fixture);
    assert_false(link_is_up(fixture->link));
    /* And while somebody still asks for it, it can be destroyed. */
}

static void test_bad_first_words(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *words;
        const char *why;
    } peers[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak ZeroMQ"},
        {"\1", "it does not speak ZeroMQ"},
        {"", "Connection reset by peer"},
    };
    for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
        take_up(fixture);
        say(fixture, peers[i].words, strlen(peers[i].words));
        shutdown(fixture->peer, SHUT_WR);
        wait_for_loss(fixture, peers[i].why);
    }
    /* ZMTP 2, another mechanism. */
    static const struct {
        int at;
        unsigned char byte;
        const char *why;
    } greetings[] = {{10, 1, "it does not speak ZeroMQ"}, {12, 'C', "it is no DMS"}};
    for (size_t i = 0; i < 2; i++) {
        unsigned char words[ZMTP_GREETING_BYTES];
        take_up(fixture);
        zmtp_greeting(words);
        words[greetings[i].at] = greetings[i].byte;
        say(fixture, words, sizeof words);
        wait_for_loss(fixture, greetings[i].why);
    }
    assert_int_equal(fixture->news, 0);
}

static void test_bad_ready(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        uint8_t flags;
        const char *body;
        size_t len;
        const char *why;
    } frames[] = {
        {ZMTP_COMMAND, "\5READY\13Socket-Type\0\0\0\6DEALER", 28, "it is no DMS"},
        {ZMTP_COMMAND, "\5READY\13Socket-Type\0\0\0\3REP", 25, "it is no DMS"},
        {ZMTP_COMMAND, "\5READY", 6, "it is no DMS"},
        {ZMTP_COMMAND, "\5READY\13Socket-Type\0\0\1\6ROUTER", 28, "it does not speak ZeroMQ"},
        {ZMTP_COMMAND, "\5READY\0", 7, "it does not speak ZeroMQ"},
        {ZMTP_COMMAND, "\5READY\377x", 8, "it does not speak ZeroMQ"},
        {ZMTP_COMMAND, "\5ERROR\3bad", 10, "it is no DMS"},
        {0, "message", 7, "it does not speak ZeroMQ"},
        {8, "", 0, "it does not speak ZeroMQ"},
        {ZMTP_COMMAND | ZMTP_MORE, "", 0, "it does not speak ZeroMQ"},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        unsigned char words[256];
        take_up(fixture);
        zmtp_greeting(words);
        size_t len = ZMTP_GREETING_BYTES + frame(words + ZMTP_GREETING_BYTES, frames[i].flags,
                                                 frames[i].body, frames[i].len);
        say(fixture, words, len);
        wait_for_loss(fixture, frames[i].why);
    }
    assert_int_equal(fixture->news, 0);
}

static void test_too_large(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        uint8_t first, second;
        uint64_t len;
    } messages[] = {
        {0, 0, WIRE_MAX_HEADER_BYTES + 1},
        {ZMTP_MORE, 0, WIRE_MAX_BODY_BYTES + 1},
        {ZMTP_COMMAND, 0, ZMTP_MAX_COMMAND_BYTES + 1},
        {0, 0, UINT64_MAX >> 1},
    };
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        unsigned char out[32];
        size_t len = 0;
        connect_both(fixture);
        if (messages[i].first & ZMTP_MORE) {
            len = frame(out, ZMTP_MORE, "h", 1);
            len += zmtp_frame_begin(out + len, messages[i].second, messages[i].len);
        } else {
            len = zmtp_frame_begin(out, messages[i].first, messages[i].len);
        }
        say(fixture, out, len);
        wait_for_loss(fixture, "it sends what no DMS sends");
    }
}

/* A peer that says nothing at all is left after a while. */
static void test_mute(void **state)
{
    struct fixture *fixture = *state;
    take_up(fixture);
    hear_first_words(fixture);
    fixture->now_us += 11 * SECOND_US;
    wait_for_loss(fixture, "it does not answer");
}

static void test_noise(void **state)
{
    struct fixture *fixture = *state;
    uint64_t seed = 99;
    for (int round = 0; round < 300; round++) {
        unsigned char words[400];
        size_t len = first_words(words);
        take_up(fixture);
        for (; len < sizeof words; len++)
            words[len] = (unsigned char)(test_random(&seed) & (round % 2 ? 7 : 255));
        if (round % 3 == 0)
            words[test_random(&seed) % 120] ^= (unsigned char)test_random(&seed);
        say(fixture, words, len);
        shutdown(fixture->peer, SHUT_WR);
        struct connection_message message;
        for (int i = 0; link_pollfd(fixture->link).fd >= 0; i++) {
            assert_true(i < STEPS);
            while (link_receive(fixture->link, &message))
                ;
            step(fixture);
        }
    }
    connect_both(fixture);
}

static void test_bad_endpoints(void **state)
{
    struct link *link = NULL;
    (void)state;
    char path[200] = "ipc://";
    memset(path + 6, 'x', sizeof path - 7);
    path[sizeof path - 1] = '\0';
    assert_int_equal(link_new(&link, path), -ENAMETOOLONG);
    assert_int_equal(link_new(&link, "udp://host:1"), -EINVAL);
    assert_int_equal(link_new(&link, "tcp://host"), -EINVAL);
    assert_null(link);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_first_words_in_pieces),
        TEST(test_messages_in_pieces),
        TEST(test_choked),
        TEST(test_ping_is_answered),
        TEST(test_silence),
        TEST(test_clock_jumps),
        TEST(test_connects_again),
        TEST(test_unix_socket),
        TEST(test_receive_rate),
        TEST(test_refused),
        TEST(test_unknown_host),
        TEST(test_bad_first_words),
        TEST(test_bad_ready),
        TEST(test_too_large),
        TEST(test_mute),
        TEST(test_noise),
        cmocka_unit_test(test_bad_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
