/* A process forks: its child gets what the parent has stored, at no cost, as a branch of the
 * parent's region. DESIGN.md, "Fork", says in which order and why. */
#include "space.h"

#include "fd_message.h"
#include "guard.h"
#include "../ini/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LOOK_AT_MOST = 65536, /* pages of the table, in one go */
    SPARE_FETCHES = 8,    /* left for the program's own faults */
};

/* ---- the kernel tells ---- */

bool fork_is_waited_for(const struct space *space)
{
    for (uint32_t i = 0; i < space->nwaiting; i++)
        if (space->waiting[i].event == UFFD_EVENT_FORK)
            return true;
    return false;
}

static struct space *parent_in(struct space *list, const struct space *child)
{
    while (list && list->fork_child != child)
        list = list->next;
    return list;
}

/* The parent may go on: what it stores from now on does not reach the child. */
void fork_branched(struct space *child)
{
    struct space *parent = parent_in(child->pager->spaces, child);
    if (!parent)
        parent = parent_in(child->pager->dying, child);
    if (parent) {
        parent->fork_child = NULL;
        parent->fork_done = true;
    }
}

/* Areas that the child finds empty (MADV_WIPEONFORK): nothing stored is to come back there. */
static void wipe(void *arg, struct proc_range range)
{
    struct space *child = arg;
    uint64_t end = range.end / PAGE_BYTES;
    for (uint64_t page = page_table_next(child->table, range.start / PAGE_BYTES, end); page < end;
         page = page_table_next(child->table, page + 1, end)) {
        page_table_clear_stored(child->table, page);
        if (page_table_state(child->table, page) != PAGE_ZERO)
            page_table_set(child->table, page, PAGE_ZERO);
    }
}

static int copy_tables(struct space *child, const struct space *parent)
{
    page_table_destroy(&child->table);
    area_map_destroy(&child->areas);
    int err = page_table_copy(&child->table, parent->table);
    return err ? err : area_map_copy(&child->areas, parent->areas);
}

void fork_find_wiped(struct space *child, pid_t pid)
{
    uint64_t had = page_table_count(child->table, PAGE_RESIDENT);
    child->wiped = true;
    int err = proc_map_walk_wiped(pid, wipe, child);
    child->fork_base -= had - page_table_count(child->table, PAGE_RESIDENT);
    if (!err || err == -ESRCH)
        return;
    log_fatal("Pager",
              "cannot see what %d, which was forked, has of its parent: %s: the program is ended",
              (int)pid, strerror(-err));
    pager_fail(child->pager);
}

static int make_child(struct space *parent, int uffd)
{
    struct pager *pager = parent->pager;
    struct space *child;
    int err = space_new(&child, pager);
    if (err)
        return err;
    err = copy_tables(child, parent);
    if (err) {
        space_free(&child);
        return err;
    }
    child->uffd = uffd;
    child->has_fork_event = true;
    child->pressed = true;
    child->being_made = true;
    child->mark = parent->mark;
    child->doomed = parent->lost;
    child->fork_base = page_table_count(child->table, PAGE_RESIDENT);
    child->readahead = parent->readahead;
    space_add(child);
    parent->fork_child = child;
    log_debug("Pager", "%d forks with %llu pages outside", (int)parent->pid,
              (unsigned long long)space_pages_out(parent));
    return region_branch(child, parent);
}

/* The child runs already, and would find zeros if edm were killed before the guard had its
 * userfaultfd too. */
void fork_read(struct space *space, int child_uffd)
{
    if (fcntl(child_uffd, F_SETFL, O_NONBLOCK) || fcntl(child_uffd, F_SETFD, FD_CLOEXEC)) {
        log_fatal("Pager", "a child's userfaultfd: %s", strerror(errno));
        pager_fail(space->pager);
    }
    guard_keep(space->pager->config.guard_fd, child_uffd);
}

bool fork_answer(struct space *space, int child_uffd)
{
    if (space->fork_done) {
        space->fork_done = false;
        return true;
    }
    /* Every page must be in the process's memory, and so in its child's, or in the store. */
    if (space->fork_child || space->pager->failed || space_has_batches(space))
        return false;
    space->pager->counters.forks++;
    if (space_pages_out(space) == 0 && !space->lost) {
        /* The child has all there is: without its userfaultfd it runs natively. */
        guard_let_go(space->pager->config.guard_fd, child_uffd);
        close(child_uffd);
        return true;
    }
    int err = make_child(space, child_uffd);
    if (err) {
        log_fatal("Pager", "%d has forked and its child cannot be served: %s: the program is ended",
                  (int)space->pid, strerror(-err));
        pager_fail(space->pager);
    }
    return false;
}

/* ---- the kernel does not tell ---- */

bool fork_is_prepared(const struct space *space)
{
    for (int i = 0; i < SPACE_FORKING; i++)
        if (space->forking[i].connection >= 0)
            return true;
    return false;
}

int fork_prepare(struct space *space, int connection)
{
    for (int i = 0; i < SPACE_FORKING; i++)
        if (space->forking[i].connection < 0) {
            space->forking[i] = (struct forking){connection, false};
            space->pager->counters.forks++;
            return 0;
        }
    return -EAGAIN;
}

static bool has_spare_fetch(const struct space *space)
{
    int nfree = 0;
    for (int i = 0; i < SPACE_FETCHES; i++)
        nfree += space->fetches[i].state == FETCH_FREE;
    return nfree > SPARE_FETCHES;
}

/* As if the agent had touched them all. */
static void bring_in(struct space *space, uint64_t now_us)
{
    for (int looked = 0; looked < LOOK_AT_MOST && has_spare_fetch(space); looked++) {
        uint64_t page = page_table_next(space->table, space->bring_at, UINT64_MAX / PAGE_BYTES);
        if (page == UINT64_MAX / PAGE_BYTES) {
            space->bring_at = 0;
            return;
        }
        enum page_state state = page_table_state(space->table, page);
        space->bring_at = page + 1;
        if (state == PAGE_STAGED || state == PAGE_REMOTE || state == PAGE_READY)
            fault_handle(space, (struct fault){page, now_us, space->agent_own_tid, false});
    }
}

static bool fits(const struct space *space)
{
    const struct pager *pager = space->pager;
    uint64_t out = space_pages_out(space);
    if (pager_resident(pager) + out <= pager->limit)
        return true;
    log_fatal(
        "Pager",
        "%d is about to fork while %llu of its pages are stored elsewhere. Without EVENT_FORK "
        "(CAP_SYS_PTRACE) they have to be brought in before, and do not fit into --local: the "
        "program is ended",
        (int)space->pid, (unsigned long long)out);
    return false;
}

static void let_fork(struct forking *forking)
{
    struct agent_go go = {AGENT_MANAGE, 0};
    forking->answered = true;
    if (fd_message_send(forking->connection, &go, sizeof go, NULL, 0, MSG_DONTWAIT)) {
        close(forking->connection);
        forking->connection = -1;
    }
}

/* Takes note of forks that are done. */
static void take_ends(struct space *space)
{
    for (int i = 0; i < SPACE_FORKING; i++) {
        struct forking *forking = &space->forking[i];
        char byte;
        if (forking->connection >= 0 && recv(forking->connection, &byte, 1, MSG_DONTWAIT) >= 0) {
            close(forking->connection);
            forking->connection = -1;
        }
    }
}

void fork_serve(struct space *space, uint64_t now_us)
{
    take_ends(space);
    if (space->pager->failed)
        return;
    bool waits = false;
    for (int i = 0; i < SPACE_FORKING; i++)
        waits = waits || (space->forking[i].connection >= 0 && !space->forking[i].answered);
    if (!waits)
        return;
    if (space_pages_out(space) > 0) {
        if (space->work == AGENT_IDLE && !fits(space))
            pager_fail(space->pager);
        else
            bring_in(space, now_us);
        return;
    }
    if (space_has_batches(space))
        return;
    for (int i = 0; i < SPACE_FORKING; i++)
        if (space->forking[i].connection >= 0 && !space->forking[i].answered)
            let_fork(&space->forking[i]);
}
