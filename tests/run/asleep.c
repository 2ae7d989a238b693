/*
 * asleep: calls that sleep while another thread fills new memory as fast as it can.
 *
 *     asleep [--grow=MIB]
 *
 * Prints a line for each call, with what it returned; run under edm and natively, the lines have to
 * be the same. These are calls that a stop would end without a signal (signal(7)).
 */
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    MUCH = 1024 * 1024, /* more than a pipe or a socket holds */
    STEP_BYTES = 4 * 1024 * 1024,
    SETTLE_MS = 1000,
    WAIT_MS = 60000,
};

static char much[MUCH];

static void wait_ms(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR)
        continue;
}

/* ---- the calls, and what ends each ---- */

static int pipe_fd[2], socket_fd[2], late_fd[2], epoll, event, semaphores, messages;

static long call_write(void)
{
    long written = write(pipe_fd[1], much, MUCH);
    close(pipe_fd[1]);
    return written;
}

static long call_send(void)
{
    long sent = send(socket_fd[1], much, MUCH, 0);
    close(socket_fd[1]);
    return sent;
}

/* Until the other side has closed it. */
static void drain(int fd)
{
    static char piece[65536];
    ssize_t n;
    while ((n = read(fd, piece, sizeof piece)) > 0)
        continue;
    pages_must(n == 0, "read");
}

static void end_write(void)
{
    drain(pipe_fd[0]);
}

static void end_send(void)
{
    drain(socket_fd[0]);
}

static long call_recv(void)
{
    char byte;
    return recv(late_fd[0], &byte, 1, 0);
}

static void end_recv(void)
{
    pages_must(send(late_fd[1], "x", 1, 0) == 1, "send");
}

static long call_epoll_wait(void)
{
    struct epoll_event ready;
    return epoll_wait(epoll, &ready, 1, WAIT_MS);
}

static void end_epoll_wait(void)
{
    uint64_t one = 1;
    pages_must(write(event, &one, sizeof one) == sizeof one, "write");
}

static long call_semop(void)
{
    struct sembuf take = {.sem_op = -1};
    return semop(semaphores, &take, 1);
}

static void end_semop(void)
{
    struct sembuf give = {.sem_op = 1};
    pages_must(!semop(semaphores, &give, 1), "semop");
}

struct message {
    long kind;
    char text[8];
};

static long call_msgrcv(void)
{
    struct message message;
    return msgrcv(messages, &message, sizeof message.text, 0, 0);
}

static void end_msgrcv(void)
{
    struct message message = {.kind = 1, .text = "hello"};
    pages_must(!msgsnd(messages, &message, sizeof message.text, 0), "msgsnd");
}

static long call_sigtimedwait(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    struct timespec most = {WAIT_MS / 1000, 0};
    return sigtimedwait(&set, NULL, &most);
}

static void end_sigtimedwait(void)
{
    pages_must(!kill(getpid(), SIGUSR1), "kill");
}

static struct sleeper {
    const char *name;
    long (*call)(void);
    void (*end)(void);
    long result;
    int err;
    _Atomic pid_t tid;
    atomic_bool ended;
    pthread_t thread;
} sleepers[] = {
    {.name = "write", .call = call_write, .end = end_write},
    {.name = "send", .call = call_send, .end = end_send},
    {.name = "recv with a timeout", .call = call_recv, .end = end_recv},
    {.name = "epoll_wait", .call = call_epoll_wait, .end = end_epoll_wait},
    {.name = "semop", .call = call_semop, .end = end_semop},
    {.name = "msgrcv", .call = call_msgrcv, .end = end_msgrcv},
    {.name = "sigtimedwait", .call = call_sigtimedwait, .end = end_sigtimedwait},
};

enum { NSLEEPERS = sizeof sleepers / sizeof *sleepers };

static void make_all(void)
{
    pages_must(!pipe(pipe_fd), "pipe");
    pages_must(!socketpair(AF_UNIX, SOCK_STREAM, 0, socket_fd), "socketpair");
    pages_must(!socketpair(AF_UNIX, SOCK_STREAM, 0, late_fd), "socketpair");
    struct timeval most = {WAIT_MS / 1000, 0};
    pages_must(!setsockopt(late_fd[0], SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most), "setsockopt");
    epoll = epoll_create1(0);
    event = eventfd(0, 0);
    pages_must(epoll >= 0 && event >= 0, "epoll_create1, eventfd");
    pages_must(!epoll_ctl(epoll, EPOLL_CTL_ADD, event, &(struct epoll_event){.events = EPOLLIN}),
               "epoll_ctl");
    semaphores = semget(IPC_PRIVATE, 1, 0600);
    pages_must(semaphores >= 0, "semget");
    messages = msgget(IPC_PRIVATE, 0600);
    pages_must(messages >= 0, "msgget");
}

static void remove_all(void)
{
    semctl(semaphores, 0, IPC_RMID);
    msgctl(messages, IPC_RMID, NULL);
}

/* ---- */

static void *run(void *arg)
{
    struct sleeper *sleeper = arg;
    sleeper->tid = (pid_t)syscall(SYS_gettid);
    errno = 0;
    sleeper->result = sleeper->call();
    sleeper->err = errno;
    sleeper->ended = true;
    return NULL;
}

static bool is_asleep(pid_t tid)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    close(fd);
    text[got > 0 ? got : 0] = 0;
    const char *state = strrchr(text, ')');
    return state && state[2] == 'S';
}

static void begin(struct sleeper *sleeper)
{
    int err = pthread_create(&sleeper->thread, NULL, run, sleeper);
    if (err)
        pages_fail("pthread_create: %s", strerror(err));
    while (!sleeper->ended && (!sleeper->tid || !is_asleep(sleeper->tid)))
        wait_ms(1);
}

static void end(struct sleeper *sleeper)
{
    sleeper->end();
    pthread_join(sleeper->thread, NULL);
    if (sleeper->result < 0)
        printf("%s: %s\n", sleeper->name, strerror(sleeper->err));
    else
        printf("%s: %ld\n", sleeper->name, sleeper->result);
}

int main(int argc, char **argv)
{
    size_t grow = 256;
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "--grow=%zu", &grow) != 1)
            pages_fail("wrong option: %s", argv[i]);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    make_all();
    /* Whatever goes wrong from here on, they are gone when nobody uses them any more. */
    if (atexit(remove_all))
        pages_fail("atexit failed");
    memset(much, 'm', MUCH);
    for (int i = 0; i < NSLEEPERS; i++)
        begin(&sleepers[i]);
    wait_ms(100); /* asleep in the call, and not before it */
    for (size_t step = 0; step < (grow << 20) / STEP_BYTES; step++) {
        char *at = pages_map(STEP_BYTES / PAGE_BYTES);
        pages_fill(at, step, 0, STEP_BYTES / PAGE_BYTES);
        wait_ms(1);
    }
    wait_ms(SETTLE_MS); /* what is too much leaves now, and nobody is held any more */
    for (int i = 0; i < NSLEEPERS; i++)
        end(&sleepers[i]);
    return 0;
}
