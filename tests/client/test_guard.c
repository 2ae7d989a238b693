/* guard: whatever ends the process it serves, it ends the wards and removes the directory. */
#include "../../client/guard.h"
#include "temp_dir.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WARDS = 3, SOON_MS = 2000, QUIET_MS = 200, LIFE_S = 30 };

/* A process that serves as edm, what it started, and what it reported through the pipe. */
struct served {
    pid_t pid, guard, wards[WARDS];
    char directory[128];
};

static int outside[2] = {-1, -1};
static int second[2] = {-1, -1};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void make_directory(struct served *served, const char *name)
{
    char path[256];
    snprintf(served->directory, sizeof served->directory, "%s", temp_path(name));
    assert_int_equal(mkdir(served->directory, 0700), 0);
    snprintf(path, sizeof path, "%s/deep", served->directory);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/deep/file", served->directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0400);
    assert_true(fd >= 0);
    close(fd);
    /* A link out of it: what it points to is not ours to remove. */
    snprintf(path, sizeof path, "%s/deep/link", served->directory);
    mkdir(temp_path("outside"), 0700);
    temp_file("outside/precious", "", 0, 0600);
    assert_int_equal(symlink(temp_path("outside"), path), 0);
}

static pid_t start_ward(bool stubborn)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(LIFE_S); /* when the test fails */
        close(outside[1]);
        close(second[1]);
        if (stubborn)
            signal(SIGTERM, SIG_IGN);
        for (;;)
            pause();
    }
    return pid;
}

/* What runs as edm: starts wards and guard, reports, and does what MORE says, or sleeps. */
static void serve(struct served *served, int report, void (*more)(int guard_fd, pid_t guard))
{
    int fd;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test fails */
    for (int i = 0; i < WARDS; i++)
        served->wards[i] = start_ward(i > 0);
    if (guard_start(served->directory, &fd, &served->guard))
        _exit(1);
    /* The last one is none of the guard's. */
    for (int i = 0; i + 1 < WARDS; i++)
        guard_end_with_us(fd, served->wards[i]);
    served->pid = getpid();
    if (more)
        more(fd, served->guard);
    if (write(report, served, sizeof *served) != (ssize_t)sizeof *served)
        _exit(1);
    for (;;)
        pause();
}

static void start(struct served *served, const char *name, void (*more)(int, pid_t))
{
    int report[2];
    make_directory(served, name);
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0)
        serve(served, report[1], more);
    assert_true(child > 0);
    close(report[1]);
    ssize_t got = read(report[0], served, sizeof *served);
    close(report[0]);
    assert_int_equal(got, sizeof *served);
}

/* Whether PID, a child or, since we are its subreaper, a child's child, ends in time. */
static bool ends(pid_t pid, int within_ms, int *status)
{
    for (uint64_t end = now_ms() + (uint64_t)within_ms;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid)
            return true;
        if (got < 0 && errno != ECHILD)
            return false;
        if (now_ms() >= end)
            return false;
        poll(NULL, 0, 5);
    }
}

static void end_rest(const struct served *served)
{
    int status;
    kill(served->wards[WARDS - 1], SIGKILL);
    assert_true(ends(served->wards[WARDS - 1], SOON_MS, &status));
}

static void test_killed(void **state)
{
    (void)state;
    struct served served;
    int status;
    start(&served, "killed", NULL);
    for (int i = 0; i < WARDS; i++)
        assert_int_equal(kill(served.wards[i], 0), 0);
    assert_int_equal(access(served.directory, F_OK), 0);
    poll(NULL, 0, QUIET_MS);
    assert_int_equal(kill(served.wards[0], 0), 0);
    assert_int_equal(access(served.directory, F_OK), 0);

    uint64_t begun = now_ms();
    assert_int_equal(kill(served.pid, SIGKILL), 0);
    assert_true(ends(served.pid, SOON_MS, &status));
    for (int i = 0; i + 1 < WARDS; i++) {
        assert_true(ends(served.wards[i], SOON_MS, &status));
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGKILL);
    }
    assert_true(ends(served.guard, SOON_MS, &status));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(now_ms() - begun < SOON_MS);
    assert_int_equal(access(served.directory, F_OK), -1);
    assert_int_equal(errno, ENOENT);
    /* What the link pointed to is there, and so is the process that was not given over. */
    assert_int_equal(access(temp_path("outside/precious"), F_OK), 0);
    assert_int_equal(waitpid(served.wards[WARDS - 1], &status, WNOHANG), 0);
    end_rest(&served);
}

static void keep_pipe(int guard_fd, pid_t guard)
{
    (void)guard;
    guard_keep(guard_fd, outside[1]);
    close(outside[1]);
    close(outside[0]);
}

/* A descriptor given to the guard stays open until the wards are dead. */
static void test_keeps_descriptors(void **state)
{
    (void)state;
    struct served served;
    int status;
    assert_int_equal(pipe2(outside, O_CLOEXEC), 0);
    start(&served, "keeps", keep_pipe);
    close(outside[1]);
    outside[1] = -1;
    struct pollfd fd = {outside[0], POLLIN, 0};
    assert_int_equal(poll(&fd, 1, QUIET_MS), 0);
    kill(served.pid, SIGKILL);
    assert_true(ends(served.pid, SOON_MS, &status));
    assert_int_equal(poll(&fd, 1, SOON_MS), 1);
    assert_true(fd.revents & POLLHUP);
    for (int i = 0; i + 1 < WARDS; i++)
        assert_true(ends(served.wards[i], SOON_MS, &status));
    assert_true(ends(served.guard, SOON_MS, &status));
    end_rest(&served);
    close(outside[0]);
}

/* Two pipes, one after the other, under the same number: the second is let go. */
static void keep_and_let_go(int guard_fd, pid_t guard)
{
    (void)guard;
    guard_keep(guard_fd, outside[1]);
    if (dup2(second[1], outside[1]) < 0)
        _exit(1);
    guard_keep(guard_fd, outside[1]);
    guard_let_go(guard_fd, outside[1]);
    guard_let_go(guard_fd, 1000000); /* nothing is known by that: ignored */
    close(outside[1]);
    close(second[1]);
}

static void test_lets_go(void **state)
{
    (void)state;
    struct served served;
    int status;
    assert_int_equal(pipe2(outside, O_CLOEXEC), 0);
    assert_int_equal(pipe2(second, O_CLOEXEC), 0);
    start(&served, "lets-go", keep_and_let_go);
    close(outside[1]);
    outside[1] = -1;
    close(second[1]);
    struct pollfd fds[] = {{second[0], POLLIN, 0}, {outside[0], POLLIN, 0}};
    assert_int_equal(poll(fds, 1, SOON_MS), 1);
    assert_true(fds[0].revents & POLLHUP);
    assert_int_equal(poll(fds + 1, 1, QUIET_MS), 0);
    kill(served.pid, SIGKILL);
    assert_true(ends(served.pid, SOON_MS, &status));
    assert_int_equal(poll(fds + 1, 1, SOON_MS), 1);
    for (int i = 0; i + 1 < WARDS; i++)
        assert_true(ends(served.wards[i], SOON_MS, &status));
    assert_true(ends(served.guard, SOON_MS, &status));
    end_rest(&served);
    close(outside[0]);
    close(second[0]);
}

static void finish(int guard_fd, pid_t guard)
{
    guard_finish(guard_fd, guard);
}

/* An orderly end: all is done when guard_finish() returns, and edm lives on. */
static void test_finish(void **state)
{
    (void)state;
    struct served served;
    int status;
    start(&served, "finish", finish);
    assert_int_equal(access(served.directory, F_OK), -1);
    assert_int_equal(waitpid(served.pid, &status, WNOHANG), 0);
    assert_true(kill(served.guard, 0) < 0 && errno == ESRCH);
    kill(served.pid, SIGKILL);
    assert_true(ends(served.pid, SOON_MS, &status));
    for (int i = 0; i + 1 < WARDS; i++)
        assert_true(ends(served.wards[i], SOON_MS, &status));
    end_rest(&served);
}

/* Signals that a terminal or an impatient user sends to all processes do not end the guard. */
static void test_signals_do_not_end_it(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1};
    struct served served;
    int status;
    start(&served, "signals", NULL);
    poll(NULL, 0, QUIET_MS); /* it has blocked them by then */
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        assert_int_equal(kill(served.guard, signals[i]), 0);
    poll(NULL, 0, QUIET_MS);
    assert_int_equal(kill(served.guard, 0), 0);
    assert_true(getpgid(served.guard) == served.guard);
    kill(served.pid, SIGKILL);
    assert_true(ends(served.pid, SOON_MS, &status));
    assert_true(ends(served.guard, SOON_MS, &status));
    assert_int_equal(access(served.directory, F_OK), -1);
    for (int i = 0; i + 1 < WARDS; i++)
        assert_true(ends(served.wards[i], SOON_MS, &status));
    end_rest(&served);
}

static void end_wards(int guard_fd, pid_t guard)
{
    (void)guard;
    guard_end_with_us(guard_fd, 0x3ffffff0); /* nobody: ignored */
}

/* A ward that has ended already, and one that never was. */
static void test_wards_gone_before(void **state)
{
    (void)state;
    struct served served;
    int status;
    start(&served, "gone", end_wards);
    kill(served.wards[0], SIGKILL);
    uint64_t begun = now_ms();
    kill(served.pid, SIGKILL);
    assert_true(ends(served.pid, SOON_MS, &status));
    assert_true(ends(served.guard, SOON_MS, &status));
    assert_true(now_ms() - begun < SOON_MS);
    assert_int_equal(access(served.directory, F_OK), -1);
    for (int i = 0; i + 1 < WARDS; i++)
        assert_true(ends(served.wards[i], SOON_MS, &status));
    end_rest(&served);
}

/* Whatever descriptors are free when edm starts, the guard must hear of its end. */
static void close_streams(void)
{
    for (int i = 0; i < 3; i++)
        close(i);
}

static void test_closed_streams(void **state)
{
    (void)state;
    struct served served;
    int status;
    make_directory(&served, "streams");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int fd;
        pid_t guard;
        close_streams();
        if (guard_start(served.directory, &fd, &guard))
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    assert_true(child > 0);
    assert_true(ends(child, SOON_MS, &status));
    assert_true(WIFSIGNALED(status));
    uint64_t end = now_ms() + SOON_MS;
    while (access(served.directory, F_OK) == 0 && now_ms() < end)
        poll(NULL, 0, 5);
    assert_int_equal(access(served.directory, F_OK), -1);
    while (waitpid(-1, &status, 0) > 0)
        ;
}

int main(void)
{
    /* Children of children come to us when their parent is gone. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_keeps_descriptors),
        cmocka_unit_test(test_lets_go),
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_signals_do_not_end_it),
        cmocka_unit_test(test_wards_gone_before),
        cmocka_unit_test(test_closed_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
