/* A process forks: its child gets what the parent has stored, at no cost, as a branch of the
 * parent's region. DESIGN.md, "Fork", says in which order and why. */
#include "space.h"

#include "fd_message.h"
#include "fork_moment.h"
#include "guard.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    LOOK_AT_MOST = 65536, /* pages of the table, in one go */
    SPARE_FETCHES = 8,    /* left for the program's own faults */
};

/* ---- the kernel tells ---- */

bool fork_is_waited_for(const struct space *space)
{
    for (uint32_t i = 0; i < space->nwaiting; i++)
        if (space->waiting[i].message.event == UFFD_EVENT_FORK)
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

/* ---- what another thread changed in the meantime ---- */

/* Changes that other threads of the parent made around a fork, and may have come before it. The
 * child's tables are what the parent's were before any of them. */
struct unsure {
    uint32_t count, before; /* before: so many of them were read before the fork */
    uint64_t events_queued; /* where the child has its parent's number of that */
    struct change changes[];
};

static int note_unsure(struct space *child, const struct space *parent, uint32_t before)
{
    if (parent->nwaiting <= 1)
        return 0;
    struct unsure *unsure =
        calloc(1, sizeof *unsure + parent->nwaiting * sizeof unsure->changes[0]);
    if (!unsure)
        return -ENOMEM;
    for (uint32_t i = 0; i < parent->nwaiting; i++)
        if (parent->waiting[i].message.event != UFFD_EVENT_FORK)
            unsure->changes[unsure->count++] = (struct change){
                .message = parent->waiting[i].message, .number = parent->waiting[i].number};
    unsure->before = before;
    unsure->events_queued = parent->events_queued;
    child->unsure = unsure;
    return 0;
}

/* Adds to FOUND what of RANGE is registered in the process. */
static int scan_registered(int pagemap, struct agent_range range, struct area_map *found)
{
    enum { AT_ONCE = 64 };
    uint64_t end = range.end * PAGE_BYTES;
    int err = area_map_remove(found, range.start, range.end);
    for (uint64_t next, at = range.start * PAGE_BYTES; !err && at < end; at = next) {
        struct kpage_region regions[AT_ONCE];
        int count = uffd_scan(pagemap, at, end, KPAGE_IS_WPALLOWED, 0, regions, AT_ONCE, &next);
        err = count < 0 ? count : 0;
        for (int i = 0; i < count && !err; i++)
            err = area_map_add(found, regions[i].start / PAGE_BYTES, regions[i].end / PAGE_BYTES);
    }
    return err;
}

/* Up to which page, but at most MOST, all is registered from PAGE on. */
static uint64_t end_of_registered(int pagemap, uint64_t page, uint64_t most)
{
    struct kpage_region region;
    uint64_t next, at = page * PAGE_BYTES;
    while (at < most * PAGE_BYTES &&
           uffd_scan(pagemap, at, most * PAGE_BYTES, KPAGE_IS_WPALLOWED, 0, &region, 1, &next) ==
               1 &&
           region.start == at)
        at = region.end;
    return at / PAGE_BYTES;
}

/* Memory that grows as it is moved may reach into what other changes are about. */
static void find_reach(int pagemap, struct unsure *unsure)
{
    struct agent_range ranges[2];
    uint64_t most = 0;
    for (uint32_t i = 0; i < unsure->count; i++)
        for (int r = change_ranges(&unsure->changes[i], ranges) - 1; r >= 0; r--)
            most = ranges[r].end > most ? ranges[r].end : most;
    for (uint32_t i = 0; i < unsure->count; i++)
        if (change_ranges(&unsure->changes[i], ranges) == 2)
            unsure->changes[i].reach = end_of_registered(pagemap, ranges[1].start, most);
}

static int find_registered(struct unsure *unsure, pid_t pid, struct area_map *found)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    int pagemap = open(path, O_RDONLY | O_CLOEXEC);
    int err = pagemap < 0 ? -errno : 0;
    for (uint32_t i = 0; i < unsure->count && !err; i++) {
        struct agent_range ranges[2];
        for (int r = change_ranges(&unsure->changes[i], ranges) - 1; r >= 0 && !err; r--)
            err = scan_registered(pagemap, ranges[r], found);
    }
    if (!err)
        find_reach(pagemap, unsure);
    if (pagemap >= 0)
        close(pagemap);
    return err;
}

/* How many of the changes had been made for certain when the child was copied. */
static uint32_t count_certain(const struct unsure *unsure, pid_t pid)
{
    uint64_t queued = 0;
    struct iovec to = {&queued, sizeof queued};
    struct iovec from = {(void *)unsure->events_queued, sizeof queued};
    if (process_vm_readv(pid, &to, 1, &from, 1, 0) != (ssize_t)sizeof queued)
        return 0;
    uint32_t certain = 0;
    while (certain < unsure->count && unsure->changes[certain].number <= queued)
        certain++;
    return certain;
}

/* Which changes came before the fork, by the mappings of PID, which is the child. */
static int find_moment(struct unsure *unsure, pid_t pid, const struct area_map *before_all)
{
    struct area_map *areas = NULL, *found = NULL;
    int err = area_map_new(&found);
    if (!err)
        err = area_map_copy(&areas, before_all);
    if (!err)
        err = find_registered(unsure, pid, found);
    if (!err)
        err = fork_moment_find(unsure->changes, unsure->count, count_certain(unsure, pid),
                               unsure->before, areas, found);
    area_map_destroy(&areas);
    area_map_destroy(&found);
    return err;
}

void fork_settle(struct space *child, pid_t pid)
{
    struct unsure *unsure = child->unsure;
    if (!unsure)
        return;
    child->unsure = NULL;
    int err = pid == 0 ? -ESRCH : find_moment(unsure, pid, child->areas);
    uint32_t come = 0;
    for (uint32_t i = 0; i < unsure->count; i++) {
        struct change *change = &unsure->changes[i];
        if (err) /* it cannot be known */
            change->has_come = i < unsure->before;
        come += change->has_come;
        if (change->has_come)
            events_believe_one(child, &change->message);
    }
    log_debug("Pager", "%d has %u of %u changes made while it was forked%s%s", (int)pid, come,
              unsure->count, err ? ", not known: " : "", err ? strerror(-err) : "");
    free(unsure);
}

/* ---- */

void fork_find_wiped(struct space *child, pid_t pid)
{
    uint64_t had = page_table_count(child->table, PAGE_RESIDENT);
    child->wiped = true;
    fork_settle(child, pid);
    int err = proc_map_walk_wiped(pid, wipe, child);
    child->fork_base -= had - page_table_count(child->table, PAGE_RESIDENT);
    if (!err || err == -ESRCH)
        return;
    log_fatal("Pager",
              "cannot see what %d, which was forked, has of its parent: %s: the program is ended",
              (int)pid, strerror(-err));
    pager_fail(child->pager);
}

static int make_child(struct space *parent, uint32_t at)
{
    struct pager *pager = parent->pager;
    struct space *child;
    int err = space_new(&child, pager);
    if (err)
        return err;
    err = copy_tables(child, parent);
    if (!err)
        err = note_unsure(child, parent, at);
    if (err) {
        space_free(&child);
        return err;
    }
    child->uffd = (int)parent->waiting[at].message.arg.fork.ufd;
    child->has_fork_event = true;
    child->pressed = true;
    child->being_made = true;
    child->parent_pid = parent->pid;
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

bool fork_answer(struct space *space, uint32_t at)
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
        int child_uffd = (int)space->waiting[at].message.arg.fork.ufd;
        /* The child has all there is: without its userfaultfd it runs natively. */
        guard_let_go(space->pager->config.guard_fd, child_uffd);
        close(child_uffd);
        return true;
    }
    int err = make_child(space, at);
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

/* What was read ahead gives way to what is asked for. */
static bool has_spare_fetch(const struct space *space)
{
    int nspare = 0;
    for (int i = 0; i < SPACE_FETCHES; i++)
        nspare += space->fetches[i].state == FETCH_FREE || space->fetches[i].state == FETCH_READY;
    return nspare > SPARE_FETCHES;
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
