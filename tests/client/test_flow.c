/* flow: the rate at which messages come, whatever is between them and whoever is late now and then.
 */
#include "../../client/flow.h"
#include "test.h"

enum { LARGE = 256 * 1024, FIRST = 10000 };

#define MB ((uint64_t)1000000)

/* A message that comes at RATE bytes a second; *NOW_NS is then its end. */
static void message(struct flow *flow, uint64_t *now_ns, uint64_t rate)
{
    *now_ns += 3000000; /* latency: it does not count */
    flow_pause(flow, FIRST, *now_ns);
    *now_ns += (LARGE - FIRST) * 1000000000ull / rate / 2;
    flow_pause(flow, LARGE / 2, *now_ns);
    *now_ns += (LARGE - FIRST) * 1000000000ull / rate / 2;
    flow_end(flow, LARGE, *now_ns);
}

static void test_rate(void **state)
{
    (void)state;
    struct flow flow = {0};
    uint64_t now_ns = 1;
    assert_int_equal(flow.rate, 0);
    message(&flow, &now_ns, 125 * MB);
    assert_in_range(flow.rate, 124 * MB, 126 * MB);
    for (int i = 0; i < 50; i++)
        message(&flow, &now_ns, 1000 * MB);
    assert_in_range(flow.rate, 750 * MB, 1300 * MB);
    for (int i = 0; i < 50; i++)
        message(&flow, &now_ns, 30 * MB);
    assert_in_range(flow.rate, 22 * MB, 40 * MB);
    flow_reset(&flow);
    assert_int_equal(flow.rate, 0);
}

/* Three in ten: the reader is late and finds all of it, or the sender is interrupted. */
static void test_outliers(void **state)
{
    (void)state;
    struct flow flow = {0};
    uint64_t now_ns = 1, seed = 9;
    message(&flow, &now_ns, 125 * MB);
    for (int i = 0; i < 1000; i++) {
        uint64_t kind = test_random(&seed) % 100;
        if (kind < 15)
            flow_end(&flow, LARGE, now_ns);
        else
            message(&flow, &now_ns, kind < 30 ? 1 * MB : 120 * MB + kind * MB / 10);
        assert_in_range(flow.rate, 30 * MB, 500 * MB);
    }
}

static void test_what_says_nothing(void **state)
{
    (void)state;
    struct flow flow = {0};
    flow_pause(&flow, 100, 1);
    flow_end(&flow, 5000, 1000000000); /* short */
    assert_int_equal(flow.rate, 0);
    flow_end(&flow, LARGE, 2000000000); /* all at once, and nothing known */
    assert_int_equal(flow.rate, 0);
    /* Of what came of the short one nothing is left. */
    uint64_t now_ns = 3000000000;
    message(&flow, &now_ns, 50 * MB);
    assert_in_range(flow.rate, 49 * MB, 51 * MB);
    flow_pause(&flow, LARGE - 10, now_ns);
    flow_end(&flow, LARGE, now_ns + 1000000); /* its last bytes only: as good as at once */
    assert_in_range(flow.rate, 51 * MB, 61 * MB);
    for (int i = 0; i < 1000; i++)
        flow_end(&flow, LARGE, now_ns);
    assert_in_range(flow.rate, 8000 * MB, 11000 * MB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_what_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
