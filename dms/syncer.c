#include "syncer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* What is in the struct passes from thread to thread with the two descriptors. */
struct syncer {
    pthread_t thread;
    bool started;
    int go, done;               /* eventfds */
    const struct sync_job *job; /* NULL: end */
    int err;
};

static void signal_fd(int fd)
{
    uint64_t one = 1;

    while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void await_fd(int fd)
{
    uint64_t count;

    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

static void *run(void *context)
{
    struct syncer *syncer = context;

    for (;;) {
        await_fd(syncer->go);
        if (syncer->job == NULL)
            return NULL;
        syncer->err = sync_job_run(syncer->job);
        signal_fd(syncer->done);
    }
}

int syncer_new(struct syncer **out)
{
    struct syncer *syncer = calloc(1, sizeof(*syncer));

    if (syncer == NULL)
        return -ENOMEM;
    syncer->go = eventfd(0, EFD_CLOEXEC);
    syncer->done = eventfd(0, EFD_CLOEXEC);
    int err = syncer->go < 0 || syncer->done < 0 ? -errno : 0;
    if (err == 0)
        err = -pthread_create(&syncer->thread, NULL, run, syncer);
    syncer->started = err == 0;
    if (err != 0)
        syncer_destroy(&syncer);
    else
        *out = syncer;
    return err;
}

void syncer_destroy(struct syncer **syncer)
{
    if (*syncer == NULL)
        return;
    if ((*syncer)->started) {
        (*syncer)->job = NULL;
        signal_fd((*syncer)->go);
        pthread_join((*syncer)->thread, NULL);
    }
    if ((*syncer)->go >= 0)
        close((*syncer)->go);
    if ((*syncer)->done >= 0)
        close((*syncer)->done);
    free(*syncer);
    *syncer = NULL;
}

int syncer_fd(const struct syncer *syncer)
{
    return syncer->done;
}

void syncer_start(struct syncer *syncer, const struct sync_job *job)
{
    syncer->job = job;
    signal_fd(syncer->go);
}

bool syncer_take(struct syncer *syncer, int *err)
{
    struct pollfd fd = {syncer->done, POLLIN, 0};

    if (poll(&fd, 1, 0) != 1)
        return false;
    *err = syncer_wait(syncer);
    return true;
}

int syncer_wait(struct syncer *syncer)
{
    await_fd(syncer->done);
    return syncer->err;
}
