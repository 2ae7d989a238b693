/* readahead: streams in both directions, several at once, and faults that are no stream. */
#include "../../client/readahead.h"
#include "test.h"

#include <stdbool.h>
#include <string.h>

enum { PAGES = 1 << 20 };

/* What the pager does with a plan: the demand comes in, the ahead is kept at hand. */
struct reader {
    struct readahead readahead;
    bool here[PAGES], ready[PAGES];
    uint32_t misses, hits;
};

static struct reader reader;

static void check_range(struct readahead_range range)
{
    assert_true(range.npages <= READAHEAD_MAX_PAGES);
    assert_true(range.npages == 0 || range.first < (uint64_t)1 << 62); /* not below page 0 */
}

static void check_plan(struct readahead_plan plan)
{
    check_range(plan.demand);
    check_range(plan.ahead);
}

static void fault(uint64_t page)
{
    struct readahead_plan plan;
    if (reader.here[page])
        return;
    if (reader.ready[page]) {
        plan = readahead_hit(&reader.readahead, page);
        assert_int_equal(plan.demand.npages, 0);
        /* The pager puts in all that lies ready behind it. */
        for (uint64_t p = page; p < PAGES && reader.ready[p] && !reader.here[p]; p++)
            reader.here[p] = true;
        for (uint64_t p = page; p < PAGES && reader.ready[p]; p--)
            reader.here[p] = true;
        reader.hits++;
    } else {
        plan = readahead_miss(&reader.readahead, page);
        assert_true(plan.demand.npages >= 1);
        assert_true(page - plan.demand.first < plan.demand.npages);
        for (uint64_t i = 0; i < plan.demand.npages && plan.demand.first + i < PAGES; i++)
            reader.here[plan.demand.first + i] = true;
        reader.misses++;
    }
    check_plan(plan);
    for (uint64_t i = 0; i < plan.ahead.npages && plan.ahead.first + i < PAGES; i++)
        reader.ready[plan.ahead.first + i] = true;
    assert_true(reader.here[page]);
}

static void begin(void)
{
    memset(&reader, 0, sizeof reader);
}

static void test_ascending(void **state)
{
    (void)state;
    begin();
    for (uint64_t page = 100; page < 100 + 64000; page++)
        fault(page);
    /* It waits for the network only at its beginning. */
    assert_in_range(reader.misses, 1, 8);
    assert_in_range(reader.hits, 64000 / 64 - 20, 64000 / 64 + 20);
}

static void test_descending(void **state)
{
    (void)state;
    begin();
    for (uint64_t page = 64000; page-- > 0;)
        fault(page);
    assert_in_range(reader.misses, 1, 8);
    assert_in_range(reader.hits, 64000 / 64 - 20, 64000 / 64 + 20);
}

static void test_interleaved(void **state)
{
    (void)state;
    enum { STREAMS = 16, LENGTH = 6400, APART = PAGES / STREAMS };
    begin();
    uint64_t seed = 5;
    uint64_t at[STREAMS] = {0};
    for (uint64_t left = (uint64_t)STREAMS * LENGTH; left > 0;) {
        uint64_t stream = test_random(&seed) % STREAMS;
        if (at[stream] == LENGTH)
            continue;
        /* Every second one descends. */
        uint64_t step = at[stream]++;
        uint64_t from = stream * APART + APART / 2;
        fault(stream % 2 ? from - step : from + step);
        left--;
    }
    assert_in_range(reader.misses, STREAMS, STREAMS * 8);
    assert_in_range(reader.hits, STREAMS * (LENGTH / 64 - 20), STREAMS * (LENGTH / 64 + 20));
}

static void test_window_doubles(void **state)
{
    (void)state;
    static const uint32_t windows[] = {1, 4, 8, 16, 32, 64, 64, 64};
    for (int direction = -1; direction <= 1; direction += 2) {
        struct readahead readahead = {0};
        uint64_t page = 100000;
        for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
            struct readahead_plan plan = readahead_miss(&readahead, page);
            check_plan(plan);
            assert_int_equal(plan.demand.npages, windows[i]);
            uint64_t last = plan.demand.first + plan.demand.npages - 1;
            assert_true(direction > 0 ? plan.demand.first == page : last == page);
            /* What is fetched ahead lies right behind the demand; here nobody keeps it. */
            if (plan.ahead.npages > 0)
                assert_true(direction > 0
                                ? plan.ahead.first == last + 1
                                : plan.ahead.first + plan.ahead.npages == plan.demand.first);
            page = direction > 0 ? last + 1 : plan.demand.first - 1;
        }
    }
}

static void test_random_faults_fetch_one_page(void **state)
{
    (void)state;
    struct readahead readahead = {0};
    uint64_t seed = 77;
    uint32_t more = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t page = test_random(&seed) >> 20;
        struct readahead_plan plan = readahead_miss(&readahead, page);
        check_plan(plan);
        assert_true(page - plan.demand.first < plan.demand.npages);
        more += plan.demand.npages + plan.ahead.npages != 1;
    }
    assert_int_equal(more, 0);
}

/* A program of random faults beside a stream must not break the stream. */
static void test_stream_among_random_faults(void **state)
{
    (void)state;
    begin();
    uint64_t seed = 3;
    uint32_t stray = 0;
    for (uint64_t page = 0; page < 32000; page++) {
        fault(page);
        if (page % 8 == 0 && stray++ < 4000)
            fault(PAGES / 2 + test_random(&seed) % (PAGES / 2));
    }
    uint32_t asked = 0;
    for (uint64_t page = 0; page < PAGES; page++)
        asked += reader.here[page] || reader.ready[page];
    assert_true(reader.misses <= 4000 + 100);
    /* Hardly more than what was wanted. */
    assert_true(asked <= 32000 + 4000 + 4000 / 10 + 200);
}

static void test_begin_of_memory(void **state)
{
    (void)state;
    for (uint64_t from = 0; from < 300; from++) {
        struct readahead readahead = {0};
        for (uint64_t page = from + 1; page-- > 0;) {
            struct readahead_plan plan = readahead_miss(&readahead, page);
            check_plan(plan);
            assert_true(plan.demand.first + plan.demand.npages <= from + 65);
            assert_true(page - plan.demand.first < plan.demand.npages);
            if (plan.demand.first == 0)
                break;
            page = plan.demand.first;
        }
        check_plan(readahead_hit(&readahead, 0));
    }
}

static void test_hit_without_stream(void **state)
{
    (void)state;
    struct readahead readahead = {0};
    struct readahead_plan plan = readahead_hit(&readahead, 1234);
    assert_int_equal(plan.demand.npages, 0);
    assert_int_equal(plan.ahead.npages, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascending),
        cmocka_unit_test(test_descending),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_window_doubles),
        cmocka_unit_test(test_random_faults_fetch_one_page),
        cmocka_unit_test(test_stream_among_random_faults),
        cmocka_unit_test(test_begin_of_memory),
        cmocka_unit_test(test_hit_without_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
