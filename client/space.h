/*
 * space: one program image in the pager's hands, and what the pager's parts share.
 *
 * Private to the pager: pager.c (the loop), pager_greet.c (an image reports), space.c (it is
 * made, and ends), pager_fault.c (faults and fetches), pager_reclaim.c (what leaves),
 * pager_events.c (the program changes its mappings), pager_look.c (finding memory),
 * pager_implant.c (programs that load no agent), pager_limit.c (the budget changes).
 *
 * Thread: the pager's, all of it.
 */
#ifndef EDM_CLIENT_SPACE_H
#define EDM_CLIENT_SPACE_H

#include "area_map.h"
#include "brake.h"
#include "handoff.h"
#include "leaving.h"
#include "mutex_pages.h"
#include "page_table.h"
#include "pager.h"
#include "proc_map.h"
#include "readahead.h"
#include "resident_queue.h"
#include "spin.h"
#include "ticks.h"
#include "agent/agent_proto.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    SPACE_BATCHES = 16, /* 8 MiB of pool: enough to keep the write-back busy */
    SPACE_FETCHES = 64,
    SPACE_RECENT_MOVES = 64,
    SPACE_LEFT_PAGES = 64,
    SPACE_MESSAGES = 64, /* of the userfaultfd, read at once */
    SPACE_WAITING = 512, /* of them, read and not believed yet */
    SPACE_FORKING = 16,  /* threads about to fork at once */
    SPACE_POOL_BYTES = SPACE_BATCHES * BATCH_PAGES * PAGE_BYTES,
    FETCH_PAGES = READAHEAD_MAX_PAGES,
};

#define NO_PAGE UINT64_MAX

/* What the agent is busy with. While it MOVES, no event may be read from the userfaultfd: see
 * DESIGN.md, "The order of events and moves". Nor while it COPIES and a change is pending: "Fork".
 */
enum agent_work { AGENT_IDLE, AGENT_MOVING, AGENT_COPYING, AGENT_EMPTYING, AGENT_POPULATING };

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

/* Where a space's pages go in the store. */
enum region_state {
    REGION_NONE,    /* nothing stored yet, nothing opened */
    REGION_OPENING, /* asked for */
    REGION_READY,
};

/* GATHERED: not sent yet, other faults that are read now may still join. */
enum fetch_state { FETCH_FREE, FETCH_GATHERED, FETCH_SENT, FETCH_READY, FETCH_INSTALLING };

struct fetch {
    enum fetch_state state;
    struct space *space;
    uint32_t shard;
    uint32_t npages;
    uint32_t attempts;
    bool ahead;                 /* asked for ahead of use */
    bool sparse;                /* only those of its pages that fault are to be put in */
    bool early;                 /* asked for ahead, and to be put in when it comes, */
    uint64_t marker;            /* but for this page: its fault shows how far the program is */
    uint64_t page[FETCH_PAGES]; /* NO_PAGE: nobody wants it any more */
    uint64_t key[FETCH_PAGES];
    uint64_t wanted_us[FETCH_PAGES]; /* when a fault on it was read; 0: none */
    struct rpc_body *body;           /* the pages as they came: whole ones, or */
    char *decoded;                   /* what they are; NULL: they came whole */
    uint64_t age;
};

struct space {
    struct pager *pager;
    struct space *next; /* among the live ones, or among the dying */
    pid_t pid;          /* 0: a child that has not reported yet, and may never */
    bool dead;          /* its image is gone; waits for batches and fetches to return */
    bool released;      /* and the store has been told to forget its pages */
    bool lost;          /* it died while pages were between its memory and the pool */
    int agent, uffd, hold_uffd, pidfd;
    int uffd_info;                 /* see uffd_count_faults(); -1: not asked yet */
    int32_t agent_tid;             /* here */
    int32_t agent_own_tid;         /* in its own pid namespace: so its faults name it */
    struct image_figures *figures; /* in the pager's counters; NULL: none */
    bool serving;        /* the agent's thread needs none of the program's any more to begin */
    uint64_t serving_us; /* since then */
    uint64_t agent_cpu_us;
    struct space_ready {
        bool agent, hold, events;
    } ready; /* what poll() found */

    struct store_region region;
    enum region_state region_state;
    uint32_t region_answers; /* still to come */
    uint32_t region_removed; /* by so many shards */
    bool region_opened;      /* the answers are those to OPEN, not to BRANCH */
    bool owns_region;        /* made for this space: goes with it */
    char region_name[WIRE_MAX_NAME_BYTES + 1];

    bool has_fork_event;
    struct agent_range own[AGENT_OWN_RANGES];
    uint64_t mark; /* the page by which a child shows whose it is */
    char *pool;
    struct proc_map *proc;
    uint64_t mutexes_at; /* in the program */
    struct mutex_pages *mutex_pages;
    struct page_table *table;
    struct area_map *areas;
    struct resident_queue *queue;
    struct readahead readahead;

    enum agent_work work;
    uint64_t work_us;   /* when it was given that */
    bool agent_stopped; /* by SIGSTOP, or by who traces it: it can do nothing */
    struct batch *moving;
    uint64_t busy[AGENT_BATCH_PAGES]; /* pages found shared: to be populated, then moved */
    uint32_t nbusy;
    bool populated; /* they have been */
    bool retrying;  /* the batch under way is made of them */
    bool batch_used[SPACE_BATCHES];
    struct batch *ungiven; /* copied, but the write-back has no room for it yet; NULL: none */
    uint64_t copied;       /* as which of all */
    struct batch batches[SPACE_BATCHES];
    struct fetch fetches[SPACE_FETCHES];
    uint64_t fetch_clock;
    struct fetch *gathered[CONFIG_MAX_SHARDS]; /* for each shard; NULL: none */
    uint32_t ngathered;
    struct fault_list held;  /* wait for room in the budget */
    struct fault_list again; /* wait for events to be read */
    struct drop_list {
        struct drop *first, *last;
    } drops, late_drops; /* not given yet; late: not before the batch that waits */
    /* Events that were read and are not believed yet. GATHERING: more are to be read before, for a
     * fork may be under way; ANSWERING: a fork comes before them, and nothing is read meanwhile. */
    struct event {
        struct uffd_msg message;
        uint64_t number;
    } waiting[SPACE_WAITING];
    uint32_t nwaiting;
    uint64_t nevents;       /* read so far, */
    uint64_t event_us;      /* the last one then */
    uint64_t threaded_us;   /* it had other threads then */
    uint64_t events_queued; /* where the process, and its child, has how many were queued; */
    uint64_t queued_told;   /* what was written there last */
    bool gathering, answering;
    bool urgent;           /* among them is an unmapping of what was moved just now: no gathering */
    uint64_t gathering_us; /* since then */
    bool read_later;       /* something may be there, but it is not to be read before COPIED */
    struct space *fork_child; /* made for the first of them, until the store has branched it */
    bool fork_done;           /* it has */
    /* Of the child of a fork: */
    bool being_made;               /* the store is still to answer */
    bool doomed;                   /* some of what it had is lost: it is ended when it faults */
    bool wiped;                    /* what it has found empty is known */
    struct unsure *unsure;         /* changes that may have come before the fork; NULL: none */
    uint64_t fork_base;            /* pages it had from its parent */
    pid_t parent_pid;              /* 0: not known */
    int32_t first_tid, marked_tid; /* who has faulted before it reported; on its mark */
    uint64_t probed_us;
    /* Where memory was moved to while other events were still to come: see on_unmap(). */
    struct agent_range recent_moves[SPACE_RECENT_MOVES]; /* page numbers */
    uint32_t nrecent;
    struct leaving leaving;
    uint64_t left[SPACE_LEFT_PAGES]; /* pages that mremap() fills: see leave_to_mremap() */
    uint32_t nleft;
    struct forking {
        int connection; /* -1: none */
        bool answered;
    } forking[SPACE_FORKING]; /* threads about to fork, where the kernel does not tell of it */
    uint64_t bring_at;        /* pages from here on are still to be looked at for that */

    bool pressed; /* registered and reclaiming, no longer native */
    bool look_again;
    bool rescan_now;  /* what is not known is to be found, however little */
    bool look_barren; /* the same, but only now and then: */
    uint64_t barren_wait_us;
    uint64_t registered; /* mappings, so far */
    uint64_t looked_us, look_cost_us, rescanned_us, rescan_wait_us, threads_us;
    struct proc_size size;     /* the last sample, if */
    bool sampled, just_held;   /* it could be taken; held because of one */
    uint32_t look_turn;        /* it had its turn in this one: pager's look_turn */
    uint64_t grown;            /* anonymous pages, since the one before */
    uint64_t virtual_pages;    /* at the last look */
    uint64_t anonymous_pages;  /* at the last sample */
    uint64_t sampled_resident; /* the table's count then */
    uint64_t counted_resident; /* see pager_resident() */
    uint64_t barren_until_us;  /* nothing could be moved: do not try before */
    uint32_t barren;
    uint64_t retry_move_us;
    struct brake brake; /* held while unregistered memory grows */
    uint64_t brake_denied_us;
    uint64_t settle_until_us; /* held for pages that are leaving: see await_leaving() */
    uint64_t evict_clock;     /* pages evicted so far */
    uint64_t ngone;           /* pages that were resident and went without a word */
    uint64_t zero_next;       /* where a run of first touches goes on */
    uint32_t zero_run;
};

struct pager {
    struct pager_config config;
    const struct shard_set *set;
    struct rpc *rpc;
    struct write_back *write_back;
    uint32_t ngiven;   /* batches in its hands, */
    uint32_t nungiven; /* and such that wait for room there */
    uint64_t copied;   /* batches so far */
    pthread_t thread;
    int wake_fd; /* main -> pager */
    int news_fd; /* pager -> main */
    _Atomic int program;
    _Atomic bool stop;
    _Atomic bool managed_news, failed;
    _Atomic uint64_t images;
    _Atomic bool present;
    _Atomic uint32_t processes;       /* in hand, */
    _Atomic uint32_t ngreetings;      /* and about to be */
    uint64_t budget;                  /* pages */
    uint64_t limit, high, low, press; /* the same, or more: see keep_floor() */
    uint64_t unmanaged, unmanaged_us; /* the least there was of it since then */
    bool rescanned, floor_told;       /* all processes were, for that; the log says so */
    uint32_t change;                  /* of the budget, the latest that has been taken up */
    struct pager_limits {
        _Atomic uint64_t asked_bytes; /* main -> pager */
        _Atomic uint32_t asked_change;
        _Atomic uint32_t kept_change;   /* pager -> main: it was kept, */
        _Atomic uint64_t kept_resident; /* with so many pages */
    } limits;
    bool reclaiming;
    struct space *spaces; /* the program and its children */
    uint32_t look_turn;
    bool look_left;    /* not all have had theirs */
    bool is_real_time; /* its thread: until something leaves */
    bool never_real_time;
    /* The one that is being served or looked at; NULL: none. Meanwhile the others have so much. */
    struct space *current;
    uint64_t others_resident;
    struct space *hopeful; /* something could be taken from it, when it was last asked; or NULL */
    struct space *dying;   /* images that are gone, still waited for */
    uint64_t ended_agents_cpu_us;
    uint32_t nregions; /* made so far: for their names */
    struct pollfd *fds;
    uint32_t fds_capacity;
    struct greeting *greetings; /* who has connected and has not reported yet; the oldest first */
    uint64_t admitted_us;       /* when one of them was let in, last */
    bool full_known, full;      /* there is no room for another */
    struct stranger *strangers; /* who may need to be given an agent */
    struct handoff *found;      /* main -> pager: pids of such */
    _Atomic int go_fd;          /* main -> pager: see pager_let_go() */
    struct wire_request request;
    struct spin spin;
    uint64_t faulted_us; /* when a fault was read, or answered, last */
    struct pager_counters counters;
    uint32_t next_figures;          /* of an image that has ended, to be used again */
    pthread_mutex_t published_lock; /* innermost: nothing is called under it */
    struct pager_counters published;
    uint64_t published_us;
};

/* space.c */
int space_new(struct space **out, struct pager *pager) __attribute__((warn_unused_result));
/* Gives it what needs a process that is known: /proc, and the pool. */
int space_set_process(struct space *space, pid_t pid, int pool_fd)
    __attribute__((warn_unused_result));
/* The process that FROM has, with its /proc and pool, is SPACE's, which has none. FROM, still the
 * caller's, has none then. 0 or -EINVAL. */
int space_take_process(struct space *space, struct space *from) __attribute__((warn_unused_result));
void space_add(struct space *space); /* to the pager's */
struct space *space_of(const struct pager *pager, pid_t pid);
void space_name(struct space *space);  /* it has reported: it gets figures of its own */
void space_free(struct space **space); /* nothing may refer to it any more */
bool space_is_left_alone(const struct space *space); /* --follow=no: its memory is its own affair */
bool space_has_batches(const struct space *space);   /* pages are on their way into the store */
uint64_t space_pages_out(const struct space *space); /* pages the program would miss */
void space_end(struct space *space);                 /* the image is gone */
void space_release_all(struct pager *pager);         /* the end: no child needs what a parent had */
void space_reap(struct pager *pager);                /* frees what nothing refers to any more */

/* pager.c */
void pager_tell_news(struct pager *pager);      /* wakes the main thread: see pager_event() */
void pager_fail(struct pager *pager);           /* the program must not go on (already logged) */
uint64_t pager_room(const struct pager *pager); /* pages that may still come in */
/* The same for what is put in ahead of use: the rest is kept for memory that grows unseen. */
uint64_t pager_room_ahead(const struct pager *pager);
/* With so many MORE pages nothing may grow. */
bool pager_is_crowded(const struct pager *pager, uint64_t more);
uint64_t pager_resident(const struct pager *pager);
uint64_t space_resident(const struct space *space);
uint64_t space_unmanaged(const struct space *space); /* of these, pages that cannot leave */

/* pager_limit.c */
void limit_set(struct pager *pager, uint64_t bytes);   /* at once, as at the start */
bool limit_take(struct pager *pager);                  /* whether a new one has been asked for */
void limit_tick(struct pager *pager, uint64_t now_us); /* right after all have been looked at */

/* pager_greet.c */
int greet_step(struct pager *pager, bool connections, uint64_t now_us);
uint32_t greet_poll_fds(const struct pager *pager, struct pollfd *out, uint32_t cap);
void greet_end_all(struct pager *pager);
bool greet_is_with(const struct pager *pager, pid_t pid); /* it has connected, and is not in hand */

/* pager_implant.c */
/* PID's agent has gone: if that was because of an exec, the next image may need to be given one. */
void implant_watch(struct pager *pager, pid_t pid);
bool implant_is_under_way(const struct pager *pager, pid_t pid); /* it is being traced for it */
void implants_step(struct pager *pager, uint64_t now_us);
/* At most so long until the next step; UINT64_MAX: nothing is to be done. */
uint64_t implants_wait_us(const struct pager *pager);
void implants_end(struct pager *pager);

/* pager_fault.c */
void fault_list_add(struct fault_list *list, struct fault fault);
void fault_handle(struct space *space, struct fault fault);
void fault_retry(struct space *space);                         /* those that waited for events */
void fault_retry_held(struct space *space);                    /* those that waited for room */
bool fault_has_seal(const struct space *space, uint64_t page); /* see uffd.h */
void fault_lost(struct space *space, uint64_t page); /* it has one, and what was there is gone */
void fetch_install_pending(struct space *space);
void fetch_send_gathered(struct space *space);
void fetch_free(struct fetch *fetch);
void fetch_free_all(struct space *space);

/* pager_events.c */
int events_read(struct space *space); /* returns how many messages there were */
/* Events that were read are still to be believed, or the space is being made: what the tables say
 * may not be so. Nothing is taken out, put in or registered meanwhile. */
bool events_are_pending(const struct space *space);
bool events_may_be_read(const struct space *space); /* as far as what was read before goes */
/* Answers the forks that can be, and believes what was read with them. */
void events_believe(struct space *space);
/* Forgets what is not registered. The tables are another process's: of a child that does nothing
 * at the moment. */
void events_verify(struct space *space);
void events_serve_hold(struct space *space);
void events_believe_one(struct space *space, const struct uffd_msg *message); /* not of a fork */
void events_unmap(struct space *space, uint64_t start, uint64_t end);         /* pages */
void events_empty(struct space *space, uint64_t page); /* it has no content any more */

/* pager_fork.c */
/* The event of a fork has been read, and with it came the child's userfaultfd. */
void fork_read(struct space *space, int child_uffd);
/* Answers the fork that is the first in space->waiting, at AT; the child's userfaultfd is ours
 * then. Around it there are changes of which nobody knows whether they came before it. False: not
 * yet, ask again. */
bool fork_answer(struct space *space, uint32_t at);
void fork_branched(struct space *child); /* the store has made its region */
/* Finds what CHILD, which is process PID and waits for us, has found empty: by its own mappings,
 * for its parent may have ended since, or may have changed what it has. */
void fork_find_wiped(struct space *child, pid_t pid);
/* What CHILD is not sure of is so, or not, as its own mappings say; PID 0: nobody knows which they
 * are, and what was read before the fork is taken to have come before it. */
void fork_settle(struct space *child, pid_t pid);
bool fork_is_waited_for(const struct space *space); /* its pages are still needed for a child */
/* A thread is about to fork, and the kernel will not tell: all its process has outside comes in
 * first, and stays until the thread says so on its connection (ours then), or hangs up. 0, or
 * -EAGAIN: too many at once. */
int fork_prepare(struct space *space, int connection) __attribute__((warn_unused_result));
bool fork_is_prepared(const struct space *space);
void fork_serve(struct space *space, uint64_t now_us);

/* pager_region.c */
void region_open(struct space *space);
int region_branch(struct space *space, const struct space *parent)
    __attribute__((warn_unused_result));
void region_remove(struct space *space);
/* All have ended: waits, not for ever, until their regions are removed, and says which are left. */
void regions_end(struct pager *pager);

/* pager_look.c */
void look_sample(struct space *space, uint64_t now_us); /* first of all: holds who grows too fast */
void look_tick(struct space *space, uint64_t now_us);
void look_note_peaks(struct pager *pager);
int look_interval_us(const struct pager *pager);
void look_release(struct space *space, uint64_t now_us); /* lets braked threads go in time */
void look_at_threads(struct space *space, uint64_t now_us);

/* pager_reclaim.c */
bool reclaim_step(struct space *space, uint64_t now_us);
bool reclaim_is_hopeless(struct pager *pager, uint64_t now_us);
void reclaim_on_agent(struct space *space, const struct agent_result *result);
void reclaim_give(struct pager *pager); /* what waits for room in the write-back */
void reclaim_forget_ungiven(struct space *space);
void reclaim_take_back(struct space *space, struct batch *batch);
struct batch *reclaim_find_staged(struct space *space, uint64_t page, uint32_t *at);
void reclaim_drop_stored(struct space *space, uint64_t page);
void reclaim_flush_drops(struct space *space);
void reclaim_free_drops(struct space *space);
void reclaim_push(struct space *space, uint64_t page, bool proven);
void reclaim_note_gone(struct space *space, uint64_t page);

#endif
