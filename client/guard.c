#include "guard.h"

#include "fd_message.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 5000 };

struct ward {
    int pidfds[16];
    int npidfds;
};

static void send_one(int fd, char kind, int descriptor)
{
    int err = fd_message_send(fd, &kind, 1, &descriptor, 1, 0);
    /* If the guard is gone there is nobody to tell; the agent's own watch remains. */
    (void)err;
}

void guard_keep(int fd, int descriptor)
{
    send_one(fd, 'k', descriptor);
}

void guard_end_with_us(int fd, pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return;
    send_one(fd, 'e', pidfd);
    close(pidfd);
}

/* Returns false when edm is gone. */
static bool receive_one(int fd, struct ward *ward)
{
    char kind;
    int fds[FD_MESSAGE_FDS];
    if (fd_message_receive(fd, &kind, 1, fds, 0))
        return false;
    if (kind == 'e' && fds[0] >= 0 &&
        ward->npidfds < (int)(sizeof ward->pidfds / sizeof *ward->pidfds))
        ward->pidfds[ward->npidfds++] = fds[0];
    /* Kept descriptors just stay open. */
    return true;
}

static void end_all(const struct ward *ward)
{
    for (int i = 0; i < ward->npidfds; i++)
        syscall(SYS_pidfd_send_signal, ward->pidfds[i], SIGKILL, NULL, 0);
    for (int i = 0; i < ward->npidfds; i++) {
        struct pollfd fd = {ward->pidfds[i], POLLIN, 0};
        while (poll(&fd, 1, WAIT_MS) < 0 && errno == EINTR)
            ;
    }
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    remove(path);
    return 0;
}

static void be_guard(int fd, const char *directory)
{
    prctl(PR_SET_NAME, "edm-guard");
    setsid(); /* the terminal's signals are not for us */
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    /* Do not keep the caller's pipes open, nor its directory busy. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3 && null >= 0; i++)
        dup2(null, i);
    if (fd != 3)
        dup2(fd, 3);
    syscall(SYS_close_range, 4, ~0U, 0);
    if (chdir("/"))
        _exit(1);
    struct ward ward = {.npidfds = 0};
    while (receive_one(3, &ward))
        ;
    end_all(&ward);
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    _exit(0);
}

int guard_start(const char *directory, int *fd, pid_t *pid)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    pid_t child = fork();
    if (child < 0) {
        int err = -errno;
        close(pair[0]);
        close(pair[1]);
        return err;
    }
    if (child == 0)
        be_guard(pair[1], directory);
    close(pair[1]);
    *fd = pair[0];
    *pid = child;
    return 0;
}

void guard_finish(int fd, pid_t pid)
{
    close(fd);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}
