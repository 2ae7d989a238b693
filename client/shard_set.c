#include "shard_set.h"

#include "placement.h"
#include "rpc.h"
#include "ticks.h"
#include "../ini/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { MOST_PAGES = 64 }; /* in a request: PUT_PAGES and READAHEAD_MAX_PAGES */

struct greeting {
    struct shard_set *set;
    uint32_t answered;
    uint8_t status; /* the first that was not OK */
    uint32_t bad_shard;
    char detail[WIRE_MAX_DETAIL_BYTES + 64];
    bool put_off; /* there were answers, but all said: later */
    bool heard[CONFIG_MAX_SHARDS];
};

static void refuse(struct greeting *greeting, const struct rpc_answer *answer)
{
    const char *status = wire_status_name(answer->status);
    if (greeting->status == WIRE_OK) {
        greeting->status = answer->status;
        greeting->bad_shard = answer->shard;
        greeting->put_off = answer->put_off;
        if (answer->reply)
            snprintf(greeting->detail, sizeof greeting->detail, "%s%s%s", status,
                     answer->detail[0] ? ": " : "", answer->detail);
        else
            snprintf(greeting->detail, sizeof greeting->detail, "%s", answer->detail);
    }
}

/* No such server is known: EDM's own take at least as many. */
static void refuse_small(struct greeting *greeting, const struct rpc_answer *answer)
{
    if (greeting->status != WIRE_OK)
        return;
    greeting->status = WIRE_FAILED_PRECONDITION;
    greeting->bad_shard = answer->shard;
    snprintf(greeting->detail, sizeof greeting->detail,
             "it takes %u pages in a request, and %d are needed", answer->reply->max_pages,
             MOST_PAGES);
}

static void on_hello(void *arg, struct rpc_answer *answer)
{
    struct greeting *greeting = arg;
    greeting->answered++;
    greeting->heard[answer->shard] = true;
    if (answer->status != WIRE_OK)
        refuse(greeting, answer);
    else if (answer->reply->max_pages < MOST_PAGES)
        refuse_small(greeting, answer);
    else
        greeting->set->stores[answer->shard] = answer->reply->store;
}

static void on_open(void *arg, struct rpc_answer *answer)
{
    struct greeting *greeting = arg;
    greeting->answered++;
    greeting->heard[answer->shard] = true;
    if (answer->status != WIRE_OK) {
        refuse(greeting, answer);
        return;
    }
    greeting->set->region.ids[answer->shard] = answer->reply->region;
    if (answer->reply->sequence > greeting->set->sequence)
        greeting->set->sequence = answer->reply->sequence;
    if (answer->reply->epoch > greeting->set->region.epoch)
        greeting->set->region.epoch = answer->reply->epoch;
}

static void say_silent(const struct greeting *greeting)
{
    for (uint32_t i = 0; i < greeting->set->nshards; i++)
        if (!greeting->heard[i])
            fprintf(stderr, "edm: no answer from the DMS at %s yet: trying for %u s\n",
                    greeting->set->endpoints[i], greeting->set->wait_ms / 1000);
}

/* Runs until all shards have answered. */
static int wait_for_all(struct rpc *rpc, struct greeting *greeting, int stop_fd, bool *said)
{
    uint64_t begun = ticks_us();
    while (rpc_process(rpc), greeting->answered < greeting->set->nshards) {
        struct pollfd fds[CONFIG_MAX_SHARDS + 1];
        uint32_t nfds = rpc_poll_fds(rpc, fds);
        fds[nfds++] = (struct pollfd){stop_fd, POLLIN, 0};
        int timeout = rpc_timeout_ms(rpc);
        if (!*said && (timeout < 0 || timeout > (int)greeting->set->say_after_ms))
            timeout = (int)greeting->set->say_after_ms;
        if (poll(fds, nfds, timeout) < 0 && errno != EINTR)
            return -errno;
        if (fds[nfds - 1].revents)
            return -EINTR;
        if (!*said && ticks_us() - begun > 1000ull * greeting->set->say_after_ms &&
            greeting->answered < greeting->set->nshards) {
            say_silent(greeting);
            *said = true;
        }
    }
    return greeting->status == WIRE_OK ? 0 : -EPROTO;
}

static int ask_all(struct rpc *rpc, struct greeting *greeting, struct wire_request *request,
                   rpc_callback *callback, int stop_fd, bool *said)
{
    greeting->answered = 0;
    memset(greeting->heard, 0, sizeof greeting->heard);
    for (uint32_t i = 0; i < greeting->set->nshards; i++) {
        int err = rpc_call(rpc, i, request, NULL, 0, callback, greeting);
        if (err)
            return err;
    }
    return wait_for_all(rpc, greeting, stop_fd, said);
}

static int find_twins(const struct shard_set *set, char *why, size_t why_cap)
{
    for (uint32_t i = 0; i < set->nshards; i++)
        for (uint32_t j = 0; j < i; j++)
            if (set->stores[i] == set->stores[j]) {
                snprintf(why, why_cap, "%s and %s are the same shard: name each once",
                         set->endpoints[j], set->endpoints[i]);
                return -EINVAL;
            }
    return 0;
}

int shard_set_open(struct shard_set *set, const char *region, int stop_fd, char *why,
                   size_t why_cap)
{
    struct rpc *rpc;
    if (!wire_name_is_valid(region)) {
        snprintf(why, why_cap, "'%s' cannot be a region's name: 1 to 128 bytes of text without '/'",
                 region);
        return -EINVAL;
    }
    int err = rpc_new(&rpc, set->endpoints, set->nshards, set->wait_ms, "Client");
    if (err) {
        snprintf(why, why_cap, "cannot open a socket: %s", strerror(-err));
        return err;
    }
    bool said = false;
    struct greeting greeting = {.set = set};
    static struct wire_request request; /* 14 KiB */
    memset(&request, 0, sizeof request);
    request.method = WIRE_HELLO;
    request.version_min = request.version_max = WIRE_VERSION;
    snprintf(request.name, sizeof request.name, "edm-client-%d", (int)getpid());
    err = ask_all(rpc, &greeting, &request, on_hello, stop_fd, &said);
    if (!err)
        err = find_twins(set, why, why_cap);
    if (!err) {
        memset(&request, 0, sizeof request);
        request.method = WIRE_OPEN;
        snprintf(request.name, sizeof request.name, "%s", region);
        err = ask_all(rpc, &greeting, &request, on_open, stop_fd, &said);
    }
    if (!err) {
        /* Confirms it, on all shards the same: one may have been behind, or asked twice. */
        request.epoch = set->region.epoch;
        err = ask_all(rpc, &greeting, &request, on_open, stop_fd, &said);
    }
    if (err == -EPROTO && greeting.put_off)
        snprintf(why, why_cap, "the DMS at %s has put us off for %u s: %s",
                 set->endpoints[greeting.bad_shard], set->wait_ms / 1000, greeting.detail);
    else if (err == -EPROTO && greeting.status == WIRE_UNAVAILABLE)
        snprintf(why, why_cap,
                 "no answer from the DMS at %s for %u s (%s): is it running, and is that its "
                 "address?",
                 set->endpoints[greeting.bad_shard], set->wait_ms / 1000, greeting.detail);
    else if (err == -EPROTO)
        snprintf(why, why_cap, "the DMS at %s refuses: %s", set->endpoints[greeting.bad_shard],
                 greeting.detail);
    else if (err && err != -EINVAL)
        snprintf(why, why_cap, "cannot talk to the DMS: %s", strerror(-err));
    rpc_destroy(&rpc);
    return err;
}

static void on_remove(void *arg, struct rpc_answer *answer)
{
    uint32_t *confirmed = arg;
    *confirmed += answer->status == WIRE_OK;
}

uint32_t shard_set_remove_region(const struct shard_set *set, uint32_t wait_ms)
{
    struct rpc *rpc;
    uint32_t confirmed = 0;
    if (rpc_new(&rpc, set->endpoints, set->nshards, wait_ms, "Client"))
        return 0;
    static struct wire_request request;
    for (uint32_t i = 0; i < set->nshards; i++) {
        memset(&request, 0, sizeof request);
        request.method = WIRE_REMOVE;
        request.region = set->region.ids[i];
        request.epoch = set->region.epoch;
        if (rpc_call(rpc, i, &request, NULL, 0, on_remove, &confirmed))
            break;
    }
    while (rpc_process(rpc), rpc_outstanding(rpc) > 0) {
        struct pollfd fds[CONFIG_MAX_SHARDS];
        uint32_t nfds = rpc_poll_fds(rpc, fds);
        if (poll(fds, nfds, rpc_timeout_ms(rpc)) < 0 && errno != EINTR)
            break;
    }
    rpc_destroy(&rpc);
    return confirmed;
}

uint32_t shard_set_place(const struct shard_set *set, uint64_t key)
{
    return placement_of(key, set->stores, set->nshards);
}
