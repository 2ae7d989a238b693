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
    SEALS_LOOKED_AT = 16384, /* pages of a change: evidence enough */
    LOOK_AT_MOST = 65536,    /* pages of the table, in one go */
    SPARE_FETCHES = 8,       /* left for the program's own faults */
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

/* FOUND is, in RANGE, where the process's pages have all of IS and none of IS_NOT (KPAGE_IS_*). */
static int scan(int pagemap, struct agent_range range, uint64_t is, uint64_t is_not,
                struct area_map *found)
{
    enum { AT_ONCE = 64 };
    uint64_t end = range.end * PAGE_BYTES;
    int err = area_map_remove(found, range.start, range.end);
    for (uint64_t next, at = range.start * PAGE_BYTES; !err && at < end; at = next) {
        struct kpage_region regions[AT_ONCE];
        int count = uffd_scan(pagemap, at, end, is, is_not, regions, AT_ONCE, &next);
        err = count < 0 ? count : 0;
        for (int i = 0; i < count && !err; i++)
            err = area_map_add(found, regions[i].start / PAGE_BYTES, regions[i].end / PAGE_BYTES);
    }
    return err;
}

/* The same of pages that TABLE says are sealed. */
static int list_sealed(const struct page_table *table, struct agent_range range,
                       struct area_map *found)
{
    int err = area_map_remove(found, range.start, range.end);
    uint64_t page = page_table_next(table, range.start, range.end);
    while (page < range.end && !err) {
        uint64_t end = page;
        while (end < range.end && page_table_sealed(table, end))
            end++;
        err = end > page ? area_map_add(found, page, end) : 0;
        page = page_table_next(table, end > page ? end : page + 1, range.end);
    }
    return err;
}

/* What the child has of what the changes are about, and what its tables, the parent's of before,
 * say that is sealed there. */
static int look_at_ranges(const struct unsure *unsure, int pagemap, const struct page_table *table,
                          struct fork_maps *parent, const struct fork_maps *child)
{
    int err = 0;
    for (uint32_t i = 0; i < unsure->count; i++) {
        struct agent_range ranges[2];
        for (int r = change_ranges(&unsure->changes[i], ranges) - 1; r >= 0 && !err; r--) {
            err = scan(pagemap, ranges[r], KPAGE_IS_WPALLOWED, 0, child->areas);
            if (ranges[r].end - ranges[r].start > SEALS_LOOKED_AT)
                ranges[r].end = ranges[r].start + SEALS_LOOKED_AT;
            if (!err)
                err = scan(pagemap, ranges[r], UFFD_SEAL_IS, UFFD_SEAL_IS_NOT, child->seals);
            if (!err)
                err = list_sealed(table, ranges[r], parent->seals);
        }
    }
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

/* Which changes came before the fork, by what PID has, which is the child. */
static int find_moment(struct unsure *unsure, pid_t pid, int pagemap, const struct space *child)
{
    struct fork_maps parent = {0}, found = {0};
    int err = area_map_copy(&parent.areas, child->areas);
    if (!err)
        err = area_map_new(&parent.seals);
    if (!err)
        err = area_map_new(&found.areas);
    if (!err)
        err = area_map_new(&found.seals);
    if (!err)
        err = look_at_ranges(unsure, pagemap, child->table, &parent, &found);
    if (!err)
        err = fork_moment_find(unsure->changes, unsure->count, count_certain(unsure, pid),
                               unsure->before, &parent, &found);
    area_map_destroy(&parent.areas);
    area_map_destroy(&parent.seals);
    area_map_destroy(&found.areas);
    area_map_destroy(&found.seals);
    return err;
}

/* What the child should have seals of, in RANGE, and has none was given up before the fork. */
static void empty_unsealed(struct space *child, int pagemap, struct agent_range range)
{
    for (uint64_t page = page_table_next(child->table, range.start, range.end); page < range.end;
         page = page_table_next(child->table, page + 1, range.end)) {
        uint64_t empty;
        if (page_table_sealed(child->table, page) && uffd_find_empty(pagemap, page, 1, &empty) &&
            empty)
            events_empty(child, page);
    }
}

void fork_settle(struct space *child, pid_t pid)
{
    struct unsure *unsure = child->unsure;
    if (!unsure)
        return;
    child->unsure = NULL;
    int pagemap = pid == 0 ? -ESRCH : uffd_open_pagemap(pid);
    int err = pagemap < 0 ? pagemap : find_moment(unsure, pid, pagemap, child);
    uint32_t come = 0;
    for (uint32_t i = 0; i < unsure->count; i++) {
        if (err) /* it cannot be known */
            unsure->changes[i].has_come = i < unsure->before;
        come += unsure->changes[i].has_come;
        if (unsure->changes[i].has_come)
            events_believe_one(child, &unsure->changes[i].message);
    }
    log_debug("Pager", "%d has %u of %u changes made while it was forked%s%s", (int)pid, come,
              unsure->count, err ? ", not known: " : "", err ? strerror(-err) : "");
    for (uint32_t i = 0; i < unsure->count && !err; i++) {
        struct agent_range ranges[2];
        for (int r = change_ranges(&unsure->changes[i], ranges) - 1; r >= 0; r--)
            empty_unsealed(child, pagemap, ranges[r]);
    }
    if (pagemap >= 0)
        close(pagemap);
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
    child->evict_clock = parent->evict_clock;
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
