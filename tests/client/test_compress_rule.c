/* compress_rule: pages are compressed where that is faster than sending what it saves. */
#include "../../client/compress_rule.h"
#include "test.h"

enum { PAGES = 64, HALF = 2048 };

#define MB ((uint64_t)1000000)

/* What ROUNDS PUTs do, of pages that get SAVED_BYTES shorter for COST_US. Returns how many of the
 * last one's pages were tried. */
static uint32_t put(struct compress_rule *rule, int rounds, uint64_t rate, uint64_t saved_bytes,
                    double cost_us)
{
    uint32_t many = 0;
    for (int i = 0; i < rounds; i++) {
        many = compress_rule_how_many(rule, PAGES, rate);
        compress_rule_learn(rule, many, many * saved_bytes, many * cost_us);
    }
    return many;
}

static void test_told(void **state)
{
    (void)state;
    struct compress_rule yes = {.how = CONFIG_COMPRESS_YES}, no = {.how = CONFIG_COMPRESS_NO};
    assert_int_equal(put(&yes, 100, 0, 0, 100), PAGES);
    assert_int_equal(put(&no, 100, 1 * MB, HALF, 1), 0);
}

static void test_nothing_known(void **state)
{
    (void)state;
    struct compress_rule rule = {0};
    assert_int_equal(put(&rule, 100, 0, HALF, 5), 0);
    assert_int_equal(rule.tried, 0);
}

/* 2048 bytes take 125 MB/s 16.4 us, 1250 MB/s 1.6. */
static void test_what_pays(void **state)
{
    (void)state;
    struct compress_rule rule = {0};
    assert_in_range(put(&rule, 1, 125 * MB, HALF, 5), 1, PAGES / 8);
    assert_int_equal(put(&rule, 100, 125 * MB, HALF, 5), PAGES);
    assert_in_range(put(&rule, 1, 1250 * MB, HALF, 5), 1, PAGES / 8);
    assert_int_equal(put(&rule, 1, 125 * MB, HALF, 5), PAGES);
    /* So fast that nothing could pay: not even tried. */
    assert_int_equal(put(&rule, 1, 20000 * MB, HALF, 5), 0);
    assert_int_equal(put(&rule, 1, 0, HALF, 5), 0);
}

static void test_other_pages(void **state)
{
    (void)state;
    struct compress_rule rule = {0};
    assert_int_equal(put(&rule, 100, 125 * MB, HALF, 5), PAGES);
    /* Now pages that do not get shorter: soon only a few are tried. */
    assert_in_range(put(&rule, 50, 125 * MB, 0, 5), 1, PAGES / 8);
    /* And again such that do: that is found out from the few. */
    assert_int_equal(put(&rule, 1000, 125 * MB, HALF, 5), PAGES);
    /* The processor gets slow. */
    assert_in_range(put(&rule, 50, 125 * MB, HALF, 50), 1, PAGES / 8);
}

static void test_small_puts(void **state)
{
    (void)state;
    struct compress_rule rule = {0};
    assert_int_equal(compress_rule_how_many(&rule, 1, 125 * MB), 1);
    compress_rule_learn(&rule, 0, 0, 0);
    assert_int_equal(rule.tried, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told),       cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_what_pays),  cmocka_unit_test(test_other_pages),
        cmocka_unit_test(test_small_puts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
