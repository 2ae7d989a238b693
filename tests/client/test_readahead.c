/* readahead: streams in both directions, several at once, and faults that are no stream. */
#include "../../client/readahead.h"
#include "test.h"

#include <stdbool.h>
#include <string.h>

enum { PAGES = 1 << 20, MOST = 8 * READAHEAD_MAX_PAGES };

/* What the pager does with a plan: the demand comes in; the ahead is kept at hand in parts of a
 * window, or comes in but for its first page where the stream is proven. */
struct reader {
    struct readahead readahead;
    bool here[PAGES];
    uint32_t ready[PAGES]; /* the number of the part it belongs to; 0: none */
    uint32_t parts, most;
    uint32_t misses, hits, asked;
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
    assert_true(plan.ahead.npages <= MOST);
    assert_true(plan.ahead.npages == 0 || plan.ahead.first < (uint64_t)1 << 62);
    assert_true(plan.direction != 0 || plan.ahead.npages == 0);
}

/* A fault between pages that are in memory. */
static struct readahead_fault dense(uint64_t page)
{
    return (struct readahead_fault){page, false, false};
}

static struct readahead_fault around(uint64_t page)
{
    return (struct readahead_fault){page, page > 0 && !reader.here[page - 1],
                                    page + 1 < PAGES && !reader.here[page + 1]};
}

static bool is_part_of(uint64_t page, uint32_t part)
{
    return page < PAGES && reader.ready[page] == part;
}

static void keep(const struct readahead_plan *plan)
{
    for (uint32_t i = 0; i < plan->ahead.npages; i++) {
        uint64_t page = plan->direction > 0 ? plan->ahead.first + i
                                            : plan->ahead.first + plan->ahead.npages - 1 - i;
        if (page >= PAGES || reader.here[page])
            continue;
        reader.parts += i % READAHEAD_MAX_PAGES == 0;
        reader.ready[page] = reader.parts;
        reader.here[page] = plan->proven && !plan->sparse && i > 0;
        reader.asked++;
    }
}

static void fault(uint64_t page)
{
    struct readahead_plan plan;
    if (reader.here[page])
        return;
    if (reader.ready[page]) {
        plan = readahead_hit(&reader.readahead, around(page), reader.most);
        assert_int_equal(plan.demand.npages, 0);
        /* The pager puts in the rest of what came with it. */
        uint32_t part = reader.ready[page];
        reader.here[page] = true;
        for (uint64_t p = page; !plan.sparse && is_part_of(p, part); p++)
            reader.here[p] = true;
        for (uint64_t p = page; !plan.sparse && is_part_of(p, part); p--)
            reader.here[p] = true;
        reader.hits++;
    } else {
        plan = readahead_miss(&reader.readahead, around(page));
        assert_true(plan.demand.npages >= 1);
        assert_true(page - plan.demand.first < plan.demand.npages);
        reader.parts++;
        for (uint64_t i = 0; i < plan.demand.npages && plan.demand.first + i < PAGES; i++)
            if (!plan.sparse)
                reader.here[plan.demand.first + i] = true;
            else if (!reader.here[plan.demand.first + i])
                reader.ready[plan.demand.first + i] = reader.parts;
        reader.here[page] = true;
        reader.misses++;
        reader.asked += plan.demand.npages;
    }
    check_plan(plan);
    keep(&plan);
    assert_true(reader.here[page]);
}

static void begin(void)
{
    memset(&reader, 0, sizeof reader);
    reader.most = 2 * READAHEAD_MAX_PAGES;
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

/* With leave to, a stream is asked for well ahead, in larger parts, and faults less often. */
static void test_reach(void **state)
{
    (void)state;
    enum { LENGTH = 64000 };
    for (int direction = -1; direction <= 1; direction += 2)
        for (uint32_t most = 0; most <= MOST; most += 100) {
            begin();
            reader.most = most;
            for (uint64_t i = 0; i < LENGTH; i++)
                fault(direction > 0 ? 100 + i : 100 + LENGTH - i);
            assert_in_range(reader.misses, 1, 8);
            uint32_t limit = most < 128 ? 128 : most;
            /* One fault for what is asked for at once, and that is a half on the average. */
            assert_in_range(reader.hits, LENGTH / limit, 2 * LENGTH / limit + 20);
            assert_true(reader.asked <= LENGTH + limit);
        }
}

/* The first hits are those of a stream that may end at once: two windows at most. */
static void test_reach_grows(void **state)
{
    (void)state;
    begin();
    reader.most = MOST;
    uint32_t before = 0;
    for (uint64_t page = 0; page < 2000; page++) {
        fault(page);
        assert_true(reader.asked - page <= 2 * page + 130);
        assert_true(reader.asked - page <= MOST + 1);
        before = reader.asked > before ? reader.asked : before;
    }
    assert_true(before >= 2000 + MOST / 4);
    /* Somewhere else it begins anew. */
    fault(100000);
    fault(100001);
    fault(100005);
    assert_true(reader.asked <= before + 1 + 4 + 8 + 8);
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

/* Who passes pages over gets only those that are used, though more is fetched at once; and all of
 * it again when no page is passed over any more. */
static void test_sparse(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2)
        for (uint64_t stride = 2; stride <= 4; stride++) {
            enum { FAULTS = 2000, THEN = 4096 };
            begin();
            reader.most = MOST;
            uint64_t page = PAGES / 2;
            for (int i = 0; i < FAULTS; i++, page += (uint64_t)direction * stride)
                fault(page);
            uint32_t here = 0;
            for (uint64_t p = 0; p < PAGES; p++)
                here += reader.here[p];
            assert_int_equal(here, FAULTS);
            assert_in_range(reader.misses, 1, 8);
            assert_true(reader.asked <= FAULTS * stride + 2 * READAHEAD_MAX_PAGES);
            uint32_t faults = reader.misses + reader.hits;
            for (int i = 0; i < THEN; i++, page += (uint64_t)direction)
                fault(page);
            assert_true(reader.misses + reader.hits - faults <= THEN / 64 + 20);
        }
}

static void test_window_doubles(void **state)
{
    (void)state;
    static const uint32_t windows[] = {1, 4, 8, 16, 32, 64, 64, 64};
    for (int direction = -1; direction <= 1; direction += 2) {
        struct readahead readahead = {0};
        uint64_t page = 100000;
        for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
            struct readahead_plan plan = readahead_miss(&readahead, dense(page));
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
        struct readahead_plan plan = readahead_miss(&readahead, dense(page));
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
        asked += reader.here[page] || reader.ready[page] != 0;
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
            struct readahead_plan plan = readahead_miss(&readahead, dense(page));
            check_plan(plan);
            assert_true(plan.demand.first + plan.demand.npages <= from + 65);
            assert_true(page - plan.demand.first < plan.demand.npages);
            if (plan.demand.first == 0)
                break;
            page = plan.demand.first;
        }
        check_plan(readahead_hit(&readahead, dense(0), MOST));
    }
}

static void test_hit_without_stream(void **state)
{
    (void)state;
    struct readahead readahead = {0};
    struct readahead_plan plan = readahead_hit(&readahead, dense(1234), MOST);
    assert_int_equal(plan.demand.npages, 0);
    assert_int_equal(plan.ahead.npages, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascending),
        cmocka_unit_test(test_descending),
        cmocka_unit_test(test_reach),
        cmocka_unit_test(test_reach_grows),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_window_doubles),
        cmocka_unit_test(test_random_faults_fetch_one_page),
        cmocka_unit_test(test_stream_among_random_faults),
        cmocka_unit_test(test_begin_of_memory),
        cmocka_unit_test(test_hit_without_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
