#include "guard.h"

#include "program.h"
#include "uffd.h"
#include "fd_message.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/userfaultfd.h>
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

enum { WAIT_MS = 5000, UNKNOWN_MS = 20, FIRST_CAPACITY = 64 };

/* Descriptors; those that stand for something that is gone are closed when the list is full. */
struct fds {
    int *fds;
    size_t count, capacity;
};

struct ward {
    struct fds pids;  /* to be ended with edm */
    struct fds uffds; /* to be kept open until they are */
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

static void keep(struct fds *list, int fd, bool (*is_gone)(int fd))
{
    if (list->count == list->capacity) {
        size_t kept = 0;
        for (size_t i = 0; i < list->count; i++)
            if (is_gone(list->fds[i]))
                close(list->fds[i]);
            else
                list->fds[kept++] = list->fds[i];
        list->count = kept;
    }
    if (2 * list->count >= list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : FIRST_CAPACITY;
        int *fds = realloc(list->fds, capacity * sizeof *fds);
        if (fds) {
            list->fds = fds;
            list->capacity = capacity;
        }
    }
    /* With no memory to remember it by, a descriptor just stays open. */
    if (list->count < list->capacity)
        list->fds[list->count++] = fd;
}

/* Returns false when edm is gone. */
static bool receive_one(int fd, struct ward *ward)
{
    char kind;
    int fds[FD_MESSAGE_FDS];
    if (fd_message_receive(fd, &kind, 1, fds, 0))
        return false;
    if (fds[0] >= 0)
        keep(kind == 'e' ? &ward->pids : &ward->uffds, fds[0],
             kind == 'e' ? program_has_ended : uffd_is_gone);
    return true;
}

static void end_all(const struct ward *ward)
{
    for (size_t i = 0; i < ward->pids.count; i++)
        syscall(SYS_pidfd_send_signal, ward->pids.fds[i], SIGKILL, NULL, 0);
    for (size_t i = 0; i < ward->pids.count; i++) {
        struct pollfd fd = {ward->pids.fds[i], POLLIN, 0};
        while (poll(&fd, 1, WAIT_MS) < 0 && errno == EINTR)
            ;
    }
}

/* A child that has never reported is known by its userfaultfd alone: it is ended when it asks for a
 * page. Until then, and for as long as it lives, that must stay open. */
static void end_unknown(struct ward *ward)
{
    struct fds *list = &ward->uffds;
    while (list->count > 0) {
        size_t kept = 0;
        for (size_t i = 0; i < list->count; i++) {
            int fd = list->fds[i];
            struct uffd_msg message;
            while (read(fd, &message, sizeof message) == (ssize_t)sizeof message)
                if (message.event == UFFD_EVENT_PAGEFAULT)
                    kill((pid_t)message.arg.pagefault.feat.ptid, SIGKILL);
            if (uffd_is_gone(fd))
                close(fd);
            else
                list->fds[kept++] = fd;
        }
        list->count = kept;
        if (kept > 0)
            poll(NULL, 0, UNKNOWN_MS);
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
    struct ward ward = {0};
    while (receive_one(3, &ward))
        ;
    end_all(&ward);
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    end_unknown(&ward);
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
