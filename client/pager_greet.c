/* An image of the program reports to the pager: a conversation of four messages (agent_proto.h),
 * held with everybody who has connected at once. The pager goes on with its work between them: an
 * agent may be slow to answer, and it may be stopped by a brake that only the pager can let go. */
#include "space.h"

#include "fd_message.h"
#include "guard.h"
#include "program.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PATIENCE_US = 60 * 1000000, /* the agent answers at once, unless its machine is overloaded */
    GATE_BYTES = BATCH_PAGES * PAGE_BYTES,
    /* What begins is expected to fill so much in so long (or so long, if many begin at once). It
     * waits for room for that so long at most, and then for those that have waited longer. */
    YOUNG_PAGES = 1024,
    YOUNG_US = 5000,
    YOUNG_OF_MANY_US = 20000,
    MANY = 16,
    OUTSIDE_US = 1000000,
};

/* Somebody who has connected and is not in our hands yet. */
struct greeting {
    struct greeting *next;
    int connection;
    pid_t pid;
    uint64_t since_us;
    uint32_t kind; /* enum agent_kind, once it has said hello */
    int32_t tid;
    bool forks;          /* waits for its turn to fork */
    struct space *space; /* made for it then */
    bool is_ready;       /* and READY has come, then: */
    uint64_t ready_us;
    bool waits; /* for room */
    struct agent_ready ready;
    int fds[FD_MESSAGE_FDS];
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

/* Always an error: there is nothing more to say. */
static int say_go_on_alone(const struct greeting *greeting)
{
    struct agent_go go = {AGENT_LEAVE_ALONE, 0};
    if (answer(greeting, &go, sizeof go))
        log_debug("Pager", "%d hung up at once", (int)greeting->pid);
    return -ECONNRESET;
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
    space->mark = ready->mark / PAGE_BYTES;
    space->events_queued = ready->events_queued;
    space->mutexes_at = ready->mutexes;
    space->agent_own_tid = ready->tid;
    space->agent_tid = proc_map_thread_called(space->proc, ready->tid);
    guard_keep(space->pager->config.guard_fd, space->uffd);
    return 0;
}

/* The kernel refuses it something, by a seccomp filter, say, that a child has. */
static int refuse(const struct pager *pager, const struct greeting *greeting)
{
    const struct agent_ready *ready = &greeting->ready;
    const char *why = strerror(ready->error);
    if (ready->error == EPERM || ready->error == EACCES)
        why = "no permission: give this user access to /dev/userfaultfd, or set "
              "vm.unprivileged_userfaultfd=1";
    if (greeting->pid == pager->program) {
        log_fatal("Pager", "the agent in the program failed at %.31s: %s", ready->step, why);
        return -ECANCELED;
    }
    log_warn(
        "Pager",
        "the agent in %d failed at %.31s: %s: that process runs natively, outside of the budget",
        (int)greeting->pid, ready->step, strerror(ready->error));
    return say_go_on_alone(greeting);
}

static void tell_of_limits(const struct space *space)
{
    log_info("Pager", "%d (%s): the agent is in place", (int)space->pid,
             space->figures ? space->figures->name : "?");
    if (!space->has_fork_event && space->pid == space->pager->program)
        log_warn("Pager",
                 "no EVENT_FORK (it takes CAP_SYS_PTRACE): before a fork() all pages have to "
                 "come in, and fit into --local, or the program is ended; a child that is "
                 "made by other ways (docs/memory.md) would miss pages");
}

/* From now on the process is in our hands. */
static void admit(struct pager *pager, struct greeting *greeting, struct space *space)
{
    space->agent = greeting->connection;
    greeting->connection = -1;
    proc_map_pin(space->proc, greeting->ready.tid_address);
    pager->counters.images++;
    space_name(space);
    if (space->pid == pager->program) {
        pager->present = true;
        pager->images++;
        pager->managed_news = true;
        pager_tell_news(pager);
    } else {
        guard_end_with_us(pager->config.guard_fd, space->pid);
    }
    tell_of_limits(space);
}

/* Where nothing is preloaded nobody asks before a fork, and nobody would tell of it: a child would
 * find zeros where its parent's pages are elsewhere. */
static int refuse_blind(struct pager *pager, struct greeting *greeting)
{
    if (greeting->pid == pager->program) {
        log_fatal("Pager",
                  "the program loads no agent (statically linked, or LD_PRELOAD was changed), and "
                  "so can be managed only with EVENT_FORK (CAP_SYS_PTRACE)");
        return -ECANCELED;
    }
    log_warn(
        "Pager",
        "%d loads no agent (statically linked, or LD_PRELOAD was changed), and so can be "
        "managed only with EVENT_FORK (CAP_SYS_PTRACE): it runs natively, outside of the budget",
        (int)greeting->pid);
    return say_go_on_alone(greeting);
}

/* How much SPACE, which may have begun just now, is expected to fill yet. */
static uint64_t expected_of(const struct space *space, bool many, uint64_t now_us)
{
    if (!space->serving) /* it has had no processor yet */
        return space->agent >= 0 && !space->agent_stopped ? YOUNG_PAGES : 0;
    if (many)
        return now_us < space->serving_us + YOUNG_OF_MANY_US ? YOUNG_PAGES : 0;
    if (space->pressed || space->anonymous_pages > YOUNG_PAGES ||
        now_us > space->serving_us + YOUNG_US)
        return 0;
    return YOUNG_PAGES - space->anonymous_pages;
}

/* What has begun just now may be about to fill memory that nobody sees yet; it is looked at in
 * time, but not a hundred at once. */
static bool is_full(struct pager *pager, uint64_t now_us)
{
    uint64_t expected = 0;
    for (const struct space *space = pager->spaces; space; space = space->next)
        expected += expected_of(space, pager->ngreetings > MANY, now_us);
    return expected > 0 && pager_is_crowded(pager, expected) && !reclaim_is_hopeless(pager, now_us);
}

/* In the order in which they came, so that nobody waits for ever. */
static bool must_wait(struct pager *pager, const struct greeting *greeting, uint64_t now_us)
{
    if (!pager->full_known) {
        pager->full = is_full(pager, now_us);
        pager->full_known = true;
    }
    bool overdue = now_us > greeting->ready_us + OUTSIDE_US;
    return pager->full && !(overdue && now_us > pager->admitted_us + YOUNG_US);
}

static int admit_image(struct pager *pager, struct greeting *greeting)
{
    struct space *space = greeting->space;
    space->uffd = greeting->fds[0];
    space->hold_uffd = greeting->fds[1];
    greeting->fds[0] = greeting->fds[1] = -1;
    int err = take_hold(space, &greeting->ready);
    if (!err && !space->has_fork_event && implant_is_under_way(pager, greeting->pid))
        err = refuse_blind(pager, greeting);
    if (err)
        return err;
    struct agent_go go = {AGENT_MANAGE, !space->has_fork_event};
    err = answer(greeting, &go, sizeof go);
    if (err)
        return err;
    greeting->space = NULL;
    space_add(space);
    admit(pager, greeting, space);
    return 0;
}

/* ---- children ---- */

/* The child that has touched its mark before it said READY: an orphan, or NULL: it has none. */
static struct space *find_orphan(const struct pager *pager, int32_t tid)
{
    struct space *space = pager->spaces;
    while (space && (space->proc || space->marked_tid != tid))
        space = space->next;
    return space;
}

static void queue_resident(struct space *space)
{
    const struct area *area = area_map_after(space->areas, 0);
    while (area) {
        uint64_t end = area->end;
        for (uint64_t page = page_table_next(space->table, area->start, end); page < end;
             page = page_table_next(space->table, page + 1, end))
            if (page_table_state(space->table, page) == PAGE_RESIDENT)
                reclaim_push(space, page, false);
        area = area_map_after(space->areas, end);
    }
}

/* Thread numbers can be the same in two pid namespaces: what was registered with the one must show
 * in the other. */
static bool is_its_memory(const struct greeting *greeting)
{
    uint64_t start = greeting->ready.gate;
    struct kpage_region region;
    uint64_t next;
    return uffd_scan(proc_map_pagemap(greeting->space->proc), start, start + GATE_BYTES,
                     KPAGE_IS_WPALLOWED, 0, &region, 1, &next) == 1 &&
           region.start == start && region.end == start + GATE_BYTES;
}

/* Takes the child into our hands, which waits for our word and has one thread: what it has now will
 * not change meanwhile. */
static int take_orphan(struct pager *pager, struct greeting *greeting, struct space *orphan)
{
    const struct agent_ready *ready = &greeting->ready;
    orphan->hold_uffd = greeting->fds[1];
    greeting->fds[1] = -1;
    memcpy(orphan->own, ready->own, sizeof orphan->own);
    orphan->events_queued = ready->events_queued;
    orphan->mutexes_at = ready->mutexes;
    orphan->agent_own_tid = ready->tid;
    orphan->agent_tid = proc_map_thread_called(orphan->proc, ready->tid);
    if (!orphan->wiped)
        fork_find_wiped(orphan, orphan->pid);
    events_verify(orphan);
    queue_resident(orphan);
    /* What it has from its parent is no growth. */
    struct proc_size size;
    if (proc_map_size(orphan->proc, &size) == 0)
        orphan->anonymous_pages = size.anonymous_pages;
    orphan->sampled_resident = page_table_count(orphan->table, PAGE_RESIDENT);
    struct agent_go go = {AGENT_MANAGE, 0};
    struct agent_command adopt = {.op = AGENT_ADOPT};
    int err = answer(greeting, &go, sizeof go);
    if (!err)
        err = fd_message_send(greeting->connection, &adopt, offsetof(struct agent_command, runs),
                              &orphan->uffd, 1, MSG_DONTWAIT);
    if (!err)
        admit(pager, greeting, orphan);
    return err;
}

/* The child gets an agent that works on the userfaultfd which the kernel made at the fork. */
static int adopt_orphan(struct pager *pager, struct greeting *greeting, struct space *orphan)
{
    const struct agent_ready *ready = &greeting->ready;
    if (events_are_pending(orphan) || !uffd_is_quiet(orphan->uffd))
        return -EAGAIN;
    int err = uffd_begin_plain(greeting->fds[1]);
    if (!err)
        err = uffd_register_plain(greeting->fds[1], ready->hold, ready->hold + GATE_BYTES);
    if (!err)
        err = uffd_register(orphan->uffd, ready->gate, ready->gate + GATE_BYTES);
    if (!err && !is_its_memory(greeting))
        err = -EXDEV;
    if (!err)
        err = space_take_process(orphan, greeting->space);
    space_free(&greeting->space);
    if (err)
        return err;
    err = take_orphan(pager, greeting, orphan);
    /* It may have ended as soon as it had the first word. Nothing else would tell of that. */
    if (err)
        space_end(orphan);
    return err == -EAGAIN ? -EIO : err; /* not to be tried again */
}

static int admit_child(struct pager *pager, struct greeting *greeting)
{
    struct space *orphan = find_orphan(pager, greeting->tid);
    return orphan ? adopt_orphan(pager, greeting, orphan) : admit_image(pager, greeting);
}

static bool has_ended(int connection)
{
    struct pollfd fd = {connection, POLLIN | POLLRDHUP, 0};
    return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

/* Its agent's thread is there no more: exec() ends all threads first. */
static bool has_hung_up(const struct space *space)
{
    return has_ended(space->agent);
}

/* Two agents may come up in an image at the same time, one preloaded and one put in (in a child
 * whose parent has written over its environment). The first one to be ready is taken. */
static bool has_another(const struct pager *pager, const struct greeting *greeting)
{
    const struct space *space = space_of(pager, greeting->pid);
    return space && !has_hung_up(space);
}

static int on_ready(struct pager *pager, struct greeting *greeting, uint64_t now_us)
{
    int err = 0;
    if (!greeting->is_ready)
        err = fd_message_receive(greeting->connection, &greeting->ready, sizeof greeting->ready,
                                 greeting->fds, MSG_DONTWAIT);
    if (err)
        return err;
    if (!greeting->is_ready)
        greeting->ready_us = now_us;
    greeting->is_ready = true;
    if (has_another(pager, greeting))
        return say_go_on_alone(greeting);
    if (greeting->ready.error)
        return refuse(pager, greeting);
    greeting->waits = must_wait(pager, greeting, now_us);
    if (greeting->waits) {
        greeting->since_us = now_us; /* it is we who let it wait */
        return has_ended(greeting->connection) ? -ECONNRESET : -EAGAIN;
    }
    pager->full_known = false; /* it may be now */
    pager->admitted_us = now_us;
    err =
        greeting->kind == AGENT_CHILD ? admit_child(pager, greeting) : admit_image(pager, greeting);
    return err == -EAGAIN && has_ended(greeting->connection) ? -ECONNRESET : err;
}

/* ---- hello ---- */

static bool program_region_is_used(const struct pager *pager)
{
    for (const struct space *space = pager->dying; space; space = space->next)
        if (!space->owns_region && space->pressed && (!space->released || space->drops.first))
            return true;
    return false;
}

/* Not to be managed by this agent. Always an error: there is nothing more to say. */
static int leave_alone(const struct greeting *greeting)
{
    struct agent_welcome words = {AGENT_LEAVE_ALONE, 0, 0};
    if (answer(greeting, &words, sizeof words))
        log_debug("Pager", "%d hung up at once", (int)greeting->pid);
    return -ECONNRESET;
}

static int welcome(struct pager *pager, struct greeting *greeting)
{
    struct space *before = space_of(pager, greeting->pid);
    if (before && !has_hung_up(before))
        return leave_alone(
            greeting); /* a second agent, preloaded by what the program loads itself */
    if (before)
        space_end(before); /* it has called exec; the hang-up is still to be read */
    bool program = greeting->pid == pager->program;
    if (program)
        pager->present = true;
    int pool_fd = make_pool();
    int err = pool_fd < 0 ? pool_fd : space_new(&greeting->space, pager);
    if (!err)
        err = space_set_process(greeting->space, greeting->pid, pool_fd);
    /* An image that ended in the middle of a fork still needs the program's own region. */
    if (!err && program && !program_region_is_used(pager)) {
        greeting->space->region = pager->set->region;
        greeting->space->region_state = REGION_READY;
    }
    struct agent_welcome words = {AGENT_MANAGE, pager->config.device_fd >= 0, SPACE_POOL_BYTES};
    const int given[FD_MESSAGE_FDS] = {pool_fd, pager->config.device_fd};
    if (!err)
        err = fd_message_send(greeting->connection, &words, sizeof words, given,
                              words.has_device ? 2 : 1, MSG_DONTWAIT);
    if (pool_fd >= 0)
        close(pool_fd);
    return err;
}

/* A thread of a process is about to fork, where the kernel will not tell us so itself. */
static int welcome_fork(struct pager *pager, struct greeting *greeting)
{
    struct space *space = space_of(pager, greeting->pid);
    if (!space) {
        log_warn("Pager",
                 "%d is about to fork with memory that is another process's, or not managed any "
                 "more: it is ended (its child would find zeros)",
                 (int)greeting->pid);
        return -ECONNRESET;
    }
    int err = fork_prepare(space, greeting->connection);
    if (!err)
        greeting->connection = -1;
    return err;
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
    bool known = hello.magic == AGENT_MAGIC && hello.bytes == sizeof(struct agent_command);
    greeting->kind = hello.kind;
    greeting->tid = hello.tid;
    greeting->forks = known && hello.kind == AGENT_FORKING;
    if (greeting->forks)
        return welcome_fork(pager, greeting);
    if (known && (greeting->pid == pager->program || pager->config.follow))
        return welcome(pager, greeting);
    return leave_alone(greeting); /* a child of the program: it runs natively */
}

/* ---- all of them ---- */

static void end_greeting(struct pager *pager, struct greeting *greeting)
{
    if (greeting->connection >= 0)
        close(greeting->connection);
    for (int i = 0; i < FD_MESSAGE_FDS; i++)
        if (greeting->fds[i] >= 0)
            close(greeting->fds[i]);
    if (greeting->space) {
        /* Another image of the program may have come in between. */
        if (greeting->pid == pager->program)
            pager->present = space_of(pager, pager->program) != NULL;
        space_free(&greeting->space);
    }
    free(greeting);
    pager->ngreetings--;
}

/* What is wrong enough to end the program is said here; somebody else's mistakes are not. */
static void report(struct pager *pager, const struct greeting *greeting, int err)
{
    if (err == -ECONNRESET || err == -EPIPE || err == -ESRCH)
        return; /* killed meanwhile, or none of ours */
    if (err != -ECANCELED)
        log_fatal("Pager", "cannot take over process %d: %s", (int)greeting->pid, strerror(-err));
    pager_fail(pager);
}

/* Returns whether the conversation has come to its end. */
static bool step(struct pager *pager, struct greeting *greeting, uint64_t now_us)
{
    int err = greeting->space   ? on_ready(pager, greeting, now_us)
              : greeting->forks ? welcome_fork(pager, greeting)
                                : on_hello(pager, greeting);
    if (err == -EAGAIN)
        err = now_us - greeting->since_us > PATIENCE_US ? -ETIMEDOUT : 0;
    if (err)
        report(pager, greeting, err);
    return err || greeting->connection < 0;
}

/* Anybody can connect where edm is root's. */
static bool is_from_the_program(const struct ucred *peer)
{
    return peer->uid == geteuid() || program_is_below(peer->pid, getpid());
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
        if (!is_from_the_program(&peer)) {
            log_warn("Pager",
                     "process %d of user %u, which is none of the program's, has connected",
                     (int)peer.pid, (unsigned)peer.uid);
            free(greeting);
            close(connection);
            continue;
        }
        greeting->fds[0] = greeting->fds[1] = -1;
        greeting->connection = connection;
        greeting->pid = peer.pid;
        greeting->since_us = now_us;
        struct greeting **last = &pager->greetings;
        while (*last)
            last = &(*last)->next;
        *last = greeting;
        pager->ngreetings++;
    }
}

int greet_step(struct pager *pager, bool connections, uint64_t now_us)
{
    int done = connections ? accept_all(pager, now_us) : 0;
    pager->full_known = false;
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
        if (!greeting->waits) /* that it has ended is seen at each turn */
            out[count++] = (struct pollfd){greeting->connection, POLLIN, 0};
    return count;
}

bool greet_is_with(const struct pager *pager, pid_t pid)
{
    const struct greeting *greeting = pager->greetings;
    while (greeting && greeting->pid != pid)
        greeting = greeting->next;
    return greeting;
}

void greet_end_all(struct pager *pager)
{
    while (pager->greetings) {
        struct greeting *greeting = pager->greetings;
        pager->greetings = greeting->next;
        end_greeting(pager, greeting);
    }
}
