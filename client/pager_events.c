/* The program changes its mappings: what the kernel tells us of it, and in which order to believe
 * it. DESIGN.md, "The order of events and moves", says why this is right. */
#include "space.h"

#include "guard.h"
#include "program.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    REGIONS_AT_ONCE = 64,
    OFTEN_US = 10000,    /* events that are no further apart come often */
    GATHER_US = 1000000, /* where changes never end, faults wait so long for a quiet moment; */
    HURRY_US = 5000,     /* and so long where a thread waits that mremap() holds up */
};

/* Nothing that is under way for pages in [start, end) may reach them any more. */
static void cancel(struct space *space, uint64_t start, uint64_t end)
{
    for (int f = 0; f < SPACE_FETCHES; f++) {
        struct fetch *fetch = &space->fetches[f];
        for (uint32_t i = 0; fetch->state != FETCH_FREE && i < fetch->npages; i++)
            if (fetch->page[i] >= start && fetch->page[i] < end)
                fetch->page[i] = NO_PAGE;
    }
    for (int b = 0; b < SPACE_BATCHES; b++) {
        struct batch *batch = &space->batches[b];
        for (uint32_t i = 0; space->batch_used[b] && i < batch->npages; i++)
            if (batch->page[i] >= start && batch->page[i] < end)
                batch->page[i] = NO_PAGE;
    }
}

/* All that is known of [start, end) becomes void; the content is gone. */
static void forget(struct space *space, uint64_t start, uint64_t end, enum page_state state)
{
    cancel(space, start, end);
    for (uint64_t page = page_table_next(space->table, start, end); page < end;
         page = page_table_next(space->table, page + 1, end)) {
        reclaim_drop_stored(space, page);
        if (page_table_state(space->table, page) != state)
            page_table_set(space->table, page, state);
    }
}

void events_empty(struct space *space, uint64_t page)
{
    forget(space, page, page + 1, PAGE_ZERO);
    uffd_wake(space->uffd, page * PAGE_BYTES, 1);
}

static void check(struct space *space, int err)
{
    if (err) {
        log_fatal("Pager", "out of memory for the program's mappings");
        pager_fail(space->pager);
    }
}

void events_unmap(struct space *space, uint64_t start, uint64_t end)
{
    forget(space, start, end, PAGE_NATIVE);
    leaving_cut(&space->leaving, start, end);
    check(space, area_map_remove(space->areas, start, end));
}

/* The parts of [start, end) that are not registered now. */
static void unmap_unregistered(struct space *space, uint64_t start, uint64_t end)
{
    uint64_t at = start * PAGE_BYTES;
    uint64_t last = end * PAGE_BYTES;
    /* A child that has not reported has one thread: its events come in the order of things. */
    if (!space->proc)
        return;
    while (at < last) {
        struct kpage_region regions[REGIONS_AT_ONCE];
        uint64_t next = last;
        int count = uffd_scan(proc_map_pagemap(space->proc), at, last, KPAGE_IS_WPALLOWED, 0,
                              regions, REGIONS_AT_ONCE, &next);
        for (int i = 0; i < count; i++) {
            if (at < regions[i].start)
                events_unmap(space, at / PAGE_BYTES, regions[i].start / PAGE_BYTES);
            at = regions[i].end;
        }
        if (count < REGIONS_AT_ONCE)
            break;
    }
    if (at < last)
        events_unmap(space, at / PAGE_BYTES, end);
}

/* The kernel tells of an unmapping after the fact, and the events of two threads can come in
 * another order than things happened: memory may have been moved into the hole, and that we may
 * have heard first. What was moved there since all was quiet, and is registered, is not what was
 * unmapped. */
static void on_unmap(struct space *space, uint64_t start, uint64_t end)
{
    uint64_t at = start / PAGE_BYTES;
    uint64_t last = end / PAGE_BYTES;
    while (at < last) {
        uint64_t from = last, to = last;
        for (uint32_t i = 0; i < space->nrecent; i++) {
            const struct agent_range *moved = &space->recent_moves[i];
            if (moved->end > at && moved->start < from) {
                from = moved->start > at ? moved->start : at;
                to = moved->end < last ? moved->end : last;
            }
        }
        if (at < from)
            events_unmap(space, at, from);
        if (from < to)
            unmap_unregistered(space, from, to);
        at = to;
    }
    uffd_wake(space->uffd, start, (end - start) / PAGE_BYTES);
    space->look_again = true;
}

static void note_recent(struct space *space, struct agent_range range)
{
    if (space->nrecent == SPACE_RECENT_MOVES) {
        /* Never seen: as many moves without a quiet moment between them. Keep the newer half. */
        memmove(space->recent_moves, space->recent_moves + SPACE_RECENT_MOVES / 2,
                sizeof space->recent_moves / 2);
        space->nrecent /= 2;
    }
    space->recent_moves[space->nrecent++] = range;
}

/* One thread does one thing after the other. */
static bool has_other_threads(struct space *space)
{
    enum { AGENT_AND_ONE = 2 };
    uint64_t now_us = ticks_us();
    if (space->threaded_us > 0 && now_us < space->threaded_us + OFTEN_US)
        return true; /* too careful, where they have ended since */
    if (!space->proc || proc_map_count_threads(space->proc) <= AGENT_AND_ONE)
        return false;
    space->threaded_us = now_us;
    return true;
}

/* As it is read: where it has moved memory to, and whether it unmaps what was moved. */
static void note_move(struct space *space, const struct uffd_msg *message)
{
    if (message->event == UFFD_EVENT_REMAP && message->arg.remap.from != message->arg.remap.to &&
        has_other_threads(space)) {
        uint64_t start = message->arg.remap.to / PAGE_BYTES;
        note_recent(space,
                    (struct agent_range){start, start + message->arg.remap.len / PAGE_BYTES});
    }
    for (uint32_t i = 0; message->event == UFFD_EVENT_UNMAP && i < space->nrecent; i++)
        if (space->recent_moves[i].end > message->arg.remove.start / PAGE_BYTES &&
            space->recent_moves[i].start < message->arg.remove.end / PAGE_BYTES)
            space->urgent = true;
}

/* Before anything is read: who has unmapped what was moved waits for that, and cannot have put
 * anything in its place. What is not registered now is not what was moved there. */
static void forget_gone_moves(struct space *space)
{
    struct agent_range moves[SPACE_RECENT_MOVES];
    uint32_t count = space->nrecent;
    memcpy(moves, space->recent_moves, count * sizeof *moves);
    space->nrecent = 0;
    for (uint32_t m = 0; m < count; m++) {
        struct kpage_region regions[REGIONS_AT_ONCE];
        uint64_t next;
        int found = uffd_scan(proc_map_pagemap(space->proc), moves[m].start * PAGE_BYTES,
                              moves[m].end * PAGE_BYTES, KPAGE_IS_WPALLOWED, 0, regions,
                              REGIONS_AT_ONCE, &next);
        if (found < 0 || found == REGIONS_AT_ONCE)
            note_recent(space, moves[m]);
        else
            for (int i = 0; i < found; i++)
                note_recent(space, (struct agent_range){regions[i].start / PAGE_BYTES,
                                                        regions[i].end / PAGE_BYTES});
    }
}

/* The event comes before the pages go: see leaving.h. A process of which we know only the
 * userfaultfd has one thread, and nothing is looked for in it. */
static void on_remove(struct space *space, uint64_t start, uint64_t end)
{
    if (space->proc)
        leaving_add(&space->leaving, start / PAGE_BYTES, end / PAGE_BYTES);
    forget(space, start / PAGE_BYTES, end / PAGE_BYTES, PAGE_ZERO);
    uffd_wake(space->uffd, start, (end - start) / PAGE_BYTES);
}

static void shift(uint64_t *page, uint64_t from, uint64_t to, uint64_t npages)
{
    if (*page >= from && *page < from + npages)
        *page = *page - from + to;
}

static void on_remap(struct space *space, uint64_t from, uint64_t to, uint64_t npages)
{
    if (from == to)
        return;
    events_unmap(space, to, to + npages);
    for (int f = 0; f < SPACE_FETCHES; f++)
        for (uint32_t i = 0; i < FETCH_PAGES; i++)
            shift(&space->fetches[f].page[i], from, to, npages);
    for (int b = 0; b < SPACE_BATCHES; b++)
        for (uint32_t i = 0; space->batch_used[b] && i < BATCH_PAGES; i++)
            shift(&space->batches[b].page[i], from, to, npages);
    for (uint64_t page = page_table_next(space->table, from, from + npages); page < from + npages;
         page = page_table_next(space->table, page + 1, from + npages)) {
        uint64_t moved = page - from + to;
        page_table_rename(space->table, page, moved);
        if (page_table_state(space->table, moved) == PAGE_RESIDENT)
            reclaim_push(space, moved, false);
    }
    check(space, area_map_move(space->areas, from, to, npages));
    uffd_wake(space->uffd, from * PAGE_BYTES, npages);
    space->look_again = true;
}

void events_believe_one(struct space *space, const struct uffd_msg *message)
{
    switch (message->event) {
    case UFFD_EVENT_UNMAP:
        on_unmap(space, message->arg.remove.start, message->arg.remove.end);
        break;
    case UFFD_EVENT_REMOVE:
        on_remove(space, message->arg.remove.start, message->arg.remove.end);
        break;
    case UFFD_EVENT_REMAP:
        on_remap(space, message->arg.remap.from / PAGE_BYTES, message->arg.remap.to / PAGE_BYTES,
                 message->arg.remap.len / PAGE_BYTES);
        break;
    default:
        log_warn("Pager", "userfaultfd event %u is unknown", message->event);
        break;
    }
}

/* Answers the fault of a page in the hold: it can be missing only if the kernel has dropped a page
 * that the program had given up (MADV_FREE). */
void events_serve_hold(struct space *space)
{
    struct uffd_msg message;
    while (read(space->hold_uffd, &message, sizeof message) == (ssize_t)sizeof message)
        if (message.event == UFFD_EVENT_PAGEFAULT &&
            uffd_zero(space->hold_uffd, message.arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1),
                      1) < 0)
            log_warn("Pager", "a page of the hold cannot be filled");
}

/* ---- while mremap() fills ---- */

/* Whether a thread in CALL can have faulted on PAGE only because mremap() fills what a locked
 * mapping has grown by. Where the kernel chose the place, it is one we know nothing of yet. */
static bool grows(const struct space *space, const struct proc_call *call, uint64_t page)
{
    if (call->number != SYS_mremap || call->args[2] <= call->args[1])
        return false;
    if (!(call->args[3] & MREMAP_FIXED))
        return !area_map_find(space->areas, page);
    uint64_t at = page * PAGE_BYTES;
    return at >= call->args[4] + call->args[1] && at < call->args[4] + call->args[2];
}

/* Until the events are believed mremap() cannot go on. */
static void hurry(struct space *space)
{
    uint64_t since = ticks_us() - (GATHER_US - HURRY_US);
    if (since < space->gathering_us)
        space->gathering_us = since;
}

/* mremap() fills what a locked mapping grows by before it tells of having moved it, and until it
 * has told, the kernel lets us fill nothing: it would wait for itself. What is new is empty and
 * nothing of it can be out, so that page is left to the kernel until the next look registers the
 * mapping again. Only for a fault that was read just now: a thread that has left an earlier one
 * could be in another mremap() by this time. True: nothing more to do for it. */
static bool leave_to_mremap(struct space *space, struct fault fault)
{
    if (!space->proc || fault.tid == space->agent_own_tid || uffd_is_quiet(space->uffd))
        return false;
    uint64_t start = fault.page * PAGE_BYTES;
    struct proc_call call;
    int err = proc_map_thread_call(space->proc, fault.tid, &call);
    if (space->gathering && !err && call.number == SYS_mremap)
        hurry(space);
    /* Not asleep yet, or nobody knows yet what was where mremap() moves to: it will come again. */
    if (err == -EAGAIN || (!err && events_are_pending(space) && call.number == SYS_mremap)) {
        uffd_wake(space->uffd, start, 1);
        return true;
    }
    if (err || !grows(space, &call, fault.page))
        return false;
    err = uffd_unregister(space->uffd, start, start + PAGE_BYTES);
    if (err)
        log_debug("Pager", "page %#llx cannot be left alone: %s", (unsigned long long)fault.page,
                  strerror(-err));
    else if (space->nleft < SPACE_LEFT_PAGES)
        space->left[space->nleft++] = fault.page;
    uffd_wake(space->uffd, start, 1);
    space->look_again = true;
    return true;
}

/* What mremap() has filled by now is registered again, before it goes on: over the seam that an
 * unregistered page makes the program could not mremap() again. */
static void take_back_left(struct space *space)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < space->nleft; i++) {
        uint64_t start = space->left[i] * PAGE_BYTES;
        int there = uffd_page_is(proc_map_pagemap(space->proc), start, KPAGE_IS_PRESENT, 0);
        if (there == 0 && !uffd_is_quiet(space->uffd))
            space->left[kept++] = space->left[i];
        else if (there == 1 && uffd_register(space->uffd, start, start + PAGE_BYTES))
            space->look_again = true;
    }
    space->nleft = kept;
}

/* ---- reading ---- */

bool events_are_pending(const struct space *space)
{
    return space->nwaiting > 0 || space->being_made;
}

bool events_may_be_read(const struct space *space)
{
    return !space->dead && !space->being_made && space->work != AGENT_MOVING &&
           (space->nwaiting == 0 || space->gathering);
}

void events_verify(struct space *space)
{
    const struct area *area = area_map_after(space->areas, 0);
    while (area) {
        uint64_t end = area->end;
        unmap_unregistered(space, area->start, end);
        area = area_map_after(space->areas, end);
    }
}

static bool is_out(const struct space *space, uint64_t start, uint64_t end)
{
    for (uint64_t page = page_table_next(space->table, start, end); page < end;
         page = page_table_next(space->table, page + 1, end)) {
        enum page_state state = page_table_state(space->table, page);
        if (state != PAGE_RESIDENT && state != PAGE_ZERO)
            return true;
    }
    return false;
}

/* Whether it makes a difference to a child if the change comes before its fork or after it. What is
 * given up (REMOVE) it may find as it was or empty, as it may natively. */
static bool matters_to_child(const struct space *space, const struct uffd_msg *message)
{
    switch (message->event) {
    case UFFD_EVENT_FORK:
        return space_pages_out(space) > 0;
    case UFFD_EVENT_UNMAP:
        return is_out(space, message->arg.remove.start / PAGE_BYTES,
                      message->arg.remove.end / PAGE_BYTES);
    case UFFD_EVENT_REMAP:
        return is_out(space, message->arg.remap.from / PAGE_BYTES,
                      (message->arg.remap.from + message->arg.remap.len) / PAGE_BYTES);
    default:
        return false;
    }
}

/* The kernel tells of a fork and of an unmapping when they are over, of which first is chance. So
 * before either is believed all is read that is under way: with what another thread has unmapped a
 * child would lose what it has from before. Where all is quiet nobody forks, and what was read came
 * before the next fork. */
static bool must_gather(struct space *space)
{
    if (space->dead || space->urgent || !space->has_fork_event || uffd_is_quiet(space->uffd))
        return false;
    uint64_t now_us = ticks_us();
    if (!space->gathering) {
        bool matters = false;
        for (uint32_t i = 0; i < space->nwaiting && !matters; i++)
            matters = matters_to_child(space, &space->waiting[i].message);
        if (!matters)
            return false;
        space->gathering_us = now_us;
    }
    return space->nwaiting < SPACE_WAITING && now_us - space->gathering_us < GATHER_US;
}

/* With one thread one thing comes after the other, and where nothing is out nothing can be wrong.
 * That an event comes in the moment between the question whether there is one and the answer is
 * likely only where they come often. */
static bool must_tell(struct space *space)
{
    return space->has_fork_event && space_pages_out(space) > 0 &&
           (ticks_us() < space->event_us + OFTEN_US || !uffd_is_quiet(space->uffd)) &&
           has_other_threads(space);
}

/* A child shows with its copy of a number which events were queued before it was copied, and so are
 * about what came before it. It must be there before the event is read: until then who raised it
 * waits, and can fork no other child. Returns how many messages may be read. */
static size_t tell_next(struct space *space)
{
    uint64_t next = space->nevents + 1;
    if (!uffd_is_readable(space->uffd))
        return 0;
    if (space->queued_told == next || uffd_is_quiet(space->uffd)) /* quiet: it is a fault */
        return 1;
    if (space->uffd_info < 0)
        space->uffd_info = uffd_open_info(space->uffd);
    uint64_t nfaults = uffd_count_faults(space->uffd_info);
    if (nfaults > 0)
        return nfaults < SPACE_MESSAGES ? nfaults : SPACE_MESSAGES;
    if (proc_map_write(space->proc, space->events_queued, &next, sizeof next))
        space->queued_told = next;
    else
        log_debug("Pager", "%d cannot be written to: %s", (int)space->pid, strerror(errno));
    return 1;
}

static void take_from_waiting(struct space *space, uint32_t at)
{
    space->nwaiting--;
    memmove(space->waiting + at, space->waiting + at + 1,
            (space->nwaiting - at) * sizeof *space->waiting);
}

/* A child needs the tables as they were: nothing is believed before it has them. False: not yet. */
static bool answer_forks(struct space *space)
{
    for (uint32_t i = 0; i < space->nwaiting;) {
        if (space->waiting[i].message.event != UFFD_EVENT_FORK) {
            i++;
            continue;
        }
        if (!fork_answer(space, i))
            return false;
        take_from_waiting(space, i);
    }
    return true;
}

/* Whether PID has not reported, and for all that can be seen has the memory that was SPACE's
 * parent's: its mark is registered there. */
static bool may_be(const struct space *space, pid_t pid)
{
    int first = (int)syscall(SYS_pidfd_open, pid, 0); /* of no other thread */
    if (first < 0 || close(first) || space_of(space->pager, pid))
        return false;
    int pagemap = uffd_open_pagemap(pid);
    if (pagemap < 0)
        return pagemap == -EACCES || pagemap == -EPERM; /* else it has ended */
    int found = uffd_page_is(pagemap, space->mark * PAGE_BYTES, KPAGE_IS_WPALLOWED, 0);
    close(pagemap);
    return found > 0;
}

/* The process, one of the program's, whose first thread has faulted as TID; 0: it cannot be told.
 * In a pid namespace of its own TID is the number of somebody else here. What is left alone
 * (--follow=no) need not be below us. */
static pid_t process_called(const struct space *space, int32_t tid)
{
    pid_t pid = space->parent_pid > 0 ? program_child_called(space->parent_pid, tid) : 0;
    /* Its parent may have ended. */
    if (pid == 0 && (space_is_left_alone(space) || program_is_below(tid, getpid())) &&
        may_be(space, tid))
        pid = tid;
    return pid;
}

/* Believes what waits, in the order in which it was read. */
void events_believe(struct space *space)
{
    if (space->nwaiting == 0)
        return;
    space->gathering = !space->answering && must_gather(space);
    if (space->gathering)
        return;
    fork_settle(space, 0);
    space->answering = !answer_forks(space);
    if (space->answering)
        return;
    for (uint32_t i = 0; i < space->nwaiting; i++)
        events_believe_one(space, &space->waiting[i].message);
    space->nwaiting = 0;
    space->urgent = false;
}

/* Some of what its parent had is lost, and it must not see that. */
static void end_doomed(struct space *space, pid_t pid)
{
    if (pid > 0) {
        log_error("Pager",
                  "process %d is ended: its parent was killed while pages of both were on "
                  "their way out",
                  (int)pid);
        kill(pid, SIGKILL);
        return;
    }
    log_fatal("Pager", "a child was forked in a pid namespace of its own while its parent was "
                       "killed, and lacks some of its memory: the program is ended");
    pager_fail(space->pager);
}

/* Of a child that has not reported all we learn is who faults. */
static void learn(struct space *space, const struct uffd_msg *message)
{
    int32_t tid = (int32_t)message->arg.pagefault.feat.ptid;
    pid_t pid = space->first_tid == 0 || space->doomed ? process_called(space, tid) : 0;
    if (space->first_tid == 0 && pid > 0) {
        guard_end_with_us(space->pager->config.guard_fd, pid);
        fork_find_wiped(space, pid);
    }
    fork_settle(space, 0); /* where it cannot be told */
    space->first_tid = tid;
    if (space->doomed)
        end_doomed(space, pid);
    if (message->arg.pagefault.address / PAGE_BYTES == space->mark)
        space->marked_tid = tid;
}

/* The kernel hands out faults before events: the events are the older news. */
static void take_in(struct space *space, const struct uffd_msg *messages, int count)
{
    struct fault faults[SPACE_MESSAGES];
    int nfaults = 0;
    uint64_t now = space->pager->faulted_us = ticks_us();
    for (int i = 0; i < count; i++) {
        if (messages[i].event != UFFD_EVENT_PAGEFAULT) {
            if (messages[i].event == UFFD_EVENT_FORK)
                fork_read(space, (int)messages[i].arg.fork.ufd);
            note_move(space, &messages[i]);
            space->event_us = now;
            space->waiting[space->nwaiting++] = (struct event){messages[i], ++space->nevents};
            continue;
        }
        if (!space->proc)
            learn(space, &messages[i]);
        faults[nfaults++] = (struct fault){
            .page = messages[i].arg.pagefault.address / PAGE_BYTES,
            .at_us = now,
            .tid = (int32_t)messages[i].arg.pagefault.feat.ptid,
            .write = messages[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
        };
    }
    events_believe(space);
    if (space->figures)
        space->figures->faults += (uint64_t)nfaults;
    for (int i = 0; i < nfaults; i++) {
        space->pager->counters.faults_write += faults[i].write;
        if (!leave_to_mremap(space, faults[i]))
            fault_handle(space, faults[i]);
    }
}

/* While the agent COPIES, pages are neither in the program's memory nor in the pool, and would end
 * with the program. A thread that forks goes on when its event is read, and may end it at once: so
 * it has to wait. What is pending is not known to be a fork, but no fault can be answered before it
 * is read, either. */
static bool must_not_read(struct space *space)
{
    space->read_later = space->work == AGENT_COPYING && !uffd_is_quiet(space->uffd);
    return space->read_later;
}

int events_read(struct space *space)
{
    if (space->dead || space->work == AGENT_MOVING)
        return 0;
    events_believe(space);
    if (space->nrecent > 0 && space->nwaiting == 0 && uffd_is_quiet(space->uffd))
        space->nrecent = 0;
    int total = 0;
    while (events_may_be_read(space)) {
        struct uffd_msg messages[SPACE_MESSAGES];
        size_t room = SPACE_WAITING - space->nwaiting;
        size_t most = must_tell(space) ? tell_next(space) : SPACE_MESSAGES;
        if (most == 0)
            break;
        if (most > room)
            most = room;
        take_back_left(space);
        if (space->nrecent > 0)
            forget_gone_moves(space);
        if (must_not_read(space)) /* right before it is read */
            break;
        ssize_t got = read(space->uffd, messages, most * sizeof *messages);
        if (got <= 0)
            break;
        size_t count = (size_t)got / sizeof *messages;
        take_in(space, messages, (int)count);
        total += (int)count;
        /* Where there is always more, others have their turn, too. */
        if (count < most || total >= SPACE_MESSAGES)
            break;
    }
    return total;
}
