/* rpc against a server that answers as it should not: out of order, late, twice, nonsense, never.
 * rpc's clock stands still unless the test moves it: how fast the machine is does not matter. */
#include "../../client/rpc.h"
#include "../../client/ticks.h"
#include "router.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum {
    LONG_MS = 20000,
    SHORT_MS = 300,
    QUIET_MS = 200,
    RETRY_MS = 1000, /* rpc's own: the first retry */
    HANGS_S = 60,    /* of the machine's time: then nothing will come any more */
    CALLS = 500,
};

/* What became of one call. */
struct outcome {
    int calls; /* how often its callback ran */
    uint8_t status;
    bool had_reply;
    bool put_off;
    uint64_t number; /* the reply's region */
    size_t body_bytes;
    char first; /* of the body */
    bool keep;
    struct rpc_body *kept;
    uint64_t at_us;
};

struct fixture {
    void *zmq;
    struct router router;
    struct rpc *rpc;
    struct router_request *request;
    struct wire_reply reply;
};

static uint64_t clock_us;

static uint64_t now_us(void)
{
    return clock_us;
}

static int set_up(void **state)
{
    clock_us = 1000000;
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->zmq = zmq_ctx_new();
    assert_non_null(fixture->zmq);
    router_init(&fixture->router, fixture->zmq, 0);
    fixture->request = router_request_new();
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    rpc_destroy(&fixture->rpc);
    router_close(&fixture->router);
    router_request_destroy(&fixture->request);
    zmq_ctx_term(fixture->zmq);
    free(fixture);
    return 0;
}

static void start(struct fixture *fixture, uint32_t wait_ms)
{
    char *endpoints[] = {fixture->router.endpoint};
    assert_int_equal(rpc_new(&fixture->rpc, endpoints, 1, wait_ms, "Test"), 0);
    rpc_set_clock(fixture->rpc, now_us);
}

static void on_answer(void *arg, struct rpc_answer *answer)
{
    struct outcome *outcome = arg;
    outcome->calls++;
    outcome->status = answer->status;
    outcome->had_reply = answer->reply != NULL;
    outcome->put_off = answer->put_off;
    outcome->number = answer->reply ? answer->reply->region : 0;
    outcome->body_bytes = answer->body_bytes;
    outcome->first = answer->body ? answer->body[0] : 0;
    outcome->at_us = clock_us;
    assert_non_null(answer->detail);
    assert_int_equal(answer->shard, 0);
    if (outcome->keep) {
        outcome->kept = rpc_keep_body(answer);
        assert_non_null(outcome->kept);
    }
}

static void call(struct fixture *fixture, struct outcome *outcome)
{
    static struct wire_request request;
    memset(&request, 0, sizeof request);
    request.method = WIRE_OPEN;
    strcpy(request.name, "region");
    assert_int_equal(rpc_call(fixture->rpc, 0, &request, NULL, 0, on_answer, outcome), 0);
}

static void call_get(struct fixture *fixture, struct outcome *outcome, uint64_t page)
{
    static struct wire_request request;
    memset(&request, 0, sizeof request);
    request.method = WIRE_PAGE_GET;
    request.region = request.epoch = 1;
    request.npages = 1;
    request.pages[0].page = page;
    assert_int_equal(rpc_call(fixture->rpc, 0, &request, NULL, 0, on_answer, outcome), 0);
}

/* Whether there is a connection, or one is being made. */
static bool is_connected(const struct fixture *fixture)
{
    struct pollfd fds[1];
    rpc_poll_fds(fixture->rpc, fds);
    return fds[0].fd >= 0;
}

/* Lets rpc work, as its owner would. The clock goes on only where there is nothing else to wait
 * for. */
static void step(struct fixture *fixture)
{
    struct pollfd fds[1];
    uint32_t nfds = rpc_poll_fds(fixture->rpc, fds);
    if (fds[0].fd < 0)
        clock_us += 5000;
    else
        poll(fds, nfds, 5);
    rpc_process(fixture->rpc);
}

/* Steps until nothing is outstanding. */
static void run(struct fixture *fixture)
{
    uint64_t end = ticks_us() + HANGS_S * 1000000ull;
    for (; rpc_outstanding(fixture->rpc) > 0; step(fixture))
        assert_true(ticks_us() < end);
}

/* Lets MS pass, of the clock. */
static void pass(struct fixture *fixture, uint32_t ms)
{
    for (uint32_t i = 0; i < ms; i++) {
        clock_us += 1000;
        rpc_process(fixture->rpc);
    }
}

static void pass_until(struct fixture *fixture, uint64_t us)
{
    while (clock_us < us)
        pass(fixture, 1);
}

/* The next request, while rpc goes on working. */
static void receive(struct fixture *fixture)
{
    uint64_t end = ticks_us() + HANGS_S * 1000000ull;
    for (; !router_receive(&fixture->router, fixture->request, 0); step(fixture))
        assert_true(ticks_us() < end);
}

/* Until so many answers are there that nobody waits for. */
static void wait_for_strays(struct fixture *fixture, uint64_t strays)
{
    uint64_t end = ticks_us() + HANGS_S * 1000000ull;
    for (; rpc_counters(fixture->rpc).strays < strays; step(fixture))
        assert_true(ticks_us() < end);
    assert_int_equal(rpc_counters(fixture->rpc).strays, strays);
}

/* Answers with NUMBER, so that answers can be told apart. */
static void answer(struct fixture *fixture, uint64_t id, uint64_t number)
{
    router_reply_to(fixture->request, WIRE_OK, &fixture->reply);
    fixture->reply.id = id;
    fixture->reply.region = number;
    fixture->reply.epoch = 1;
    router_send(&fixture->router, fixture->request, &fixture->reply, NULL, 0);
}

static void test_out_of_order(void **state)
{
    struct fixture *fixture = *state;
    static struct outcome outcomes[CALLS];
    static uint64_t ids[CALLS];
    memset(outcomes, 0, sizeof outcomes);
    uint64_t seed = 4711;
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    for (int i = 0; i < CALLS; i++)
        call(fixture, &outcomes[i]);
    assert_int_equal(rpc_outstanding(fixture->rpc), CALLS);
    for (int i = 0; i < CALLS; i++) {
        receive(fixture);
        ids[i] = fixture->request->request.id;
        assert_int_equal(fixture->request->request.deadline_ms, LONG_MS);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(ids[i], ids[j]);
    }
    for (int i = CALLS - 1; i > 0; i--) {
        int j = (int)(test_random(&seed) % (uint64_t)(i + 1));
        uint64_t id = ids[i];
        ids[i] = ids[j];
        ids[j] = id;
    }
    /* Requests leave in the order of the calls, and ids grow: call i has the i-th lowest. */
    for (int i = 0; i < CALLS; i++)
        answer(fixture, ids[i], 1000 + ids[i]);
    run(fixture);
    uint64_t before = 0;
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(outcomes[i].calls, 1);
        assert_int_equal(outcomes[i].status, WIRE_OK);
        assert_true(outcomes[i].number > before);
        before = outcomes[i].number;
    }
    assert_int_equal(rpc_counters(fixture->rpc).strays, 0);
    /* Only the connection itself has something to do, and not soon. */
    assert_true(rpc_timeout_ms(fixture->rpc) > RETRY_MS);
}

static void test_double_and_unknown(void **state)
{
    struct fixture *fixture = *state;
    struct outcome first = {0}, second = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &first);
    receive(fixture);
    uint64_t id = fixture->request->request.id;
    answer(fixture, id + 1, 1); /* not asked yet */
    answer(fixture, 0, 2);
    answer(fixture, UINT64_MAX, 3);
    answer(fixture, id, 4);
    answer(fixture, id, 5);
    run(fixture);
    call(fixture, &second);
    receive(fixture);
    assert_int_equal(fixture->request->request.id, id + 1);
    answer(fixture, id + 1, 6);
    run(fixture);
    assert_int_equal(first.calls, 1);
    assert_int_equal(first.number, 4);
    /* An answer that came before its question is none. */
    assert_int_equal(second.calls, 1);
    assert_int_equal(second.number, 6);
    wait_for_strays(fixture, 4);
}

static void test_late(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0}, next = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &outcome);
    receive(fixture);
    uint64_t id = fixture->request->request.id;
    /* Not answered in time: it comes again, the same. */
    pass(fixture, RETRY_MS - 1);
    assert_int_equal(rpc_counters(fixture->rpc).retries, 0);
    pass(fixture, 1);
    receive(fixture);
    assert_int_equal(fixture->request->request.id, id);
    assert_string_equal(fixture->request->request.name, "region");
    assert_int_equal(rpc_counters(fixture->rpc).retries, 1);
    answer(fixture, id, 1); /* to the first */
    answer(fixture, id, 2); /* to the second */
    run(fixture);
    call(fixture, &next);
    receive(fixture);
    answer(fixture, fixture->request->request.id, 3);
    run(fixture);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.number, 1);
    assert_int_equal(next.calls, 1);
    assert_int_equal(next.number, 3);
    wait_for_strays(fixture, 1);
}

static void test_garbage(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0};
    uint64_t seed = 42;
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &outcome);
    receive(fixture);
    router_reply_to(fixture->request, WIRE_OK, &fixture->reply);
    fixture->reply.region = fixture->reply.epoch = 1;
    static char good[WIRE_MAX_HEADER_BYTES];
    ssize_t len = wire_pack_reply(&fixture->reply, good, sizeof good);
    assert_true(len > 0);
    uint64_t sent = 0;
    /* Nothing at all, every beginning of a good answer, one with a body it should not have, one of
     * three frames, one of another method. */
    for (size_t part = 0; part < (size_t)len; part++, sent++)
        router_send_frames(&fixture->router, fixture->request, 1, (const void *const[]){good},
                           &part);
    const void *const frames[] = {good, "body", "more"};
    const size_t lens[] = {(size_t)len, 4, 4};
    router_send_frames(&fixture->router, fixture->request, 2, frames, lens);
    router_send_frames(&fixture->router, fixture->request, 3, frames, lens);
    fixture->reply.method = WIRE_REMOVE;
    router_send(&fixture->router, fixture->request, &fixture->reply, NULL, 0);
    sent += 3;
    for (int i = 0; i < 1000; i++, sent++) {
        char noise[64];
        size_t noise_bytes = (size_t)(test_random(&seed) % sizeof noise);
        for (size_t j = 0; j < noise_bytes; j++)
            noise[j] = (char)test_random(&seed);
        router_send_frames(&fixture->router, fixture->request, 1, (const void *const[]){noise},
                           &noise_bytes);
    }
    wait_for_strays(fixture, sent);
    assert_int_equal(outcome.calls, 0);
    answer(fixture, fixture->request->request.id, 8);
    run(fixture);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.number, 8);
}

static void test_other_version(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &outcome);
    receive(fixture);
    router_reply_to(fixture->request, WIRE_OK, &fixture->reply);
    fixture->reply.region = fixture->reply.epoch = 1;
    static char header[WIRE_MAX_HEADER_BYTES];
    ssize_t len = wire_pack_reply(&fixture->reply, header, sizeof header);
    assert_true(len > 1);
    assert_int_equal(header[1], WIRE_VERSION);
    header[1] = WIRE_VERSION + 1;
    router_send_frames(&fixture->router, fixture->request, 1, (const void *const[]){header},
                       &(size_t){(size_t)len});
    run(fixture);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.status, WIRE_FAILED_PRECONDITION);
}

/* Answers the request that was received with STATUS and DETAIL. */
static void refuse(struct fixture *fixture, uint8_t status, const char *detail)
{
    router_reply_to(fixture->request, status, &fixture->reply);
    strcpy(fixture->reply.detail, detail);
    router_send(&fixture->router, fixture->request, &fixture->reply, NULL, 0);
}

static void test_status_and_detail(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &outcome);
    receive(fixture);
    refuse(fixture, WIRE_RESOURCE_EXHAUSTED, "full");
    run(fixture);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.status, WIRE_RESOURCE_EXHAUSTED);
    assert_true(outcome.had_reply);
}

static void put_off(struct fixture *fixture)
{
    uint64_t end = ticks_us() + HANGS_S * 1000000ull;
    uint64_t before = rpc_counters(fixture->rpc).bytes_received;
    refuse(fixture, WIRE_UNAVAILABLE, "not yet");
    for (; rpc_counters(fixture->rpc).bytes_received == before; step(fixture))
        assert_true(ticks_us() < end);
}

/* UNAVAILABLE means later: the request is sent again and its callback waits for a real answer. */
static void test_put_off(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &outcome);
    receive(fixture);
    put_off(fixture);
    pass(fixture, RETRY_MS - 1);
    assert_int_equal(rpc_counters(fixture->rpc).retries, 0);
    pass(fixture, 1);
    assert_int_equal(outcome.calls, 0);
    receive(fixture);
    answer(fixture, fixture->request->request.id, 7);
    run(fixture);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.status, WIRE_OK);
    assert_int_equal(outcome.number, 7);
}

static void test_put_off_for_good(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0};
    router_bind(&fixture->router);
    start(fixture, SHORT_MS);
    uint64_t begun = clock_us;
    call(fixture, &outcome);
    receive(fixture);
    put_off(fixture);
    pass_until(fixture, begun + (SHORT_MS - 1) * 1000);
    assert_int_equal(outcome.calls, 0);
    pass(fixture, 1);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.status, WIRE_UNAVAILABLE);
    assert_true(outcome.put_off);
    assert_false(outcome.had_reply);
}

static void test_server_comes_late(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcomes[3] = {0};
    start(fixture, LONG_MS);
    for (int i = 0; i < 3; i++)
        call(fixture, &outcomes[i]);
    pass(fixture, QUIET_MS);
    assert_int_equal(rpc_outstanding(fixture->rpc), 3);
    assert_int_equal(rpc_counters(fixture->rpc).bytes_sent, 0);
    router_bind(&fixture->router);
    for (int i = 0; i < 3; i++) {
        receive(fixture);
        answer(fixture, fixture->request->request.id, 10);
    }
    run(fixture);
    for (int i = 0; i < 3; i++)
        assert_int_equal(outcomes[i].calls, 1);
    /* What never left was not sent again. */
    assert_int_equal(rpc_counters(fixture->rpc).retries, 0);
}

static bool is_listened_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    bool connects = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return connects;
}

/* The server goes, and rpc has seen it. libzmq closes what it listens at in a thread of its own. */
static void lose_server(struct fixture *fixture)
{
    uint64_t end = ticks_us() + HANGS_S * 1000000ull;
    router_close(&fixture->router);
    for (; is_listened_at(fixture->router.endpoint + strlen("ipc://")); poll(NULL, 0, 1))
        assert_true(ticks_us() < end);
    for (; is_connected(fixture); step(fixture))
        assert_true(ticks_us() < end);
}

static void test_server_restarts(void **state)
{
    struct fixture *fixture = *state;
    struct outcome before = {0}, during[2] = {0}, after = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &before);
    receive(fixture);
    answer(fixture, fixture->request->request.id, 1);
    run(fixture);
    assert_int_equal(before.calls, 1);
    /* One request dies with the server, another is made while there is none. */
    call(fixture, &during[0]);
    receive(fixture);
    lose_server(fixture);
    call(fixture, &during[1]);
    pass(fixture, QUIET_MS);
    assert_int_equal(during[0].calls + during[1].calls, 0);
    router_bind(&fixture->router);
    for (int i = 0; i < 2; i++) {
        receive(fixture);
        answer(fixture, fixture->request->request.id, 2);
    }
    run(fixture);
    call(fixture, &after);
    receive(fixture);
    answer(fixture, fixture->request->request.id, 3);
    run(fixture);
    assert_int_equal(during[0].calls, 1);
    assert_int_equal(during[1].calls, 1);
    assert_int_equal(after.calls, 1);
    assert_int_equal(after.number, 3);
    /* The first was sent again over the new connection; the second never left before. */
    assert_int_equal(rpc_counters(fixture->rpc).retries, 1);
}

static void call_put(struct fixture *fixture, struct outcome *outcome, uint64_t first, char *body)
{
    static struct wire_request request;
    memset(&request, 0, sizeof request);
    request.method = WIRE_PAGE_PUT;
    request.region = request.epoch = 1;
    request.npages = WIRE_MAX_PAGES;
    for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++)
        request.pages[i] = (struct wire_page){.page = first + i,
                                              .sequence = 1,
                                              .length_bytes = WIRE_PAGE_BYTES,
                                              .encoding = WIRE_RAW};
    struct iovec pages = {body, (size_t)WIRE_MAX_PAGES * WIRE_PAGE_BYTES};
    assert_int_equal(rpc_call(fixture->rpc, 0, &request, &pages, 1, on_answer, outcome), 0);
}

/* More is under way than a socket takes at once: all of it goes over the new connection, behind one
 * another, and none waits until it is found late. */
static void test_server_restarts_under_load(void **state)
{
    struct fixture *fixture = *state;
    enum { PUTS = 8 };
    static char body[WIRE_MAX_PAGES * WIRE_PAGE_BYTES];
    struct outcome outcomes[PUTS] = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    for (uint64_t i = 0; i < PUTS; i++)
        call_put(fixture, &outcomes[i], i * WIRE_MAX_PAGES, body);
    for (int i = 0; i < PUTS; i++)
        receive(fixture);
    lose_server(fixture);
    router_bind(&fixture->router);
    for (int i = 0; i < PUTS; i++) {
        receive(fixture);
        assert_int_equal(rpc_counters(fixture->rpc).retries, PUTS);
        answer(fixture, fixture->request->request.id, 1);
    }
    run(fixture);
    for (int i = 0; i < PUTS; i++)
        assert_int_equal(outcomes[i].calls, 1);
}

/* When wait_ms is over the callback runs once, and an answer after that is a stray. */
static void give_up(struct fixture *fixture, bool bound)
{
    struct outcome outcome = {0};
    if (bound)
        router_bind(&fixture->router);
    start(fixture, SHORT_MS);
    uint64_t begun = clock_us;
    call(fixture, &outcome);
    if (bound)
        receive(fixture);
    pass_until(fixture, begun + (SHORT_MS - 1) * 1000);
    assert_int_equal(outcome.calls, 0);
    pass(fixture, RETRY_MS);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.status, WIRE_UNAVAILABLE);
    assert_false(outcome.had_reply);
    assert_int_equal(outcome.body_bytes, 0);
    assert_int_equal(outcome.at_us - begun, SHORT_MS * 1000);
    assert_int_equal(rpc_outstanding(fixture->rpc), 0);
    if (!bound)
        return;
    answer(fixture, fixture->request->request.id, 1);
    wait_for_strays(fixture, 1);
    assert_int_equal(outcome.calls, 1);
}

static void test_never_answers(void **state)
{
    give_up(*state, true);
}

static void test_never_there(void **state)
{
    give_up(*state, false);
}

/* Bodies, small and large, read after the callback. */
static void test_kept_bodies(void **state)
{
    struct fixture *fixture = *state;
    enum { BODIES = 20 };
    struct outcome outcomes[BODIES] = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    for (int i = 0; i < BODIES; i++) {
        outcomes[i].keep = i % 5 != 4;
        call_get(fixture, &outcomes[i], (uint64_t)i);
    }
    for (int i = 0; i < BODIES; i++) {
        static char body[WIRE_PAGE_BYTES];
        receive(fixture);
        router_reply_to(fixture->request, WIRE_OK, &fixture->reply);
        uint32_t len = i % 2 ? WIRE_PAGE_BYTES : 8;
        memset(body, 'a' + i, sizeof body);
        fixture->reply.npages = 1;
        fixture->reply.pages[0] = (struct wire_page){
            .page = fixture->request->request.pages[0].page,
            .sequence = 1,
            .checksum = wire_checksum(fixture->request->request.pages[0].page, body, len),
            .length_bytes = len,
            .encoding = i % 2 ? WIRE_RAW : WIRE_FILL};
        router_send(&fixture->router, fixture->request, &fixture->reply, body, len);
    }
    run(fixture);
    rpc_destroy(&fixture->rpc); /* they outlive it */
    for (int i = 0; i < BODIES; i++) {
        assert_int_equal(outcomes[i].calls, 1);
        assert_int_equal(outcomes[i].body_bytes, i % 2 ? WIRE_PAGE_BYTES : 8);
        assert_int_equal(outcomes[i].first, 'a' + i);
        for (size_t j = 0; outcomes[i].kept && j < outcomes[i].body_bytes; j++)
            assert_int_equal(rpc_body_bytes(outcomes[i].kept)[j], 'a' + i);
        rpc_body_destroy(&outcomes[i].kept);
        assert_null(outcomes[i].kept);
    }
}

static void test_body_is_sent_again(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0};
    static struct wire_request request;
    static char page[2 * WIRE_PAGE_BYTES];
    const struct iovec pieces[] = {{page, 1000}, {page + 3000, WIRE_PAGE_BYTES - 1000}};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    memset(&request, 0, sizeof request);
    memset(page, 7, 1000);
    memset(page + 3000, 8, WIRE_PAGE_BYTES - 1000);
    request.method = WIRE_PAGE_PUT;
    request.region = request.epoch = request.npages = 1;
    request.pages[0] = (struct wire_page){
        .page = 9, .sequence = 1, .checksum = 5, .length_bytes = WIRE_PAGE_BYTES};
    assert_int_equal(rpc_call(fixture->rpc, 0, &request, pieces, 2, on_answer, &outcome), 0);
    for (int i = 0; i < 2; i++) {
        receive(fixture);
        assert_int_equal(fixture->request->body_bytes, WIRE_PAGE_BYTES);
        for (int j = 0; j < WIRE_PAGE_BYTES; j++)
            assert_int_equal(fixture->request->body[j], j < 1000 ? 7 : 8);
        if (i == 0)
            pass(fixture, RETRY_MS);
    }
    router_reply_to(fixture->request, WIRE_OK, &fixture->reply);
    router_send(&fixture->router, fixture->request, &fixture->reply, NULL, 0);
    run(fixture);
    assert_int_equal(outcome.calls, 1);
}

static void test_refused_call_never_calls_back(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = {0};
    static struct wire_request request;
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    memset(&request, 0, sizeof request);
    request.method = WIRE_PAGE_GET;
    request.npages = 1;
    request.pages[0].page = WIRE_MAX_PAGE; /* out of bounds */
    assert_int_equal(rpc_call(fixture->rpc, 0, &request, NULL, 0, on_answer, &outcome), -EINVAL);
    assert_int_equal(rpc_outstanding(fixture->rpc), 0);
    pass(fixture, QUIET_MS);
    assert_int_equal(outcome.calls, 0);
}

struct chain {
    struct fixture *fixture;
    int left;
};

static void on_link(void *arg, struct rpc_answer *link)
{
    struct chain *chain = arg;
    (void)link;
    static struct wire_request request;
    memset(&request, 0, sizeof request);
    request.method = WIRE_OPEN;
    strcpy(request.name, "region");
    if (chain->left-- > 0)
        assert_int_equal(rpc_call(chain->fixture->rpc, 0, &request, NULL, 0, on_link, chain), 0);
}

/* A callback may ask again, also when its call was given up. */
static void test_calls_from_callbacks(void **state)
{
    struct fixture *fixture = *state;
    struct outcome others[3] = {0};
    struct chain chain = {fixture, 1};
    enum { WAIT_MS = 50 };
    start(fixture, WAIT_MS);
    call(fixture, &others[0]);
    on_link(&chain, NULL);
    call(fixture, &others[1]);
    chain.left = 3;
    call(fixture, &others[2]);
    pass(fixture, 5 * WAIT_MS);
    assert_int_equal(chain.left, -1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(others[i].calls, 1);
        assert_int_equal(others[i].status, WIRE_UNAVAILABLE);
    }
    assert_int_equal(rpc_outstanding(fixture->rpc), 0);
}

static void test_destroy_while_under_way(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcomes[2] = {0};
    router_bind(&fixture->router);
    start(fixture, LONG_MS);
    call(fixture, &outcomes[0]);
    receive(fixture);
    call(fixture, &outcomes[1]);
    rpc_destroy(&fixture->rpc);
    assert_null(fixture->rpc);
    assert_int_equal(outcomes[0].calls + outcomes[1].calls, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_out_of_order),
        TEST(test_double_and_unknown),
        TEST(test_late),
        TEST(test_garbage),
        TEST(test_other_version),
        TEST(test_status_and_detail),
        TEST(test_put_off),
        TEST(test_put_off_for_good),
        TEST(test_server_comes_late),
        TEST(test_server_restarts),
        TEST(test_server_restarts_under_load),
        TEST(test_never_answers),
        TEST(test_never_there),
        TEST(test_kept_bodies),
        TEST(test_body_is_sent_again),
        TEST(test_refused_call_never_calls_back),
        TEST(test_calls_from_callbacks),
        TEST(test_destroy_while_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
