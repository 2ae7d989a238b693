/* What leaves the program, and what becomes of it. */
#include "space.h"

#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    POP_MOST = 4096, /* queue entries looked at for one batch */
    BARREN_MOST = 8, /* batches in a row of which nothing could be moved */
    BARREN_PAUSE_US = 20000,
    MOVE_RETRY_US = 50, /* mappings were changing: about a wake-up */
    AWAKE_US = 1000,    /* who was given work so lately is not asked whether it is stopped */
    QUEUE_SLACK = 65536,
};

void reclaim_push(struct space *space, uint64_t page, bool proven)
{
    struct resident_entry entry = {page, page_table_renew(space->table, page)};
    if (resident_queue_push(space->queue, entry, proven)) {
        /* Not in the queue: the page just stays. */
        log_warn("Pager", "out of memory for the resident queue");
    }
}

void reclaim_note_gone(struct space *space, uint64_t page)
{
    /* Any other reason would be a wrong byte: so it is said, but not of each. */
    if (space->ngone++ == 0)
        log_info("Pager",
                 "%d: page %#llx was in its memory and is gone: the kernel drops what was given up "
                 "with MADV_FREE when memory is short. This is not said of others",
                 (int)space->pid, (unsigned long long)(page * PAGE_BYTES));
}

/* ---- what the store may forget ---- */

static void free_drops(struct drop_list *list)
{
    while (list->first) {
        struct drop *drop = list->first;
        list->first = drop->next;
        free(drop);
    }
    list->last = NULL;
}

/* In their order, as many as are taken. False: not all. */
static bool give_drops(struct space *space)
{
    struct drop_list *list = &space->drops;
    while (list->first) {
        struct drop *drop = list->first;
        struct drop *next = drop->next;
        if (!write_back_give(space->pager->write_back, &drop->item))
            return false;
        list->first = next;
    }
    list->last = NULL;
    return true;
}

void reclaim_flush_drops(struct space *space)
{
    if (space->drops.first && !space->ungiven)
        (void)give_drops(space); /* the rest the next time */
}

void reclaim_free_drops(struct space *space)
{
    free_drops(&space->drops);
    free_drops(&space->late_drops);
}

/* A batch that waited does so no more: what was to be forgotten after it is next. */
static void no_more_ungiven(struct space *space)
{
    space->ungiven = NULL;
    space->pager->nungiven--;
    if (!space->late_drops.first)
        return;
    if (space->drops.last)
        space->drops.last->next = space->late_drops.first;
    else
        space->drops.first = space->late_drops.first;
    space->drops.last = space->late_drops.last;
    space->late_drops = (struct drop_list){NULL, NULL};
}

static struct drop *add_drop(struct space *space, struct drop_list *list)
{
    struct drop *drop = calloc(1, sizeof *drop);
    if (!drop)
        return NULL; /* the store keeps pages that nobody will ask for */
    drop->region = space->region;
    drop->item.kind = WRITE_BACK_DROP;
    if (list->last)
        list->last->next = drop;
    else
        list->first = drop;
    list->last = drop;
    return drop;
}

/* For the store it comes after the batch that waits, and before the next. */
static void drop_key(struct space *space, uint64_t key)
{
    struct drop_list *list = space->ungiven ? &space->late_drops : &space->drops;
    struct drop *drop = list->last;
    if (drop && drop->nranges > 0) {
        struct wire_range *last = &drop->ranges[drop->nranges - 1];
        if (last->first + last->npages == key) {
            last->npages++;
            return;
        }
    }
    if (!drop || drop->nranges == WIRE_MAX_RANGES)
        drop = add_drop(space, list);
    if (drop)
        drop->ranges[drop->nranges++] = (struct wire_range){key, 1};
}

void reclaim_drop_stored(struct space *space, uint64_t page)
{
    struct page_hash hash;
    const struct area *area = area_map_find(space->areas, page);
    enum page_state state = page_table_state(space->table, page);
    if (area && (state == PAGE_STAGED || page_table_stored(space->table, page, &hash)))
        drop_key(space, area_key(area, page));
    page_table_clear_stored(space->table, page);
}

/* ---- choosing ---- */

static bool is_live(void *arg, struct resident_entry entry)
{
    struct space *space = arg;
    return page_table_state(space->table, entry.page) == PAGE_RESIDENT &&
           page_table_generation(space->table, entry.page) == entry.generation;
}

static uint32_t choose(struct space *space, uint64_t *pages, uint64_t most)
{
    uint32_t count = 0;
    struct resident_entry entry;
    /* What has to stay goes back into the queue, and is not looked at twice. */
    size_t length = resident_queue_length(space->queue);
    size_t pops = length < POP_MOST ? length : POP_MOST;
    mutex_pages_read(&space->mutex_pages, space->proc, space->mutexes_at);
    for (; pops > 0 && count < most; pops--) {
        if (!resident_queue_pop(space->queue, &entry))
            break;
        if (!is_live(space, entry))
            continue;
        if (proc_map_pinned(space->proc, entry.page) ||
            mutex_pages_has(space->mutex_pages, entry.page))
            reclaim_push(space, entry.page, true);
        else
            pages[count++] = entry.page;
    }
    return resident_queue_sort_once(pages, count);
}

static struct batch *free_batch(struct space *space)
{
    for (uint32_t i = 0; i < SPACE_BATCHES; i++)
        if (!space->batch_used[i])
            return &space->batches[i];
    return NULL;
}

static bool send_command(struct space *space, const struct agent_command *command)
{
    size_t bytes = offsetof(struct agent_command, runs) + command->nruns * sizeof command->runs[0];
    /* A program that has just been killed is found out by the hang-up. */
    return send(space->agent, command, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)bytes;
}

static void fill_batch(struct space *space, struct batch *batch, const uint64_t *pages,
                       uint32_t npages, struct agent_command *command)
{
    *command = (struct agent_command){.op = AGENT_EVICT, .batch = batch->index};
    batch->npages = npages;
    for (uint32_t i = 0; i < npages; i++) {
        const struct area *area = area_map_find(space->areas, pages[i]);
        batch->page[i] = pages[i];
        batch->key[i] = area_key(area, pages[i]);
        batch->taken[i] = false;
        struct page_hash stored;
        command->had[i] = page_table_stored(space->table, pages[i], &stored);
        if (command->had[i])
            command->stored[i] = (struct agent_hash){stored.low, stored.high};
        page_table_set(space->table, pages[i], PAGE_MOVING);
        struct agent_run *last = command->nruns ? &command->runs[command->nruns - 1] : NULL;
        if (last && last->addr + last->npages * PAGE_BYTES == pages[i] * PAGE_BYTES)
            last->npages++;
        else
            command->runs[command->nruns++] = (struct agent_run){pages[i] * PAGE_BYTES, 1};
    }
}

static bool populate_busy(struct space *space)
{
    struct agent_command command = {.op = AGENT_POPULATE, .nruns = space->nbusy};
    for (uint32_t i = 0; i < space->nbusy; i++)
        command.runs[i] = (struct agent_run){space->busy[i] * PAGE_BYTES, 1};
    if (!send_command(space, &command)) {
        space->nbusy = 0;
        return false;
    }
    space->work = AGENT_POPULATING;
    space->work_us = ticks_us();
    return true;
}

/* The pages that have been made the process's own are the next to go: chosen anew, all of a large
 * process's would have to be found shared before the first could leave. */
static uint32_t take_populated(struct space *space, uint64_t *pages)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < space->nbusy; i++)
        if (page_table_state(space->table, space->busy[i]) == PAGE_RESIDENT)
            pages[count++] = space->busy[i];
    space->nbusy = 0;
    space->populated = false;
    return count;
}

/* A page leaves for good only from an area we know; resident pages outside of all areas cannot be.
 */
static uint32_t only_known(struct space *space, uint64_t *pages, uint32_t npages)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < npages; i++)
        if (area_map_find(space->areas, pages[i]))
            pages[kept++] = pages[i];
    return kept;
}

/* While it has work that it cannot do neither events nor faults are read. That must not happen when
 * another thread may touch memory: one that has stopped all the others with ptrace(2) and looks at
 * what they have, as LeakSanitizer does. */
static bool agent_is_stopped(struct space *space, uint64_t now_us)
{
    if (!space->agent_stopped && now_us > space->work_us + AWAKE_US)
        space->agent_stopped = proc_map_thread_stopped(space->proc, space->agent_tid);
    return space->agent_stopped;
}

bool reclaim_step(struct space *space, uint64_t now_us)
{
    struct pager *pager = space->pager;
    /* Begins above the high threshold and goes on down to the low one. */
    uint64_t resident = pager_resident(pager);
    pager->reclaiming = resident > pager->high || (pager->reclaiming && resident > pager->low);
    if (space->dead || !space->pressed || space->work != AGENT_IDLE || space->ungiven ||
        fork_is_prepared(space) || !space->serving || space->region_state != REGION_READY ||
        events_are_pending(space))
        return false;
    if (space->nbusy > 0 && !space->populated)
        return !agent_is_stopped(space, now_us) && populate_busy(space);
    if (!pager->reclaiming)
        return false;
    if (now_us < space->barren_until_us || now_us < space->retry_move_us)
        return false;
    struct batch *batch = free_batch(space);
    if (!batch || agent_is_stopped(space, now_us))
        return false;
    look_at_threads(space, now_us);
    uint64_t pages[BATCH_PAGES];
    /* Each process gives in proportion to what it has. */
    uint64_t most = (resident - pager->low) * space_resident(space) / resident + 1;
    uint32_t npages = 0;
    space->retrying = space->populated;
    if (space->retrying)
        npages = take_populated(space, pages);
    else
        npages = choose(space, pages, most < BATCH_PAGES ? most : BATCH_PAGES);
    npages = only_known(space, pages, npages);
    if (npages == 0) {
        space->barren_until_us = now_us + BARREN_PAUSE_US;
        space->look_barren = true;
        return false;
    }
    struct agent_command command;
    fill_batch(space, batch, pages, npages, &command);
    if (!send_command(space, &command)) {
        for (uint32_t i = 0; i < npages; i++) {
            page_table_set(space->table, pages[i], PAGE_RESIDENT);
            reclaim_push(space, pages[i], false);
        }
        return false;
    }
    space->batch_used[batch->index] = true;
    space->moving = batch;
    space->work = AGENT_MOVING;
    space->work_us = now_us;
    if (resident_queue_length(space->queue) >
        2 * page_table_count(space->table, PAGE_RESIDENT) + QUEUE_SLACK)
        resident_queue_compact(space->queue, is_live, space);
    return true;
}

static bool is_hopeless(const struct space *space, uint64_t now_us)
{
    if (!space->pressed || space->agent < 0 || fork_is_prepared(space))
        return true;
    /* Before it could begin, too: who would let it go on may be held by the brake. */
    if (space->agent_stopped)
        return true;
    if (!space->serving || space->work != AGENT_IDLE)
        return false;
    if (space->region_state != REGION_READY || events_are_pending(space))
        return false;
    if (space->nbusy > 0 && !space->populated)
        return false;
    return !space_has_batches(space) && now_us < space->barren_until_us;
}

bool reclaim_is_hopeless(struct pager *pager, uint64_t now_us)
{
    /* The one that was not so last time is not likely to be now. */
    if (pager->hopeful && !is_hopeless(pager->hopeful, now_us))
        return false;
    pager->hopeful = pager->spaces;
    while (pager->hopeful && is_hopeless(pager->hopeful, now_us))
        pager->hopeful = pager->hopeful->next;
    return !pager->hopeful;
}

/* ---- what the agent says ---- */

static void on_moved(struct space *space, const struct agent_result *result)
{
    struct batch *batch = space->moving;
    uint32_t moved = 0;
    bool again = false;
    for (uint32_t i = 0; i < batch->npages; i++) {
        uint64_t page = batch->page[i];
        switch (result->status[i]) {
        case 0:
            page_table_set(space->table, page, PAGE_STAGED);
            if (result->sealed[i / 64] >> i % 64 & 1)
                page_table_seal(space->table, page);
            page_table_set_evicted_at(space->table, page,
                                      (uint16_t)(++space->evict_clock / 256) | 1);
            batch->taken[i] = true;
            moved++;
            continue;
        case ENOENT:
        case EFAULT:
            /* Nothing there: dropped by the kernel for the program; or a guard. */
            if (result->status[i] == EFAULT && fault_has_seal(space, page))
                fault_lost(space, page);
            reclaim_note_gone(space, page);
            reclaim_drop_stored(space, page);
            page_table_set(space->table, page, PAGE_ZERO);
            batch->page[i] = NO_PAGE;
            continue;
        case EBUSY:
            /* Shared since a fork, or, if it still is busy afterwards, pinned. */
            if (!space->retrying)
                space->busy[space->nbusy++] = page;
            break;
        case EAGAIN:
            again = true;
            break;
        default:
            break;
        }
        page_table_set(space->table, page, PAGE_RESIDENT);
        reclaim_push(space, page, result->status[i] != EAGAIN);
        batch->page[i] = NO_PAGE;
    }
    space->pager->counters.pages_evicted += moved;
    if (space->figures)
        space->figures->pages_evicted += moved;
    space->retry_move_us = again ? ticks_us() + MOVE_RETRY_US : 0;
    if (moved || again)
        space->barren = 0;
    else if (space->nbusy == 0)
        space->barren++;
    if (space->barren >= BARREN_MOST) {
        space->barren = 0;
        space->barren_until_us = ticks_us() + BARREN_PAUSE_US;
    }
    space->work = AGENT_COPYING;
}

/* What the store has already goes no further. Returns how many pages do. */
static uint32_t settle_clean(struct space *space, struct batch *batch,
                             const struct agent_result *result)
{
    uint32_t changed = 0;
    for (uint32_t i = 0; i < batch->npages; i++) {
        uint64_t page = batch->page[i];
        if (!batch->taken[i])
            continue;
        if (page != NO_PAGE && result->status[i] != AGENT_CLEAN) {
            changed++;
            continue;
        }
        batch->taken[i] = false;
        batch->page[i] = NO_PAGE;
        if (page == NO_PAGE)
            continue; /* the program has given it up meanwhile */
        space->pager->counters.pages_clean_dropped++;
        page_table_set(space->table, page, PAGE_REMOTE);
    }
    return changed;
}

static struct space *longest_waiting(struct space *list, struct space *found)
{
    for (struct space *space = list; space; space = space->next)
        if (space->ungiven && (!found || space->copied < found->copied))
            found = space;
    return found;
}

/* In their order, so that nobody waits for those whom others make wait. */
void reclaim_give(struct pager *pager)
{
    while (pager->nungiven > 0 && pager->ngiven < WRITE_BACK_MOST_BATCHES) {
        struct space *next = longest_waiting(pager->dying, longest_waiting(pager->spaces, NULL));
        /* What is forgotten before the batch: a drop that came after it would take what the batch
         * stores. */
        if (!next || !give_drops(next) || !write_back_give(pager->write_back, &next->ungiven->item))
            return;
        pager->ngiven++;
        no_more_ungiven(next);
    }
}

void reclaim_forget_ungiven(struct space *space)
{
    if (!space->ungiven)
        return;
    space->batch_used[space->ungiven->index] = false;
    no_more_ungiven(space);
}

static void on_copied(struct space *space, const struct agent_result *result)
{
    struct batch *batch = space->moving;
    space->moving = NULL;
    space->work = result->empties ? AGENT_EMPTYING : AGENT_IDLE;
    space->work_us = ticks_us();
    if (settle_clean(space, batch, result) == 0) {
        space->batch_used[batch->index] = false;
        return;
    }
    space->ungiven = batch;
    space->copied = ++space->pager->copied;
    space->pager->nungiven++;
    reclaim_give(space->pager);
}

static void on_refused(const struct space *space, const struct agent_result *result)
{
    bool is_program = space->pid == space->pager->program;
    log_write(is_program ? LOG_LEVEL_FATAL : LOG_LEVEL_ERROR, "Pager",
              "%d (%s) is ended: a system call of EDM's thread in it is refused (%s), by a seccomp "
              "filter that it has set on all of its threads",
              (int)space->pid, space->figures ? space->figures->name : "?",
              strerror((int)result->batch));
    if (is_program)
        pager_fail(space->pager);
    else
        kill(space->pid, SIGKILL);
}

void reclaim_on_agent(struct space *space, const struct agent_result *result)
{
    if (result->op == AGENT_SERVING && !space->serving) {
        space->serving = true;
        space->serving_us = ticks_us();
    } else if (result->op == AGENT_MOVED && space->work == AGENT_MOVING) {
        on_moved(space, result);
    } else if (result->op == AGENT_COPIED && space->work == AGENT_COPYING) {
        on_copied(space, result);
    } else if (result->op == AGENT_EMPTIED && space->work == AGENT_EMPTYING) {
        space->work = AGENT_IDLE;
    } else if (result->op == AGENT_POPULATED && space->work == AGENT_POPULATING) {
        space->work = AGENT_IDLE;
        space->populated = true;
    } else if (result->op == AGENT_REFUSED) {
        on_refused(space, result);
    } else {
        log_fatal("Pager", "the agent said %u while doing %d", result->op, (int)space->work);
        pager_fail(space->pager);
    }
}

/* ---- what the write-back hands back ---- */

void reclaim_take_back(struct space *space, struct batch *batch)
{
    struct pager *pager = space->pager;
    pager->ngiven--;
    if (batch->status != WIRE_OK && !space->released) {
        /* The other batches meet the same: said once. */
        if (!pager->failed)
            log_fatal("Pager", "pages cannot be stored: %s: %s", wire_status_name(batch->status),
                      batch->detail);
        pager_fail(pager);
        return; /* the batch stays: its pages are still only here */
    }
    for (uint32_t i = 0; i < batch->npages && !space->released; i++) {
        uint64_t page = batch->page[i];
        if (page == NO_PAGE || batch->outcome[i] == OUTCOME_SKIP)
            continue;
        if (batch->outcome[i] == OUTCOME_ZERO) {
            struct page_hash hash;
            if (page_table_stored(space->table, page, &hash))
                reclaim_drop_stored(space, page);
            page_table_set(space->table, page, PAGE_ZERO);
            pager->counters.pages_zero_dropped++;
            continue;
        }
        page_table_set_stored(space->table, page, batch->hash[i]);
        page_table_set(space->table, page, PAGE_REMOTE);
    }
    space->batch_used[batch->index] = false;
}

struct batch *reclaim_find_staged(struct space *space, uint64_t page, uint32_t *at)
{
    for (uint32_t b = 0; b < SPACE_BATCHES; b++) {
        struct batch *batch = &space->batches[b];
        for (uint32_t i = 0; space->batch_used[b] && i < batch->npages; i++)
            if (batch->page[i] == page) {
                *at = i;
                return batch;
            }
    }
    return NULL;
}
