/* The pager's loop: everything that can happen, in a fixed order, then sleep. */
#include "space.h"

#include "../ini/log.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGER_NICE = -20,
    TIMER_SLACK_NS = 1000,
    RETRY_US = 50, /* the program's mappings are changing: about one wake-up */
    PUBLISH_US = 50000,
    IDLE_US = 100000,
    DYING_US = 2000,        /* an image is ending and may need something of us for it */
    GREETINGS_AT_ONCE = 64, /* waited for; there may be more */
    FOUND_AT_ONCE = 1024,
};

void pager_tell_news(struct pager *pager)
{
    uint64_t one = 1;
    if (write(pager->news_fd, &one, sizeof one) < 0)
        log_warn("Pager", "cannot tell the news: %s", strerror(errno));
}

void pager_fail(struct pager *pager)
{
    pager->failed = true;
    pager_tell_news(pager);
}

uint64_t pager_room(const struct pager *pager)
{
    uint64_t resident = pager_resident(pager);
    return resident < pager->limit ? pager->limit - resident : 0;
}

/* Between the threshold and the limit: the upper half is for memory that grows unseen. */
static uint64_t middle(const struct pager *pager)
{
    return (pager->high + pager->limit) / 2;
}

uint64_t pager_room_ahead(const struct pager *pager)
{
    uint64_t resident = pager_resident(pager);
    return resident < middle(pager) ? middle(pager) - resident : 0;
}

bool pager_is_crowded(const struct pager *pager, uint64_t more)
{
    return pager_resident(pager) + more > middle(pager);
}

static void publish(struct pager *pager, uint64_t now_us)
{
    pager->counters.cpu_us = ticks_thread_ns() / 1000;
    pager->counters.rpc = rpc_counters(pager->rpc);
    pager->counters.agent_cpu_us = pager->ended_agents_cpu_us;
    for (struct space *space = pager->spaces; space; space = space->next) {
        if (space->agent >= 0)
            space->agent_cpu_us = proc_map_thread_cpu_us(space->proc, space->agent_tid);
        pager->counters.agent_cpu_us += space->agent_cpu_us;
    }
    pthread_mutex_lock(&pager->published_lock);
    pager->published = pager->counters;
    pthread_mutex_unlock(&pager->published_lock);
    pager->published_us = now_us;
}

/* What poll() found of what is nobody's in particular; looking without being told costs a system
 * call each. */
struct ready {
    bool connection, batches, found;
};

/* ---- what may have happened ---- */

static int take_agent(struct space *space)
{
    int done = 0;
    while (!space->dead) {
        struct agent_result result;
        ssize_t got = recv(space->agent, &result, sizeof result, MSG_DONTWAIT);
        if (got == (ssize_t)sizeof result) {
            reclaim_on_agent(space, &result);
            done++;
        } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            return done;
        } else {
            space_end(space); /* exec or exit */
            return done + 1;
        }
    }
    return done;
}

static int take_batches(struct pager *pager)
{
    int done = 0;
    write_back_calm(pager->write_back);
    for (struct batch *batch; (batch = write_back_take(pager->write_back)); done++)
        reclaim_take_back(batch->owner, batch);
    return done;
}

static bool must_retry(const struct space *space)
{
    if (brake_is_busy(&space->brake))
        return true;
    if (space->gathering)
        return true;
    /* What waits for a fork goes on when a batch or the store's answer comes. */
    if (events_are_pending(space))
        return false;
    if (space->again.count > 0)
        return true;
    for (int i = 0; i < SPACE_FETCHES; i++)
        if (space->fetches[i].state == FETCH_INSTALLING)
            return true;
    return false;
}

/* Everything for one process. Returns whether anything was done. */
static int serve(struct space *space, uint64_t now_us)
{
    const struct space_ready *ready = &space->ready;
    int done = ready->agent ? take_agent(space) : 0;
    if (space->dead)
        return done;
    if (fork_is_prepared(space))
        fork_serve(space, now_us);
    if (ready->hold)
        events_serve_hold(space);
    /* While retries wait, the event they wait for may be there already. */
    if (ready->events || space->read_later || space->nwaiting > 0 || must_retry(space))
        done += events_read(space);
    if (space->again.count > 0)
        fault_retry(space);
    fetch_install_pending(space);
    if (space->held.count > 0 &&
        (pager_room(space->pager) > 0 || reclaim_is_hopeless(space->pager, now_us)))
        fault_retry_held(space);
    fetch_send_gathered(space);
    done += reclaim_step(space, now_us);
    look_release(space, now_us);
    reclaim_flush_drops(space);
    return done;
}

/* Calls EACH for every process. Of the others what is resident is added up once, not for each
 * again: EACH changes little but its own, and a child that it makes counts from the next time on.
 * Returns how much was done. */
static int for_all(struct pager *pager, int (*each)(struct space *space, uint64_t now_us),
                   uint64_t now_us)
{
    uint64_t resident = 0;
    for (struct space *space = pager->spaces; space; space = space->next)
        resident += space->counted_resident = space_resident(space);
    int done = 0;
    for (struct space *next, *space = pager->spaces; space; space = next) {
        next = space->next; /* it may end */
        pager->current = space;
        pager->others_resident = resident - space->counted_resident;
        done += each(space, now_us);
        resident = pager_resident(pager);
    }
    pager->current = NULL;
    return done;
}

static int look(struct space *space, uint64_t now_us)
{
    look_tick(space, now_us);
    return 0;
}

static int sample(struct space *space, uint64_t now_us)
{
    look_sample(space, now_us);
    return 0;
}

/* A look at one takes long enough for the others to grow: so they are held first. */
static void look_at_all(struct pager *pager, uint64_t now_us)
{
    for_all(pager, sample, now_us);
    pager->look_left = false;
    for_all(pager, look, ticks_us());
    pager->look_turn += !pager->look_left;
    look_note_peaks(pager);
    limit_tick(pager, now_us);
}

/* ---- sleeping ---- */

static uint64_t sleep_us(const struct pager *pager, uint64_t next_tick_us, uint64_t now_us)
{
    uint64_t us = next_tick_us > now_us ? next_tick_us - now_us : 0;
    if (pager->dying && us > DYING_US)
        us = DYING_US;
    uint64_t implants_us = implants_wait_us(pager);
    if (implants_us < us)
        us = implants_us;
    int rpc_ms = rpc_timeout_ms(pager->rpc);
    if (rpc_ms >= 0 && (uint64_t)rpc_ms * 1000 < us)
        us = (uint64_t)rpc_ms * 1000;
    for (const struct space *space = pager->spaces; space; space = space->next)
        if ((must_retry(space) || space->retry_move_us > now_us || fork_is_prepared(space)) &&
            us > RETRY_US)
            us = RETRY_US;
    /* Its hands are full of small things: it takes them up, but does not tell. */
    if (pager->nungiven > 0 && pager->ngiven < WRITE_BACK_MOST_BATCHES && us > RETRY_US)
        us = RETRY_US;
    return us;
}

/* Room for that many descriptors. When there is no memory for more, some are not waited for. */
static uint32_t make_fds(struct pager *pager, uint32_t wanted)
{
    if (wanted > pager->fds_capacity) {
        struct pollfd *fds = realloc(pager->fds, 2 * wanted * sizeof *fds);
        if (fds) {
            pager->fds = fds;
            pager->fds_capacity = 2 * wanted;
        }
    }
    return pager->fds_capacity;
}

enum { SPACE_FDS = 3 };

static void add_space_fds(const struct space *space, struct pollfd fds[SPACE_FDS])
{
    bool may_read = !space->read_later && events_may_be_read(space);
    fds[0] = (struct pollfd){space->agent, POLLIN, 0};
    fds[1] = (struct pollfd){space->hold_uffd, POLLIN, 0};
    fds[2] = (struct pollfd){may_read ? space->uffd : -1, POLLIN, 0};
}

/* Sleeps for at most US microseconds (0: only looks) and says what is there to be done. Returns how
 * much there is. */
static int poll_all(struct pager *pager, uint64_t us, struct ready *ready)
{
    enum { CONNECTION, BATCHES, FOUND, WAKE, NFDS };
    uint32_t most = NFDS + CONFIG_MAX_SHARDS + GREETINGS_AT_ONCE;
    uint32_t cap = make_fds(pager, most + SPACE_FDS * pager->processes);
    struct pollfd *fds = pager->fds;
    fds[CONNECTION] = (struct pollfd){pager->config.listen_fd, POLLIN, 0};
    fds[BATCHES] = (struct pollfd){write_back_fd(pager->write_back), POLLIN, 0};
    fds[FOUND] = (struct pollfd){handoff_fd(pager->found), POLLIN, 0};
    fds[WAKE] = (struct pollfd){pager->wake_fd, POLLIN, 0};
    uint32_t nfds = NFDS + rpc_poll_fds(pager->rpc, fds + NFDS);
    nfds += greet_poll_fds(pager, fds + nfds, GREETINGS_AT_ONCE);
    uint32_t first = nfds;
    for (struct space *space = pager->spaces; space && nfds + SPACE_FDS <= cap;
         space = space->next, nfds += SPACE_FDS)
        add_space_fds(space, fds + nfds);
    struct timespec timeout = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    int found = ppoll(fds, nfds, &timeout, NULL);
    if (found < 0 && errno != EINTR)
        log_error("Pager", "poll: %s", strerror(errno));
    uint64_t woken;
    if (fds[WAKE].revents && read(pager->wake_fd, &woken, sizeof woken) < 0)
        log_debug("Pager", "woken for nothing: %s", strerror(errno));
    rpc_polled(pager->rpc, fds + NFDS);
    for (struct space *space = pager->spaces; space; space = space->next, first += SPACE_FDS)
        if (first < nfds)
            space->ready = (struct space_ready){fds[first].revents, fds[first + 1].revents,
                                                fds[first + 2].revents};
        else
            space->ready = (struct space_ready){true, space->hold_uffd >= 0, true};
    *ready = (struct ready){fds[CONNECTION].revents, fds[BATCHES].revents, fds[FOUND].revents};
    return found;
}

/* A program that has just faulted is about to fault again, or waits for its page. */
static bool may_come_soon(const struct pager *pager, uint64_t now_us)
{
    return now_us < pager->faulted_us + SPIN_US;
}

/* Returns whether there is something to be done. */
static bool spin(struct pager *pager, uint64_t us, struct ready *ready)
{
    uint64_t begun = ticks_us(), now = begun;
    if (us > SPIN_US)
        us = SPIN_US;
    bool found = false;
    while (!found && now - begun < us && spin_is_free(&pager->spin)) {
        found = poll_all(pager, 0, ready) > 0;
        now = ticks_us();
    }
    pager->counters.spins_found += found;
    pager->counters.spins_in_vain += !found;
    spin_learn(&pager->spin, found);
    return found;
}

static struct ready wait_for_news(struct pager *pager, uint64_t us, uint64_t now_us)
{
    struct ready ready;
    if (us == 0 || !may_come_soon(pager, now_us) || !spin_is_due(&pager->spin) ||
        !spin(pager, us, &ready))
        poll_all(pager, us, &ready);
    return ready;
}

static uint64_t look_interval(const struct pager *pager)
{
    return pager->spaces ? (uint64_t)look_interval_us(pager) : IDLE_US;
}

/* Nobody will ask for what the processes had stored. */
static void end_all(struct pager *pager)
{
    implants_end(pager);
    greet_end_all(pager);
    while (pager->spaces)
        space_end(pager->spaces);
    implants_end(pager); /* none of what has ended now goes on */
    space_release_all(pager);
    if (pager->config.remove_ms > 0)
        regions_end(pager);
}

/* Nothing had to leave yet: only a look that comes in time keeps a program that fills memory near
 * the budget. */
static bool must_look_on_time(const struct pager *pager)
{
    for (const struct space *space = pager->spaces; space; space = space->next)
        if (space->evict_clock > 0)
            return false;
    return pager->spaces != NULL;
}

/* Where the program's threads keep every processor busy, one that slept gets one up to 8 ms late,
 * and be it the nicest of all. A real-time one gets it at once (allowed to root only). As such it
 * looks, and greets; it is a thread like others again as soon as pages leave. */
static void look_on_time(struct pager *pager)
{
    if (pager->never_real_time)
        return;
    bool wanted = must_look_on_time(pager);
    if (wanted == pager->is_real_time)
        return;
    struct sched_param param = {.sched_priority = wanted ? sched_get_priority_min(SCHED_RR) : 0};
    /* Who is not root could not take that flag away again. */
    int policy = (wanted ? SCHED_RR : SCHED_OTHER) | SCHED_RESET_ON_FORK;
    pager->never_real_time = sched_setscheduler(0, policy, &param) != 0;
    if (pager->never_real_time)
        log_debug("Pager", "no other scheduling: %s", strerror(errno));
    else
        pager->is_real_time = wanted;
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* the kernel sets its own with each policy */
}

static void *run(void *arg)
{
    struct pager *pager = arg;
    prctl(PR_SET_NAME, "edm-pager");
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    /* It works in short bursts that others wait for. Allowed to root only; no harm if refused. */
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), PAGER_NICE))
        log_debug("Pager", "no higher priority: %s", strerror(errno));
    spin_begin(&pager->spin);
    uint64_t next_tick_us = 0;
    struct ready ready = {0};
    while (!pager->stop) {
        uint64_t now = ticks_us();
        int done =
            pager->greetings || ready.connection ? greet_step(pager, ready.connection, now) : 0;
        if (done > 0)
            next_tick_us = 0; /* a new image may be growing already */
        if (limit_take(pager))
            next_tick_us = 0;
        done += rpc_process(pager->rpc);
        if (ready.batches)
            done += take_batches(pager);
        reclaim_give(pager);
        if (now >= next_tick_us)
            look_at_all(pager, now);
        if (pager->strangers || ready.found)
            implants_step(pager, now);
        done += for_all(pager, serve, now);
        if (pager->dying)
            space_reap(pager);
        if (now >= next_tick_us)
            next_tick_us = now + look_interval(pager);
        if (now - pager->published_us > PUBLISH_US)
            publish(pager, now);
        look_on_time(pager);
        ready = wait_for_news(pager, done ? 0 : sleep_us(pager, next_tick_us, now), now);
    }
    spin_end(&pager->spin);
    end_all(pager);
    publish(pager, ticks_us());
    return NULL;
}

/* ---- for the main thread ---- */

static void wake(struct pager *pager)
{
    uint64_t one = 1;
    if (write(pager->wake_fd, &one, sizeof one) < 0)
        log_warn("Client", "cannot wake the pager: %s", strerror(errno));
}

static void free_parts(struct pager **pager)
{
    struct pager *p = *pager;
    write_back_destroy(&p->write_back);
    /* The write-back has ended: whatever it had in hand will not come back. */
    while (p->dying) {
        struct space *space = p->dying;
        memset(space->batch_used, 0, sizeof space->batch_used);
        reclaim_forget_ungiven(space);
        reclaim_free_drops(space);
        space->brake.count = 0; /* the tracer has ended, and with it the tracing */
        space->region_answers = 0;
        space->region_state = REGION_NONE;
        fetch_free_all(space);
        space_reap(p);
    }
    rpc_destroy(&p->rpc);
    handoff_destroy(&p->found);
    free(p->fds);
    if (p->wake_fd >= 0)
        close(p->wake_fd);
    if (p->news_fd >= 0)
        close(p->news_fd);
    pthread_mutex_destroy(&p->published_lock);
    free(p);
    *pager = NULL;
}

int pager_new(struct pager **out, const struct pager_config *config, const struct shard_set *set)
{
    struct pager *pager = calloc(1, sizeof *pager);
    if (!pager)
        return -ENOMEM;
    pager->config = *config;
    pager->set = set;
    pager->go_fd = -1;
    limit_set(pager, config->local_bytes);
    pthread_mutex_init(&pager->published_lock, NULL);
    pager->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pager->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int err = pager->wake_fd < 0 || pager->news_fd < 0 ? -errno : 0;
    if (!err && make_fds(pager, 1024) == 0)
        err = -ENOMEM;
    if (!err)
        err = handoff_new(&pager->found, FOUND_AT_ONCE);
    if (!err)
        err = rpc_new(&pager->rpc, set->endpoints, set->nshards, set->wait_ms, "Pager");
    if (!err)
        err = write_back_new(&pager->write_back, set, config->compress);
    if (!err)
        err = -pthread_create(&pager->thread, NULL, run, pager);
    if (err) {
        free_parts(&pager);
        return err;
    }
    *out = pager;
    return 0;
}

void pager_set_program(struct pager *pager, pid_t pid)
{
    pager->program = pid;
}

/* The program is the first item; it can be found again only later. */
void pager_let_go(struct pager *pager, int go_fd)
{
    pager->go_fd = go_fd;
    pager_found(pager, pager->program);
}

void pager_found(struct pager *pager, pid_t pid)
{
    /* When the ring is full it will be found again. */
    (void)handoff_give(pager->found, (void *)(intptr_t)pid);
}

uint32_t pager_set_limit(struct pager *pager, uint64_t bytes)
{
    pager->limits.asked_bytes = bytes;
    uint32_t change = ++pager->limits.asked_change;
    wake(pager);
    return change;
}

bool pager_limit_kept(const struct pager *pager, uint32_t change, uint64_t *resident_bytes)
{
    if ((int32_t)(pager->limits.kept_change - change) < 0)
        return false;
    *resident_bytes = pager->limits.kept_resident * PAGE_BYTES;
    return true;
}

void pager_destroy(struct pager **pager)
{
    if (!*pager)
        return;
    pager_stop(*pager);
    free_parts(pager);
}

void pager_stop(struct pager *pager)
{
    if (pager->stop)
        return;
    pager->stop = true;
    wake(pager);
    pthread_join(pager->thread, NULL);
}

int pager_fd(const struct pager *pager)
{
    return pager->news_fd;
}

enum pager_event pager_event(struct pager *pager)
{
    uint64_t count;
    ssize_t got = read(pager->news_fd, &count, sizeof count);
    (void)got;
    if (pager->failed)
        return PAGER_FAILED;
    if (atomic_exchange(&pager->managed_news, false))
        return PAGER_MANAGED;
    return PAGER_NOTHING;
}

uint64_t pager_images(struct pager *pager, bool *present)
{
    *present = pager->present;
    return pager->images;
}

uint32_t pager_processes(struct pager *pager)
{
    return pager->processes + pager->ngreetings;
}

void pager_counters(struct pager *pager, struct pager_counters *out)
{
    pthread_mutex_lock(&pager->published_lock);
    *out = pager->published;
    pthread_mutex_unlock(&pager->published_lock);
}

struct write_back_counters pager_write_back_counters(struct pager *pager)
{
    return write_back_counters(pager->write_back);
}
