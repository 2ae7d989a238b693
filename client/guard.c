#include "guard.h"

#include "beacon.h"
#include "program.h"
#include "uffd.h"
#include "fd_message.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    WAIT_MS = 5000,
    UNKNOWN_MS = 20,
    FIRST_CAPACITY = 64,
    LAST_NICE = -20,
};

struct guard {
    int fd;
    pid_t pid;
    struct beacon *beacon; /* NULL: none */
};

/* The guard's own. */
enum { SOCKET = 3, BEACON = 4, FIRST_FREE = 5 };

/* What edm tells. KEEP and END come with a descriptor. */
enum kind { KEEP, LET_GO, END, FINISH };

struct word {
    enum kind kind;
    int number; /* KEEP and LET_GO: of the descriptor, as edm has it; END: the process */
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
    struct held edm;
    bool in_order; /* edm has said that it ends */
    const struct stragglers_marks *marks;
    struct fds found; /* at this look */
};

static void tell(int fd, enum kind kind, int number, int descriptor)
{
    struct word word = {kind, number};
    int err = fd_message_send(fd, &word, sizeof word, &descriptor, descriptor >= 0, 0);
    /* If the guard is gone there is nobody to tell; the agent's own watch remains. */
    (void)err;
}

void guard_keep(int fd, int descriptor)
{
    tell(fd, KEEP, descriptor, descriptor);
}

void guard_let_go(int fd, int descriptor)
{
    tell(fd, LET_GO, descriptor, -1);
}

void guard_end_with_us(int fd, pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return;
    tell(fd, END, (int)pid, pidfd);
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

/* 0, -EAGAIN (with MSG_DONTWAIT), or another error when edm is gone. */
static int receive_one(struct ward *ward, int flags)
{
    struct word word;
    int fds[FD_MESSAGE_FDS];
    int err = fd_message_receive(SOCKET, &word, sizeof word, fds, flags);
    if (err)
        return err;
    if (word.kind == LET_GO)
        let_go(&ward->uffds, word.number);
    else if (word.kind == FINISH)
        ward->in_order = true;
    else if (fds[0] >= 0 && word.kind == KEEP)
        keep(&ward->uffds, (struct held){fds[0], word.number}, uffd_is_gone);
    else if (fds[0] >= 0)
        keep(&ward->pids, (struct held){fds[0], word.number}, program_has_ended);
    return 0;
}

/* Until edm is being killed, or is gone. */
static void receive_all(struct ward *ward)
{
    int err = 0;
    while (!err || err == -EAGAIN) {
        struct pollfd fds[] = {{SOCKET, POLLIN, 0}, {BEACON, 0, 0}};
        bool over = poll(fds, 2, -1) > 0 && fds[1].revents;
        do {
            err = receive_one(ward, MSG_DONTWAIT);
        } while (!err);
        if (over)
            return;
    }
}

/* What its threads had just begun to say. */
static void receive_rest(struct ward *ward)
{
    struct pollfd fd = {SOCKET, POLLIN, 0};
    while (poll(&fd, 1, WAIT_MS) > 0 && !receive_one(ward, 0))
        ;
}

static void kill_all(const struct ward *ward)
{
    for (size_t i = 0; i < ward->pids.count; i++)
        syscall(SYS_pidfd_send_signal, ward->pids.held[i].fd, SIGKILL, NULL, 0);
}

static bool is_in(const struct fds *list, pid_t pid)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->held[i].number == (int)pid)
            return true;
    return false;
}

static bool add_found(void *arg, pid_t pid)
{
    struct ward *ward = arg;
    if (is_in(&ward->pids, pid) || is_in(&ward->found, pid))
        return false;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd >= 0)
        keep(&ward->found, (struct held){pidfd, (int)pid}, program_has_ended);
    return pidfd >= 0;
}

/* Whoever is below those that are known. */
static void find_below(struct ward *ward)
{
    for (size_t i = 0; i < ward->pids.count; i++)
        if (!program_has_ended(ward->pids.held[i].fd))
            program_each_below(ward->pids.held[i].number, add_found, ward);
    for (size_t i = 0; i < ward->found.count; i++)
        keep(&ward->pids, ward->found.held[i], program_has_ended);
    ward->found.count = 0;
}

/* What is killed has to run once more, all of its threads, and gives its memory back itself. */
static void hurry(const struct held *process)
{
    char path[64];
    if (program_has_ended(process->fd))
        return;
    snprintf(path, sizeof path, "/proc/%d/task", process->number);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        long tid = strtol(entry->d_name, NULL, 10);
        if (tid > 0)
            (void)!setpriority(PRIO_PROCESS, (id_t)tid, LAST_NICE);
    }
    if (dir)
        closedir(dir);
}

/* edm too: it may be tracing threads of the program (brake.h), and these end when it has. */
static void hurry_all(const struct ward *ward)
{
    hurry(&ward->edm);
    for (size_t i = 0; i < ward->pids.count; i++)
        hurry(&ward->pids.held[i]);
}

static void end_all(struct ward *ward)
{
    bool all = ward->marks && !ward->in_order;
    if (all)
        find_below(ward);
    kill_all(ward);
    if (all) {
        /* Who has forked in between can fork no more, but has its children still. */
        find_below(ward);
        kill_all(ward);
        hurry_all(ward);
    }
    beacon_take_turns(); /* from here on we wait */
    receive_rest(ward);
    kill_all(ward);
    if (all)
        stragglers_end(ward->marks);
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

static void be_guard(int fd, int beacon, pid_t edm, const struct guard_config *config)
{
    prctl(PR_SET_NAME, "edm-guard");
    setsid(); /* the terminal's signals are not for us */
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    /* Out of the way of what they become. */
    fd = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE);
    beacon = fcntl(beacon, F_DUPFD_CLOEXEC, FIRST_FREE);
    /* Do not keep the caller's pipes open, nor its directory busy. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < SOCKET && null >= 0; i++)
        dup2(null, i);
    if (dup2(fd, SOCKET) < 0 || dup2(beacon, BEACON) < 0)
        _exit(1);
    syscall(SYS_close_range, FIRST_FREE, ~0U, 0);
    if (chdir("/"))
        _exit(1);
    /* No page of it has to be read in, and nobody goes before it. Not allowed to everybody. */
    (void)!mlockall(MCL_CURRENT);
    beacon_hurry();
    struct ward ward = {.edm = {(int)syscall(SYS_pidfd_open, edm, 0), (int)edm},
                        .marks = config->whole_tree ? &config->marks : NULL};
    receive_all(&ward);
    end_all(&ward);
    nftw(config->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    end_unknown(&ward);
    _exit(0);
}

static void close_pair(const int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

int guard_start(struct guard **out, const struct guard_config *config)
{
    int pair[2], beacon[2];
    struct guard *guard = calloc(1, sizeof *guard);
    if (!guard)
        return -ENOMEM;
    int err = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ? -errno : 0;
    if (err) {
        free(guard);
        return err;
    }
    err = pipe2(beacon, O_CLOEXEC) ? -errno : 0;
    pid_t edm = getpid();
    pid_t child = err ? -1 : fork();
    if (child == 0)
        be_guard(pair[1], beacon[0], edm, config);
    if (!err && child < 0) {
        err = -errno;
        close_pair(beacon);
    }
    if (err) {
        close_pair(pair);
        free(guard);
        return err;
    }
    close(pair[1]);
    close(beacon[0]);
    beacon_light(&guard->beacon, beacon[1]);
    guard->fd = pair[0];
    guard->pid = child;
    *out = guard;
    return 0;
}

int guard_fd(const struct guard *guard)
{
    return guard->fd;
}

pid_t guard_pid(const struct guard *guard)
{
    return guard->pid;
}

void guard_finish(struct guard **guard)
{
    tell((*guard)->fd, FINISH, -1, -1);
    close((*guard)->fd);
    if ((*guard)->beacon)
        beacon_put_out(&(*guard)->beacon);
    while (waitpid((*guard)->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(*guard);
    *guard = NULL;
}
