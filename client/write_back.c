#include "write_back.h"

#include "compress_rule.h"
#include "handoff.h"
#include "page_code.h"
#include "ticks.h"
#include "../ini/log.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PUT_PAGES = 64, /* in one message: 256 KiB (design 7: larger gains little) */
    HANDOFF_ITEMS = 256,
    FULL_RETRY_MS = 200, /* the store is full: ask again this often */
    PROBES = 5,          /* PUTs that are fetched again, from each shard */
    PROBE_PAGES = 32,    /* of so many whole pages at least */
};

_Static_assert((int)WRITE_BACK_MOST_BATCHES < (int)HANDOFF_ITEMS,
               "what is done can always be handed back");

/* A page as it is sent. */
struct code {
    const char *bytes; /* in the batch, or among the put's blocks */
    uint32_t length_bytes;
    uint8_t encoding;
};

/* One PUT under way, or waiting for room in the store. They are used again and again. */
struct put {
    struct put *next;  /* in the waiting list, or among the spare ones */
    struct put *older; /* made before this one */
    struct write_back *owner;
    struct batch *batch;
    uint32_t shard;
    uint32_t npages;
    uint8_t which[PUT_PAGES]; /* indices into the batch */
    uint64_t sequence[PUT_PAGES];
    struct code code[PUT_PAGES];
    char *blocks; /* compressed pages; NULL: none */
    uint64_t begun_us;
};

struct write_back {
    const struct shard_set *set;
    struct compress_rule rule;
    _Atomic uint64_t come_back_rate[CONFIG_MAX_SHARDS]; /* the pager's; 0: not known */
    uint8_t probes[CONFIG_MAX_SHARDS];
    struct rpc *rpc;
    struct handoff *in, *out;
    pthread_t thread;
    bool stop;
    uint64_t sequence;          /* last one given */
    struct put *waiting;        /* refused for lack of room */
    struct put *spare, *newest; /* not in use; all there are */
    uint64_t waiting_due_us;
    /* Drops wait for the batches that were begun before them: batches begun from now on count in
     * unfinished[turn], those the armed drops wait for in the other. */
    uint32_t unfinished[2];
    uint32_t turn;
    struct write_back_item *drops, *armed;
    struct wire_request request;
    struct iovec body[PUT_PAGES];
    struct write_back_counters counters;
    pthread_mutex_t published_lock; /* innermost: nothing is called under it */
    struct write_back_counters published;
};

static void on_put(void *arg, struct rpc_answer *answer);

static void finish_batch(struct write_back *wb, struct batch *batch)
{
    wb->unfinished[batch->turn]--;
    /* The ring holds more than the pager gives us at once. */
    bool given = handoff_give(wb->out, batch);
    assert(given);
    (void)given;
}

static struct put *make_put(struct write_back *wb, struct batch *batch, uint32_t shard)
{
    struct put *put = wb->spare;
    if (put) {
        wb->spare = put->next;
    } else {
        put = malloc(sizeof *put);
        if (!put)
            return NULL;
        put->blocks = NULL;
        put->older = wb->newest;
        wb->newest = put;
    }
    put->next = NULL;
    put->owner = wb;
    put->batch = batch;
    put->shard = shard;
    put->npages = 0;
    put->begun_us = ticks_us();
    batch->unanswered++;
    return put;
}

/* PUT is answered, one way or the other. */
static void end_put(struct put *put)
{
    struct write_back *wb = put->owner;
    if (--put->batch->unanswered == 0)
        finish_batch(wb, put->batch);
    free(put->blocks);
    put->blocks = NULL;
    put->next = wb->spare;
    wb->spare = put;
}

static void fail_put(struct put *put, uint8_t status, const char *detail)
{
    struct batch *batch = put->batch;
    if (batch->status == WIRE_OK) {
        batch->status = status;
        snprintf(batch->detail, sizeof batch->detail, "%s", detail);
    }
    end_put(put);
}

/* How many of the put's pages to try to compress; there is room for them then. */
static uint32_t how_many_to_try(struct put *put)
{
    struct write_back *wb = put->owner;
    uint64_t there = rpc_send_rate(wb->rpc, put->shard);
    uint64_t back = atomic_load_explicit(&wb->come_back_rate[put->shard], memory_order_relaxed);
    if (back == 0)
        back = rpc_receive_rate(wb->rpc, put->shard);
    uint64_t slower = there == 0 || (back > 0 && back < there) ? back : there;
    /* Each shard gets as many pages as the others: while one carries its share, so do they. */
    uint32_t many = compress_rule_how_many(&wb->rule, put->npages, slower * wb->set->nshards);
    if (many > 0 && !put->blocks)
        put->blocks = malloc((size_t)put->npages * PAGE_CODE_MOST_BYTES);
    return put->blocks ? many : 0;
}

/* Compresses up to TRY of the pages that are to be sent whole, and learns from that. */
static void compress_put(struct put *put, uint32_t try)
{
    struct write_back *wb = put->owner;
    uint64_t begun_ns = ticks_thread_ns();
    char *end = put->blocks;
    uint32_t tried = 0;
    uint64_t saved_bytes = 0;
    for (uint32_t i = 0; i < put->npages && tried < try; i++) {
        struct code *code = &put->code[i];
        if (code->encoding != WIRE_RAW)
            continue;
        tried++;
        uint32_t length = page_compress(code->bytes, end);
        if (length == 0)
            continue;
        *code = (struct code){end, length, WIRE_LZ4};
        end += length;
        saved_bytes += PAGE_BYTES - length;
        wb->counters.pages_compressed++;
    }
    compress_rule_learn(&wb->rule, tried, saved_bytes,
                        (double)(ticks_thread_ns() - begun_ns) / 1e3);
    wb->counters.bytes_saved += saved_bytes;
}

/* Settles, once, what is sent of each page. */
static void encode_put(struct put *put)
{
    struct write_back *wb = put->owner;
    for (uint32_t i = 0; i < put->npages; i++) {
        const char *bytes = put->batch->bytes + (size_t)put->which[i] * PAGE_BYTES;
        put->code[i] = (struct code){bytes, PAGE_BYTES, WIRE_RAW};
        if (page_is_filled(bytes)) {
            put->code[i] = (struct code){bytes, PAGE_FILL_BYTES, WIRE_FILL};
            wb->counters.pages_filled++;
        }
    }
    uint32_t try = how_many_to_try(put);
    if (try > 0)
        compress_put(put, try);
}

static void send_put(struct put *put)
{
    struct write_back *wb = put->owner;
    struct batch *batch = put->batch;
    struct wire_request *request = &wb->request;
    memset(request, 0, offsetof(struct wire_request, pages));
    request->method = WIRE_PAGE_PUT;
    request->region = batch->region->ids[put->shard];
    request->epoch = batch->region->epoch;
    request->npages = put->npages;
    request->nranges = 0;
    uint32_t nbody = 0;
    for (uint32_t i = 0; i < put->npages; i++) {
        const struct code *code = &put->code[i];
        uint64_t key = batch->key[put->which[i]];
        if (i > 0 && code->bytes == code[-1].bytes + code[-1].length_bytes)
            wb->body[nbody - 1].iov_len += code->length_bytes;
        else
            wb->body[nbody++] = (struct iovec){(void *)code->bytes, code->length_bytes};
        request->pages[i] = (struct wire_page){
            .page = key,
            .sequence = put->sequence[i],
            .checksum = wire_checksum(key, code->bytes, code->length_bytes),
            .length_bytes = code->length_bytes,
            .encoding = code->encoding,
        };
    }
    /* The batch and the put keep their bytes until the PUT is answered. */
    int err = rpc_call(wb->rpc, put->shard, request, wb->body, nbody, on_put, put);
    if (err)
        fail_put(put, WIRE_INTERNAL, strerror(-err));
}

/* The link has seen how fast it came, and that was all. */
static void on_probe(void *arg, struct rpc_answer *answer)
{
    (void)arg;
    (void)answer;
}

/* How fast pages come back is of interest before the first has to: by then many have been stored,
 * compressed or not. So the first ones are fetched again. */
static void probe(struct write_back *wb, const struct put *put)
{
    struct wire_request *request = &wb->request;
    if (wb->rule.how != CONFIG_COMPRESS_AUTO || wb->probes[put->shard] == PROBES ||
        !rpc_has_rate(wb->rpc, put->shard))
        return;
    memset(request, 0, offsetof(struct wire_request, pages));
    request->method = WIRE_PAGE_GET;
    request->region = put->batch->region->ids[put->shard];
    request->epoch = put->batch->region->epoch;
    request->npages = 0;
    request->nranges = 0;
    for (uint32_t i = 0; i < put->npages; i++)
        if (put->code[i].encoding == WIRE_RAW)
            request->pages[request->npages++] =
                (struct wire_page){.page = put->batch->key[put->which[i]]};
    if (request->npages >= PROBE_PAGES &&
        rpc_call(wb->rpc, put->shard, request, NULL, 0, on_probe, NULL) == 0)
        wb->probes[put->shard]++;
}

static void on_put(void *arg, struct rpc_answer *answer)
{
    struct put *put = arg;
    struct write_back *wb = put->owner;
    if (answer->status == WIRE_OK) {
        wb->counters.pages_put += put->npages;
        probe(wb, put);
        end_put(put);
        return;
    }
    uint64_t now = ticks_us();
    if (answer->status == WIRE_RESOURCE_EXHAUSTED &&
        now - put->begun_us < 1000ull * wb->set->wait_ms) {
        if (!wb->waiting)
            log_error("WriteBack", "%s is full: the program waits for room (%s)",
                      wb->set->endpoints[put->shard], answer->detail);
        put->next = wb->waiting;
        wb->waiting = put;
        wb->waiting_due_us = now + 1000ull * FULL_RETRY_MS;
        return;
    }
    char detail[WIRE_MAX_DETAIL_BYTES + 1];
    snprintf(detail, sizeof detail, "%.60s: %.160s", wb->set->endpoints[put->shard],
             answer->detail);
    fail_put(put, answer->status, detail);
}

static void retry_waiting(struct write_back *wb)
{
    if (!wb->waiting || ticks_us() < wb->waiting_due_us)
        return;
    struct put *put = wb->waiting;
    wb->waiting = NULL;
    while (put) {
        struct put *next = put->next;
        send_put(put);
        put = next;
    }
}

/* Which pages have to be sent; fills outcome[] and hash[]. */
static void sort_out(struct write_back *wb, struct batch *batch)
{
    for (uint32_t i = 0; i < batch->npages; i++) {
        const char *bytes = batch->bytes + (size_t)i * PAGE_BYTES;
        if (!batch->taken[i]) {
            batch->outcome[i] = OUTCOME_SKIP;
            continue;
        }
        batch->hash[i] = page_hash_of(bytes);
        if (page_is_zero(bytes)) {
            batch->outcome[i] = OUTCOME_ZERO;
            wb->counters.pages_zero++;
        } else {
            batch->outcome[i] = OUTCOME_STORED;
        }
    }
}

static void begin_put(struct put *put)
{
    encode_put(put);
    send_put(put);
}

static void start_batch(struct write_back *wb, struct batch *batch)
{
    sort_out(wb, batch);
    batch->turn = wb->turn;
    wb->unfinished[wb->turn]++;
    batch->status = WIRE_OK;
    batch->unanswered = 1; /* this function itself */
    struct put *open[CONFIG_MAX_SHARDS] = {0};
    for (uint32_t i = 0; i < batch->npages; i++) {
        if (batch->outcome[i] != OUTCOME_STORED)
            continue;
        uint32_t shard = shard_set_place(wb->set, batch->key[i]);
        struct put *put = open[shard];
        if (!put) {
            put = open[shard] = make_put(wb, batch, shard);
            if (!put) {
                batch->status = WIRE_INTERNAL;
                snprintf(batch->detail, sizeof batch->detail, "out of memory");
                break;
            }
        }
        put->which[put->npages] = (uint8_t)i;
        put->sequence[put->npages++] = ++wb->sequence;
        if (put->npages == PUT_PAGES) {
            open[shard] = NULL;
            begin_put(put);
        }
    }
    for (uint32_t shard = 0; shard < wb->set->nshards; shard++)
        if (open[shard])
            begin_put(open[shard]);
    if (--batch->unanswered == 0)
        finish_batch(wb, batch);
}

static void on_drop(void *arg, struct rpc_answer *answer)
{
    (void)arg;
    /* Not found: its process has ended, and its region with it. */
    if (answer->status != WIRE_OK && answer->status != WIRE_NOT_FOUND)
        log_warn("WriteBack", "dropping pages: %s %s", wire_status_name(answer->status),
                 answer->detail);
}

static void send_drop(struct write_back *wb, const struct drop *drop)
{
    struct wire_request *request = &wb->request;
    memset(request, 0, offsetof(struct wire_request, pages));
    request->method = WIRE_PAGE_DROP;
    request->epoch = drop->region.epoch;
    request->npages = 0;
    request->sequence = drop->sequence;
    request->nranges = drop->nranges;
    memcpy(request->ranges, drop->ranges, drop->nranges * sizeof *drop->ranges);
    /* Ranges may span extents of several shards: each drops what it has. */
    for (uint32_t shard = 0; shard < wb->set->nshards; shard++) {
        request->region = drop->region.ids[shard];
        if (rpc_call(wb->rpc, shard, request, NULL, 0, on_drop, NULL))
            log_warn("WriteBack", "cannot send a drop");
    }
}

static void free_items(struct write_back_item **list)
{
    while (*list) {
        struct write_back_item *next = (*list)->next;
        free(*list);
        *list = next;
    }
}

/* A drop goes out when no PUT that was begun before it is under way: one that is repeated after the
 * drop would bring its page back into the store. */
static void send_drops(struct write_back *wb)
{
    for (;;) {
        if (wb->armed && wb->unfinished[wb->turn ^ 1] == 0) {
            for (struct write_back_item *item = wb->armed; item; item = item->next)
                send_drop(wb, (struct drop *)item);
            free_items(&wb->armed);
        }
        if (wb->armed || !wb->drops)
            return;
        wb->armed = wb->drops;
        wb->drops = NULL;
        wb->turn ^= 1;
    }
}

static void take_in(struct write_back *wb)
{
    handoff_calm(wb->in);
    for (struct write_back_item *item; (item = handoff_take(wb->in));) {
        switch (item->kind) {
        case WRITE_BACK_BATCH:
            start_batch(wb, (struct batch *)item);
            break;
        case WRITE_BACK_DROP:
            ((struct drop *)item)->sequence = wb->sequence;
            item->next = wb->drops;
            wb->drops = item;
            break;
        case WRITE_BACK_STOP:
            wb->stop = true;
            break;
        }
    }
}

static void publish(struct write_back *wb)
{
    wb->counters.cpu_us = ticks_thread_ns() / 1000;
    wb->counters.rpc = rpc_counters(wb->rpc);
    pthread_mutex_lock(&wb->published_lock);
    wb->published = wb->counters;
    pthread_mutex_unlock(&wb->published_lock);
}

static void *run(void *arg)
{
    struct write_back *wb = arg;
    struct pollfd fds[CONFIG_MAX_SHARDS + 1];
    for (;;) {
        take_in(wb);
        if (wb->stop)
            break;
        retry_waiting(wb);
        send_drops(wb);
        if (rpc_process(wb->rpc) > 0)
            continue;
        publish(wb);
        int timeout = rpc_timeout_ms(wb->rpc);
        if (wb->waiting && (timeout < 0 || timeout > FULL_RETRY_MS))
            timeout = FULL_RETRY_MS;
        fds[0] = (struct pollfd){handoff_fd(wb->in), POLLIN, 0};
        uint32_t nfds = 1 + rpc_poll_fds(wb->rpc, fds + 1);
        if (poll(fds, nfds, timeout) >= 0)
            rpc_polled(wb->rpc, fds + 1);
        else if (errno != EINTR)
            log_error("WriteBack", "poll: %s", strerror(errno));
    }
    publish(wb);
    return NULL;
}

static void free_parts(struct write_back **write_back)
{
    struct write_back *wb = *write_back;
    rpc_destroy(&wb->rpc);
    handoff_destroy(&wb->in);
    handoff_destroy(&wb->out);
    while (wb->newest) {
        struct put *older = wb->newest->older;
        free(wb->newest->blocks);
        free(wb->newest);
        wb->newest = older;
    }
    free_items(&wb->drops);
    free_items(&wb->armed);
    pthread_mutex_destroy(&wb->published_lock);
    free(wb);
    *write_back = NULL;
}

int write_back_new(struct write_back **out, const struct shard_set *set,
                   enum config_compress compress)
{
    struct write_back *wb = calloc(1, sizeof *wb);
    if (!wb)
        return -ENOMEM;
    wb->set = set;
    wb->rule.how = compress;
    wb->sequence = set->sequence;
    pthread_mutex_init(&wb->published_lock, NULL);
    int err = handoff_new(&wb->in, HANDOFF_ITEMS);
    if (!err)
        err = handoff_new(&wb->out, HANDOFF_ITEMS);
    if (!err)
        err = rpc_new(&wb->rpc, set->endpoints, set->nshards, set->wait_ms, "WriteBack");
    if (!err)
        err = -pthread_create(&wb->thread, NULL, run, wb);
    if (err) {
        free_parts(&wb);
        return err;
    }
    *out = wb;
    return 0;
}

void write_back_destroy(struct write_back **write_back)
{
    if (!*write_back)
        return;
    struct write_back_item stop = {.kind = WRITE_BACK_STOP};
    while (!write_back_give(*write_back, &stop))
        sched_yield();
    pthread_join((*write_back)->thread, NULL);
    free_parts(write_back);
}

bool write_back_give(struct write_back *write_back, struct write_back_item *item)
{
    return handoff_give(write_back->in, item);
}

struct batch *write_back_take(struct write_back *write_back)
{
    return handoff_take(write_back->out);
}

void write_back_note_rate(struct write_back *write_back, uint32_t shard, uint64_t rate)
{
    atomic_store_explicit(&write_back->come_back_rate[shard], rate, memory_order_relaxed);
}

int write_back_fd(const struct write_back *write_back)
{
    return handoff_fd(write_back->out);
}

void write_back_calm(struct write_back *write_back)
{
    handoff_calm(write_back->out);
}

struct write_back_counters write_back_counters(struct write_back *write_back)
{
    pthread_mutex_lock(&write_back->published_lock);
    struct write_back_counters counters = write_back->published;
    pthread_mutex_unlock(&write_back->published_lock);
    return counters;
}
