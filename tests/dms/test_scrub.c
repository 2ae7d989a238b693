/* The scrub, on a clock of its own: that it reads everything, at its rate, and says damage once. */
#include "store_fixture.h"
#include "test.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>

#include "../../dms/scrub.h"
#include "../../dms/segment.h"

enum { CAPACITY = 16 << 20, PAGES = 200, RATE = 1 << 20 };

static struct store_fixture fixture;
static struct scrub scrub;
static uint64_t region;
static int64_t now_us;

static int setup(void **state)
{
    (void)state;
    fixture_begin(&fixture, CAPACITY);
    region = fixture_region(&fixture, "a");
    assert_int_equal(fixture_put(&fixture, region, 0, PAGES, 1, 7), 0);
    scrub = (struct scrub){.store = fixture.store, .part = "Shard 0", .rate = RATE};
    now_us = 5000000;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&fixture);
    return 0;
}

/* Goes on to the end of the pass, and counts what was found damaged in it. */
static uint64_t pass(void)
{
    uint64_t passes = scrub.npasses, found = 0;

    while (scrub.npasses == passes) {
        int wait_ms = scrub_turn(&scrub, now_us);
        assert_true(wait_ms >= 0);
        found = scrub.npasses == passes ? scrub.found : found;
        now_us += wait_ms == 0 ? 1 : (int64_t)wait_ms * 1000;
    }
    return found;
}

static void flip(uint64_t page, size_t offset, bool in_page)
{
    const char *path;
    long header, bytes;

    fixture_locate(&fixture, region, page, &path, &header, &bytes);
    fixture_flip(path, (in_page ? bytes : header) + (long)offset, 0x21);
}

static void test_says_damage_once(void **state)
{
    (void)state;
    assert_int_equal(pass(), 0);
    flip(3, 17, true);
    flip(PAGES - 1, 4000, true);
    flip(100, offsetof(struct slot_header, sequence), false);
    assert_int_equal(pass(), 3);
    assert_int_equal(pass(), 0);
    flip(4, 17, true);
    assert_int_equal(pass(), 1);
    /* The slot that takes its place may be damaged too. */
    assert_int_equal(fixture_put(&fixture, region, 3, 2, 2, 8), 0);
    assert_int_equal(pass(), 0);
    flip(3, 17, true);
    assert_int_equal(pass(), 1);
    assert_int_equal(pass(), 0);
}

/* What was found at the start was said then. */
/* A header that is gone says that its slot is free, or nothing. */
static void test_headers_that_are_gone(void **state)
{
    const char *path;
    long header, bytes;
    static const char zeros[64];

    (void)state;
    fixture_locate(&fixture, region, 7, &path, &header, &bytes);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, header, SEEK_SET), 0);
    assert_int_equal(fwrite(zeros, sizeof(zeros), 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(fixture_get(&fixture, region, 7), -EBADMSG);
    assert_int_equal(pass(), 1);
    assert_int_equal(pass(), 0);
}

static void test_does_not_repeat_the_start(void **state)
{
    (void)state;
    fixture_close(&fixture);
    flip(3, 17, true);
    flip(4, offsetof(struct slot_header, sequence), false);
    assert_int_equal(fixture_open(&fixture), 0);
    scrub.store = fixture.store;
    assert_int_equal(pass(), 0);
    flip(5, 17, true);
    assert_int_equal(pass(), 1);
}

static void test_keeps_its_rate(void **state)
{
    const int64_t whole_us = (int64_t)PAGES * WIRE_PAGE_BYTES * 1000000 / RATE;
    int64_t begun_us = now_us;
    uint64_t most = 0;

    (void)state;
    for (;;) {
        uint64_t before = scrub.bytes;
        int wait_ms = scrub_turn(&scrub, now_us);
        if (scrub.npasses > 0)
            break;
        most = scrub.bytes - before > most ? scrub.bytes - before : most;
        now_us += wait_ms == 0 ? 1 : (int64_t)wait_ms * 1000;
    }
    /* A step at a time; all of it in the time it should take, and the next pass not at once. */
    assert_true(most <= 16 * WIRE_PAGE_BYTES);
    assert_true(scrub.due_us >= begun_us + (int64_t)SCRUB_PASS_MS * 1000);
    assert_true(now_us - begun_us >= whole_us - 16 * WIRE_PAGE_BYTES * 1000000LL / RATE);
}

static void test_late_steps_are_made_up_for(void **state)
{
    int64_t begun_us = now_us;

    (void)state;
    /* Called every 100 ms only, which is more than a step takes. */
    while (scrub.npasses == 0) {
        while (scrub_turn(&scrub, now_us) == 0 && scrub.npasses == 0)
            ;
        now_us += 100000;
    }
    assert_true(now_us - begun_us <= (int64_t)PAGES * WIRE_PAGE_BYTES * 1000000 / RATE + 200000);
}

static void test_nothing_to_do(void **state)
{
    (void)state;
    scrub.rate = 0;
    assert_int_equal(scrub_turn(&scrub, now_us), -1);
    scrub.rate = RATE;
    assert_int_equal(fixture_remove(&fixture, region), 0);
    while (store_work(fixture.store))
        ;
    assert_int_equal(pass(), 0);
    assert_true(scrub_turn(&scrub, now_us) >= 0);
}

/* Pages come and go, files are made and removed, and every page is read in every pass. */
static void test_under_change(void **state)
{
    uint64_t random_state = 77;

    (void)state;
    for (int i = 0; i < 2000; i++) {
        uint32_t first = (uint32_t)(test_random(&random_state) % 2000);
        if (test_random(&random_state) % 3 == 0)
            assert_int_equal(fixture_drop(&fixture, region, first, 200, (uint64_t)i + 2), 0);
        else
            assert_int_equal(fixture_put(&fixture, region, first, 100, (uint64_t)i + 2, 9), 0);
        while (test_random(&random_state) % 4 != 0 && store_work(fixture.store))
            ;
        int wait_ms = scrub_turn(&scrub, now_us);
        now_us += wait_ms == 0 ? 1 : (int64_t)wait_ms * 1000;
        assert_int_equal(scrub.found, 0);
    }
    if (scrub.begun_us != 0)
        assert_int_equal(pass(), 0);
    assert_int_equal(fixture_put(&fixture, region, 500, 1, 5000, 9), 0);
    flip(500, 5, true);
    assert_int_equal(pass(), 1);
}

#define SCRUB_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRUB_TEST(test_says_damage_once),
        SCRUB_TEST(test_headers_that_are_gone),
        SCRUB_TEST(test_does_not_repeat_the_start),
        SCRUB_TEST(test_keeps_its_rate),
        SCRUB_TEST(test_late_steps_are_made_up_for),
        SCRUB_TEST(test_nothing_to_do),
        SCRUB_TEST(test_under_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
