/* spin: what the kernel says of who wants to run, and spins that find nothing. */
#include "../../client/spin.h"
#include "test.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

static void test_parse(void **state)
{
    (void)state;
    assert_int_equal(spin_parse("0.20 0.18 0.12 1/80 11206\n"), 1);
    assert_int_equal(spin_parse("31.10 29.00 17.55 417/2080 4111206\n"), 417);
    assert_int_equal(spin_parse(""), 0);
    assert_int_equal(spin_parse("0.20 0.18 0.12"), 0);
    assert_int_equal(spin_parse("0.20 0.18 0.12 "), 0);
    assert_int_equal(spin_parse("a b c d"), 0);
}

/* Of COUNT times that it could, how often it does. */
static uint32_t spins(struct spin *spin, uint32_t count, bool found)
{
    uint32_t done = 0;
    for (uint32_t i = 0; i < count; i++)
        if (spin_is_due(spin)) {
            spin_learn(spin, found);
            done++;
        }
    return done;
}

static void test_gives_up_and_tries_again(void **state)
{
    (void)state;
    struct spin spin = {.loadavg = 0, .processors = 2};
    assert_int_equal(spins(&spin, 1000, true), 1000);
    assert_in_range(spins(&spin, 1000, false), 8, 12);
    assert_in_range(spins(&spin, 100000, false), 90, 110);
    /* One that finds something is enough. */
    while (!spin_is_due(&spin))
        ;
    spin_learn(&spin, true);
    assert_int_equal(spins(&spin, 1000, true), 1000);
}

static void test_one_processor(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    size_t first = 0;
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    struct spin spin;
    spin_begin(&spin);
    assert_false(spin_is_due(&spin));
    spin_end(&spin);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

/* Many who want to run: nobody spins. */
static void test_others_come_first(void **state)
{
    (void)state;
    char path[] = "/tmp/edm-spin-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    struct spin spin = {.loadavg = fd, .processors = 2};
    assert_false(spin_is_free(&spin)); /* nothing is known */
    assert_int_equal(pwrite(fd, "9.10 0.18 0.12 2/80 11206\n", 26, 0), 26);
    assert_true(spin_is_free(&spin));
    assert_int_equal(pwrite(fd, "0.10 0.18 0.12 3/80 11206\n", 26, 0), 26);
    assert_false(spin_is_free(&spin));
    spin_end(&spin);
    assert_false(spin_is_due(&spin));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_gives_up_and_tries_again),
        cmocka_unit_test(test_one_processor),
        cmocka_unit_test(test_others_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
