/* leaving: a random storm against an array. Where ranges had to be joined more may be leaving than
 * was said, but never less. */
#include "../../client/leaving.h"
#include "test.h"

#include <string.h>

enum { PAGES = 4096, STEPS = 2000 };

static uint64_t random_state = 88172645463325252ull;

static uint64_t draw(uint64_t below)
{
    return test_random(&random_state) % below;
}

static void check_order(const struct leaving *leaving)
{
    assert_true(leaving->count <= LEAVING_RANGES);
    for (uint32_t i = 0; i < leaving->count; i++) {
        assert_true(leaving->ranges[i].start < leaving->ranges[i].end);
        assert_true(leaving->ranges[i].stamp <= leaving->stamp);
        if (i > 0)
            assert_true(leaving->ranges[i - 1].end <= leaving->ranges[i].start);
    }
}

/* ENDS_EVERY 0: never. EXACT: so few pages that no ranges have to be joined, and nothing ends. */
static void storm(uint64_t npages, uint64_t most_pages, uint64_t ends_every, bool exact)
{
    static uint64_t model[PAGES]; /* the stamp by which it is leaving; 0: it is not */
    struct leaving leaving = {0};
    memset(model, 0, sizeof model);
    for (int step = 0; step < STEPS; step++) {
        uint64_t start = draw(npages - most_pages);
        uint64_t end = start + 1 + draw(most_pages);
        if (ends_every > 0 && draw(ends_every) == 0) {
            uint64_t stamp = leaving.stamp > 3 ? leaving.stamp - draw(3) : 0;
            leaving_end(&leaving, stamp);
            for (uint64_t i = 0; i < npages; i++)
                model[i] = model[i] > stamp ? model[i] : 0;
        } else if (draw(3) == 0) {
            leaving_cut(&leaving, start, end);
            for (uint64_t i = start; i < end; i++)
                model[i] = 0;
        } else {
            leaving_add(&leaving, start, end);
            for (uint64_t i = start; i < end; i++)
                model[i] = leaving.stamp;
        }
        check_order(&leaving);
        for (uint64_t i = 0; i < npages; i++)
            if (model[i] || exact)
                assert_int_equal(leaving_has(&leaving, i), model[i] != 0);
    }
}

static void test_storm(void **state)
{
    (void)state;
    storm(LEAVING_RANGES, 5, 0, true);
    storm(1000, 40, 6, false);
    storm(PAGES, 3, 1000, false);
    storm(PAGES, 500, 20, false);
}

static void test_ranges(void **state)
{
    (void)state;
    struct leaving leaving = {0};
    assert_null(leaving_after(&leaving, 0));
    leaving_add(&leaving, 10, 20);
    leaving_add(&leaving, 30, 40);
    assert_false(leaving_has(&leaving, 9));
    assert_true(leaving_has(&leaving, 10));
    assert_true(leaving_has(&leaving, 19));
    assert_false(leaving_has(&leaving, 20));
    assert_int_equal(leaving_after(&leaving, 20)->start, 30);
    leaving_cut(&leaving, 12, 14);
    assert_true(leaving_has(&leaving, 11));
    assert_false(leaving_has(&leaving, 13));
    assert_true(leaving_has(&leaving, 14));
    leaving_end(&leaving, 1);
    assert_false(leaving_has(&leaving, 11));
    assert_true(leaving_has(&leaving, 30));
    leaving_end(&leaving, 2);
    assert_int_equal(leaving.count, 0);
}

/* With no room for one more the two that lie nearest to each other become one. */
static void test_full(void **state)
{
    (void)state;
    struct leaving leaving = {0};
    for (uint64_t i = 0; i < LEAVING_RANGES; i++)
        leaving_add(&leaving, 1000 * i, 1000 * i + (i == 7 ? 990 : 100));
    assert_int_equal(leaving.count, LEAVING_RANGES);
    leaving_add(&leaving, 500000, 500001);
    assert_int_equal(leaving.count, LEAVING_RANGES);
    assert_true(leaving_has(&leaving, 7995));
    assert_false(leaving_has(&leaving, 6500));
    assert_true(leaving_has(&leaving, 500000));
    /* The joined one ends with the later of the two. */
    leaving_end(&leaving, 8);
    assert_true(leaving_has(&leaving, 7000));
    leaving_end(&leaving, 9);
    assert_false(leaving_has(&leaving, 7000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
