/* What the pager keeps of one image of the program, from its making to its end. */
#include "space.h"

#include "../ini/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
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
    free(s->drop);
    close_fd(&s->agent);
    close_fd(&s->uffd);
    close_fd(&s->hold_uffd);
    close_fd(&s->fork_fd);
    if (s->pool)
        munmap(s->pool, SPACE_POOL_BYTES);
    proc_map_close(&s->proc);
    page_table_destroy(&s->table);
    area_map_destroy(&s->areas);
    resident_queue_destroy(&s->queue);
    free(s);
    *space = NULL;
}

int space_new(struct space **out, struct pager *pager, pid_t pid, int pool_fd)
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
        void *pool = mmap(NULL, SPACE_POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, pool_fd, 0);
        space->pool = pool == MAP_FAILED ? NULL : pool;
        err = space->pool ? 0 : -errno;
    }
    if (err) {
        space_free(&space);
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

uint64_t space_pages_out(const struct space *space)
{
    return page_table_count(space->table, PAGE_STAGED) +
           page_table_count(space->table, PAGE_MOVING) +
           page_table_count(space->table, PAGE_REMOTE) +
           page_table_count(space->table, PAGE_FETCHING) +
           page_table_count(space->table, PAGE_READY);
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
        space_free(&space);
    }
}
