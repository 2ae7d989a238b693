/* A full store says so before anything is half done, and what is freed can be used again. */
#include "store_fixture.h"
#include "test.h"

#include "../../dms/size_class.h"

#include <errno.h>
#include <malloc.h>
#include <sys/resource.h>

enum { CAPACITY_PAGES = 1024, CAPACITY = CAPACITY_PAGES * WIRE_PAGE_BYTES, BATCH = 128 };

static struct store_fixture fixture;

static int setup(void **state)
{
    (void)state;
    fixture_begin(&fixture, CAPACITY);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&fixture);
    return 0;
}

static void fill_up(uint64_t region, uint8_t byte)
{
    for (uint64_t page = 0; page < CAPACITY_PAGES; page += BATCH)
        assert_int_equal(fixture_put(&fixture, region, page, BATCH, 1, byte), 0);
}

static void test_full_store_refuses_whole_batches(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    fill_up(region, 1);
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES);
    assert_int_equal(fixture_put(&fixture, region, 5000, 1, 2, 2), -ENOSPC);
    /* Half of this batch is new: none of it may be stored. */
    assert_int_equal(fixture_put(&fixture, region, CAPACITY_PAGES - 10, 20, 2, 2), -ENOSPC);
    assert_int_equal(fixture_get(&fixture, region, CAPACITY_PAGES - 10), 1);
    assert_int_equal(fixture_get(&fixture, region, CAPACITY_PAGES), -1);
    assert_int_equal(store_find(fixture.store, region)->sequence, 1);
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES);
}

/* What is refused costs no memory. (Sanitizers count nothing here.) */
static void test_refused_pages_leave_nothing(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    fill_up(region, 1);
    fixture_branch(&fixture, region, "b", false);
    for (uint64_t i = 1; i < 10; i++)
        assert_int_equal(fixture_put(&fixture, region, i << 20, 1, 2, 2), -ENOSPC);
    size_t before = mallinfo2().uordblks;
    for (uint64_t i = 10; i < 2000; i++)
        assert_int_equal(fixture_put(&fixture, region, i << 20, 1, 2, 2), -ENOSPC);
    assert_true(mallinfo2().uordblks < before + (64 << 10));
    assert_int_equal(fixture_get(&fixture, region, 0), 1);
    assert_int_equal(fixture_get(&fixture, region, CAPACITY_PAGES - 1), 1);
}

static void test_full_store_takes_new_versions(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    fill_up(region, 1);
    for (uint64_t round = 2; round < 6; round++) {
        for (uint64_t page = 0; page < CAPACITY_PAGES; page += BATCH)
            assert_int_equal(fixture_put(&fixture, region, page, BATCH, round, (uint8_t)round), 0);
    }
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES);
    for (uint64_t page = 0; page < CAPACITY_PAGES; page++)
        assert_int_equal(fixture_get(&fixture, region, page), 5);
}

static void test_dropped_pages_make_room(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    fill_up(region, 1);
    assert_int_equal(fixture_drop(&fixture, region, 0, 20, 1), 0);
    assert_int_equal(fixture_put(&fixture, region, 5000, 20, 2, 2), 0);
    assert_int_equal(fixture_put(&fixture, region, 6000, 1, 2, 2), -ENOSPC);
}

static void test_removed_region_makes_room_at_once(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    fill_up(region, 1);
    assert_int_equal(fixture_remove(&fixture, region), 0);
    /* Before the background has had its turn. */
    fill_up(fixture_region(&fixture, "b"), 2);
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES);
}

static void test_removed_region_gives_its_files_back(void **state)
{
    uint64_t small = fixture_region(&fixture, "small");
    uint64_t large = fixture_region(&fixture, "large");

    (void)state;
    assert_int_equal(fixture_put(&fixture, small, 0, 1, 1, 1), 0);
    for (uint64_t page = 0; page < CAPACITY_PAGES - BATCH; page += BATCH)
        assert_int_equal(fixture_put(&fixture, large, page, BATCH, 1, 2), 0);
    uint32_t full = fixture_files(&fixture);
    assert_int_equal(fixture_remove(&fixture, large), 0);
    assert_int_equal(fixture_used(&fixture), 1);
    assert_true(full > 4);
    assert_true(fixture_files(&fixture) <= 2);
    assert_int_equal(fixture_get(&fixture, small, 0), 1);
    assert_int_equal(fixture_remove(&fixture, small), 0);
    assert_int_equal(fixture_used(&fixture), 0);
    assert_int_equal(fixture_files(&fixture), 0);
}

static void test_branches_share_and_pay_for_changes(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    for (uint64_t page = 0; page < CAPACITY_PAGES / 2; page += BATCH)
        assert_int_equal(fixture_put(&fixture, region, page, BATCH, 1, 1), 0);
    uint64_t frozen = fixture_branch(&fixture, region, "frozen", true);
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES / 2);
    for (uint64_t page = 0; page < CAPACITY_PAGES / 2; page += BATCH)
        assert_int_equal(fixture_put(&fixture, region, page, BATCH, 2, 2), 0);
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES);
    /* Now the region's pages are its own: new versions need no room. */
    assert_int_equal(fixture_put(&fixture, region, 0, BATCH, 3, 3), 0);
    assert_int_equal(fixture_get(&fixture, frozen, 0), 1);
    uint64_t second = fixture_branch(&fixture, region, "second", true);
    assert_int_equal(fixture_put(&fixture, region, 0, 1, 4, 4), -ENOSPC);
    assert_int_equal(fixture_get(&fixture, region, 0), 3);
    assert_int_equal(fixture_remove(&fixture, frozen), 0);
    assert_int_equal(fixture_put(&fixture, region, 0, 1, 4, 4), 0);
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES / 2 + 1);
    assert_int_equal(fixture_remove(&fixture, region), 0);
    assert_int_equal(fixture_used(&fixture), CAPACITY_PAGES / 2);
    assert_int_equal(fixture_get(&fixture, second, 0), 3);
    assert_int_equal(fixture_remove(&fixture, second), 0);
    assert_int_equal(fixture_used(&fixture), 0);
}

static void test_smaller_capacity_still_serves(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    fill_up(region, 1);
    fixture.capacity_bytes = CAPACITY / 2;
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, region, CAPACITY_PAGES - 1), 1);
    assert_int_equal(fixture_put(&fixture, region, 0, BATCH, 2, 2), 0);
    assert_int_equal(fixture_put(&fixture, region, 5000, 1, 2, 2), -ENOSPC);
}

static void test_full_region_refuses_whole_batches(void **state)
{
    uint64_t region = fixture_region(&fixture, "a"), other = fixture_region(&fixture, "b");

    (void)state;
    fixture.region_bytes = (uint64_t)100 * WIRE_PAGE_BYTES;
    fixture_reopen(&fixture);
    assert_int_equal(fixture_put(&fixture, region, 0, 90, 1, 1), 0);
    assert_int_equal(fixture_put(&fixture, region, 80, 21, 2, 2), -E2BIG);
    assert_int_equal(fixture_get(&fixture, region, 80), 1);
    assert_int_equal(fixture_get(&fixture, region, 90), -1);
    assert_int_equal(store_find(fixture.store, region)->sequence, 1);
    assert_int_equal(fixture_used(&fixture), 90);
    /* Just as many as there may be; new versions; others. */
    assert_int_equal(fixture_put(&fixture, region, 80, 20, 2, 2), 0);
    assert_int_equal(fixture_put(&fixture, region, 0, 100, 3, 3), 0);
    assert_int_equal(fixture_put(&fixture, region, 100, 1, 4, 4), -E2BIG);
    assert_int_equal(fixture_put(&fixture, other, 0, 100, 1, 1), 0);
    /* A branch has its pages too, shared or not. */
    uint64_t branch = fixture_branch(&fixture, region, "branch", false);
    assert_int_equal(fixture_put(&fixture, branch, 100, 1, 4, 4), -E2BIG);
    assert_int_equal(fixture_put(&fixture, branch, 0, 1, 4, 4), 0);
    assert_int_equal(fixture_drop(&fixture, branch, 50, 1, 4), 0);
    assert_int_equal(fixture_put(&fixture, branch, 100, 1, 5, 5), 0);
}

static void test_region_larger_than_it_may_be_now(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 200, 1, 1), 0);
    fixture.region_bytes = (uint64_t)100 * WIRE_PAGE_BYTES;
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, region, 199), 1);
    assert_int_equal(fixture_put(&fixture, region, 0, 200, 2, 2), 0);
    assert_int_equal(fixture_put(&fixture, region, 200, 1, 2, 2), -E2BIG);
}

/* A segment that cannot be opened: no limit of the store's, nothing changes, and it passes. */
static void test_no_file_may_be_opened(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    struct rlimit before, none;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int err = fixture_put(&fixture, region, 0, 10, 1, 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(err, -EMFILE);
    assert_int_equal(fixture_get(&fixture, region, 0), -1);
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 1), 0);
    assert_int_equal(fixture_get(&fixture, region, 9), 1);
}

static void test_number_of_regions(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    const struct region *made;

    (void)state;
    fixture_region(&fixture, "b");
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 1), 0);
    fixture.max_regions = 3;
    fixture_reopen(&fixture);
    uint64_t frozen = fixture_branch(&fixture, region, "frozen", true);
    assert_int_equal(store_claim(fixture.store, "c", 0, 1, &made), -EUSERS);
    assert_int_equal(store_branch(fixture.store, region, 1, "c", true, &made), -EUSERS);
    assert_int_equal(store_branch(fixture.store, frozen, 1, "c", false, &made), -EUSERS);
    /* What is there is not new. */
    assert_int_equal(fixture_branch(&fixture, region, "frozen", true), frozen);
    assert_int_equal(fixture_region(&fixture, "a"), region);
    assert_int_equal(fixture_remove(&fixture, frozen), 0);
    fixture_region(&fixture, "c");
    assert_int_equal(store_claim(fixture.store, "d", 0, 1, &made), -EUSERS);
    /* More than there may be now: all are served. */
    fixture.max_regions = 1;
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.regions, 3);
    assert_int_equal(fixture_get(&fixture, region, 9), 1);
    assert_int_equal(fixture_used(&fixture), 10);
}

/* What a page of LEN bytes may count: at most an eighth, or 63 bytes, or a header more. */
static void check_charge(uint64_t before, uint64_t after, uint32_t len)
{
    uint64_t charge = after - before;

    assert_true(charge >= len);
    assert_true(charge <= 64 || charge - len < 64 || (charge - len) * 8 < len);
}

static void test_pages_count_as_they_came(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    uint64_t used = 0;

    (void)state;
    for (uint32_t len = 1; len <= WIRE_PAGE_BYTES; len += 5) {
        assert_int_equal(fixture_put_length(&fixture, region, len, 1, 1, 1, len), 0);
        check_charge(used, fixture_used_bytes(&fixture), len);
        used = fixture_used_bytes(&fixture);
    }
    fixture_reopen(&fixture);
    assert_int_equal(fixture_used_bytes(&fixture), used);
    assert_int_equal(fixture_drop(&fixture, region, 0, 5000, 1), 0);
    assert_int_equal(fixture_used_bytes(&fixture), 0);
    assert_int_equal(fixture_put(&fixture, region, 0, 3, 2, 1), 0);
    assert_int_equal(fixture_used_bytes(&fixture), 3 * WIRE_PAGE_BYTES);
    assert_int_equal(fixture_put_length(&fixture, region, 0, 3, 3, 1, 8), 0);
    assert_int_equal(fixture_used_bytes(&fixture), 3 * 64);
}

/* One page of 64 slots stays, in every size: the blocks of all can be given back to nobody. Before
 * they take more than twice what may be stored and a group a class, pages are refused. */
static void test_blocks_that_are_stuck_are_bounded(void **state)
{
    enum { GROUPS = SIZE_CLASSES * 64 * (WIRE_PAGE_BYTES + 64) / 2, COUNT = 64 };
    uint64_t region = fixture_region(&fixture, "a"), page = 0, sequence = 1;
    uint32_t nrefused = 0;

    (void)state;
    for (uint32_t len = 64; len <= 1024; len += 64) {
        uint64_t first = page;
        int err = 0;
        while (err == 0 && page < first + CAPACITY / len) {
            err = fixture_put_length(&fixture, region, page, COUNT, sequence, 7, len);
            page += err == 0 ? COUNT : 0;
        }
        assert_true(err == 0 || (err == -ENOSPC && store_is_full(fixture.store)));
        nrefused += err != 0;
        for (; first < page; first += COUNT)
            assert_int_equal(fixture_drop(&fixture, region, first + 1, COUNT - 1, sequence), 0);
        while (store_work(fixture.store))
            ;
        assert_true(fixture_disk_bytes(&fixture) <= 2 * CAPACITY + GROUPS + (1 << 20));
        sequence++;
    }
    assert_true(nrefused > 0);
    assert_true(fixture_used_bytes(&fixture) < CAPACITY / 4);
    for (uint64_t kept = 0; kept < page; kept += COUNT)
        assert_int_equal(fixture_get(&fixture, region, kept), 7);
    assert_int_equal(fixture_get(&fixture, region, page), -1);
    assert_int_equal(fixture_remove(&fixture, region), 0);
    assert_int_equal(fixture_used(&fixture), 0);
    assert_int_equal(fixture_disk_bytes(&fixture), 0);
    fill_up(fixture_region(&fixture, "b"), 1);
}

/* Short pages fit where raw ones do not; of a batch with both nothing is stored. */
static void test_batches_of_all_lengths_fit_or_not(void **state)
{
    static uint8_t body[2 * WIRE_PAGE_BYTES];
    uint64_t region = fixture_region(&fixture, "a");
    uint64_t bad;
    struct wire_page pages[2] = {
        {.page = 5000, .sequence = 2, .length_bytes = 600, .encoding = WIRE_LZ4},
        {.page = 5001, .sequence = 2, .length_bytes = WIRE_PAGE_BYTES},
    };

    (void)state;
    fill_up(region, 1);
    assert_int_equal(fixture_drop(&fixture, region, 0, 1, 1), 0);
    pages[0].checksum = wire_checksum(5000, body, 600);
    pages[1].checksum = wire_checksum(5001, body, WIRE_PAGE_BYTES);
    assert_int_equal(store_put(fixture.store, region, 1, pages, 2, body, &bad), -ENOSPC);
    assert_int_equal(fixture_get(&fixture, region, 5000), -1);
    assert_int_equal(fixture_get(&fixture, region, 5001), -1);
    assert_int_equal(fixture_used_bytes(&fixture), CAPACITY - WIRE_PAGE_BYTES);
    /* 640 bytes each. */
    assert_int_equal(fixture_put_length(&fixture, region, 5000, 7, 2, 2, 600), -ENOSPC);
    assert_int_equal(fixture_put_length(&fixture, region, 5000, 6, 2, 2, 600), 0);
    /* 256 bytes are left: too little for a longer version of a page, enough for shorter ones. */
    assert_int_equal(fixture_put_length(&fixture, region, 5000, 1, 3, 3, 1024), -ENOSPC);
    assert_int_equal(fixture_put_length(&fixture, region, 5000, 1, 3, 3, 832), 0);
    assert_int_equal(fixture_put_length(&fixture, region, 1, BATCH, 3, 3, 8), 0);
    assert_int_equal(fixture_get(&fixture, region, 5000), 3);
    assert_int_equal(fixture_get(&fixture, region, 5001), 2);
    assert_int_equal(fixture_get(&fixture, region, BATCH), 3);
}

#define CAPACITY_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAPACITY_TEST(test_full_store_refuses_whole_batches),
        CAPACITY_TEST(test_refused_pages_leave_nothing),
        CAPACITY_TEST(test_full_store_takes_new_versions),
        CAPACITY_TEST(test_dropped_pages_make_room),
        CAPACITY_TEST(test_removed_region_makes_room_at_once),
        CAPACITY_TEST(test_removed_region_gives_its_files_back),
        CAPACITY_TEST(test_branches_share_and_pay_for_changes),
        CAPACITY_TEST(test_smaller_capacity_still_serves),
        CAPACITY_TEST(test_full_region_refuses_whole_batches),
        CAPACITY_TEST(test_region_larger_than_it_may_be_now),
        CAPACITY_TEST(test_no_file_may_be_opened),
        CAPACITY_TEST(test_number_of_regions),
        CAPACITY_TEST(test_pages_count_as_they_came),
        CAPACITY_TEST(test_batches_of_all_lengths_fit_or_not),
        CAPACITY_TEST(test_blocks_that_are_stuck_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
