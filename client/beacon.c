#include "beacon.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NICE = -20 };

struct beacon {
    pthread_t thread;
    int descriptor;
    bool is_apart; /* it has a table of its own */
    sem_t ready, end;
};

void beacon_hurry(void)
{
    struct sched_param one = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &one))
        (void)!setpriority(PRIO_PROCESS, 0, NICE);
}

void beacon_take_turns(void)
{
    struct sched_param none = {0};
    (void)!sched_setscheduler(0, SCHED_OTHER, &none);
}

static void wait_for(sem_t *word)
{
    while (sem_wait(word) && errno == EINTR)
        ;
}

static void *hold(void *arg)
{
    struct beacon *beacon = arg;
    unsigned descriptor = (unsigned)beacon->descriptor;
    prctl(PR_SET_NAME, "edm-beacon");
    beacon->is_apart = unshare(CLONE_FILES) == 0;
    if (beacon->is_apart) {
        if (descriptor > 0)
            syscall(SYS_close_range, 0, descriptor - 1, 0);
        syscall(SYS_close_range, descriptor + 1, ~0U, 0);
        beacon_hurry();
    }
    sem_post(&beacon->ready);
    wait_for(&beacon->end);
    return NULL;
}

static void destroy(struct beacon **beacon)
{
    sem_destroy(&(*beacon)->ready);
    sem_destroy(&(*beacon)->end);
    free(*beacon);
    *beacon = NULL;
}

void beacon_light(struct beacon **out, int descriptor)
{
    struct beacon *beacon = calloc(1, sizeof *beacon);
    *out = beacon;
    if (!beacon)
        return;
    beacon->descriptor = descriptor;
    sem_init(&beacon->ready, 0, 0);
    sem_init(&beacon->end, 0, 0);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&beacon->thread, NULL, hold, beacon);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        destroy(out);
        return;
    }
    wait_for(&beacon->ready);
    if (beacon->is_apart)
        close(descriptor);
}

void beacon_put_out(struct beacon **beacon)
{
    sem_post(&(*beacon)->end);
    pthread_join((*beacon)->thread, NULL);
    if (!(*beacon)->is_apart)
        close((*beacon)->descriptor);
    destroy(beacon);
}
