/* What comes next: the resident queue, readahead, placement, the line of a map, latencies. */
#include "../../client/histogram.h"
#include "../../client/placement.h"
#include "../../client/proc_map.h"
#include "../../client/readahead.h"
#include "../../client/resident_queue.h"
#include "../../client/uffd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static void push(struct resident_queue *queue, uint64_t page, bool proven)
{
    assert_int_equal(resident_queue_push(queue, (struct resident_entry){page, 7}, proven), 0);
}

static void test_queue_order(void **state)
{
    (void)state;
    struct resident_queue *queue;
    struct resident_entry entry;
    assert_int_equal(resident_queue_new(&queue), 0);
    assert_false(resident_queue_pop(queue, &entry));
    for (uint64_t i = 0; i < 10000; i++)
        push(queue, i, false);
    for (uint64_t i = 0; i < 10000; i++) {
        assert_true(resident_queue_pop(queue, &entry));
        assert_int_equal(entry.page, i);
        assert_int_equal(entry.generation, 7);
    }
    /* As long as they are more than a tenth young pages leave before proven ones, but for every
     * eighth. */
    for (uint64_t i = 0; i < 900; i++)
        push(queue, i, true);
    for (uint64_t i = 1000; i < 1200; i++)
        push(queue, i, false);
    for (uint64_t i = 0, young = 1000, proven = 0; i < 96; i++) {
        assert_true(resident_queue_pop(queue, &entry));
        assert_int_equal(entry.page, i % 8 == 7 ? proven++ : young++);
    }
    resident_queue_destroy(&queue);
}

static bool is_even(void *arg, struct resident_entry entry)
{
    (void)arg;
    return entry.page % 2 == 0;
}

static void test_queue_compact(void **state)
{
    (void)state;
    struct resident_queue *queue;
    struct resident_entry entry;
    assert_int_equal(resident_queue_new(&queue), 0);
    for (uint64_t i = 0; i < 6000; i++)
        push(queue, i, false);
    resident_queue_compact(queue, is_even, NULL);
    assert_int_equal(resident_queue_length(queue), 3000);
    for (uint64_t i = 0; i < 6000; i += 2) {
        assert_true(resident_queue_pop(queue, &entry));
        assert_int_equal(entry.page, i);
    }
    resident_queue_destroy(&queue);
}

/* Reads NPAGES pages in a row and counts the faults that had to go out. */
static int count_misses(uint64_t first, int direction, int npages)
{
    static bool here[100000];
    memset(here, 0, sizeof here);
    struct readahead readahead = {0};
    int misses = 0;
    uint64_t page = first;
    for (int i = 0; i < npages; i++, page += (uint64_t)direction) {
        if (here[page])
            continue;
        misses++;
        struct readahead_range demand =
            readahead_miss(&readahead, (struct readahead_fault){.page = page}).demand;
        assert_true(demand.first <= page && page < demand.first + demand.npages);
        assert_true(demand.npages <= READAHEAD_MAX_PAGES);
        for (uint64_t p = demand.first; p < demand.first + demand.npages; p++)
            here[p] = true;
    }
    return misses;
}

static void test_readahead_streams(void **state)
{
    (void)state;
    assert_in_range(count_misses(10, 1, 50000), 50000 / 64, 50000 / 64 + 10);
    assert_in_range(count_misses(50010, -1, 50000), 50000 / 64, 50000 / 64 + 10);
}

static void test_readahead_random(void **state)
{
    (void)state;
    struct readahead readahead = {0};
    uint64_t page = 1, asked = 0;
    for (int i = 0; i < 10000; i++) {
        page = page * 6364136223846793005ull + 1442695040888963407ull;
        struct readahead_plan plan =
            readahead_miss(&readahead, (struct readahead_fault){.page = page >> 30});
        asked += plan.demand.npages + plan.ahead.npages;
    }
    assert_in_range(asked, 10000, 10100);
}

static void test_placement(void **state)
{
    (void)state;
    const uint64_t stores[] = {11, 22, 33, 44};
    uint32_t counts[4] = {0};
    for (uint64_t extent = 0; extent < 40000; extent++) {
        uint32_t four = placement_of(extent * 512, stores, 4);
        uint32_t three = placement_of(extent * 512, stores, 3);
        counts[four]++;
        /* A shard that is added takes only what goes to it. */
        assert_true(four == three || four == 3);
        assert_int_equal(placement_of(extent * 512 + 511, stores, 4), four);
    }
    for (int i = 0; i < 4; i++)
        assert_in_range(counts[i], 9000, 11000);
    /* The example of PROTOCOL.md, section 10. */
    const uint64_t example[] = {1, 2, 3};
    assert_int_equal(example[placement_of(7 * 512, example, 3)], 1);
    assert_int_equal(example[placement_of(8 * 512, example, 3)], 2);
}

static void test_maps(void **state)
{
    (void)state;
    struct proc_range range;
    assert_true(
        proc_map_parse("55d0c8a2f000-55d0c8a50000 rw-p 00000000 00:00 0    [heap]", &range));
    assert_int_equal(range.start, 0x55d0c8a2f000);
    assert_int_equal(range.end, 0x55d0c8a50000);
    assert_true(proc_map_parse("7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ", &range));
    assert_true(proc_map_parse("7f0000021000-7f0004000000 ---p 00000000 00:00 0 ", &range));
    assert_true(proc_map_parse("7f00-7f01 rw-p 00000000 00:00 0   [anon: glibc: malloc]", &range));
    assert_false(
        proc_map_parse("7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0   [stack]", &range));
    assert_false(
        proc_map_parse("7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0   [vdso]", &range));
    assert_false(proc_map_parse("7f00-7f01 r--p 00000000 00:00 0 ", &range));
    assert_true(proc_map_parse("7f00-7f01 rwxp 00000000 00:00 0 ", &range));
    assert_false(proc_map_parse("7f00-7f01 rw-s 00000000 00:01 1024  /dev/zero (deleted)", &range));
    assert_false(proc_map_parse("7f00-7f01 rw-p 00001000 fe:00 1234  /usr/lib/libc.so.6", &range));
    assert_false(proc_map_parse("", &range));
    assert_false(proc_map_parse("garbage", &range));
}

static void test_old_kernel(void **state)
{
    (void)state;
    char why[256];
    uint64_t all = ~0ull;
    assert_false(uffd_explain_features(all, "6.18.0", why, sizeof why));
    assert_true(
        uffd_explain_features(all & ~(uint64_t)KUFFD_FEATURE_MOVE, "6.1.0", why, sizeof why));
    assert_non_null(strstr(why, "6.1.0"));
    assert_non_null(strstr(why, "MOVE"));
    assert_non_null(strstr(why, "6.8"));
    static const struct {
        uint64_t bit;
        const char *name, *since;
    } features[] = {
        {KUFFD_FEATURE_EVENT_REMAP, "EVENT_REMAP", "4.11"},
        {KUFFD_FEATURE_EVENT_REMOVE, "EVENT_REMOVE", "4.11"},
        {KUFFD_FEATURE_EVENT_UNMAP, "EVENT_UNMAP", "4.11"},
        {KUFFD_FEATURE_THREAD_ID, "THREAD_ID", "4.14"},
        {KUFFD_FEATURE_WP_ASYNC, "WP_ASYNC", "6.7"},
    };
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        assert_true(uffd_explain_features(all & ~features[i].bit, "3.2.1", why, sizeof why));
        assert_non_null(strstr(why, features[i].name));
        assert_non_null(strstr(why, features[i].since));
        assert_non_null(strstr(why, "3.2.1"));
        assert_null(strchr(why, '\n'));
    }
    /* Of several the newest is named: the kernel must be that new at least. */
    assert_true(uffd_explain_features(0, "4.4.0", why, sizeof why));
    assert_non_null(strstr(why, "MOVE"));
    /* EDM can do without EVENT_FORK. */
    assert_false(uffd_explain_features(all & ~(uint64_t)KUFFD_FEATURE_EVENT_FORK, "6.18.0", why,
                                       sizeof why));
}

static void test_histogram(void **state)
{
    (void)state;
    static struct histogram histogram;
    for (uint64_t us = 1; us <= 100000; us++)
        histogram_add(&histogram, us);
    assert_int_equal(histogram.count, 100000);
    assert_int_equal(histogram.max_us, 100000);
    assert_in_range(histogram_quantile_us(&histogram, 0.5), 49000, 53500);
    assert_in_range(histogram_quantile_us(&histogram, 0.99), 98000, 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_order),       cmocka_unit_test(test_queue_compact),
        cmocka_unit_test(test_readahead_streams), cmocka_unit_test(test_readahead_random),
        cmocka_unit_test(test_placement),         cmocka_unit_test(test_maps),
        cmocka_unit_test(test_old_kernel),        cmocka_unit_test(test_histogram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
