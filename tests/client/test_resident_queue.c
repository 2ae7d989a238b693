/* resident_queue against a plain list, and histogram against sorted values. */
#include "../../client/histogram.h"
#include "../../client/resident_queue.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 20000, STEPS = 200000, VALUES = 50000 };

struct list {
    struct resident_entry entries[MOST];
    size_t length;
};

static struct list lists[2]; /* young, proven */

static bool is_live(void *arg, struct resident_entry entry)
{
    uint64_t *salt = arg;
    return (entry.page ^ *salt) % 3 != 0 && entry.generation % 7 != 0;
}

static void compact(struct list *list, uint64_t salt)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->length; i++)
        if (is_live(&salt, list->entries[i]))
            list->entries[kept++] = list->entries[i];
    list->length = kept;
}

static unsigned many_young; /* times */

/* Young ones leave as long as they are more than a tenth of all, but for every eighth time. */
static struct resident_entry pop(void)
{
    size_t all = lists[0].length + lists[1].length;
    bool young = lists[0].length * 10 > all && ++many_young % 8 != 0;
    struct list *list = &lists[young || lists[1].length == 0 ? 0 : 1];
    struct resident_entry first = list->entries[0];
    memmove(list->entries, list->entries + 1, --list->length * sizeof *list->entries);
    return first;
}

static void test_against_lists(void **state)
{
    (void)state;
    uint64_t seed = 2024;
    struct resident_queue *queue;
    assert_int_equal(resident_queue_new(&queue), 0);
    for (int step = 0; step < STEPS; step++) {
        size_t all = lists[0].length + lists[1].length;
        /* Grows for a while, then shrinks. */
        bool growing = step / 5000 % 2 == 0;
        uint64_t what = test_random(&seed) % 100;
        if (what == 0 && all > 0) {
            resident_queue_compact(queue, is_live, &seed);

            compact(&lists[0], seed);
            compact(&lists[1], seed);
        } else if (all < MOST && what < (growing ? 80 : 30)) {
            struct resident_entry entry = {test_random(&seed) >> 8, (uint8_t)test_random(&seed)};
            bool proven = test_random(&seed) % 4 == 0;
            struct list *list = &lists[proven];
            list->entries[list->length++] = entry;
            assert_int_equal(resident_queue_push(queue, entry, proven), 0);
        } else {
            struct resident_entry got, expected;
            assert_int_equal(resident_queue_pop(queue, &got), all > 0);
            if (all > 0) {
                expected = pop();
                assert_true(got.page == expected.page);
                assert_int_equal(got.generation, expected.generation);
            }
        }
        assert_int_equal(resident_queue_length(queue), lists[0].length + lists[1].length);
    }
    resident_queue_destroy(&queue);
    assert_null(queue);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void compare(uint64_t *values, size_t count)
{
    static const double parts[] = {0, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999};
    static struct histogram histogram;
    memset(&histogram, 0, sizeof histogram);
    for (size_t i = 0; i < count; i++)
        histogram_add(&histogram, values[i]);
    qsort(values, count, sizeof *values, by_value);
    assert_int_equal(histogram.count, count);
    assert_true(histogram.max_us == values[count - 1]);
    uint64_t before = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        uint64_t exact = values[(size_t)((double)count * parts[i])];
        uint64_t got = histogram_quantile_us(&histogram, parts[i]);
        assert_true(got >= exact);
        assert_true((double)got <= (double)exact * 1.07);
        assert_true(got >= before);
        before = got;
    }
    assert_true(histogram_quantile_us(&histogram, 1) == histogram.max_us);
}

/* Pages that were hot once and are not any more do not stay for ever beside young ones. */
static void test_stale(void **state)
{
    (void)state;
    enum { STALE = 900, YOUNG = 1000 };
    struct resident_queue *queue;
    assert_int_equal(resident_queue_new(&queue), 0);
    for (uint64_t page = 0; page < STALE; page++)
        assert_int_equal(resident_queue_push(queue, (struct resident_entry){page, 0}, true), 0);
    for (uint64_t page = 0; page < YOUNG; page++)
        assert_int_equal(
            resident_queue_push(queue, (struct resident_entry){STALE + page, 0}, false), 0);
    int left = STALE;
    for (int step = 0; step < 8 * STALE; step++) {
        struct resident_entry entry;
        assert_true(resident_queue_pop(queue, &entry));
        left -= entry.page < STALE;
        assert_int_equal(
            resident_queue_push(queue, (struct resident_entry){STALE + YOUNG, 0}, false), 0);
    }
    assert_int_equal(left, 0);
    resident_queue_destroy(&queue);
}

static void test_histogram(void **state)
{
    (void)state;
    static uint64_t values[VALUES];
    static const uint64_t ranges[] = {1, 2, 16, 17, 1000, 100000, 1ull << 32, 1ull << 40};
    uint64_t seed = 31;
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
        for (size_t i = 0; i < VALUES; i++)
            values[i] = test_random(&seed) % ranges[r];
        compare(values, VALUES);
        /* Few long ones among many short ones, as latencies are. */
        for (size_t i = 0; i < VALUES; i++)
            values[i] = ranges[r] >> test_random(&seed) % 40;
        compare(values, VALUES);
        compare(values, 1);
    }
}

static void test_histogram_ends(void **state)
{
    (void)state;
    static struct histogram histogram;
    memset(&histogram, 0, sizeof histogram);
    assert_int_equal(histogram_quantile_us(&histogram, 0.5), 0);
    assert_int_equal(histogram_quantile_us(&histogram, 1), 0);
    /* Longer than anything that can be: counted all the same. */
    histogram_add(&histogram, UINT64_MAX);
    histogram_add(&histogram, 0);
    assert_int_equal(histogram.count, 2);
    assert_true(histogram.max_us == UINT64_MAX);
    assert_int_equal(histogram_quantile_us(&histogram, 0), 0);
    assert_true(histogram_quantile_us(&histogram, 1) == UINT64_MAX);
}

/* A page that is mapped again for the 256th time has the generation it was queued with at first. */
static void test_twice_in_the_queue(void **state)
{
    (void)state;
    enum { PAGES = 300, TIMES = 3 };
    const uint64_t far = (uint64_t)1 << 55;
    struct resident_queue *queue;
    struct resident_entry entry;
    uint64_t pages[PAGES * TIMES], seed = 7;
    uint32_t npages = 0;
    assert_int_equal(resident_queue_new(&queue), 0);
    for (int time = 0; time < TIMES; time++)
        for (uint64_t i = 0; i < PAGES; i++) {
            entry = (struct resident_entry){i % 2 ? far - i : i, 9};
            assert_int_equal(resident_queue_push(queue, entry, test_random(&seed) % 2), 0);
        }
    while (resident_queue_pop(queue, &entry))
        pages[npages++] = entry.page;
    assert_int_equal(npages, PAGES * TIMES);
    assert_int_equal(resident_queue_sort_once(pages, npages), PAGES);
    for (uint64_t i = 0; i < PAGES; i++)
        assert_true(pages[i] == (i < PAGES / 2 ? 2 * i : far - PAGES + 1 + 2 * (i - PAGES / 2)));
    assert_int_equal(resident_queue_sort_once(pages, 1), 1);
    assert_int_equal(resident_queue_sort_once(pages, 0), 0);
    resident_queue_destroy(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_lists),      cmocka_unit_test(test_stale),
        cmocka_unit_test(test_twice_in_the_queue), cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_histogram_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
