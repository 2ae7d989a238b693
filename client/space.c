/* An image of the program comes (its agent connects) and goes (the agent hangs up). */
#include "space.h"

#include "guard.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    /* The agent answers at once, unless its machine is short of memory. */
    HANDSHAKE_S = 60,
    POOL_BYTES = SPACE_BATCHES * BATCH_PAGES * PAGE_BYTES,
    GATE_BYTES = BATCH_PAGES * PAGE_BYTES,
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void free_space(struct space **space)
{
    struct space *s = *space;
    fetch_free_all(s);
    brake_clear(&s->brake);
    free(s->held.faults);
    free(s->again.faults);
    free(s->drop);
    close_fd(&s->agent);
    close_fd(&s->uffd);
    close_fd(&s->hold_uffd);
    close_fd(&s->fork_fd);
    if (s->pool)
        munmap(s->pool, POOL_BYTES);
    proc_map_close(&s->proc);
    page_table_destroy(&s->table);
    area_map_destroy(&s->areas);
    resident_queue_destroy(&s->queue);
    free(s);
    *space = NULL;
}

static int new_space(struct space **out, struct pager *pager, pid_t pid, int pool_fd)
{
    struct space *space = calloc(1, sizeof *space);
    if (!space)
        return -ENOMEM;
    space->pager = pager;
    space->pid = pid;
    space->agent = space->uffd = space->hold_uffd = space->fork_fd = -1;
    int err = page_table_new(&space->table);
    if (!err)
        err = area_map_new(&space->areas);
    if (!err)
        err = resident_queue_new(&space->queue);
    if (!err)
        err = proc_map_open(&space->proc, pid);
    if (!err) {
        void *pool = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, pool_fd, 0);
        space->pool = pool == MAP_FAILED ? NULL : pool;
        err = space->pool ? 0 : -errno;
    }
    if (err) {
        free_space(&space);
        return err;
    }
    for (uint32_t i = 0; i < SPACE_BATCHES; i++) {
        space->batches[i].owner = space;
        space->batches[i].index = i;
        space->batches[i].bytes = space->pool + (size_t)i * BATCH_PAGES * PAGE_BYTES;
        space->batches[i].item.kind = WRITE_BACK_BATCH;
    }
    *out = space;
    return 0;
}

static int make_pool(void)
{
    int fd = memfd_create("edm-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, POOL_BYTES)) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

static int send_message(int connection, const void *from, size_t bytes, const int *fds, size_t nfds)
{
    struct iovec vector = {(void *)from, bytes};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (nfds > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, nfds * sizeof(int));
    }
    return sendmsg(connection, &message, MSG_NOSIGNAL) == (ssize_t)bytes ? 0 : -EPROTO;
}

static int receive_message(int connection, void *to, size_t bytes, int fds[2])
{
    struct iovec vector = {to, bytes};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    fds[0] = fds[1] = -1;
    ssize_t got = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -errno;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
         header = CMSG_NXTHDR(&message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            size_t nfds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(header), (nfds < 2 ? nfds : 2) * sizeof(int));
        }
    if (got == 0)
        return -ECONNRESET;
    return got == (ssize_t)bytes ? 0 : -EPROTO;
}

/* Takes the userfaultfds into our hands. */
static int take_hold(struct space *space, const struct agent_ready *ready)
{
    int err = uffd_begin(space->uffd, &space->has_fork_event);
    if (!err)
        err = uffd_begin_plain(space->hold_uffd);
    if (!err)
        err = uffd_register(space->uffd, ready->gate, ready->gate + GATE_BYTES);
    if (!err)
        err = uffd_register_plain(space->hold_uffd, ready->hold, ready->hold + GATE_BYTES);
    if (err) {
        log_fatal("Pager", "the program's userfaultfd cannot be used: %s", strerror(-err));
        return err;
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

static int greet(struct pager *pager, int connection, struct space *space, int pool_fd)
{
    struct agent_welcome welcome = {AGENT_MANAGE, pager->config.device_fd >= 0, POOL_BYTES};
    const int given[2] = {pool_fd, pager->config.device_fd};
    int err = send_message(connection, &welcome, sizeof welcome, given, welcome.has_device ? 2 : 1);
    struct agent_ready ready;
    int fds[2] = {-1, -1};
    if (!err)
        err = receive_message(connection, &ready, sizeof ready, fds);
    space->uffd = fds[0];
    space->hold_uffd = fds[1];
    if (err)
        return err;
    if (ready.error) {
        explain_refusal(&ready);
        return -ECANCELED;
    }
    err = take_hold(space, &ready);
    if (err)
        return -ECANCELED;
    struct agent_go go = {AGENT_MANAGE, !space->has_fork_event};
    return send_message(connection, &go, sizeof go, NULL, 0);
}

static int admit(struct pager *pager, int connection, pid_t pid)
{
    if (pager->space)
        space_end(pager->space); /* it has called exec; the hang-up is still to be read */
    struct space *space;
    int pool_fd = make_pool();
    int err = pool_fd < 0 ? pool_fd : new_space(&space, pager, pid, pool_fd);
    if (!err) {
        err = greet(pager, connection, space, pool_fd);
        if (err)
            free_space(&space);
    }
    if (pool_fd >= 0)
        close(pool_fd);
    if (err == -ECONNRESET)
        return 0; /* killed meanwhile */
    if (err) {
        if (err != -ECANCELED)
            log_fatal("Pager", "cannot take over the program: %s", strerror(-err));
        pager_fail(pager);
        return err;
    }
    space->agent = connection;
    pager->space = space;
    pager->images++;
    pager->present = true;
    pager->counters.images++;
    uint64_t one = 1;
    pager->managed_news = true;
    if (write(pager->news_fd, &one, sizeof one) < 0)
        log_warn("Pager", "cannot tell the news: %s", strerror(errno));
    log_info("Pager", "%d: the agent is in place%s", (int)pid,
             space->has_fork_event ? "" : " (no EVENT_FORK: forks are watched from inside)");
    return 1;
}

/* A thread of the program is about to fork, where the kernel will not tell us so itself. */
static int admit_fork(struct pager *pager, int connection)
{
    struct space *space = pager->space;
    if (!space || space->dead)
        return 0;
    uint64_t out =
        page_table_count(space->table, PAGE_STAGED) + page_table_count(space->table, PAGE_MOVING) +
        page_table_count(space->table, PAGE_REMOTE) +
        page_table_count(space->table, PAGE_FETCHING) + page_table_count(space->table, PAGE_READY);
    pager->counters.forks++;
    if (out > 0) {
        log_fatal(
            "Pager",
            "the program is about to fork while %llu of its pages are stored elsewhere, "
            "which this version cannot give to the child: the program is ended; with a larger "
            "--local it could go on",
            (unsigned long long)out);
        pager_fail(pager);
        return 0;
    }
    struct agent_go go = {AGENT_MANAGE, 0};
    if (send_message(connection, &go, sizeof go, NULL, 0))
        return 0;
    close_fd(&space->fork_fd);
    space->fork_fd = connection; /* nothing is taken out until it hangs up */
    return 1;
}

/* Returns 1 when the connection was kept. */
static int serve_connection(struct pager *pager, int connection)
{
    struct timeval limit = {.tv_sec = HANDSHAKE_S};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    struct ucred peer;
    socklen_t size = sizeof peer;
    struct agent_hello hello;
    int fds[2];
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) ||
        receive_message(connection, &hello, sizeof hello, fds))
        return 0;
    bool program = peer.pid == pager->program && hello.magic == AGENT_MAGIC &&
                   hello.bytes == sizeof(struct agent_command);
    if (program && hello.about_to_fork)
        return admit_fork(pager, connection);
    if (program)
        return admit(pager, connection, peer.pid) > 0;
    /* A child of the program: it runs natively. */
    struct agent_welcome welcome = {AGENT_LEAVE_ALONE, 0, 0};
    if (send_message(connection, &welcome, sizeof welcome, NULL, 0))
        log_debug("Pager", "%d hung up at once", (int)peer.pid);
    return 0;
}

int space_accept(struct pager *pager, int connection)
{
    int kept = serve_connection(pager, connection);
    if (!kept)
        close(connection);
    return kept;
}

void space_end(struct space *space)
{
    struct pager *pager = space->pager;
    if (space->dead)
        return;
    /* Threads that are being traced can end, or go on as another image, only when we let them. */
    brake_release(&space->brake);
    space->dead = true;
    pager->present = false;
    log_debug("Pager", "%d: this image is gone", (int)space->pid);
    /* The program may live on as another image: the store must not keep this one's pages. */
    for (const struct area *area; (area = area_map_after(space->areas, 0));)
        events_unmap(space, area->start, area->end);
    reclaim_flush_drops(space);
    if (space->moving) {
        space->batch_used[space->moving->index] = false;
        space->moving = NULL;
    }
    for (int i = 0; i < SPACE_FETCHES; i++)
        if (space->fetches[i].state == FETCH_READY || space->fetches[i].state == FETCH_INSTALLING) {
            rpc_body_destroy(&space->fetches[i].body);
            space->fetches[i].state = FETCH_FREE;
        }
    close_fd(&space->agent);
    close_fd(&space->uffd);
    close_fd(&space->hold_uffd);
    if (pager->space == space)
        pager->space = NULL;
    space->next_dying = pager->dying;
    pager->dying = space;
}

static bool is_referred_to(const struct space *space)
{
    if (brake_is_busy(&space->brake))
        return true;
    for (int i = 0; i < SPACE_BATCHES; i++)
        if (space->batch_used[i])
            return true;
    for (int i = 0; i < SPACE_FETCHES; i++)
        if (space->fetches[i].state != FETCH_FREE)
            return true;
    return false;
}

void space_reap(struct pager *pager)
{
    for (struct space **at = &pager->dying; *at;) {
        struct space *space = *at;
        brake_poll(&space->brake);
        if (is_referred_to(space)) {
            at = &space->next_dying;
            continue;
        }
        *at = space->next_dying;
        free_space(&space);
    }
}
