/*
 * space: one program image in the pager's hands, and what the pager's parts share.
 *
 * Private to the pager: pager.c (the loop), pager_greet.c (an image reports), space.c (it is
 * made, and ends), pager_fault.c (faults and fetches), pager_reclaim.c (what leaves),
 * pager_events.c (the program changes its mappings), pager_look.c (finding memory).
 *
 * Thread: the pager's, all of it.
 */
#ifndef EDM_CLIENT_SPACE_H
#define EDM_CLIENT_SPACE_H

#include "area_map.h"
#include "brake.h"
#include "page_table.h"
#include "pager.h"
#include "proc_map.h"
#include "readahead.h"
#include "resident_queue.h"
#include "agent/agent_proto.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    SPACE_BATCHES = 16, /* 8 MiB of pool: enough to keep the write-back busy */
    SPACE_FETCHES = 64,
    SPACE_RECENT_MOVES = 64,
    SPACE_LEFT_PAGES = 64,
    SPACE_POOL_BYTES = SPACE_BATCHES * BATCH_PAGES * PAGE_BYTES,
    FETCH_PAGES = READAHEAD_MAX_PAGES,
};

#define NO_PAGE UINT64_MAX

/* What the agent is busy with. While it MOVES, no event may be read from the userfaultfd: see
 * DESIGN.md, "The order of events and moves". */
enum agent_work { AGENT_IDLE, AGENT_MOVING, AGENT_COPYING, AGENT_POPULATING };

struct fault {
    uint64_t page;
    uint64_t at_us;
    int32_t tid;
    bool write;
};

struct fault_list {
    struct fault *faults;
    size_t count, capacity;
};

enum fetch_state { FETCH_FREE, FETCH_SENT, FETCH_READY, FETCH_INSTALLING };

struct fetch {
    enum fetch_state state;
    struct space *space;
    uint32_t shard;
    uint32_t npages;
    uint32_t attempts;
    bool ahead;                 /* asked for ahead of use */
    uint64_t page[FETCH_PAGES]; /* NO_PAGE: nobody wants it any more */
    uint64_t key[FETCH_PAGES];
    uint64_t wanted_us[FETCH_PAGES]; /* when a fault on it was read; 0: none */
    struct rpc_body *body;
    uint64_t age;
};

struct space {
    struct pager *pager;
    struct space *next_dying;
    pid_t pid;
    bool dead; /* its image is gone; waits for batches and fetches to return */
    int agent, uffd, hold_uffd;
    int32_t agent_tid;
    bool has_fork_event;
    struct agent_range own[AGENT_OWN_RANGES];
    char *pool;
    struct proc_map *proc;
    struct page_table *table;
    struct area_map *areas;
    struct resident_queue *queue;
    struct readahead readahead;

    enum agent_work work;
    struct batch *moving;
    struct agent_run busy_runs[AGENT_BATCH_PAGES]; /* pages found shared: to be populated */
    uint32_t nbusy;
    bool batch_used[SPACE_BATCHES];
    struct batch batches[SPACE_BATCHES];
    struct fetch fetches[SPACE_FETCHES];
    uint64_t fetch_clock;
    struct fault_list held;  /* wait for room in the budget */
    struct fault_list again; /* wait for events to be read */
    struct drop *drop;       /* being filled */
    /* Where memory was moved to while other events were still to come: see on_unmap(). */
    struct agent_range recent_moves[SPACE_RECENT_MOVES]; /* page numbers */
    uint32_t nrecent;
    uint64_t left[SPACE_LEFT_PAGES]; /* pages that mremap() fills: see leave_to_mremap() */
    uint32_t nleft;
    int fork_fd; /* connection of a thread about to fork; -1 */

    bool pressed; /* registered and reclaiming, no longer native */
    bool look_again;
    uint64_t registered; /* mappings, so far */
    uint64_t looked_us, look_cost_us, rescanned_us, rescan_wait_us, threads_us;
    uint64_t virtual_pages;    /* at the last look */
    uint64_t anonymous_pages;  /* at the last sample */
    uint64_t sampled_resident; /* the table's count then */
    uint64_t barren_until_us;  /* nothing could be moved: do not try before */
    uint32_t barren;
    uint64_t retry_move_us;
    bool reclaiming;
    struct brake brake; /* held while unregistered memory grows */
    uint64_t brake_denied_us;
    uint64_t evict_clock; /* pages evicted so far */
    uint64_t zero_next;   /* where a run of first touches goes on */
    uint32_t zero_run;
};

struct pager {
    struct pager_config config;
    const struct shard_set *set;
    struct rpc *rpc;
    struct write_back *write_back;
    pthread_t thread;
    int wake_fd; /* main -> pager */
    int news_fd; /* pager -> main */
    _Atomic int program;
    _Atomic bool stop;
    _Atomic bool managed_news, failed;
    _Atomic uint64_t images;
    _Atomic bool present;
    uint64_t limit, high, low, press; /* pages */
    struct space *space;              /* the program */
    struct space *dying;              /* earlier images, still waited for */
    struct greeting *greetings;       /* who has connected and has not reported yet */
    struct wire_request request;
    struct pager_counters counters;
    pthread_mutex_t published_lock; /* innermost: nothing is called under it */
    struct pager_counters published;
    uint64_t published_us;
};

/* space.c */
int space_new(struct space **out, struct pager *pager, pid_t pid, int pool_fd)
    __attribute__((warn_unused_result));
void space_free(struct space **space);               /* nothing may refer to it any more */
uint64_t space_pages_out(const struct space *space); /* pages the program would miss */
void space_end(struct space *space);                 /* the image is gone */
void space_reap(struct pager *pager);                /* frees what nothing refers to any more */

/* pager.c */
void pager_tell_news(struct pager *pager);      /* wakes the main thread: see pager_event() */
void pager_fail(struct pager *pager);           /* the program must not go on (already logged) */
uint64_t pager_room(const struct space *space); /* pages that may still come in */
uint64_t pager_resident(const struct space *space);

/* pager_greet.c */
int greet_step(struct pager *pager, bool connections, uint64_t now_us);
uint32_t greet_poll_fds(const struct pager *pager, struct pollfd *out, uint32_t cap);
void greet_end_all(struct pager *pager);

/* pager_fault.c */
void fault_list_add(struct fault_list *list, struct fault fault);
void fault_handle(struct space *space, struct fault fault);
void fault_retry(struct space *space);      /* those that waited for events */
void fault_retry_held(struct space *space); /* those that waited for room */
void fetch_install_pending(struct space *space);
void fetch_free_all(struct space *space);

/* pager_events.c */
int events_read(struct space *space); /* returns how many messages there were */
void events_serve_hold(struct space *space);
void events_unmap(struct space *space, uint64_t start, uint64_t end); /* pages */

/* pager_look.c */
void look_tick(struct space *space, uint64_t now_us);
int look_interval_us(const struct space *space);
void look_release(struct space *space, uint64_t now_us); /* lets braked threads go in time */
void look_at_threads(struct space *space, uint64_t now_us);

/* pager_reclaim.c */
bool reclaim_step(struct space *space, uint64_t now_us);
bool reclaim_is_hopeless(const struct space *space, uint64_t now_us);
void reclaim_on_agent(struct space *space, const struct agent_result *result);
void reclaim_take_back(struct space *space, struct batch *batch);
struct batch *reclaim_find_staged(struct space *space, uint64_t page, uint32_t *at);
void reclaim_drop_stored(struct space *space, uint64_t page);
void reclaim_flush_drops(struct space *space);
void reclaim_push(struct space *space, uint64_t page, bool proven);

#endif
