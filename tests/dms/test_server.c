/* The server against peers made of plain sockets: how long one may take to say what it is, and what
 * is left of one that goes. Nothing here has to happen soon, only not too soon. */
#include "../../dms/notice.h"
#include "../../dms/server.h"
#include "../../proto/zmtp.h"
#include "temp_dir.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    SHAKE_MS = 60,
    STEPS = 60000, /* each waits for at most STEP_MS */
    STEP_MS = 1,
    BODY_BYTES = 1000, /* such a block is written to as soon as it is freed */
    WORDS_BYTES = ZMTP_GREETING_BYTES + ZMTP_READY_BYTES + 8,
};

struct fixture {
    struct temp_dir dir;
    struct server *server;
    char endpoint[160];
    uint32_t nrequests;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    assert_non_null(fixture);
    temp_dir_make(&fixture->dir);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    server_destroy(&fixture->server);
    temp_dir_remove(&fixture->dir);
    free(fixture);
    return 0;
}

static void start(struct fixture *fixture)
{
    char why[256];

    snprintf(fixture->endpoint, sizeof(fixture->endpoint), "ipc://%s",
             temp_dir_path(&fixture->dir, "socket"));
    struct server_options options = {
        .endpoint = fixture->endpoint,
        .part = "test",
        .max_connections = 8,
        .max_body_bytes = 4096,
        .shake_ms = SHAKE_MS,
    };
    assert_int_equal(server_new(&fixture->server, &options, why, sizeof(why)), 0);
}

static int join(struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s",
             fixture->endpoint + strlen("ipc://"));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void say(int fd, const void *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

/* All that comes before the first message. */
static void shake(int fd)
{
    unsigned char words[WORDS_BYTES];

    zmtp_greeting(words);
    say(fd, words, ZMTP_GREETING_BYTES + zmtp_ready(words + ZMTP_GREETING_BYTES, "DEALER"));
}

/* A message of one byte. */
static void ask(int fd)
{
    unsigned char words[ZMTP_FRAME_BYTES + 1];
    size_t len = zmtp_frame_begin(words, 0, 1);

    words[len] = 'x';
    say(fd, words, len + 1);
}

/* As the shard's loop has it. */
static void step(struct fixture *fixture)
{
    struct server_request request;

    assert_int_equal(server_wait(fixture->server, STEP_MS), 0);
    while (server_next(fixture->server, &request))
        fixture->nrequests++;
    server_turn(fixture->server);
}

/* What the server says is read, and thrown away. */
static bool is_closed(int fd)
{
    char sink[256];
    ssize_t got;

    while ((got = recv(fd, sink, sizeof(sink), MSG_DONTWAIT)) > 0)
        ;
    return got == 0;
}

static void wait_for_requests(struct fixture *fixture, uint32_t nrequests)
{
    for (int i = 0; fixture->nrequests < nrequests; i++) {
        assert_true(i < STEPS);
        step(fixture);
    }
    assert_int_equal(fixture->nrequests, nrequests);
}

/* One says nothing, one greets, one does all but the last byte of its handshake: all are closed,
 * and none before its time. One that is through stays, however old it is. */
static void test_too_slow(void **state)
{
    struct fixture *fixture = *state;
    unsigned char words[WORDS_BYTES];
    const size_t said[] = {0, ZMTP_GREETING_BYTES,
                           ZMTP_GREETING_BYTES + zmtp_ready(words + ZMTP_GREETING_BYTES, "DEALER") -
                               1};
    enum { SLOW = sizeof(said) / sizeof(*said) };
    int slow[SLOW];

    zmtp_greeting(words);
    start(fixture);
    int quick = join(fixture);
    shake(quick);
    ask(quick);
    wait_for_requests(fixture, 1);
    uint64_t begun_ms = notice_now_ms();
    for (int i = 0; i < SLOW; i++) {
        slow[i] = join(fixture);
        say(slow[i], words, said[i]);
    }
    for (int i = 0, open = SLOW; open > 0; i++) {
        assert_true(i < STEPS);
        step(fixture);
        for (int j = 0; j < SLOW; j++) {
            if (slow[j] < 0 || !is_closed(slow[j]))
                continue;
            assert_true(notice_now_ms() - begun_ms >= SHAKE_MS);
            close(slow[j]);
            slow[j] = -1;
            open--;
        }
    }
    ask(quick);
    wait_for_requests(fixture, 2);
    close(quick);
}

static void receive(struct fixture *fixture, struct server_request *request)
{
    for (int i = 0; !server_next(fixture->server, request); i++) {
        assert_true(i < STEPS);
        assert_int_equal(server_wait(fixture->server, STEP_MS), 0);
    }
}

/* An answer to one request cannot be sent, and the connection is closed, while the next is being
 * answered: its body is there until that is done. */
static void test_goes_while_another_is_answered(void **state)
{
    struct fixture *fixture = *state;
    struct server_request first, second;
    unsigned char words[2 * ZMTP_FRAME_BYTES + 1 + BODY_BYTES];
    char body[BODY_BYTES];

    start(fixture);
    int fd = join(fixture);
    shake(fd);
    ask(fd);
    memset(body, 'b', sizeof(body));
    size_t len = zmtp_frame_begin(words, ZMTP_MORE, 1);
    words[len++] = 'x';
    len += zmtp_frame_begin(words + len, 0, sizeof(body));
    memcpy(words + len, body, sizeof(body));
    say(fd, words, len + sizeof(body));
    receive(fixture, &first);
    receive(fixture, &second);
    assert_true(second.peer == first.peer);
    assert_int_equal(second.body_bytes, sizeof(body));
    close(fd);
    server_answer(fixture->server, first.peer, "answer", 6, NULL, 0, false);
    assert_memory_equal(second.body, body, sizeof(body));
    /* And not longer: all is as if there had been nobody. */
    server_answer(fixture->server, second.peer, "answer", 6, NULL, 0, false);
    assert_false(server_next(fixture->server, &second));
    fd = join(fixture);
    shake(fd);
    ask(fd);
    receive(fixture, &second);
    assert_true(second.peer != first.peer);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_too_slow),
        TEST(test_goes_while_another_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
