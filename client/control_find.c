#include "control_find.h"

#include "run_dir.h"
#include "ticks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_MS = 10000, NAME_BYTES = 64 };

/* A directory that has been looked at; it may be found in two ways. */
struct seen {
    dev_t device;
    ino_t inode;
};

struct search {
    struct control_finding *found;
    const char *name;
    struct seen *seen;
    size_t nseen;
};

/* ---- asking ---- */

static int wait_for(int fd, uint64_t due_ms)
{
    for (;;) {
        uint64_t now = ticks_us() / 1000;
        uint64_t left = due_ms > now ? due_ms - now : 0;
        struct pollfd polled = {fd, POLLIN, 0};
        int ready = poll(&polled, 1, left < INT_MAX ? (int)left : INT_MAX);
        if (ready > 0)
            return 0;
        if (ready == 0 && left == 0)
            return -ETIMEDOUT;
        if (ready < 0 && errno != EINTR)
            return -errno;
    }
}

int control_ask(int fd, const struct control_text *text, uint64_t wait_ms,
                struct control_message *answer)
{
    char bytes[CONTROL_MESSAGE_BYTES + 1];
    /* One that has been turned away cannot be written to, but what it was told can be read. */
    if (send(fd, text->bytes, text->len, MSG_NOSIGNAL) < 0 && errno != EPIPE)
        return -errno;
    int err = wait_for(fd, ticks_us() / 1000 + wait_ms);
    if (err)
        return err;
    ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got <= 0)
        return got == 0 ? -ECONNRESET : -errno;
    err = control_parse(answer, bytes, (size_t)got);
    return !err && !answer->word ? -EPROTO : err;
}

/* ---- one directory ---- */

/* Connects to the control socket in directory DIR_FD, of user OWNER. By the descriptor the path is
 * short enough whatever the directory's is, and stays the same directory's. Returns the connection
 * or -errno. */
static int connect_to(int dir_fd, uid_t owner, pid_t *pid)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" RUN_DIR_CONTROL,
             dir_fd);
    struct stat info;
    if (fstatat(dir_fd, RUN_DIR_CONTROL, &info, AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (!S_ISSOCK(info.st_mode))
        return -ENOTSOCK;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    struct timeval patience = {ANSWER_MS / 1000, 0}; /* where its queue is full */
    struct ucred peer;
    socklen_t len = sizeof peer;
    int err = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) ||
                      connect(fd, (struct sockaddr *)&address, sizeof address) ||
                      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len)
                  ? -errno
                  : 0;
    if (!err && peer.uid != owner)
        err = -EPERM;
    if (err) {
        close(fd);
        return err;
    }
    *pid = peer.pid;
    return fd;
}

static bool is_wanted(const struct search *search, const struct control_run *run)
{
    char pid[NAME_BYTES];
    const char *region = control_get(&run->status, "region");
    snprintf(pid, sizeof pid, "%d", (int)run->pid);
    return !search->name || strcmp(region, search->name) == 0 || strcmp(pid, search->name) == 0;
}

static void keep(struct search *search, struct control_run *run)
{
    struct control_run **at = &search->found->runs;
    while (*at && (*at)->pid < run->pid)
        at = &(*at)->next;
    run->next = *at;
    *at = run;
}

/* A run that listens at FD, which is ours. */
static int ask_run(struct search *search, int fd, pid_t pid, uid_t uid)
{
    struct control_run *run = malloc(sizeof *run);
    struct control_text text;
    if (!run) {
        close(fd);
        return -ENOMEM;
    }
    *run = (struct control_run){.fd = fd, .pid = pid, .uid = uid};
    control_begin(&text, "status");
    bool answered = control_ask(fd, &text, ANSWER_MS, &run->status) == 0 &&
                    strcmp(run->status.word, "ok") == 0 && control_get(&run->status, "region");
    if (!answered) {
        search->found->nsilent++;
        if (search->found->silent_pid == 0)
            search->found->silent_pid = pid;
    }
    if (answered && is_wanted(search, run)) {
        keep(search, run);
        return 0;
    }
    close(fd);
    free(run);
    return 0;
}

static bool is_new(struct search *search, const struct stat *info)
{
    for (size_t i = 0; i < search->nseen; i++)
        if (search->seen[i].device == info->st_dev && search->seen[i].inode == info->st_ino)
            return false;
    return true;
}

static int remember(struct search *search, const struct stat *info)
{
    struct seen *seen = realloc(search->seen, (search->nseen + 1) * sizeof *seen);
    if (!seen)
        return -ENOMEM;
    search->seen = seen;
    seen[search->nseen++] = (struct seen){info->st_dev, info->st_ino};
    return 0;
}

/* What is no directory of a run, or of one that is dead, is nothing to talk of. */
static int try_dir(struct search *search, int at, const char *path)
{
    struct stat info;
    int dir_fd = openat(at, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir_fd < 0)
        return 0;
    pid_t pid = 0;
    int err = 0;
    if (fstat(dir_fd, &info) == 0 && is_new(search, &info)) {
        err = remember(search, &info);
        bool ours = info.st_uid == geteuid() || geteuid() == 0;
        search->found->nforeign += !ours;
        int fd = err || !ours ? -1 : connect_to(dir_fd, info.st_uid, &pid);
        if (fd == -EAGAIN)
            search->found->nsilent++;
        if (fd >= 0)
            err = ask_run(search, fd, pid, info.st_uid);
    }
    close(dir_fd);
    return err;
}

/* ---- where they may be ---- */

static int try_base(struct search *search, const char *base)
{
    DIR *dir = base[0] == '/' ? opendir(base) : NULL;
    int err = 0;
    for (struct dirent *entry; dir && !err && (entry = readdir(dir));)
        if (run_dir_is_name(entry->d_name))
            err = try_dir(search, dirfd(dir), entry->d_name);
    if (dir)
        closedir(dir);
    return err;
}

/* Runs whose $TMPDIR was another. The lines end with a path, where there is one. */
static int try_sockets(struct search *search)
{
    FILE *file = fopen("/proc/net/unix", "re");
    char *line = NULL;
    size_t cap = 0;
    int err = 0;
    while (file && !err && getline(&line, &cap, file) > 0) {
        char *path = strchr(line, '/');
        char *end = path ? strstr(path, "/" RUN_DIR_CONTROL "\n") : NULL;
        if (!end)
            continue;
        *end = 0;
        const char *name = strrchr(path, '/');
        if (name && run_dir_is_name(name + 1))
            err = try_dir(search, AT_FDCWD, path);
    }
    free(line);
    if (file)
        fclose(file);
    return err;
}

/* A name goes before a number that is the same. */
static void prefer_name(struct control_finding *found, const char *name)
{
    bool named = false;
    for (struct control_run *run = found->runs; run; run = run->next)
        named = named || strcmp(control_get(&run->status, "region"), name) == 0;
    for (struct control_run **at = &found->runs, *run; named && (run = *at);) {
        if (strcmp(control_get(&run->status, "region"), name) == 0) {
            at = &run->next;
            continue;
        }
        *at = run->next;
        close(run->fd);
        free(run);
    }
}

int control_find(struct control_finding *out, const char *name)
{
    *out = (struct control_finding){0};
    struct search search = {.found = out, .name = name};
    const char *bases[RUN_DIR_BASES];
    run_dir_bases(bases);
    int err = 0;
    for (int i = 0; i < RUN_DIR_BASES && !err; i++)
        err = try_base(&search, bases[i]);
    if (!err)
        err = try_sockets(&search);
    free(search.seen);
    if (!err && name)
        prefer_name(out, name);
    return err;
}

void control_finding_free(struct control_finding *finding)
{
    while (finding->runs) {
        struct control_run *run = finding->runs;
        finding->runs = run->next;
        close(run->fd);
        free(run);
    }
}
