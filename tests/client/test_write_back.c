/* write_back against shards that the test plays: what is sent, when a batch is done, what waits. */
#include "../../client/ticks.h"
#include "../../client/write_back.h"
#include "../../client/page_code.h"
#include "../../client/placement.h"
#include "router.h"
#include "test.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { SHARDS = 3, LONG_MS = 20000, QUIET_MS = 150, KEYS = 4096, FIRST_SEQUENCE = 77 };

/* What a shard was told, by key. */
struct record {
    bool there;
    uint64_t sequence;
    unsigned char byte; /* each test page is one byte and its key, see fill() */
};

struct fixture {
    void *zmq;
    struct router routers[SHARDS];
    char *endpoints[SHARDS];
    struct shard_set set;
    struct write_back *write_back;
    enum config_compress compress; /* AUTO, unless a test says otherwise */
    struct router_request *request;
    struct wire_reply reply;
    struct record stored[SHARDS][KEYS];
    uint32_t puts, drops;
    uint32_t encoded[WIRE_LZ4 + 1]; /* pages stored so */
};

static struct batch *batch_new(void)
{
    struct batch *batch = calloc(1, sizeof *batch);
    assert_non_null(batch);
    batch->item.kind = WRITE_BACK_BATCH;
    char *bytes = calloc(BATCH_PAGES, PAGE_BYTES);
    assert_non_null(bytes);
    batch->bytes = bytes;
    return batch;
}

static void batch_destroy(struct batch *batch)
{
    free((void *)batch->bytes);
    free(batch);
}

static void fill(char *page, uint64_t key, unsigned char byte)
{
    memset(page, byte, PAGE_BYTES);
    memcpy(page + 100, &key, sizeof key);
}

/* Adds a page to BATCH and returns its index. */
static uint32_t add(struct batch *batch, uint64_t key, unsigned char byte)
{
    uint32_t i = batch->npages++;
    batch->key[i] = key;
    batch->page[i] = key;
    batch->taken[i] = true;
    fill((char *)batch->bytes + (size_t)i * PAGE_BYTES, key, byte);
    return i;
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->zmq = zmq_ctx_new();
    assert_non_null(fixture->zmq);
    fixture->request = router_request_new();
    fixture->set = (struct shard_set){.endpoints = fixture->endpoints,
                                      .nshards = SHARDS,
                                      .wait_ms = LONG_MS,
                                      .region.epoch = 5,
                                      .sequence = FIRST_SEQUENCE};
    for (int i = 0; i < SHARDS; i++) {
        router_init(&fixture->routers[i], fixture->zmq, i);
        router_bind(&fixture->routers[i]);
        fixture->endpoints[i] = fixture->routers[i].endpoint;
        fixture->set.stores[i] = 1000 + (uint64_t)i;
        fixture->set.region.ids[i] = 50 + (uint64_t)i;
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    write_back_destroy(&fixture->write_back);
    for (int i = 0; i < SHARDS; i++)
        router_close(&fixture->routers[i]);
    router_request_destroy(&fixture->request);
    zmq_ctx_term(fixture->zmq);
    free(fixture);
    return 0;
}

static void start(struct fixture *fixture)
{
    assert_int_equal(write_back_new(&fixture->write_back, &fixture->set, fixture->compress), 0);
}

static void give(struct fixture *fixture, struct batch *batch)
{
    batch->region = &fixture->set.region;
    assert_true(write_back_give(fixture->write_back, &batch->item));
}

static void give_drop(struct fixture *fixture, uint64_t first, uint64_t npages)
{
    struct drop *drop = calloc(1, sizeof *drop);
    assert_non_null(drop);
    drop->item.kind = WRITE_BACK_DROP;
    drop->region = fixture->set.region;
    drop->nranges = 1;
    drop->ranges[0] = (struct wire_range){first, npages};
    assert_true(write_back_give(fixture->write_back, &drop->item));
}

/* Checks a PUT as a shard would, and remembers what it says. */
static void note_put(struct fixture *fixture, uint32_t shard)
{
    const struct wire_request *request = &fixture->request->request;
    fixture->puts++;
    const char *code = fixture->request->body;
    for (uint32_t i = 0; i < request->npages; i++) {
        const struct wire_page *page = &request->pages[i];
        char bytes[PAGE_BYTES];
        assert_in_range(page->page, 0, KEYS - 1);
        assert_in_range(page->encoding, 0, WIRE_LZ4);
        fixture->encoded[page->encoding]++;
        assert_true(page->checksum == wire_checksum(page->page, code, page->length_bytes));
        assert_true(page_decode(page->encoding, code, page->length_bytes, bytes));
        code += page->length_bytes;
        assert_int_equal(placement_of(page->page, fixture->set.stores, SHARDS), shard);
        char expected[PAGE_BYTES];
        fill(expected, page->page, (unsigned char)bytes[0]);
        assert_memory_equal(bytes, expected, PAGE_BYTES);
        struct record *record = &fixture->stored[shard][page->page];
        assert_true(page->sequence > FIRST_SEQUENCE);
        if (!record->there || page->sequence > record->sequence)
            *record = (struct record){true, page->sequence, (unsigned char)bytes[0]};
    }
    assert_int_equal(fixture->request->body_bytes, code - fixture->request->body);
}

static void note_drop(struct fixture *fixture, uint32_t shard)
{
    const struct wire_request *request = &fixture->request->request;
    fixture->drops++;
    for (uint32_t i = 0; i < request->nranges; i++)
        for (uint64_t key = 0; key < KEYS; key++) {
            struct record *record = &fixture->stored[shard][key];
            if (key - request->ranges[i].first < request->ranges[i].npages &&
                record->sequence <= request->sequence)
                record->there = false;
        }
}

/* Takes one request from any shard into fixture->request; SHARDS when none came in time. */
static uint32_t receive(struct fixture *fixture, int timeout_ms)
{
    uint64_t end = ticks_us() + (uint64_t)timeout_ms * 1000;
    do {
        zmq_pollitem_t items[SHARDS];
        for (int i = 0; i < SHARDS; i++)
            items[i] = (zmq_pollitem_t){.socket = fixture->routers[i].socket, .events = ZMQ_POLLIN};
        zmq_poll(items, SHARDS, timeout_ms);
        for (uint32_t i = 0; i < SHARDS; i++) {
            if (!items[i].revents || !router_receive(&fixture->routers[i], fixture->request, 0))
                continue;
            assert_true(fixture->request->request.region == fixture->set.region.ids[i]);
            assert_true(fixture->request->request.epoch == fixture->set.region.epoch);
            return i;
        }
    } while (ticks_us() < end);
    return SHARDS;
}

static void reply(struct fixture *fixture, uint32_t shard, uint8_t status, const char *detail)
{
    router_reply_to(fixture->request, status, &fixture->reply);
    strcpy(fixture->reply.detail, detail);
    router_send(&fixture->routers[shard], fixture->request, &fixture->reply, NULL, 0);
}

/* Plays good shards for one request. Returns whether there was one. */
static bool serve_one(struct fixture *fixture, int timeout_ms)
{
    uint32_t shard = receive(fixture, timeout_ms);
    if (shard == SHARDS)
        return false;
    if (fixture->request->request.method == WIRE_PAGE_PUT)
        note_put(fixture, shard);
    else if (fixture->request->request.method == WIRE_PAGE_DROP)
        note_drop(fixture, shard);
    else
        fail();
    reply(fixture, shard, WIRE_OK, "");
    return true;
}

/* The next batch that is done, or NULL. */
static struct batch *take(struct fixture *fixture, int timeout_ms)
{
    uint64_t end = ticks_us() + (uint64_t)timeout_ms * 1000;
    for (;;) {
        write_back_calm(fixture->write_back);
        struct batch *batch = write_back_take(fixture->write_back);
        uint64_t now = ticks_us();
        if (batch || now >= end)
            return batch;
        struct pollfd fd = {write_back_fd(fixture->write_back), POLLIN, 0};
        poll(&fd, 1, (int)((end - now) / 1000 + 1));
    }
}

static struct batch *serve_until_done(struct fixture *fixture)
{
    uint64_t end = ticks_us() + LONG_MS * 1000ull;
    struct batch *batch = NULL;
    while (!batch && ticks_us() < end) {
        serve_one(fixture, 2);
        batch = take(fixture, 0);
    }
    assert_non_null(batch);
    return batch;
}

/* Counters are published a little later than what they count. */
static struct write_back_counters counters_with_put(struct fixture *fixture, uint64_t pages_put)
{
    uint64_t end = ticks_us() + LONG_MS * 1000ull;
    struct write_back_counters counters;
    do {
        counters = write_back_counters(fixture->write_back);
    } while (counters.pages_put < pages_put && ticks_us() < end);
    assert_int_equal(counters.pages_put, pages_put);
    return counters;
}

static const struct record *find(const struct fixture *fixture, uint64_t key)
{
    return &fixture->stored[placement_of(key, fixture->set.stores, SHARDS)][key];
}

static uint32_t count_stored(const struct fixture *fixture)
{
    uint32_t count = 0;
    for (int shard = 0; shard < SHARDS; shard++)
        for (uint64_t key = 0; key < KEYS; key++)
            count += fixture->stored[shard][key].there;
    return count;
}

static void test_outcomes(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    uint32_t stored = add(batch, 10, 1);
    uint32_t zero = add(batch, 11, 1);
    uint32_t other = add(batch, 13, 4);
    uint32_t skipped = add(batch, 14, 5);
    uint32_t nearly_zero = add(batch, 1 << 10, 0);
    char *bytes = (char *)batch->bytes;
    memset(bytes + zero * PAGE_BYTES, 0, PAGE_BYTES);
    batch->taken[skipped] = false;
    give(fixture, batch);
    assert_ptr_equal(serve_until_done(fixture), batch);
    assert_int_equal(batch->status, WIRE_OK);
    assert_int_equal(batch->outcome[stored], OUTCOME_STORED);
    assert_int_equal(batch->outcome[zero], OUTCOME_ZERO);
    assert_int_equal(batch->outcome[other], OUTCOME_STORED);
    assert_int_equal(batch->outcome[skipped], OUTCOME_SKIP);
    assert_int_equal(batch->outcome[nearly_zero], OUTCOME_STORED);
    for (uint32_t i = 0; i < batch->npages; i++)
        if (i != skipped)
            assert_true(page_hash_equal(batch->hash[i], page_hash_of(bytes + i * PAGE_BYTES)));
    assert_int_equal(count_stored(fixture), 3);
    assert_true(find(fixture, 10)->there && find(fixture, 10)->byte == 1);
    assert_true(find(fixture, 13)->there && find(fixture, 13)->byte == 4);
    assert_true(find(fixture, 1 << 10)->there && find(fixture, 1 << 10)->byte == 0);
    struct write_back_counters counters = counters_with_put(fixture, 3);
    assert_int_equal(counters.pages_zero, 1);
    batch_destroy(batch);
}

/* Pages of all kinds, compressed: each shard gets its own, also when it has to be told again. */
static void test_compressed(void **state)
{
    struct fixture *fixture = *state;
    uint64_t seed = 31;
    fixture->compress = CONFIG_COMPRESS_YES;
    start(fixture);
    struct batch *batch = batch_new();
    for (uint64_t key = 1; batch->npages < BATCH_PAGES; key += 7)
        add(batch, key, (unsigned char)(1 + key % 250));
    give(fixture, batch);
    /* Each shard is full at first. */
    for (uint32_t refused = 0; refused < SHARDS; refused++)
        reply(fixture, receive(fixture, LONG_MS), WIRE_RESOURCE_EXHAUSTED, "full");
    assert_ptr_equal(serve_until_done(fixture), batch);
    assert_int_equal(batch->status, WIRE_OK);
    assert_int_equal(count_stored(fixture), BATCH_PAGES);
    assert_int_equal(fixture->encoded[WIRE_LZ4], BATCH_PAGES);
    for (uint32_t i = 0; i < BATCH_PAGES; i++) {
        const char *bytes = batch->bytes + (size_t)i * PAGE_BYTES;
        assert_int_equal(find(fixture, batch->key[i])->byte, (unsigned char)bytes[0]);
        assert_true(page_hash_equal(batch->hash[i], page_hash_of(bytes)));
    }
    /* What does not get shorter goes as it is. */
    fixture->encoded[WIRE_LZ4] = 0;
    char *noise = (char *)batch->bytes;
    batch->npages = 1;
    for (int i = 0; i < PAGE_BYTES; i++)
        noise[i] = (char)(test_random(&seed) >> 56);
    give(fixture, batch);
    uint32_t shard = receive(fixture, LONG_MS);
    assert_int_equal(fixture->request->request.pages[0].encoding, WIRE_RAW);
    assert_memory_equal(fixture->request->body, noise, PAGE_BYTES);
    reply(fixture, shard, WIRE_OK, "");
    assert_ptr_equal(take(fixture, LONG_MS), batch);
    struct write_back_counters counters = counters_with_put(fixture, BATCH_PAGES + 1);
    assert_int_equal(counters.pages_compressed, BATCH_PAGES);
    assert_int_equal(counters.pages_filled, 0);
    assert_in_range(counters.bytes_saved, BATCH_PAGES * 3000, BATCH_PAGES * PAGE_BYTES);
    batch_destroy(batch);
}

static void test_filled(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    memset((char *)batch->bytes + add(batch, 1, 1) * PAGE_BYTES, 0xee, PAGE_BYTES);
    give(fixture, batch);
    uint32_t shard = receive(fixture, LONG_MS);
    const struct wire_page *page = &fixture->request->request.pages[0];
    assert_int_equal(page->encoding, WIRE_FILL);
    assert_int_equal(fixture->request->body_bytes, PAGE_FILL_BYTES);
    assert_memory_equal(fixture->request->body, batch->bytes, PAGE_FILL_BYTES);
    assert_true(page->checksum == wire_checksum(1, batch->bytes, PAGE_FILL_BYTES));
    reply(fixture, shard, WIRE_OK, "");
    assert_ptr_equal(take(fixture, LONG_MS), batch);
    assert_int_equal(counters_with_put(fixture, 1).pages_filled, 1);
    batch_destroy(batch);
}

/* A batch with nothing to send is done without a word to any shard. */
static void test_nothing_to_send(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    memset((char *)batch->bytes + add(batch, 1, 1) * PAGE_BYTES, 0, PAGE_BYTES);
    batch->taken[add(batch, 2, 1)] = false;
    give(fixture, batch);
    assert_ptr_equal(take(fixture, LONG_MS), batch);
    assert_int_equal(batch->status, WIRE_OK);
    assert_int_equal(receive(fixture, QUIET_MS), SHARDS);
    batch_destroy(batch);
}

static void test_several_shards(void **state)
{
    struct fixture *fixture = *state;
    enum { BATCHES = 24 };
    struct batch *batches[BATCHES];
    uint64_t seed = 99;
    start(fixture);
    for (int i = 0; i < BATCHES; i++) {
        batches[i] = batch_new();
        for (int j = 0; j < BATCH_PAGES; j++)
            add(batches[i], (uint64_t)i * BATCH_PAGES + (uint64_t)j,
                (unsigned char)(1 + test_random(&seed) % 255));
        give(fixture, batches[i]);
    }
    for (int i = 0; i < BATCHES; i++)
        assert_int_equal(serve_until_done(fixture)->status, WIRE_OK);
    assert_int_equal(count_stored(fixture), BATCHES * BATCH_PAGES);
    uint32_t shards_used = 0;
    for (int shard = 0; shard < SHARDS; shard++) {
        uint32_t pages = 0;
        for (uint64_t key = 0; key < KEYS; key++)
            pages += fixture->stored[shard][key].there;
        shards_used += pages > 0;
    }
    assert_true(shards_used >= 2);
    for (int i = 0; i < BATCHES; i++) {
        for (uint32_t j = 0; j < BATCH_PAGES; j++) {
            const struct record *record = find(fixture, batches[i]->key[j]);
            assert_true(record->there);
            assert_int_equal(record->byte,
                             (unsigned char)batches[i]->bytes[(size_t)j * PAGE_BYTES]);
        }
        batch_destroy(batches[i]);
    }
    /* Full messages, not one for each page. */
    assert_true(fixture->puts <= BATCHES * (BATCH_PAGES / 64 + SHARDS));
    counters_with_put(fixture, BATCHES * BATCH_PAGES);
}

/* A batch is not done as long as one shard has not said so. */
static void test_done_when_all_have_answered(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    /* A page for every shard. */
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        for (uint64_t key = 0; key < KEYS; key += WIRE_EXTENT_PAGES)
            if (placement_of(key, fixture->set.stores, SHARDS) == shard) {
                add(batch, key, 9);
                break;
            }
    uint32_t npages = batch->npages;
    assert_true(npages >= 2);
    give(fixture, batch);
    for (uint32_t i = 0; i < npages; i++) {
        uint32_t shard = receive(fixture, LONG_MS);
        assert_int_not_equal(shard, SHARDS);
        assert_null(take(fixture, QUIET_MS));
        reply(fixture, shard, WIRE_OK, "");
    }
    assert_ptr_equal(take(fixture, LONG_MS), batch);
    batch_destroy(batch);
}

static void test_sequences_grow(void **state)
{
    struct fixture *fixture = *state;
    uint64_t last = FIRST_SEQUENCE;
    start(fixture);
    for (int i = 0; i < 10; i++) {
        struct batch *batch = batch_new();
        add(batch, 7, (unsigned char)(i + 1));
        give(fixture, batch);
        assert_ptr_equal(serve_until_done(fixture), batch);
        assert_true(find(fixture, 7)->sequence > last);
        assert_int_equal(find(fixture, 7)->byte, i + 1);
        last = find(fixture, 7)->sequence;
        batch_destroy(batch);
    }
}

static void test_full_then_room(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    add(batch, 20, 6);
    give(fixture, batch);
    uint64_t sequence = 0;
    for (int i = 0; i < 3; i++) {
        uint32_t shard = receive(fixture, LONG_MS);
        assert_int_not_equal(shard, SHARDS);
        if (i > 0) /* the same version: a repeat must do no harm */
            assert_true(fixture->request->request.pages[0].sequence == sequence);
        sequence = fixture->request->request.pages[0].sequence;
        reply(fixture, shard, WIRE_RESOURCE_EXHAUSTED, "no slot is free");
        assert_null(take(fixture, 20));
    }
    assert_ptr_equal(serve_until_done(fixture), batch);
    assert_int_equal(batch->status, WIRE_OK);
    assert_int_equal(batch->outcome[0], OUTCOME_STORED);
    assert_true(find(fixture, 20)->there && find(fixture, 20)->byte == 6);
    batch_destroy(batch);
}

static void test_full_for_good(void **state)
{
    struct fixture *fixture = *state;
    fixture->set.wait_ms = 600;
    start(fixture);
    struct batch *batch = batch_new();
    add(batch, 20, 6);
    give(fixture, batch);
    uint64_t begun = ticks_us();
    struct batch *done = NULL;
    while (!done && ticks_us() - begun < LONG_MS * 1000ull) {
        uint32_t shard = receive(fixture, 10);
        if (shard != SHARDS)
            reply(fixture, shard, WIRE_RESOURCE_EXHAUSTED, "no slot is free");
        done = take(fixture, 0);
    }
    assert_ptr_equal(done, batch);
    assert_int_equal(batch->status, WIRE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(batch->detail, "no slot is free"));
    assert_non_null(strstr(batch->detail, "ipc://"));
    assert_in_range(ticks_us() - begun, 600 * 1000, 3000 * 1000);
    batch_destroy(batch);
}

static void test_refused(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    add(batch, 30, 1);
    give(fixture, batch);
    uint32_t shard = receive(fixture, LONG_MS);
    assert_int_not_equal(shard, SHARDS);
    reply(fixture, shard, WIRE_FAILED_PRECONDITION, "FENCED: epoch 5, now 6");
    assert_ptr_equal(take(fixture, LONG_MS), batch);
    assert_int_equal(batch->status, WIRE_FAILED_PRECONDITION);
    assert_non_null(strstr(batch->detail, "FENCED"));
    /* It is not tried again. */
    assert_int_equal(receive(fixture, QUIET_MS), SHARDS);
    batch_destroy(batch);
}

static void test_lost_reply(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    for (uint64_t key = 0; key < 5; key++)
        add(batch, 40 + key, (unsigned char)(key + 1));
    give(fixture, batch);
    uint32_t shard = receive(fixture, LONG_MS);
    assert_int_not_equal(shard, SHARDS);
    note_put(fixture, shard);
    uint64_t id = fixture->request->request.id;
    uint64_t sequence = fixture->request->request.pages[0].sequence;
    /* The answer is lost. The same comes again, whatever the pool holds meanwhile. */
    assert_int_equal(receive(fixture, LONG_MS), shard);
    assert_true(fixture->request->request.id == id);
    assert_true(fixture->request->request.pages[0].sequence == sequence);
    note_put(fixture, shard);
    reply(fixture, shard, WIRE_OK, "");
    reply(fixture, shard, WIRE_OK, "");
    assert_ptr_equal(take(fixture, LONG_MS), batch);
    assert_int_equal(batch->status, WIRE_OK);
    /* A double answer does not finish it twice. */
    assert_null(take(fixture, QUIET_MS));
    assert_int_equal(counters_with_put(fixture, 5).rpc.retries, 1);
    batch_destroy(batch);
}

static void test_shard_restarts(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    struct batch *batch = batch_new();
    add(batch, 45, 2);
    give(fixture, batch);
    uint32_t shard = receive(fixture, LONG_MS);
    assert_int_not_equal(shard, SHARDS);
    router_close(&fixture->routers[shard]); /* and what it was told is gone */
    assert_null(take(fixture, QUIET_MS));
    router_bind(&fixture->routers[shard]);
    assert_ptr_equal(serve_until_done(fixture), batch);
    assert_int_equal(batch->status, WIRE_OK);
    assert_true(find(fixture, 45)->there);
    batch_destroy(batch);
}

/* A drop waits for the PUTs before it: repeated after it they would bring their pages back. */
static void test_drop_after_earlier_puts(void **state)
{
    struct fixture *fixture = *state;
    struct batch *before = batch_new();
    struct batch *after = batch_new();
    add(before, 50, 1);
    add(after, 51, 2);
    start(fixture);
    give(fixture, before);
    uint32_t shard = receive(fixture, LONG_MS);
    assert_int_not_equal(shard, SHARDS);
    note_put(fixture, shard);
    struct router_request *held = fixture->request;
    fixture->request = router_request_new();
    give_drop(fixture, 48, 8);
    give(fixture, after);
    /* The later PUT passes, the drop does not. */
    assert_ptr_equal(serve_until_done(fixture), after);
    assert_int_equal(fixture->puts, 2);
    assert_false(serve_one(fixture, QUIET_MS));
    assert_int_equal(fixture->drops, 0);
    router_reply_to(held, WIRE_OK, &fixture->reply);
    router_send(&fixture->routers[shard], held, &fixture->reply, NULL, 0);
    assert_ptr_equal(take(fixture, LONG_MS), before);
    for (int i = 0; i < SHARDS; i++)
        assert_true(serve_one(fixture, LONG_MS));
    assert_int_equal(fixture->drops, SHARDS);
    /* It takes what was stored before it and leaves what was stored after. */
    assert_false(find(fixture, 50)->there);
    assert_true(find(fixture, 51)->there);
    router_request_destroy(&held);
    batch_destroy(before);
    batch_destroy(after);
}

/* Batches and drops in any order: in the end the shards hold what the last word on each key says.
 */
static void test_storm(void **state)
{
    struct fixture *fixture = *state;
    enum { STEPS = 600, SOME_KEYS = 1600, UNDER_WAY = 12 };
    static unsigned char model[SOME_KEYS];
    static uint32_t busy[SOME_KEYS]; /* batches under way with this key */
    memset(model, 0, sizeof model);
    memset(busy, 0, sizeof busy);
    uint64_t seed = 123456789;
    int under_way = 0;
    start(fixture);
    for (int step = 0; step < STEPS || under_way > 0;) {
        serve_one(fixture, under_way == UNDER_WAY || step == STEPS ? 2 : 0);
        struct batch *done = take(fixture, 0);
        if (done) {
            assert_int_equal(done->status, WIRE_OK);
            for (uint32_t i = 0; i < done->npages; i++)
                busy[done->key[i]]--;
            under_way--;
            batch_destroy(done);
        }
        if (step == STEPS || under_way == UNDER_WAY)
            continue;
        step++;
        uint64_t first = test_random(&seed) % (SOME_KEYS - BATCH_PAGES);
        uint32_t npages = (uint32_t)(1 + test_random(&seed) % BATCH_PAGES);
        if (test_random(&seed) % 3 == 0) {
            give_drop(fixture, first, npages);
            memset(model + first, 0, npages);
            continue;
        }
        struct batch *batch = batch_new();
        for (uint64_t key = first; key < first + npages; key++) {
            model[key] = (unsigned char)(1 + test_random(&seed) % 255);
            busy[key]++;
            add(batch, key, model[key]);
        }
        give(fixture, batch);
        under_way++;
    }
    while (serve_one(fixture, 2 * QUIET_MS))
        ;
    for (uint64_t key = 0; key < SOME_KEYS; key++) {
        assert_int_equal(busy[key], 0);
        assert_int_equal(find(fixture, key)->there, model[key] != 0);
        if (model[key])
            assert_int_equal(find(fixture, key)->byte, model[key]);
    }
}

static void test_destroy_when_idle(void **state)
{
    struct fixture *fixture = *state;
    start(fixture);
    write_back_destroy(&fixture->write_back);
    assert_null(fixture->write_back);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_outcomes),
        TEST(test_compressed),
        TEST(test_filled),
        TEST(test_nothing_to_send),
        TEST(test_several_shards),
        TEST(test_done_when_all_have_answered),
        TEST(test_sequences_grow),
        TEST(test_full_then_room),
        TEST(test_full_for_good),
        TEST(test_refused),
        TEST(test_lost_reply),
        TEST(test_shard_restarts),
        TEST(test_drop_after_earlier_puts),
        TEST(test_storm),
        TEST(test_destroy_when_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
