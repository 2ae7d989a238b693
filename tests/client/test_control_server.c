/* control_server: who is admitted, what is refused, who is hung up on. */
#include "../../client/control_server.h"
#include "temp_dir.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOBODY = 65534, MORE = 5 };

static struct fixture {
    struct sockaddr_un address;
    int listen_fd;
    struct control_server *server;
    uint64_t last;  /* connection that asked */
    unsigned count; /* requests */
    pid_t peer;
    char word[32];
    bool answers;
} fixture;

static void on_request(void *arg, uint64_t connection, pid_t peer,
                       const struct control_message *request)
{
    assert_ptr_equal(arg, &fixture);
    fixture.last = connection;
    fixture.peer = peer;
    fixture.count++;
    snprintf(fixture.word, sizeof fixture.word, "%s", request->word);
    if (!fixture.answers)
        return;
    struct control_text text;
    control_begin(&text, "ok");
    control_put_number(&text, "count", fixture.count);
    control_server_reply(fixture.server, connection, &text);
}

static int set_up(void **state)
{
    (void)state;
    static int count;
    char name[16];
    snprintf(name, sizeof name, "s%d", count++);
    memset(&fixture, 0, sizeof fixture);
    fixture.answers = true;
    fixture.address.sun_family = AF_UNIX;
    snprintf(fixture.address.sun_path, sizeof fixture.address.sun_path, "%s", temp_path(name));
    fixture.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(
        bind(fixture.listen_fd, (struct sockaddr *)&fixture.address, sizeof fixture.address), 0);
    assert_int_equal(listen(fixture.listen_fd, 64), 0);
    assert_int_equal(control_server_new(&fixture.server, fixture.listen_fd, on_request, &fixture),
                     0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    control_server_destroy(&fixture.server);
    close(fixture.listen_fd);
    return 0;
}

static int connect_one(void)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct timeval patience = {10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&fixture.address, sizeof fixture.address), 0);
    return fd;
}

/* All that there is to be done. */
static void serve(void)
{
    struct pollfd fds[CONTROL_POLL_FDS];
    do {
        control_server_poll_fds(fixture.server, fds);
        int ready = poll(fds, CONTROL_POLL_FDS, 0);
        assert_true(ready >= 0);
        if (ready == 0)
            return;
        control_server_process(fixture.server, fds);
    } while (true);
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next that comes over FD is TEXT; NULL: the end. */
static void hears(int fd, const char *text)
{
    char bytes[CONTROL_MESSAGE_BYTES + 1];
    ssize_t got = recv(fd, bytes, sizeof bytes - 1, 0);
    if (!text) {
        assert_true(got == 0 || (got < 0 && errno == ECONNRESET));
        return;
    }
    assert_true(got > 0);
    bytes[got] = 0;
    assert_string_equal(bytes, text);
}

static void test_asks_and_hears(void **state)
{
    (void)state;
    int fd = connect_one();
    int other = connect_one();
    say(fd, "edm-control 1 status new_key=x");
    serve();
    assert_string_equal(fixture.word, "status");
    assert_int_equal(fixture.peer, getpid());
    hears(fd, "edm-control 1 ok count=1");
    uint64_t first = fixture.last;
    assert_true(first != 0);
    /* Several at once, and over several connections. */
    say(fd, "edm-control 1 a");
    say(fd, "edm-control 1 b");
    say(other, "edm-control 1 c");
    serve();
    assert_int_equal(fixture.count, 4);
    hears(fd, "edm-control 1 ok count=2");
    assert_true(control_server_is_open(fixture.server, first));
    close(fd);
    serve();
    assert_false(control_server_is_open(fixture.server, first));
    hears(other, "edm-control 1 ok count=4");
    close(other);
}

static void test_refusals(void **state)
{
    (void)state;
    int fd = connect_one();
    char large[CONTROL_MESSAGE_BYTES + 100];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    memcpy(large, "edm-control 1 word k=", 21);
    say(fd, "hello");
    say(fd, "edm-control 2 status");
    say(fd, large);
    say(fd, "edm-control 1 status");
    serve();
    hears(fd, "edm-control 1 error code=bad text=no%20message%20of%20edm's%20control%20protocol");
    hears(fd, "edm-control 1 error code=version text=this%20edm%20speaks%20version%201%20alone");
    hears(fd, "edm-control 1 error code=bad text=no%20message%20of%20edm's%20control%20protocol");
    hears(fd, "edm-control 1 ok count=1");
    close(fd);
}

static void test_held_and_silent(void **state)
{
    (void)state;
    int fds[CONTROL_CONNECTIONS + MORE];
    fixture.answers = false;
    fds[0] = connect_one();
    say(fds[0], "edm-control 1 limit");
    serve();
    uint64_t held = fixture.last;
    control_server_hold(fixture.server, held, true);
    for (int i = 1; i < CONTROL_CONNECTIONS + MORE; i++) {
        fds[i] = connect_one();
        serve();
    }
    /* Those that have said nothing for longest have gone; who is held is there. */
    for (int i = 1; i <= MORE; i++)
        hears(fds[i], NULL);
    struct control_text text;
    control_begin(&text, "ok");
    control_server_reply(fixture.server, held, &text);
    hears(fds[0], "edm-control 1 ok");
    say(fds[MORE + 1], "edm-control 1 status");
    serve();
    assert_int_equal(fixture.count, 2);
    for (int i = 0; i < CONTROL_CONNECTIONS + MORE; i++)
        close(fds[i]);
}

static void test_all_are_held(void **state)
{
    (void)state;
    int fds[CONTROL_CONNECTIONS];
    fixture.answers = false;
    for (int i = 0; i < CONTROL_CONNECTIONS; i++) {
        fds[i] = connect_one();
        say(fds[i], "edm-control 1 limit");
        serve();
        control_server_hold(fixture.server, fixture.last, true);
    }
    int late = connect_one();
    serve();
    hears(late,
          "edm-control 1 error code=busy text=too%20many%20others%20wait%20for%20an%20answer");
    hears(late, NULL);
    close(late);
    for (int i = 0; i < CONTROL_CONNECTIONS; i++)
        close(fds[i]);
}

/* One that asks and does not read is no reason to wait, or to keep its answers. */
static void test_does_not_read(void **state)
{
    (void)state;
    int fd = connect_one();
    unsigned before;
    do {
        before = fixture.count;
        if (send(fd, "edm-control 1 status", 20, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        serve();
    } while (fixture.count > before);
    assert_true(fixture.count > 1);
    assert_false(control_server_is_open(fixture.server, fixture.last));
    close(fd);
    fd = connect_one();
    say(fd, "edm-control 1 status");
    serve();
    assert_true(control_server_is_open(fixture.server, fixture.last));
    close(fd);
}

/* Even where another user can reach the socket. */
static void test_another_user(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(temp_dir(), 0755), 0);
    assert_int_equal(chmod(fixture.address.sun_path, 0777), 0);
    int asked[2];
    assert_int_equal(pipe(asked), 0);
    pid_t child = fork();
    if (child == 0) {
        char bytes[256] = "";
        if (setgid(NOBODY) || setuid(NOBODY))
            _exit(1);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&fixture.address, sizeof fixture.address))
            _exit(2);
        if (send(fd, "edm-control 1 status", 20, MSG_NOSIGNAL) != 20 || write(asked[1], "", 1) != 1)
            _exit(4);
        ssize_t got = recv(fd, bytes, sizeof bytes - 1, 0);
        _exit(got > 0 && strcmp(bytes, "edm-control 1 error code=denied "
                                       "text=the%20run%20is%20another%20user's") == 0
                  ? 0
                  : 3);
    }
    /* The request is there before it is turned away, and is not what the answer is lost over. */
    int status;
    char byte;
    close(asked[1]);
    bool has_asked = read(asked[0], &byte, 1) == 1;
    close(asked[0]);
    serve();
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(has_asked);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(fixture.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_asks_and_hears, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_held_and_silent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_are_held, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_does_not_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_user, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
