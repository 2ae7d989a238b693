#include "shard.h"

#include "durability.h"
#include "handler.h"
#include "put_gather.h"
#include "random_number.h"
#include "reply_queue.h"
#include "scrub.h"
#include "server.h"
#include "store.h"
#include "../ini/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    ROUND = REPLY_QUEUE_MAX, /* requests between two looks at what else there is to do */
    MAX_DAMAGE_LINES = 100,
    LINGER_MS = 200,  /* for answers on their way at the end */
    SHAKE_MS = 30000, /* for a peer's handshake, as libzmq has it */
};

struct shard {
    uint32_t number;
    char part[16]; /* its name in the log */
    char *endpoint;
    char *dir;
    struct store_options options;
    struct server *server;
    struct store *store;
    struct durability *durability;
    uint32_t sync_interval_ms;
    struct reply_queue waiting; /* for what they say to be on disk */
    struct handler handler;
    struct scrub scrub;
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    int stop_fd; /* wakes the thread when it is to stop */
    int event_fd;
    int err;       /* what the thread ended with */
    uint64_t nbad; /* messages that were no requests, since the last log line about them */
    time_t bad_said;
    struct put_gather gather;
    struct wire_request request, gathered;
    struct wire_reply reply;
    struct handler_body body; /* of the reply */
    char header[WIRE_MAX_HEADER_BYTES];
};

int shard_new(struct shard **out, const struct shard_options *options)
{
    struct shard *shard = calloc(1, sizeof(*shard));
    char why[512] = "out of memory";
    int err = -ENOMEM;

    if (shard == NULL)
        goto out;
    shard->number = options->number;
    snprintf(shard->part, sizeof(shard->part), "Shard %" PRIu32, options->number);
    shard->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    shard->endpoint = strdup(options->endpoint);
    shard->dir = strdup(options->dir);
    if (shard->stop_fd < 0 || shard->endpoint == NULL || shard->dir == NULL)
        goto out;
    shard->options = (struct store_options){
        .disk = options->disk,
        .dir = shard->dir,
        .capacity_bytes = options->capacity_bytes,
        .scan_threads = options->scan_threads,
        .region_bytes = options->region_bytes,
        .max_regions = options->max_regions,
        .durability = options->durability,
    };
    shard->sync_interval_ms = options->sync_interval_ms;
    shard->scrub = (struct scrub){.rate = options->scrub_bytes, .part = shard->part};
    shard->handler = (struct handler){
        .shard = options->number,
        .nshards = options->nshards,
        .first_page = options->first_page,
        .part = shard->part,
        .max_pages = options->request_bytes / WIRE_PAGE_BYTES,
    };
    struct server_options serving = {
        .endpoint = shard->endpoint,
        .part = shard->part,
        .max_connections = options->max_connections,
        .max_body_bytes = options->request_bytes,
        .shake_ms = SHAKE_MS,
    };
    err = server_new(&shard->server, &serving, why, sizeof(why));
out:
    if (err != 0) {
        log_fatal("DMS", "%s", why);
        shard_destroy(&shard);
    } else {
        *out = shard;
    }
    return err;
}

/* At most one line a second, however many come. */
static void complain(struct shard *shard, const char *what)
{
    struct timespec now;

    shard->nbad++;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec == shard->bad_said)
        return;
    log_warn(shard->part, "%" PRIu64 " messages that are no valid requests, the last one: %s",
             shard->nbad, what);
    shard->bad_said = now.tv_sec;
    shard->nbad = 0;
}

/* Sends the reply, or keeps it until what came before it is on disk. MORE: see server_answer(). */
static void send_reply(struct shard *shard, uint64_t peer, bool more)
{
    ssize_t len = wire_pack_reply(&shard->reply, shard->header, sizeof(shard->header));
    unsigned nparts = shard->reply.status == WIRE_OK ? shard->body.nparts : 0;
    int err = len < 0 ? (int)len : 0;

    if (err == 0 && (shard->waiting.count > 0 || durability_must_commit(shard->durability)))
        err = reply_queue_add(&shard->waiting, peer, shard->header, (size_t)len, shard->body.parts,
                              nparts);
    else if (err == 0)
        server_answer(shard->server, peer, shard->header, (size_t)len, shard->body.parts, nparts,
                      more);
    if (err != 0)
        log_error(shard->part, "cannot make a reply: %s", strerror(-err));
}

/* The PUTs that were gathered are stored and answered. Nobody else's request comes between them. */
static void answer_gathered(struct shard *shard)
{
    struct put_gather *gather = &shard->gather;
    bool stored = gather->nputs > 1 &&
                  handler_put_together(&shard->handler, gather->nputs, gather->region,
                                       gather->epoch, gather->pages, gather->npages, gather->bytes);

    shard->body.nparts = 0;
    for (uint32_t i = 0; i < gather->nputs; i++) {
        const void *bytes = put_gather_request(gather, i, &shard->gathered);
        if (stored)
            handler_refuse(&shard->gathered, WIRE_OK, "", &shard->reply);
        else
            handler_answer(&shard->handler, &shard->gathered, 0, bytes, 0, &shard->reply,
                           &shard->body);
        bool more = i + 1 < gather->nputs && gather->puts[i + 1].peer == gather->puts[i].peer;
        send_reply(shard, gather->puts[i].peer, more);
    }
    put_gather_clear(gather);
}

/* Whether the request waits for others like it, which may have come already. If not, what was
 * gathered has been answered. */
static bool gather(struct shard *shard, const struct server_request *request)
{
    bool is_put = handler_takes_put(&shard->handler, &shard->request);

    if (is_put && put_gather_add(&shard->gather, &shard->request, request->body, request->peer))
        return true;
    answer_gathered(shard);
    return is_put && put_gather_add(&shard->gather, &shard->request, request->body, request->peer);
}

static void answer(struct shard *shard, const struct server_request *request)
{
    /* For the claims of an earlier start, too, another number. */
    uint64_t connection =
        wire_checksum(shard->handler.instance, &request->peer, sizeof(request->peer));
    int unpacked = wire_unpack_request(&shard->request, request->header, request->header_bytes,
                                       request->body_bytes);

    shard->body.nparts = 0;
    if (unpacked == 0 && !request->refused && gather(shard, request))
        return;
    if (unpacked != 0)
        complain(shard, strerror(-unpacked));
    if (request->refused)
        handler_refuse(&shard->request, WIRE_UNAVAILABLE, "too many connections", &shard->reply);
    else
        handler_answer(&shard->handler, &shard->request, unpacked, request->body, connection,
                       &shard->reply, &shard->body);
    send_reply(shard, request->peer, false);
}

/* Answers what waits. Returns how many requests that was; ROUND: there may be more. */
static int serve_round(struct shard *shard)
{
    struct server_request request;
    int count = 0;

    while (count < ROUND && store_failure(shard->store) == 0 &&
           server_next(shard->server, &request)) {
        count++;
        if (request.too_many)
            complain(shard, "the wrong number of frames");
        else
            answer(shard, &request);
    }
    answer_gathered(shard);
    return count;
}

/* Makes sure of what was done and sends the replies that wait for it. Returns how many, or -errno.
 */
static int commit(struct shard *shard)
{
    int count = (int)shard->waiting.count;
    int err = durability_commit(shard->durability);

    if (err != 0)
        reply_queue_clear(&shard->waiting);
    else
        reply_queue_send(&shard->waiting, shard->server);
    return err != 0 ? err : count;
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Of two timeouts, -1 being none. */
static int sooner(int a_ms, int b_ms)
{
    return b_ms >= 0 && (a_ms < 0 || b_ms < a_ms) ? b_ms : a_ms;
}

static int serve(struct shard *shard)
{
    int err = server_watch(shard->server, shard->stop_fd);

    if (err == 0)
        err = server_watch(shard->server, durability_fd(shard->durability));
    while (err == 0 && !atomic_load(&shard->stopping)) {
        int served = serve_round(shard);
        int sent = commit(shard);
        if (sent < 0)
            return sent;
        int timeout_ms;
        err = durability_turn(shard->durability, &timeout_ms);
        if (err != 0)
            return err;
        /* After the end of a round: there is nothing to give back while one is under way. */
        bool more_work = store_work(shard->store);
        timeout_ms = sooner(timeout_ms, store_pause_ms(shard->store));
        timeout_ms = sooner(timeout_ms, server_turn(shard->server));
        timeout_ms = sooner(timeout_ms, scrub_turn(&shard->scrub, now_us()));
        err = server_wait(shard->server, served == ROUND || more_work ? 0 : timeout_ms);
    }
    if (err == 0)
        server_end(shard->server, LINGER_MS);
    return err;
}

static void report(const struct shard *shard, const struct store_report *found, double seconds)
{
    struct wire_shard_info info = {0};

    store_stat(shard->store, &info);
    log_info(shard->part,
             "serving %s from %s: capacity %" PRIu64 " MiB; found %" PRIu64 " pages in %" PRIu64
             " regions, %" PRIu64 " damaged slots, %" PRIu64 " damaged pages, in %.3f s",
             shard->endpoint, shard->dir, info.capacity_bytes >> 20, found->pages, found->regions,
             found->damaged_headers, found->damaged_pages, seconds);
    if (found->power_cut)
        log_info(shard->part,
                 "the machine was started anew since the last change: %" PRIu64
                 " pages and branches that had not been synced are forgotten",
                 found->unfinished);
    if (found->damaged_headers + found->damaged_pages + found->damaged_records +
            found->damaged_files + found->recovered >
        0)
        log_warn(shard->part,
                 "%s is damaged: %" PRIu64 " slots set aside, %" PRIu64
                 " pages will be answered with DATA_LOSS, %" PRIu64 " manifest records skipped, "
                 "%" PRIu64 " segment files mended, %" PRIu64 " regions recovered without a name",
                 shard->dir, found->damaged_headers, found->damaged_pages, found->damaged_records,
                 found->damaged_files, found->recovered);
}

/* A line for each, up to a number that a log can bear. */
static void say_damage(const struct shard *shard, const struct damage_list *list)
{
    char text[1024];

    for (size_t i = 0; i < list->count && i < MAX_DAMAGE_LINES; i++) {
        store_describe_damage(shard->store, &list->at[i], text, sizeof(text));
        log_warn(shard->part, "%s/%s", shard->dir, text);
    }
    if (list->count > MAX_DAMAGE_LINES)
        log_warn(shard->part, "and %zu more: edm --mode=check lists them all",
                 list->count - MAX_DAMAGE_LINES);
}

static void explain_open(const struct shard *shard, const struct damage_list *list, int err)
{
    const char *file = "";

    for (size_t i = 0; i < list->count; i++) {
        if (list->at[i].kind == DAMAGE_FORMAT)
            file = list->at[i].file;
    }
    if (err == -EPROTONOSUPPORT)
        log_fatal(shard->part,
                  "%s%s%s has a format that this EDM does not know: use the version that made it, "
                  "or name another directory with --data",
                  shard->dir, *file == '\0' ? "" : "/", file);
    else if (err == -EBADMSG)
        log_fatal(shard->part,
                  "%s/shard is damaged or missing: restore it from a backup, or have it made anew "
                  "with edm --mode=check --repair",
                  shard->dir);
    else if (err == -ENOSPC || err == -EDQUOT)
        log_fatal(shard->part,
                  "the file system of %s is full: make room, or name another directory with --data",
                  shard->dir);
    else
        log_fatal(shard->part, "cannot open the store in %s: %s", shard->dir, strerror(-err));
}

/* Whether what the disk says can still be trusted is for people to find out. */
static void explain_end(const struct shard *shard, int err)
{
    if (shard->store != NULL && store_failure(shard->store) != 0)
        log_fatal(
            shard->part,
            "cannot sync %s: %s: what of the changes since the last sync is on disk cannot be "
            "known; see to the disk, then start again",
            shard->dir, strerror(-err));
    else
        log_fatal(shard->part, "cannot go on serving %s: %s", shard->endpoint, strerror(-err));
}

static int open_store(struct shard *shard)
{
    struct timespec begun, done;
    struct store_report found;

    struct damage_list damage = {0};
    shard->options.damage = &damage;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    int err = store_open(&shard->store, &shard->options, &found);
    clock_gettime(CLOCK_MONOTONIC, &done);
    shard->options.damage = NULL;
    if (err == 0)
        say_damage(shard, &damage);
    else
        explain_open(shard, &damage, err);
    damage_clear(&damage);
    if (err != 0)
        return err;
    report(shard, &found,
           (double)(done.tv_sec - begun.tv_sec) + (double)(done.tv_nsec - begun.tv_nsec) / 1e9);
    shard->handler.store = shard->scrub.store = shard->store;
    err = durability_new(&shard->durability, shard->store, shard->options.durability,
                         shard->sync_interval_ms);
    if (err != 0) {
        log_fatal(shard->part, "cannot start a thread: %s", strerror(-err));
        store_close(&shard->store);
    }
    return err;
}

static void tell(const struct shard *shard, int kind)
{
    struct shard_event event = {.number = shard->number};

    event.kind = kind == SHARD_READY ? SHARD_READY : SHARD_FAILED;
    while (write(shard->event_fd, &event, sizeof(event)) < 0 && errno == EINTR)
        ;
}

static void *run(void *context)
{
    struct shard *shard = context;
    int err = random_number(&shard->handler.instance);

    if (err == 0)
        err = open_store(shard);
    shard->err = err;
    if (err != 0) {
        tell(shard, SHARD_FAILED);
        return NULL;
    }
    tell(shard, SHARD_READY);
    err = serve(shard);
    if (err == 0)
        err = durability_settle(shard->durability);
    if (err != 0)
        explain_end(shard, err);
    struct wire_shard_info info = {0};
    store_stat(shard->store, &info);
    uint64_t nmoved = store_moved(shard->store);
    reply_queue_clear(&shard->waiting);
    durability_destroy(&shard->durability);
    store_close(&shard->store);
    shard->err = err;
    if (err != 0) {
        tell(shard, SHARD_FAILED);
        return NULL;
    }
    log_info(shard->part,
             "stopped: %" PRIu64 " requests answered, %" PRIu64 " pages in %" PRIu64 " regions",
             shard->handler.requests, info.npages, info.nregions);
    if (nmoved > 0)
        log_info(shard->part, "moved %" PRIu64 " pages to slots where they take less room", nmoved);
    return NULL;
}

int shard_start(struct shard *shard, int event_fd)
{
    shard->event_fd = event_fd;
    int err = -pthread_create(&shard->thread, NULL, run, shard);
    shard->started = err == 0;
    return err;
}

int shard_stop(struct shard *shard)
{
    uint64_t one = 1;

    if (!shard->started)
        return 0;
    atomic_store(&shard->stopping, true);
    while (write(shard->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    pthread_join(shard->thread, NULL);
    shard->started = false;
    return shard->err;
}

void shard_destroy(struct shard **shard)
{
    if (*shard == NULL)
        return;
    server_destroy(&(*shard)->server);
    if ((*shard)->stop_fd >= 0)
        close((*shard)->stop_fd);
    free((*shard)->endpoint);
    free((*shard)->dir);
    free(*shard);
    *shard = NULL;
}
