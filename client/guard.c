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

/* What edm tells; with a descriptor, but for LET_GO. */
enum kind { KEEP, LET_GO, END };

struct word {
    enum kind kind;
    int number; /* KEEP and LET_GO: of the descriptor, as edm has it */
};

/* Descriptors; those that stand for something that is gone are closed when the list is full. */
struct fds {
    struct held {
        int fd, number;
    } * held;
    size_t count, capacity;
};

struct ward {
    struct fds pids;  /* to be ended with edm */
    struct fds uffds; /* to be kept open until they are */
};

static void tell(int fd, enum kind kind, int descriptor)
{
    struct word word = {kind, descriptor};
    int err = fd_message_send(fd, &word, sizeof word, &descriptor, kind != LET_GO, 0);
    /* If the guard is gone there is nobody to tell; the agent's own watch remains. */
    (void)err;
}

void guard_keep(int fd, int descriptor)
{
    tell(fd, KEEP, descriptor);
}

void guard_let_go(int fd, int descriptor)
{
    tell(fd, LET_GO, descriptor);
}

void guard_end_with_us(int fd, pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return;
    tell(fd, END, pidfd);
    close(pidfd);
}

static void keep(struct fds *list, struct held one, bool (*is_gone)(int fd))
{
    if (list->count == list->capacity) {
        size_t kept = 0;
        for (size_t i = 0; i < list->count; i++)
            if (is_gone(list->held[i].fd))
                close(list->held[i].fd);
            else
                list->held[kept++] = list->held[i];
        list->count = kept;
    }
    if (2 * list->count >= list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : FIRST_CAPACITY;
        struct held *held = realloc(list->held, capacity * sizeof *held);
        if (held) {
            list->held = held;
            list->capacity = capacity;
        }
    }
    /* With no memory to remember it by, a descriptor just stays open. */
    if (list->count < list->capacity)
        list->held[list->count++] = one;
}

/* The one that came last under its number: edm uses numbers again. */
static void let_go(struct fds *list, int number)
{
    for (size_t i = list->count; i > 0; i--)
        if (list->held[i - 1].number == number) {
            close(list->held[i - 1].fd);
            list->held[i - 1] = list->held[--list->count];
            return;
        }
}

/* Returns false when edm is gone. */
static bool receive_one(int fd, struct ward *ward)
{
    struct word word;
    int fds[FD_MESSAGE_FDS];
    if (fd_message_receive(fd, &word, sizeof word, fds, 0))
        return false;
    if (word.kind == LET_GO)
        let_go(&ward->uffds, word.number);
    else if (fds[0] >= 0 && word.kind == KEEP)
        keep(&ward->uffds, (struct held){fds[0], word.number}, uffd_is_gone);
    else if (fds[0] >= 0)
        keep(&ward->pids, (struct held){fds[0], -1}, program_has_ended);
    return true;
}

static void end_all(const struct ward *ward)
{
    for (size_t i = 0; i < ward->pids.count; i++)
        syscall(SYS_pidfd_send_signal, ward->pids.held[i].fd, SIGKILL, NULL, 0);
    for (size_t i = 0; i < ward->pids.count; i++) {
        struct pollfd fd = {ward->pids.held[i].fd, POLLIN, 0};
        while (poll(&fd, 1, WAIT_MS) < 0 && errno == EINTR)
            ;
    }
}

/* A child that has never reported is known by its userfaultfd alone: it is ended when it asks for a
 * page. Until then, and for as long as it lives, that must stay open. */
static void end_unknown(struct ward *ward)
{
    struct fds *list = &ward->uffds;
    for (size_t i = 0; i < list->count; i++)
        (void)!fcntl(list->held[i].fd, F_SETFL, O_NONBLOCK);
    while (list->count > 0) {
        size_t kept = 0;
        for (size_t i = 0; i < list->count; i++) {
            int fd = list->held[i].fd;
            struct uffd_msg message;
            while (read(fd, &message, sizeof message) == (ssize_t)sizeof message)
                if (message.event == UFFD_EVENT_PAGEFAULT)
                    kill((pid_t)message.arg.pagefault.feat.ptid, SIGKILL);
            if (uffd_is_gone(fd))
                close(fd);
            else
                list->held[kept++] = list->held[i];
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
