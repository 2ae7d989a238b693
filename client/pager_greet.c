/* An image of the program reports to the pager: a conversation of four messages (agent_proto.h),
 * held with everybody who has connected at once. The pager goes on with its work between them: an
 * agent may be slow to answer, and it may be stopped by a brake that only the pager can let go. */
#include "space.h"

#include "fd_message.h"
#include "guard.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PATIENCE_US = 60 * 1000000, /* the agent answers at once, unless its machine is overloaded */
    GATE_BYTES = BATCH_PAGES * PAGE_BYTES,
};

/* Somebody who has connected and is not in our hands yet. */
struct greeting {
    struct greeting *next;
    int connection;
    pid_t pid;
    uint64_t since_us;
    struct space *space; /* once it has said hello and has been welcomed */
};

static int make_pool(void)
{
    int fd = memfd_create("edm-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, SPACE_POOL_BYTES)) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* Without descriptors. An answer is small and the first on its connection, or the second: there is
 * room for it. */
static int answer(const struct greeting *greeting, const void *words, size_t bytes)
{
    return fd_message_send(greeting->connection, words, bytes, NULL, 0, MSG_DONTWAIT);
}

/* ---- ready ---- */

/* Takes the userfaultfds into our hands. 0, -ESRCH when the program is gone, or -ECANCELED when it
 * has been said why not. */
static int take_hold(struct space *space, const struct agent_ready *ready)
{
    int err = uffd_begin(space->uffd, &space->has_fork_event);
    if (!err)
        err = uffd_begin_plain(space->hold_uffd);
    if (!err)
        err = uffd_register(space->uffd, ready->gate, ready->gate + GATE_BYTES);
    if (!err)
        err = uffd_register_plain(space->hold_uffd, ready->hold, ready->hold + GATE_BYTES);
    if (err == -ESRCH)
        return err;
    if (err) {
        log_fatal("Pager", "the program's userfaultfd cannot be used: %s", strerror(-err));
        return -ECANCELED;
    }
    memcpy(space->own, ready->own, sizeof space->own);
    space->agent_tid = ready->tid;
    guard_keep(space->pager->config.guard_fd, space->uffd);
    return 0;
}

static void explain_refusal(const struct agent_ready *ready)
{
    const char *why = strerror(ready->error);
    if (ready->error == EPERM || ready->error == EACCES)
        why = "no permission: give this user access to /dev/userfaultfd, or set "
              "vm.unprivileged_userfaultfd=1";
    log_fatal("Pager", "the agent in the program failed at %.31s: %s", ready->step, why);
}

/* From now on the program is in our hands. */
static void admit(struct pager *pager, struct greeting *greeting)
{
    struct space *space = greeting->space;
    space->agent = greeting->connection;
    pager->space = space;
    pager->present = true;
    pager->images++;
    pager->counters.images++;
    pager->managed_news = true;
    pager_tell_news(pager);
    log_info("Pager", "%d: the agent is in place%s", (int)space->pid,
             space->has_fork_event ? "" : " (no EVENT_FORK: forks are watched from inside)");
    greeting->space = NULL;
    greeting->connection = -1;
}

static int on_ready(struct pager *pager, struct greeting *greeting)
{
    struct space *space = greeting->space;
    struct agent_ready ready;
    int fds[FD_MESSAGE_FDS];
    int err = fd_message_receive(greeting->connection, &ready, sizeof ready, fds, MSG_DONTWAIT);
    if (err)
        return err;
    space->uffd = fds[0];
    space->hold_uffd = fds[1];
    if (ready.error) {
        explain_refusal(&ready);
        return -ECANCELED;
    }
    err = take_hold(space, &ready);
    if (err)
        return err;
    struct agent_go go = {AGENT_MANAGE, !space->has_fork_event};
    err = answer(greeting, &go, sizeof go);
    if (!err)
        admit(pager, greeting);
    return err;
}

/* ---- hello ---- */

static int welcome_program(struct pager *pager, struct greeting *greeting)
{
    if (pager->space)
        space_end(pager->space); /* it has called exec; the hang-up is still to be read */
    pager->present = true;
    int pool_fd = make_pool();
    int err = pool_fd < 0 ? pool_fd : space_new(&greeting->space, pager, greeting->pid, pool_fd);
    struct agent_welcome welcome = {AGENT_MANAGE, pager->config.device_fd >= 0, SPACE_POOL_BYTES};
    const int given[FD_MESSAGE_FDS] = {pool_fd, pager->config.device_fd};
    if (!err)
        err = fd_message_send(greeting->connection, &welcome, sizeof welcome, given,
                              welcome.has_device ? 2 : 1, MSG_DONTWAIT);
    if (pool_fd >= 0)
        close(pool_fd);
    return err;
}

/* A thread of the program is about to fork, where the kernel will not tell us so itself. */
static int welcome_fork(struct pager *pager, struct greeting *greeting)
{
    struct space *space = pager->space;
    if (!space)
        return -ECONNRESET;
    uint64_t out = space_pages_out(space);
    pager->counters.forks++;
    if (out > 0) {
        log_fatal(
            "Pager",
            "the program is about to fork while %llu of its pages are stored elsewhere, "
            "which this version cannot give to the child: the program is ended; with a larger "
            "--local it could go on",
            (unsigned long long)out);
        return -ECANCELED;
    }
    struct agent_go go = {AGENT_MANAGE, 0};
    int err = answer(greeting, &go, sizeof go);
    if (err)
        return err;
    if (space->fork_fd >= 0)
        close(space->fork_fd);
    space->fork_fd = greeting->connection; /* nothing is taken out until it hangs up */
    greeting->connection = -1;
    return 0;
}

static int on_hello(struct pager *pager, struct greeting *greeting)
{
    struct agent_hello hello;
    int fds[FD_MESSAGE_FDS];
    int err = fd_message_receive(greeting->connection, &hello, sizeof hello, fds, MSG_DONTWAIT);
    for (int i = 0; i < FD_MESSAGE_FDS; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (err)
        return err;
    bool program = greeting->pid == pager->program && hello.magic == AGENT_MAGIC &&
                   hello.bytes == sizeof(struct agent_command);
    if (program)
        return hello.about_to_fork ? welcome_fork(pager, greeting)
                                   : welcome_program(pager, greeting);
    /* A child of the program: it runs natively. */
    struct agent_welcome welcome = {AGENT_LEAVE_ALONE, 0, 0};
    if (answer(greeting, &welcome, sizeof welcome))
        log_debug("Pager", "%d hung up at once", (int)greeting->pid);
    return -ECONNRESET;
}

/* ---- all of them ---- */

static void end_greeting(struct pager *pager, struct greeting *greeting)
{
    if (greeting->connection >= 0)
        close(greeting->connection);
    if (greeting->space) {
        /* Another image of the program may have come in between. */
        pager->present = pager->space != NULL;
        space_free(&greeting->space);
    }
    free(greeting);
}

/* What is wrong enough to end the program is said here; somebody else's mistakes are not. */
static void report(struct pager *pager, const struct greeting *greeting, int err)
{
    bool program = greeting->pid == pager->program;
    if (!program || err == -ECONNRESET || err == -EPIPE || err == -ESRCH)
        return; /* killed meanwhile, or none of ours */
    if (err != -ECANCELED)
        log_fatal("Pager", "cannot take over the program: %s", strerror(-err));
    pager_fail(pager);
}

/* Returns whether the conversation has come to its end. */
static bool step(struct pager *pager, struct greeting *greeting, uint64_t now_us)
{
    int err = greeting->space ? on_ready(pager, greeting) : on_hello(pager, greeting);
    if (err == -EAGAIN)
        err = now_us - greeting->since_us > PATIENCE_US ? -ETIMEDOUT : 0;
    if (err)
        report(pager, greeting, err);
    return err || greeting->connection < 0;
}

static int accept_all(struct pager *pager, uint64_t now_us)
{
    int count = 0;
    for (;; count++) {
        int connection = accept4(pager->config.listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0)
            return count;
        struct ucred peer;
        socklen_t size = sizeof peer;
        struct greeting *greeting = calloc(1, sizeof *greeting);
        if (!greeting || getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size)) {
            log_warn("Pager", "a connection cannot be taken: %s", strerror(errno));
            free(greeting);
            close(connection);
            continue;
        }
        greeting->connection = connection;
        greeting->pid = peer.pid;
        greeting->since_us = now_us;
        greeting->next = pager->greetings;
        pager->greetings = greeting;
    }
}

int greet_step(struct pager *pager, bool connections, uint64_t now_us)
{
    int done = connections ? accept_all(pager, now_us) : 0;
    for (struct greeting **at = &pager->greetings; *at;) {
        struct greeting *greeting = *at;
        if (!step(pager, greeting, now_us)) {
            at = &greeting->next;
            continue;
        }
        *at = greeting->next;
        end_greeting(pager, greeting);
        done++;
    }
    return done;
}

uint32_t greet_poll_fds(const struct pager *pager, struct pollfd *out, uint32_t cap)
{
    uint32_t count = 0;
    for (const struct greeting *greeting = pager->greetings; greeting && count < cap;
         greeting = greeting->next)
        out[count++] = (struct pollfd){greeting->connection, POLLIN, 0};
    return count;
}

void greet_end_all(struct pager *pager)
{
    while (pager->greetings) {
        struct greeting *greeting = pager->greetings;
        pager->greetings = greeting->next;
        end_greeting(pager, greeting);
    }
}
