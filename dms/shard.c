#include "shard.h"

#include "handler.h"
#include "listener.h"
#include "random_number.h"
#include "store.h"
#include "../ini/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { ROUND = 64 /* requests between two looks at what else there is to do */ };

struct shard {
    uint32_t number;
    char part[16]; /* its name in the log */
    char *endpoint;
    char *dir;
    struct store_options options;
    struct listener *listener;
    struct store *store;
    struct handler handler;
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    int stop_fd; /* wakes the thread when it is to stop */
    int event_fd;
    uint64_t nbad; /* messages that were no requests, since the last log line about them */
    time_t bad_said;
    struct wire_request request;
    struct wire_reply reply;
    char header[WIRE_MAX_HEADER_BYTES];
};

/* The frames of one message. */
struct frames {
    zmq_msg_t identity, header, body;
    bool has_body;
    bool too_many;
    int fd;            /* of the connection, -1: unknown */
    size_t wire_bytes; /* of all frames */
};

/* The body of a reply under way. */
struct reply_body {
    zmq_msg_t message;
    bool made;
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
        .dir = shard->dir,
        .capacity_bytes = options->capacity_bytes,
        .scan_threads = options->scan_threads,
        .region_bytes = options->region_bytes,
        .max_regions = options->max_regions,
    };
    shard->handler = (struct handler){
        .shard = options->number,
        .nshards = options->nshards,
        .first_page = options->first_page,
        .part = shard->part,
        .max_pages = options->request_bytes / WIRE_PAGE_BYTES,
    };
    struct listener_options listening = {
        .endpoint = shard->endpoint,
        .part = shard->part,
        .max_connections = options->max_connections,
        .max_body_bytes = options->request_bytes,
    };
    err = listener_new(&shard->listener, &listening, why, sizeof(why));
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

/* Reads one message, also one with more frames than there should be. Returns 0, -EAGAIN when none
 * waits, or another -errno. */
static int receive(void *socket, struct frames *frames)
{
    zmq_msg_t *places[] = {&frames->identity, &frames->header, &frames->body};
    int nframes = 0;
    bool more = true;

    for (; more && nframes < 3; nframes++) {
        /* Frames of one message arrive together: only for the first there may be a wait. */
        if (zmq_msg_recv(places[nframes], socket, nframes == 0 ? ZMQ_DONTWAIT : 0) < 0)
            return -errno;
        more = zmq_msg_more(places[nframes]) != 0;
        /* The identity is not sent. */
        if (nframes > 0)
            frames->wire_bytes += peer_table_frame_bytes(zmq_msg_size(places[nframes]));
    }
    frames->has_body = nframes == 3;
    frames->too_many = more || nframes < 2;
    while (more) {
        zmq_msg_t rest;
        zmq_msg_init(&rest);
        int got = zmq_msg_recv(&rest, socket, 0);
        frames->wire_bytes += peer_table_frame_bytes(got < 0 ? 0 : (size_t)got);
        more = got >= 0 && zmq_msg_more(&rest) != 0;
        zmq_msg_close(&rest);
        if (got < 0)
            return -errno;
    }
    frames->fd = zmq_msg_get(&frames->header, ZMQ_SRCFD);
    return 0;
}

static void *make_body(void *context, size_t len_bytes)
{
    struct reply_body *body = context;

    if (zmq_msg_init_size(&body->message, len_bytes) != 0)
        return NULL;
    body->made = true;
    return zmq_msg_data(&body->message);
}

/* A peer that is gone, or does not read its replies, loses them: it asks again. */
static void send_reply(struct shard *shard, struct frames *frames, struct reply_body *body)
{
    void *socket = listener_socket(shard->listener);
    bool with_body = body->made && shard->reply.status == WIRE_OK;
    ssize_t len = wire_pack_reply(&shard->reply, shard->header, sizeof(shard->header));

    if (len > 0)
        peer_table_put(listener_peers(shard->listener), frames->fd,
                       peer_table_frame_bytes((size_t)len) +
                           (with_body ? peer_table_frame_bytes(zmq_msg_size(&body->message)) : 0));
    if (len < 0) {
        log_error(shard->part, "cannot pack a reply: %s", strerror((int)-len));
    } else if (zmq_msg_send(&frames->identity, socket, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
               zmq_send(socket, shard->header, (size_t)len,
                        (with_body ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT) >= 0 &&
               with_body) {
        if (zmq_msg_send(&body->message, socket, ZMQ_DONTWAIT) >= 0)
            body->made = false;
    }
    if (body->made)
        zmq_msg_close(&body->message);
}

static void answer(struct shard *shard, struct frames *frames, bool refused)
{
    size_t identity_len = zmq_msg_size(&frames->identity);
    size_t body_len = frames->has_body ? zmq_msg_size(&frames->body) : 0;
    struct reply_body body = {.made = false};
    struct handler_peer peer = {
        .connection = wire_checksum(0, zmq_msg_data(&frames->identity), identity_len),
        .make_body = make_body,
        .context = &body,
    };
    int unpacked = wire_unpack_request(&shard->request, zmq_msg_data(&frames->header),
                                       zmq_msg_size(&frames->header), body_len);

    if (unpacked != 0)
        complain(shard, strerror(-unpacked));
    if (refused)
        handler_refuse(&shard->request, WIRE_UNAVAILABLE, "too many connections", &shard->reply);
    else
        handler_answer(&shard->handler, &shard->request, unpacked, zmq_msg_data(&frames->body),
                       &peer, &shard->reply);
    send_reply(shard, frames, &body);
}

static void take_up(struct shard *shard, struct frames *frames)
{
    struct peer_table *peers = listener_peers(shard->listener);
    enum peer_standing standing = peer_table_take(peers, frames->fd, frames->wire_bytes);

    if (standing == PEER_CLOSING)
        return;
    if (frames->too_many)
        complain(shard, "the wrong number of frames");
    else
        answer(shard, frames, standing == PEER_REFUSED);
}

/* Answers what waits. Returns how many requests that was, ROUND if there may be more, or -errno. */
static int serve_round(struct shard *shard)
{
    void *socket = listener_socket(shard->listener);
    int count = 0;
    int err = 0;

    for (; err == 0 && count < ROUND; count++) {
        struct frames frames = {.fd = -1};
        zmq_msg_init(&frames.identity);
        zmq_msg_init(&frames.header);
        zmq_msg_init(&frames.body);
        err = receive(socket, &frames);
        if (err == 0)
            take_up(shard, &frames);
        zmq_msg_close(&frames.identity);
        zmq_msg_close(&frames.header);
        zmq_msg_close(&frames.body);
    }
    if (err == -EAGAIN)
        return count - 1;
    return err != 0 && err != -EINTR ? err : ROUND;
}

/* Its descriptor tells of news once: whoever waits for it must have tried to receive just before,
 * and sent nothing since. zmq_poll() would be simpler, and asks the kernel five times as often. */
static int serve(struct shard *shard)
{
    struct peer_table *peers = listener_peers(shard->listener);
    struct pollfd fds[] = {
        {-1, POLLIN, 0}, {shard->stop_fd, POLLIN, 0}, {peer_table_fd(peers), POLLIN, 0}};
    size_t size = sizeof(fds[0].fd);

    if (zmq_getsockopt(listener_socket(shard->listener), ZMQ_FD, &fds[0].fd, &size) != 0)
        return -errno;
    while (!atomic_load(&shard->stopping)) {
        int served = serve_round(shard);
        if (served < 0)
            return served;
        peer_table_follow(peers);
        peer_table_judge(peers, served < ROUND);
        int wait_ms = peer_table_measure(peers);
        bool more_work = store_work(shard->store);
        if (served < ROUND && !more_work && poll(fds, 3, wait_ms) < 0 && errno != EINTR)
            return -errno;
    }
    return 0;
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

static void explain_open(const struct shard *shard, int err)
{
    if (err == -EPROTONOSUPPORT)
        log_fatal(shard->part,
                  "%s has a format that this EDM does not know: use the version that made it, or "
                  "name another directory with --data",
                  shard->dir);
    else if (err == -EBADMSG)
        log_fatal(shard->part, "%s/shard is damaged: restore it from a backup", shard->dir);
    else if (err == -ENOSPC || err == -EDQUOT)
        log_fatal(shard->part,
                  "the file system of %s is full: make room, or name another directory with --data",
                  shard->dir);
    else
        log_fatal(shard->part, "cannot open the store in %s: %s", shard->dir, strerror(-err));
}

static int open_store(struct shard *shard)
{
    struct timespec begun, done;
    struct store_report found;

    clock_gettime(CLOCK_MONOTONIC, &begun);
    int err = store_open(&shard->store, &shard->options, &found);
    clock_gettime(CLOCK_MONOTONIC, &done);
    if (err != 0) {
        explain_open(shard, err);
        return err;
    }
    report(shard, &found,
           (double)(done.tv_sec - begun.tv_sec) + (double)(done.tv_nsec - begun.tv_nsec) / 1e9);
    shard->handler.store = shard->store;
    return 0;
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
    if (err != 0) {
        tell(shard, SHARD_FAILED);
        return NULL;
    }
    tell(shard, SHARD_READY);
    err = serve(shard);
    struct wire_shard_info info = {0};
    store_stat(shard->store, &info);
    store_close(&shard->store);
    if (err != 0) {
        log_fatal(shard->part, "cannot go on serving %s: %s", shard->endpoint, strerror(-err));
        tell(shard, SHARD_FAILED);
        return NULL;
    }
    log_info(shard->part,
             "stopped: %" PRIu64 " requests answered, %" PRIu64 " pages in %" PRIu64 " regions",
             shard->handler.requests, info.npages, info.nregions);
    return NULL;
}

int shard_start(struct shard *shard, int event_fd)
{
    shard->event_fd = event_fd;
    int err = -pthread_create(&shard->thread, NULL, run, shard);
    shard->started = err == 0;
    return err;
}

void shard_stop(struct shard *shard)
{
    uint64_t one = 1;

    if (!shard->started)
        return;
    atomic_store(&shard->stopping, true);
    while (write(shard->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    pthread_join(shard->thread, NULL);
    shard->started = false;
}

void shard_destroy(struct shard **shard)
{
    if (*shard == NULL)
        return;
    listener_destroy(&(*shard)->listener);
    if ((*shard)->stop_fd >= 0)
        close((*shard)->stop_fd);
    free((*shard)->endpoint);
    free((*shard)->dir);
    free(*shard);
    *shard = NULL;
}
