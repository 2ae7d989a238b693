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
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
static void serve(struct served *served, int report, void (*more)(struct guard *guard))
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test fails */
    for (int i = 0; i < WARDS; i++)
        served->wards[i] = start_ward(i > 0);
    const struct guard_config config = {.directory = served->directory};
    struct guard *guard;
    if (guard_start(&guard, &config))
        _exit(1);
    served->guard = guard_pid(guard);
    /* The last one is none of the guard's. */
    for (int i = 0; i + 1 < WARDS; i++)
        guard_end_with_us(guard_fd(guard), served->wards[i]);
    served->pid = getpid();
    if (more)
        more(guard);
    if (write(report, served, sizeof *served) != (ssize_t)sizeof *served)
        _exit(1);
    for (;;)
        pause();
}

static void start(struct served *served, const char *name, void (*more)(struct guard *))
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

/* As soon as edm is being killed; here its main thread does not get to giving anything back. */
static void test_hears_at_once(void **state)
{
    (void)state;
    struct served served;
    struct pollfd wards[WARDS - 1];
    int status, ended = 0;
    start(&served, "at-once", NULL);
    for (int i = 0; i + 1 < WARDS; i++)
        wards[i] = (struct pollfd){(int)syscall(SYS_pidfd_open, served.wards[i], 0), POLLIN, 0};
    bool holds = ptrace(PTRACE_SEIZE, served.pid, 0, PTRACE_O_TRACEEXIT) == 0;
    kill(served.pid, SIGKILL);
    for (int i = 0; holds && i + 1 < WARDS; i++)
        ended += poll(&wards[i], 1, SOON_MS);
    if (holds) {
        assert_int_equal(waitpid(served.pid, &status, 0), served.pid);
        assert_true(WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_EXIT);
        ptrace(PTRACE_DETACH, served.pid, 0, 0);
    }
    assert_true(ends(served.pid, SOON_MS, &status));
    for (int i = 0; i + 1 < WARDS; i++) {
        close(wards[i].fd);
        assert_true(ends(served.wards[i], SOON_MS, &status));
    }
    assert_true(ends(served.guard, SOON_MS, &status));
    end_rest(&served);
    if (!holds)
        skip();
    assert_int_equal(ended, WARDS - 1);
}

static void keep_pipe(struct guard *guard)
{
    guard_keep(guard_fd(guard), outside[1]);
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
static void keep_and_let_go(struct guard *guard)
{
    guard_keep(guard_fd(guard), outside[1]);
    if (dup2(second[1], outside[1]) < 0)
        _exit(1);
    guard_keep(guard_fd(guard), outside[1]);
    guard_let_go(guard_fd(guard), outside[1]);
    guard_let_go(guard_fd(guard), 1000000); /* nothing is known by that: ignored */
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

static void finish(struct guard *guard)
{
    guard_finish(&guard);
}

/* ---- processes that nobody has told of ---- */

enum { BY_ENVIRONMENT, BY_CODE, BELOW_A_WARD, OF_ANOTHER_RUN, READS_THE_FILE, STRAGGLERS };

static pid_t stragglers[STRAGGLERS];
static char agent_path[160], socket_path[160], other_path[170];

static void sleep_on(void)
{
    alarm(LIFE_S);
    for (;;)
        pause();
}

static void exec_with(const char *socket)
{
    char variable[200];
    snprintf(variable, sizeof variable, "EDM_AGENT=%s", socket);
    char *argv[] = {(char *)"sleep", (char *)"30", NULL};
    char *environment[] = {(char *)"OTHER=words", variable, (char *)"LAST=", NULL};
    execve("/bin/sleep", argv, environment);
    _exit(1);
}

static void map_agent(int how)
{
    int fd = open(agent_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || mmap(NULL, 4096, how, MAP_PRIVATE, fd, 0) == MAP_FAILED)
        _exit(1);
    close(fd);
    sleep_on();
}

static void start_straggler(int which, int report)
{
    pid_t pid = fork();
    if (pid == 0 && which == BELOW_A_WARD) {
        /* The ward; what it forks is known to nobody. */
        pid = fork();
        if (pid > 0 && write(report, &pid, sizeof pid) != (ssize_t)sizeof pid)
            _exit(1);
        sleep_on();
    }
    if (pid == 0 && (which == BY_ENVIRONMENT || which == OF_ANOTHER_RUN))
        exec_with(which == BY_ENVIRONMENT ? socket_path : other_path);
    if (pid == 0)
        map_agent(which == BY_CODE ? PROT_READ | PROT_EXEC : PROT_READ);
    stragglers[which] = pid;
}

static void make_run(const char *name, struct served *served)
{
    make_directory(served, name);
    snprintf(agent_path, sizeof agent_path, "%s/agent.so", served->directory);
    snprintf(socket_path, sizeof socket_path, "%s/socket", served->directory);
    snprintf(other_path, sizeof other_path, "%s2", socket_path);
    int fd = open(agent_path, O_RDWR | O_CREAT | O_CLOEXEC, 0700);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    close(fd);
}

/* As edm; ends with kill -9, or in order. */
static void serve_stragglers(const struct served *served, pid_t ward, bool whole_tree,
                             bool in_order)
{
    const struct guard_config config = {.directory = served->directory,
                                        .whole_tree = whole_tree,
                                        .marks = {agent_path, socket_path}};
    struct guard *guard;
    if (guard_start(&guard, &config))
        _exit(1);
    if (ward > 0)
        guard_end_with_us(guard_fd(guard), ward);
    if (!in_order)
        kill(getpid(), SIGKILL);
    guard_finish(&guard);
    _exit(0);
}

static void run_stragglers(const char *name, bool whole_tree, bool in_order, bool with_ward,
                           const bool ended[STRAGGLERS])
{
    struct served served;
    int report[2], status;
    make_run(name, &served);
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    for (int i = 0; i < STRAGGLERS; i++)
        start_straggler(i, report[1]);
    pid_t ward = stragglers[BELOW_A_WARD];
    assert_int_equal(read(report[0], &stragglers[BELOW_A_WARD], sizeof(pid_t)), sizeof(pid_t));
    poll(NULL, 0, QUIET_MS); /* all of them are what they are to be */
    fflush(stdout);
    pid_t edm = fork();
    if (edm == 0)
        serve_stragglers(&served, with_ward ? ward : 0, whole_tree, in_order);
    assert_true(ends(edm, SOON_MS, &status));
    for (int i = 0; i < STRAGGLERS; i++)
        if (ended[i]) {
            assert_true(ends(stragglers[i], SOON_MS, &status));
            assert_int_equal(WTERMSIG(status), SIGKILL);
        }
    for (uint64_t end = now_ms() + SOON_MS; access(served.directory, F_OK) == 0 && now_ms() < end;)
        poll(NULL, 0, 5);
    assert_int_equal(access(served.directory, F_OK), -1);
    kill(ward, SIGKILL);
    assert_true(ends(ward, SOON_MS, &status));
    for (int i = 0; i < STRAGGLERS; i++)
        if (!ended[i]) {
            assert_int_equal(waitpid(stragglers[i], &status, WNOHANG), 0);
            kill(stragglers[i], SIGKILL);
            assert_true(ends(stragglers[i], SOON_MS, &status));
        }
    while (waitpid(-1, &status, 0) > 0)
        ; /* the guard */
    close(report[0]);
    close(report[1]);
}

static void test_stragglers(void **state)
{
    (void)state;
    const bool its_own[STRAGGLERS] = {
        [BY_ENVIRONMENT] = true, [BY_CODE] = true, [BELOW_A_WARD] = true};
    const bool none[STRAGGLERS] = {false};
    run_stragglers("stragglers", true, false, true, its_own);
    run_stragglers("alone", false, false, true, none); /* --follow=no */
    run_stragglers("order", true, true, false, none);
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

static void end_wards(struct guard *guard)
{
    guard_end_with_us(guard_fd(guard), 0x3ffffff0); /* nobody: ignored */
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
        struct guard *guard;
        const struct guard_config config = {.directory = served.directory};
        close_streams();
        if (guard_start(&guard, &config))
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
        cmocka_unit_test(test_hears_at_once),
        cmocka_unit_test(test_keeps_descriptors),
        cmocka_unit_test(test_lets_go),
        cmocka_unit_test(test_stragglers),
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_signals_do_not_end_it),
        cmocka_unit_test(test_wards_gone_before),
        cmocka_unit_test(test_closed_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
