/* When a shard answers: a real one on a disk whose syncs wait for the test, or fail. */
#include "../../dms/shard.h"
#include "temp_dir.h"
#include "test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { PATIENCE_MS = 60000, NOTHING_MS = 60, GATE_FDS = 256 };

/* Syncs pass while the gate is open; they are counted as they begin. */
struct gate {
    struct disk disk;
    struct disk_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    int err;
    unsigned begun;
    pthread_t syncing[GATE_FDS];   /* the thread that first synced the descriptor */
    bool synced[GATE_FDS], shared; /* by two threads */
};

struct fixture {
    struct temp_dir dir;
    struct gate gate;
    struct shard *shard;
    int events[2];
    void *context, *socket;
    uint64_t region, sequence;
};

static struct fixture fixture;
static struct wire_request request;
static struct wire_reply reply;

static int gated_sync(void *context, int fd)
{
    struct gate *gate = context;

    pthread_mutex_lock(&gate->lock);
    gate->begun++;
    if (fd < GATE_FDS) {
        gate->shared =
            gate->shared || (gate->synced[fd] && !pthread_equal(gate->syncing[fd], pthread_self()));
        gate->synced[fd] = true;
        gate->syncing[fd] = pthread_self();
    }
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->lock);
    int err = gate->err;
    pthread_mutex_unlock(&gate->lock);
    return err != 0 ? err : disk_sync(&disk_real, fd);
}

static void set_gate(bool open, int err)
{
    struct gate *gate = &fixture.gate;

    pthread_mutex_lock(&gate->lock);
    gate->open = open;
    gate->err = err;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

/* Waits until COUNT more syncs have begun than BEFORE. */
static void wait_for_syncs(unsigned before, unsigned count)
{
    struct gate *gate = &fixture.gate;

    pthread_mutex_lock(&gate->lock);
    while (gate->begun < before + count)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

static unsigned count_syncs(void)
{
    struct gate *gate = &fixture.gate;

    pthread_mutex_lock(&gate->lock);
    unsigned begun = gate->begun;
    pthread_mutex_unlock(&gate->lock);
    return begun;
}

static int wait_for_event(void)
{
    struct shard_event event;
    struct pollfd fd = {fixture.events[0], POLLIN, 0};

    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    assert_int_equal(read(fixture.events[0], &event, sizeof(event)), sizeof(event));
    return event.kind;
}

static void send_request(uint8_t method, uint64_t id, const void *body, size_t body_len)
{
    static char header[WIRE_MAX_HEADER_BYTES];

    request.method = method;
    request.id = id;
    ssize_t len = wire_pack_request(&request, header, sizeof(header));
    assert_true(len > 0);
    assert_true(zmq_send(fixture.socket, header, (size_t)len, body_len > 0 ? ZMQ_SNDMORE : 0) >= 0);
    if (body_len > 0)
        assert_true(zmq_send(fixture.socket, body, body_len, 0) >= 0);
}

/* Reads the next reply. Returns false when none comes in time. */
static bool receive(int timeout_ms)
{
    static char header[WIRE_MAX_HEADER_BYTES], body[WIRE_MAX_BODY_BYTES];
    zmq_pollitem_t item = {.socket = fixture.socket, .events = ZMQ_POLLIN};
    int more = 0, body_len = 0;
    size_t size = sizeof(more);

    assert_true(zmq_poll(&item, 1, timeout_ms) >= 0);
    if (item.revents == 0)
        return false;
    int len = zmq_recv(fixture.socket, header, sizeof(header), 0);
    assert_true(len > 0);
    assert_int_equal(zmq_getsockopt(fixture.socket, ZMQ_RCVMORE, &more, &size), 0);
    if (more)
        body_len = zmq_recv(fixture.socket, body, sizeof(body), 0);
    assert_int_equal(wire_unpack_reply(&reply, header, (size_t)len, (size_t)body_len), 0);
    return true;
}

static void expect(uint64_t id)
{
    assert_true(receive(PATIENCE_MS));
    assert_int_equal(reply.id, id);
    assert_int_equal(reply.status, WIRE_OK);
}

static void put(uint64_t id, uint64_t page)
{
    static char body[WIRE_PAGE_BYTES];

    memset(&request, 0, sizeof(request));
    request.region = fixture.region;
    request.epoch = 1;
    request.npages = 1;
    request.pages[0] = (struct wire_page){
        .page = page,
        .sequence = ++fixture.sequence,
        .length_bytes = sizeof(body),
        .checksum = wire_checksum(page, body, sizeof(body)),
    };
    send_request(WIRE_PAGE_PUT, id, body, sizeof(body));
}

static void get(uint64_t id, uint64_t page)
{
    memset(&request, 0, sizeof(request));
    request.region = fixture.region;
    request.epoch = 1;
    request.npages = 1;
    request.pages[0].page = page;
    send_request(WIRE_PAGE_GET, id, NULL, 0);
}

static void begin(enum store_durability durability, uint32_t interval_ms)
{
    struct gate *gate = &fixture.gate;
    char endpoint[600];

    memset(&fixture, 0, sizeof(fixture));
    temp_dir_make(&fixture.dir);
    gate->ops = *disk_real.ops;
    gate->ops.sync = gated_sync;
    gate->disk = (struct disk){&gate->ops, gate};
    gate->open = true;
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s", temp_dir_path(&fixture.dir, "socket"));
    struct shard_options options = {
        .max_connections = 16,
        .max_regions = 16,
        .request_bytes = WIRE_MAX_BODY_BYTES,
        .nshards = 1,
        .disk = &gate->disk,
        .endpoint = endpoint,
        .dir = fixture.dir.path,
        .capacity_bytes = 16 << 20,
        .scan_threads = 1,
        .durability = durability,
        .sync_interval_ms = interval_ms,
    };
    assert_int_equal(pipe(fixture.events), 0);
    assert_int_equal(shard_new(&fixture.shard, &options), 0);
    assert_int_equal(shard_start(fixture.shard, fixture.events[1]), 0);
    assert_int_equal(wait_for_event(), SHARD_READY);
    fixture.context = zmq_ctx_new();
    fixture.socket = zmq_socket(fixture.context, ZMQ_DEALER);
    assert_int_equal(zmq_connect(fixture.socket, endpoint), 0);
    memset(&request, 0, sizeof(request));
    request.epoch = 1;
    snprintf(request.name, sizeof(request.name), "a");
    send_request(WIRE_OPEN, 1, NULL, 0);
    expect(1);
    fixture.region = reply.region;
}

static int end(void)
{
    set_gate(true, fixture.gate.err);
    int err = shard_stop(fixture.shard);

    shard_destroy(&fixture.shard);
    zmq_close(fixture.socket);
    zmq_ctx_term(fixture.context);
    close(fixture.events[0]);
    close(fixture.events[1]);
    pthread_mutex_destroy(&fixture.gate.lock);
    pthread_cond_destroy(&fixture.gate.changed);
    temp_dir_remove(&fixture.dir);
    return err;
}

static void test_always_answers_when_it_is_synced(void **state)
{
    (void)state;
    begin(STORE_ALWAYS, 3600000);
    put(1, 7); /* makes a file, which takes more syncs */
    expect(1);
    set_gate(false, 0);
    unsigned before = count_syncs();
    put(2, 7);
    wait_for_syncs(before, 1);
    assert_false(receive(NOTHING_MS));
    set_gate(true, 0);
    expect(2);
    get(3, 7);
    expect(3);
    assert_int_equal(count_syncs(), before + 1);
    assert_int_equal(end(), 0);
}

static void test_always_syncs_what_waits_together(void **state)
{
    enum { WAITING = 40 };

    (void)state;
    begin(STORE_ALWAYS, 3600000);
    set_gate(false, 0);
    unsigned before = count_syncs();
    put(2, 1);
    wait_for_syncs(before, 1);
    for (uint64_t i = 0; i < WAITING; i++)
        put(3 + i, i);
    get(3 + WAITING, 0);
    /* They must have come in before the shard looks again. */
    assert_false(receive(NOTHING_MS));
    set_gate(true, 0);
    for (uint64_t i = 0; i < WAITING + 2; i++)
        expect(2 + i);
    /* One for the first, and one for the rest, or some if they came in late. */
    assert_in_range(count_syncs() - before, 2, WAITING);
    assert_int_equal(end(), 0);
}

static void test_always_says_nothing_when_the_sync_fails(void **state)
{
    (void)state;
    begin(STORE_ALWAYS, 3600000);
    set_gate(true, -EIO);
    put(2, 7);
    put(3, 8);
    assert_int_equal(wait_for_event(), SHARD_FAILED);
    assert_false(receive(NOTHING_MS));
    assert_int_equal(end(), -EIO);
}

static void test_interval_serves_while_it_syncs(void **state)
{
    (void)state;
    begin(STORE_INTERVAL, 1);
    set_gate(false, 0);
    unsigned before = count_syncs();
    put(2, 7);
    expect(2);
    wait_for_syncs(before, 1);
    for (uint64_t i = 0; i < 50; i++) {
        put(3 + 2 * i, i);
        get(4 + 2 * i, i);
        expect(3 + 2 * i);
        expect(4 + 2 * i);
    }
    assert_int_equal(count_syncs(), before + 1);
    assert_int_equal(end(), 0);
}

/* A descriptor is told once of what could not be written: where two threads sync a file, each needs
 * one of its own, or one of them would be told that all is well. */
static void test_threads_sync_their_own_descriptors(void **state)
{
    (void)state;
    begin(STORE_INTERVAL, 1);
    pthread_mutex_lock(&fixture.gate.lock);
    memset(fixture.gate.synced, 0, sizeof(fixture.gate.synced));
    fixture.gate.shared = false;
    pthread_mutex_unlock(&fixture.gate.lock);
    for (uint64_t i = 0; i < 20; i++) {
        unsigned before = count_syncs();
        memset(&request, 0, sizeof(request));
        snprintf(request.name, sizeof(request.name), "b");
        request.epoch = i + 1;
        send_request(WIRE_OPEN, 2 + 2 * i, NULL, 0);
        expect(2 + 2 * i);
        put(3 + 2 * i, i);
        expect(3 + 2 * i);
        wait_for_syncs(before, 3); /* the opening, the page, the note */
    }
    pthread_mutex_lock(&fixture.gate.lock);
    bool shared = fixture.gate.shared;
    pthread_mutex_unlock(&fixture.gate.lock);
    assert_false(shared);
    assert_int_equal(end(), 0);
}

static void test_interval_ends_when_a_sync_fails(void **state)
{
    (void)state;
    begin(STORE_INTERVAL, 1);
    set_gate(true, -EIO);
    put(2, 7); /* what there is to sync, if the opening of the region is synced already */
    assert_int_equal(wait_for_event(), SHARD_FAILED);
    assert_int_equal(end(), -EIO);
}

static void test_none_never_syncs(void **state)
{
    (void)state;
    begin(STORE_NONE, 1);
    unsigned before = count_syncs();
    for (uint64_t i = 0; i < 10; i++) {
        put(2 + i, i);
        expect(2 + i);
    }
    assert_false(receive(NOTHING_MS));
    assert_int_equal(end(), 0);
    assert_int_equal(fixture.gate.begun, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_always_answers_when_it_is_synced),
        cmocka_unit_test(test_always_syncs_what_waits_together),
        cmocka_unit_test(test_always_says_nothing_when_the_sync_fails),
        cmocka_unit_test(test_interval_serves_while_it_syncs),
        cmocka_unit_test(test_threads_sync_their_own_descriptors),
        cmocka_unit_test(test_interval_ends_when_a_sync_fails),
        cmocka_unit_test(test_none_never_syncs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
