/* Ownership: an epoch that is not the one in force can do nothing, before and after a restart. */
#include "store_fixture.h"
#include "test.h"

#include <errno.h>
#include <string.h>

static struct store_fixture fixture;

static int setup(void **state)
{
    (void)state;
    fixture_begin(&fixture, 16 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&fixture);
    return 0;
}

static const struct region *claim(uint64_t epoch, uint64_t number)
{
    const struct region *region;

    assert_int_equal(store_claim(fixture.store, "a", epoch, number, &region), 0);
    return region;
}

/* Every operation with EPOCH is refused with -ESTALE and changes nothing. */
static void check_fenced(uint64_t region, uint64_t epoch)
{
    static uint8_t bytes[WIRE_PAGE_BYTES];
    struct wire_page page = {.page = 1, .sequence = 100, .length_bytes = sizeof(bytes)};
    struct wire_range range = {0, 10};
    const struct region *branch;
    struct store_found found;
    uint64_t bad;

    page.checksum = wire_checksum(page.page, bytes, sizeof(bytes));
    assert_int_equal(store_put(fixture.store, region, epoch, &page, 1, bytes, &bad), -ESTALE);
    assert_int_equal(store_locate(fixture.store, region, epoch, &page, 1, &found, &bad), -ESTALE);
    assert_int_equal(store_drop(fixture.store, region, epoch, 100, &range, 1), -ESTALE);
    assert_int_equal(store_branch(fixture.store, region, epoch, "b", true, &branch), -ESTALE);
    assert_int_equal(store_branch(fixture.store, region, epoch, "b", false, &branch), -ESTALE);
    assert_int_equal(store_remove(fixture.store, region, epoch), -ESTALE);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(fixture_get(&fixture, region, i), 7);
    assert_int_equal(store_find(fixture.store, region)->sequence, 1);
    assert_string_equal(store_after(fixture.store, "")->name, "a");
    assert_null(store_after(fixture.store, "a"));
}

static void test_only_the_owner_works(void **state)
{
    uint64_t region = claim(0, 1)->id;
    const struct region *other;

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 7), 0);
    assert_int_equal(claim(5, 2)->epoch, 5);
    check_fenced(region, 1);
    check_fenced(region, 4);
    check_fenced(region, 6);
    assert_int_equal(store_claim(fixture.store, "a", 4, 3, &other), -ESTALE);
    fixture_reopen(&fixture);
    assert_int_equal(store_find(fixture.store, region)->epoch, 5);
    check_fenced(region, 4);
    assert_int_equal(store_claim(fixture.store, "a", 4, 3, &other), -ESTALE);
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 2, 8), 0);
}

static void test_repeated_claim_is_the_same(void **state)
{
    (void)state;
    assert_int_equal(claim(0, 1)->epoch, 1);
    assert_int_equal(claim(0, 1)->epoch, 1);
    assert_int_equal(claim(0, 2)->epoch, 2);
    assert_int_equal(claim(0, 2)->epoch, 2);
    assert_int_equal(claim(0, 1)->epoch, 3);
    assert_int_equal(claim(3, 4)->epoch, 3);
    assert_int_equal(claim(9, 5)->epoch, 9);
    /* What the number stood for is not kept over a restart. */
    fixture_reopen(&fixture);
    assert_int_equal(claim(9, 6)->epoch, 9);
    assert_int_equal(claim(0, 5)->epoch, 10);
}

static void test_frozen_regions_have_no_owner(void **state)
{
    uint64_t region = claim(0, 1)->id;
    const struct region *frozen;
    struct wire_range range = {0, 10};

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 7), 0);
    uint64_t id = fixture_branch(&fixture, region, "f", true);
    assert_int_equal(store_claim(fixture.store, "f", 0, 9, &frozen), 0);
    assert_int_equal(frozen->epoch, 1);
    assert_int_equal(store_claim(fixture.store, "f", 44, 9, &frozen), 0);
    assert_int_equal(frozen->epoch, 1);
    assert_int_equal(fixture_put(&fixture, id, 0, 1, 5, 8), -EROFS);
    assert_int_equal(store_drop(fixture.store, id, 1, 5, &range, 1), -EROFS);
    assert_int_equal(store_branch(fixture.store, id, 77, "g", false, &frozen), 0);
    assert_int_equal(frozen->epoch, 1);
    assert_int_equal(store_remove(fixture.store, id, 55), 0);
    assert_int_equal(store_remove(fixture.store, id, 55), -ENOENT);
}

static void test_branch_by_its_name(void **state)
{
    uint64_t region = claim(0, 1)->id;
    const struct region *branch;

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 7), 0);
    uint64_t first = fixture_branch(&fixture, region, "b", false);
    assert_int_equal(fixture_branch(&fixture, region, "b", false), first);
    assert_int_equal(store_branch(fixture.store, region, 1, "b", true, &branch), -EEXIST);
    assert_int_equal(store_branch(fixture.store, region, 1, "a", false, &branch), -EEXIST);
    /* Once somebody has taken it, asking for it again would give it to two. */
    assert_int_equal(store_claim(fixture.store, "b", 0, 9, &branch), 0);
    assert_int_equal(store_branch(fixture.store, region, 1, "b", false, &branch), -EEXIST);
}

#define FENCE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FENCE_TEST(test_only_the_owner_works),
        FENCE_TEST(test_repeated_claim_is_the_same),
        FENCE_TEST(test_frozen_regions_have_no_owner),
        FENCE_TEST(test_branch_by_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
