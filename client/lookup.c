#include "lookup.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct lookup {
    atomic_int holders; /* the caller and the thread */
    atomic_bool done;
    char *host, *port;
    int status; /* getaddrinfo()'s */
    struct addrinfo *found;
};

static void let_go(struct lookup *lookup)
{
    if (atomic_fetch_sub(&lookup->holders, 1) > 1)
        return;
    if (lookup->found)
        freeaddrinfo(lookup->found);
    free(lookup->host);
    free(lookup->port);
    free(lookup);
}

static void ask(struct lookup *lookup, int flags)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    lookup->status = getaddrinfo(lookup->host, lookup->port, &hints, &lookup->found);
}

static void *run(void *arg)
{
    struct lookup *lookup = arg;
    ask(lookup, AI_ADDRCONFIG);
    atomic_store(&lookup->done, true);
    let_go(lookup);
    return NULL;
}

/* Signals are for the threads that were there before. */
static int start_thread(struct lookup *lookup)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, old;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = -pthread_create(&thread, &attributes, run, lookup);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return err;
}

int lookup_new(struct lookup **out, const char *host, const char *port)
{
    struct lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup)
        return -ENOMEM;
    atomic_init(&lookup->holders, 1);
    lookup->host = strdup(host);
    lookup->port = strdup(port);
    if (!lookup->host || !lookup->port) {
        let_go(lookup);
        return -ENOMEM;
    }
    /* Addresses in digits need nobody to be asked. */
    ask(lookup, AI_NUMERICHOST);
    if (lookup->status == 0) {
        atomic_store(&lookup->done, true);
    } else {
        atomic_store(&lookup->holders, 2);
        int err = start_thread(lookup);
        if (err) {
            atomic_store(&lookup->holders, 1);
            let_go(lookup);
            return err;
        }
    }
    *out = lookup;
    return 0;
}

void lookup_destroy(struct lookup **lookup)
{
    if (*lookup)
        let_go(*lookup);
    *lookup = NULL;
}

int lookup_result(struct lookup *lookup, const struct addrinfo **out, const char **why)
{
    if (!atomic_load(&lookup->done))
        return -EAGAIN;
    if (lookup->status) {
        *why = gai_strerror(lookup->status);
        return -ENOENT;
    }
    *out = lookup->found;
    return 0;
}
