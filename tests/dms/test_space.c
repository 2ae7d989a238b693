/* What a store takes on disk: little more than its pages when it is full, and (nearly) nothing when
 * they are gone, however they went. */
#include "store_fixture.h"
#include "test.h"

#include "../../dms/size_class.h"

enum { CAPACITY = 128 << 20, PAGES = 8192, BATCH = 128, KIB = 1024 };

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

static void work(void)
{
    while (store_work(fixture.store))
        ;
}

/* Stores pages of the lengths that LENGTH gives for their numbers; returns the sum of those. */
static uint64_t put_all(uint64_t region, uint64_t sequence, uint32_t (*length)(uint64_t page))
{
    static uint8_t body[WIRE_MAX_BODY_BYTES];
    struct wire_page pages[BATCH];
    uint64_t total = 0, bad;

    for (uint64_t first = 0; first < PAGES; first += BATCH) {
        uint8_t *bytes = body;
        for (uint32_t i = 0; i < BATCH; i++) {
            uint32_t len = length(first + i);
            for (uint32_t k = 0; k < len; k++)
                bytes[k] = (uint8_t)sequence;
            pages[i] = (struct wire_page){
                .page = first + i,
                .sequence = sequence,
                .checksum = wire_checksum(first + i, bytes, len),
                .length_bytes = len,
                .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW
                            : len == 8             ? WIRE_FILL
                                                   : WIRE_LZ4,
            };
            bytes += len;
        }
        total += (uint64_t)(bytes - body);
        assert_int_equal(store_put(fixture.store, region, 1, pages, BATCH, body, &bad), 0);
        store_work(fixture.store);
    }
    return total;
}

static uint64_t mix(uint64_t page, uint64_t salt)
{
    uint64_t random = (page + 1) * 2654435761U + salt;

    test_random(&random);
    return test_random(&random);
}

static uint32_t raw(uint64_t page)
{
    (void)page;
    return WIRE_PAGE_BYTES;
}

static uint32_t fill(uint64_t page)
{
    (void)page;
    return 8;
}

static uint32_t short_ones(uint64_t page)
{
    return 500 + (uint32_t)(mix(page, 4) % 100);
}

static uint32_t even(uint64_t page)
{
    return 200 + (uint32_t)(mix(page, 1) % 3601);
}

/* As programs have them: zeros, pages that shrink to a few hundred bytes, others that do not. */
static uint32_t mixed(uint64_t page)
{
    uint64_t random = mix(page, 2);

    if (random % 10 < 2)
        return 8;
    if (random % 10 < 4)
        return WIRE_PAGE_BYTES;
    return random % 10 < 7 ? 300 + (uint32_t)(random / 16 % 900)
                           : 1000 + (uint32_t)(random / 16 % 2900);
}

static uint32_t other(uint64_t page)
{
    return 200 + (uint32_t)(mix(page, 3) % 3601);
}

/* With 64 bytes more for every header, and the room for the next pages. */
static void test_little_more_than_the_pages(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    uint32_t (*const mixes[])(uint64_t page) = {raw, even, mixed, other};

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t stored = put_all(region, 1 + i, mixes[i]);
        work();
        /* What one group a class may have free is nothing in a store of usual size. */
        uint64_t disk = fixture_disk_bytes(&fixture) - (i == 0 ? 0 : 3 << 20);
        assert_true(disk <= stored + stored * 15 / 100);
        assert_true(fixture_disk_bytes(&fixture) >= stored);
    }
    assert_int_equal(put_all(region, 10, fill), PAGES * 8);
    work();
    assert_true(fixture_disk_bytes(&fixture) <= PAGES * 64 + 64 * KIB);
}

static void check_nothing_is_left(void)
{
    work();
    assert_int_equal(fixture_used(&fixture), 0);
    assert_int_equal(fixture_files(&fixture), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_used(&fixture), 0);
    assert_int_equal(fixture_files(&fixture), 0);
}

static void test_nothing_is_left_after_remove(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    put_all(region, 1, mixed);
    uint64_t branch = fixture_branch(&fixture, region, "b", true);
    assert_int_equal(fixture_remove(&fixture, region), 0);
    work();
    assert_true(fixture_disk_bytes(&fixture) > 10 << 20);
    assert_int_equal(fixture_remove(&fixture, branch), 0);
    check_nothing_is_left();
}

static void test_nothing_is_left_after_drop(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    put_all(region, 1, mixed);
    for (uint64_t page = 0; page < PAGES; page += 1000)
        assert_int_equal(fixture_drop(&fixture, region, page, 1000, 1), 0);
    check_nothing_is_left();
}

/* Pages that were long and are short now. */
static void test_overwriting_gives_back(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    put_all(region, 1, raw);
    assert_true(fixture_disk_bytes(&fixture) > PAGES * WIRE_PAGE_BYTES);
    put_all(region, 2, fill);
    work();
    assert_true(fixture_disk_bytes(&fixture) <= PAGES * 64 + 256 * KIB);
    fixture_reopen(&fixture);
    for (uint64_t page = 0; page < PAGES; page += 7)
        assert_int_equal(fixture_get(&fixture, region, page), 2);
}

/* The room of one size, once its pages are gone, is another's: no more is taken than that needs. */
static void test_room_goes_from_one_size_to_another(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    uint32_t (*const mixes[])(uint64_t page) = {raw, short_ones, mixed, raw};

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t stored = put_all(region, 1 + i, mixes[i]);
        work();
        uint64_t disk = fixture_disk_bytes(&fixture);
        assert_true(disk <= stored + stored * 15 / 100 + (3 << 20));
        for (uint64_t page = 0; page < PAGES; page += 11)
            assert_int_equal(fixture_get(&fixture, region, page), 1 + i);
        assert_int_equal(fixture_drop(&fixture, region, 0, PAGES, 1 + i), 0);
        if (i % 2 == 0)
            work();
    }
    check_nothing_is_left();
}

/* One page of many stays here and there: none of the files is empty. */
static void drop_most(uint64_t region, uint64_t keep)
{
    for (uint64_t page = 0; page < PAGES; page += keep)
        assert_int_equal(fixture_drop(&fixture, region, page + 1, keep - 1, 1), 0);
}

static void check_kept(uint64_t region, uint64_t keep)
{
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(fixture_get(&fixture, region, page), page % keep == 0 ? 1 : -1);
}

static void test_holes_between_the_pages_left(void **state)
{
    enum { KEEP = 32, LEFT = PAGES / KEEP };
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    put_all(region, 1, raw);
    uint32_t files = fixture_files(&fixture);
    drop_most(region, KEEP);
    work();
    assert_int_equal(fixture_files(&fixture), files);
    /* A block for each, one for every 64 headers, the group being filled, extents. */
    uint64_t most = LEFT * 4096 * 21 / 20 + PAGES / 64 * 4096 + 64 * 4160 + files * 32 * KIB;
    assert_true(fixture_disk_bytes(&fixture) <= most);
    check_kept(region, KEEP);
    fixture_reopen(&fixture);
    check_kept(region, KEEP);
    /* And the room can be used again. */
    assert_int_equal(put_all(region, 2, raw), PAGES * (uint64_t)WIRE_PAGE_BYTES);
    for (uint64_t page = 0; page < PAGES; page += 3)
        assert_int_equal(fixture_get(&fixture, region, page), 2);
    assert_true(fixture_disk_bytes(&fixture) <= PAGES * (uint64_t)4160 * 107 / 100);
}

/* Killed before anything was given back: it is not forgotten. */
static void test_room_is_given_back_after_a_restart(void **state)
{
    enum { KEEP = 64, LEFT = PAGES / KEEP };
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    put_all(region, 1, raw);
    drop_most(region, KEEP);
    assert_true(fixture_disk_bytes(&fixture) > PAGES * WIRE_PAGE_BYTES / 2);
    fixture_reopen(&fixture);
    work();
    uint32_t files = fixture_files(&fixture);
    uint64_t most = LEFT * 4096 + PAGES / 64 * 4096 + files * 400 * KIB;
    assert_true(fixture_disk_bytes(&fixture) <= most);
    check_kept(region, KEEP);
}

/* Steady work does not make and fill holes all the time. */
static void test_steady_store_keeps_its_room(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    put_all(region, 1, raw);
    for (uint64_t round = 2; round < 200; round++) {
        uint64_t first = mix(round, 0) % (PAGES - BATCH);
        assert_int_equal(fixture_put(&fixture, region, first, BATCH, round, 7), 0);
        assert_false(store_work(fixture.store));
    }
}

static void test_few_pages_of_every_length_take_little(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        uint32_t len = size_class == 0 ? 8 : size_class_bytes(size_class);
        assert_int_equal(fixture_put_length(&fixture, region, len, 1, 1, 5, len), 0);
    }
    work();
    assert_true(fixture_disk_bytes(&fixture) <= 3400 * KIB);
}

#define SPACE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPACE_TEST(test_little_more_than_the_pages),
        SPACE_TEST(test_nothing_is_left_after_remove),
        SPACE_TEST(test_nothing_is_left_after_drop),
        SPACE_TEST(test_overwriting_gives_back),
        SPACE_TEST(test_room_goes_from_one_size_to_another),
        SPACE_TEST(test_holes_between_the_pages_left),
        SPACE_TEST(test_room_is_given_back_after_a_restart),
        SPACE_TEST(test_steady_store_keeps_its_room),
        SPACE_TEST(test_few_pages_of_every_length_take_little),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
