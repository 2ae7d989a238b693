/* What the pager keeps of one image of the program, from its making to its end. */
#include "space.h"

#include "program.h"
#include "../ini/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void space_free(struct space **space)
{
    struct space *s = *space;
    fetch_free_all(s);
    brake_clear(&s->brake);
    free(s->held.faults);
    free(s->again.faults);
    reclaim_free_drops(s);
    free(s->unsure);
    close_fd(&s->agent);
    close_fd(&s->uffd_info);
    close_fd(&s->uffd);
    close_fd(&s->hold_uffd);
    close_fd(&s->pidfd);
    for (int i = 0; i < SPACE_FORKING; i++)
        close_fd(&s->forking[i].connection);
    if (s->pool)
        munmap(s->pool, SPACE_POOL_BYTES);
    proc_map_close(&s->proc);
    mutex_pages_destroy(&s->mutex_pages);
    page_table_destroy(&s->table);
    area_map_destroy(&s->areas);
    resident_queue_destroy(&s->queue);
    free(s);
    *space = NULL;
}

int space_new(struct space **out, struct pager *pager)
{
    struct space *space = calloc(1, sizeof *space);
    if (!space)
        return -ENOMEM;
    space->pager = pager;
    space->agent = space->uffd = space->uffd_info = space->hold_uffd = space->pidfd = -1;
    for (int i = 0; i < SPACE_FORKING; i++)
        space->forking[i].connection = -1;
    int err = page_table_new(&space->table);
    if (!err)
        err = area_map_new(&space->areas);
    if (!err)
        err = resident_queue_new(&space->queue);
    if (err) {
        space_free(&space);
        return err;
    }
    for (uint32_t i = 0; i < SPACE_BATCHES; i++) {
        space->batches[i].owner = space;
        space->batches[i].region = &space->region;
        space->batches[i].index = i;
        space->batches[i].item.kind = WRITE_BACK_BATCH;
    }
    *out = space;
    return 0;
}

static void set_pool(struct space *space, char *pool)
{
    space->pool = pool;
    for (uint32_t i = 0; i < SPACE_BATCHES; i++)
        space->batches[i].bytes = pool + (size_t)i * BATCH_PAGES * PAGE_BYTES;
}

int space_take_process(struct space *space, struct space *from)
{
    if (space->proc || !from->proc)
        return -EINVAL;
    space->pid = from->pid;
    space->proc = from->proc;
    space->pidfd = from->pidfd;
    from->pidfd = -1;
    set_pool(space, from->pool);
    from->proc = NULL;
    from->pool = NULL;
    return 0;
}

int space_set_process(struct space *space, pid_t pid, int pool_fd)
{
    void *pool = mmap(NULL, SPACE_POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, pool_fd, 0);
    if (pool == MAP_FAILED)
        return -errno;
    set_pool(space, pool);
    space->pid = pid;
    space->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return proc_map_open(&space->proc, pid);
}

void space_add(struct space *space)
{
    struct pager *pager = space->pager;
    space->next = pager->spaces;
    pager->spaces = space;
    pager->processes++;
}

struct space *space_of(const struct pager *pager, pid_t pid)
{
    struct space *space = pager->spaces;
    while (space && space->pid != pid)
        space = space->next;
    return space;
}

void space_name(struct space *space)
{
    struct pager *pager = space->pager;
    struct image_figures *all = pager->counters.by_image, *found = NULL;
    for (int i = 0; i < PAGER_IMAGES && !found; i++)
        if (all[i].pid == 0)
            found = &all[i];
    for (int i = 0; i < PAGER_IMAGES && !found; i++) {
        pager->next_figures = (pager->next_figures + 1) % PAGER_IMAGES;
        if (all[pager->next_figures].ended)
            found = &all[pager->next_figures];
    }
    if (!found)
        return;
    *found = (struct image_figures){.pid = space->pid};
    proc_map_name(space->proc, found->name, sizeof found->name);
    space->figures = found;
}

static void take_from_live(struct space *space)
{
    struct space **at = &space->pager->spaces;
    while (*at && *at != space)
        at = &(*at)->next;
    if (!*at)
        return; /* it was never in hand */
    *at = space->next;
    if (space->pager->hopeful == space)
        space->pager->hopeful = NULL;
    space->pager->processes--;
}

bool space_is_left_alone(const struct space *space)
{
    return !space->proc && !space->pager->config.follow;
}

bool space_has_batches(const struct space *space)
{
    for (int i = 0; i < SPACE_BATCHES; i++)
        if (space->batch_used[i])
            return true;
    return false;
}

uint64_t space_pages_out(const struct space *space)
{
    return page_table_count(space->table, PAGE_STAGED) +
           page_table_count(space->table, PAGE_MOVING) +
           page_table_count(space->table, PAGE_REMOTE) +
           page_table_count(space->table, PAGE_FETCHING) +
           page_table_count(space->table, PAGE_READY);
}

/* Nobody will ask for its pages any more: the store may forget them. */
static void release(struct space *space)
{
    space->released = true;
    reclaim_forget_ungiven(space);
    if (space->owns_region) {
        region_remove(space);
        return;
    }
    for (const struct area *area; (area = area_map_after(space->areas, 0));)
        events_unmap(space, area->start, area->end);
    reclaim_flush_drops(space);
}

static void forget_work(struct space *space)
{
    if (space->moving) {
        /* What the agent had taken out and not copied yet has gone with it. */
        space->lost = true;
        space->batch_used[space->moving->index] = false;
        for (uint32_t i = 0; i < space->moving->npages; i++)
            if (space->moving->page[i] != NO_PAGE)
                page_table_set(space->table, space->moving->page[i], PAGE_ZERO);
        space->moving = NULL;
    }
    for (int i = 0; i < SPACE_FETCHES; i++)
        if (space->fetches[i].state != FETCH_FREE && space->fetches[i].state != FETCH_SENT)
            fetch_free(&space->fetches[i]);
}

/* The kernel writes a core of what is in memory. */
static void tell_of_core(const struct space *space)
{
    uint64_t out = space_pages_out(space);
    if (out > 0 && space->pid > 0 && program_has_dumped(space->pid, space->pidfd))
        log_warn(
            "Pager",
            "%d (%s): its core dump is not whole: %llu pages (%llu MiB) were not in its memory "
            "and read as zeros there",
            (int)space->pid, space->figures ? space->figures->name : "?", (unsigned long long)out,
            (unsigned long long)(out * PAGE_BYTES >> 20));
}

void space_end(struct space *space)
{
    struct pager *pager = space->pager;
    if (space->dead)
        return;
    /* Threads that are being traced can end, or go on as another image, only when we let them. */
    brake_release(&space->brake);
    tell_of_core(space);
    space->dead = true;
    if (space->figures)
        space->figures->ended = true;
    space->figures = NULL;
    take_from_live(space);
    if (space->pid == pager->program)
        pager->present = false;
    pager->ended_agents_cpu_us += space->agent_cpu_us;
    log_debug("Pager", "%d: this image is gone", (int)space->pid);
    forget_work(space);
    close_fd(&space->agent);
    close_fd(&space->uffd_info);
    close_fd(&space->uffd);
    close_fd(&space->hold_uffd);
    space->next = pager->dying;
    pager->dying = space;
    if (!fork_is_waited_for(space))
        release(space);
    implant_watch(pager, space->pid);
}

static bool is_referred_to(const struct space *space)
{
    /* A region that is still being made when nothing is asked for any more is removed in the end.
     */
    if (brake_is_busy(&space->brake) || space->region_answers > 0 || space->drops.first ||
        space->region_state == REGION_OPENING || space_has_batches(space))
        return true;
    for (int i = 0; i < SPACE_FETCHES; i++)
        if (space->fetches[i].state != FETCH_FREE)
            return true;
    return false;
}

void space_release_all(struct pager *pager)
{
    for (struct space *space = pager->dying; space; space = space->next)
        if (!space->released)
            release(space);
}

void space_reap(struct pager *pager)
{
    for (struct space **at = &pager->dying; *at;) {
        struct space *space = *at;
        brake_poll(&space->brake);
        if (!space->released) {
            /* It was ended in the middle of a fork: its child lives, and needs what it had. */
            events_believe(space);
            if (!fork_is_waited_for(space))
                release(space);
        }
        reclaim_flush_drops(space);
        if (!space->released || is_referred_to(space)) {
            at = &space->next;
            continue;
        }
        *at = space->next;
        space_free(&space);
    }
}
