/* Slots whose page was replaced, and that are not free yet: they must never be taken for the newest
 * of the page where that is damaged, and must count where a power cut undid what replaced them. */
#include "cut_disk.h"
#include "store_fixture.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../dms/segment.h"

enum { CAPACITY = 16 << 20, HEADER_BYTES = sizeof(struct slot_header) };

/* The real disk on a machine that can be started anew. */
static struct disk_ops ops;
static const struct disk disk = {&ops, NULL};
static uint64_t starts;

static struct store_fixture fixture;
static uint64_t region;

/* Writes to this place of a file, and such of that size, fail. */
static off_t bad_place = -1;
static size_t bad_bytes;

static ssize_t write_or_fail(void *context, int fd, const struct iovec *iov, int n, off_t offset)
{
    if (offset == bad_place || (n == 1 && iov->iov_len == bad_bytes))
        return -EIO;
    return disk_real.ops->write(context, fd, iov, n, offset);
}

static int boot(void *context, uint64_t id[2])
{
    (void)context;
    id[0] = starts;
    id[1] = 1;
    return 0;
}

static int setup(void **state)
{
    (void)state;
    ops = *disk_real.ops;
    ops.boot = boot;
    ops.write = write_or_fail;
    bad_place = -1;
    bad_bytes = 0;
    starts = 1;
    fixture_begin(&fixture, CAPACITY);
    fixture_close(&fixture);
    fixture.disk = &disk;
    fixture.durability = STORE_INTERVAL;
    assert_int_equal(fixture_open(&fixture), 0);
    region = fixture_region(&fixture, "a");
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 1), 0);
    assert_int_equal(store_commit(fixture.store, true), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&fixture);
    return 0;
}

/* Nobody can tell what the newest slot of the page was. */
static void wreck(uint64_t page)
{
    const char *path;
    long header, bytes;

    fixture_locate(&fixture, region, page, &path, &header, &bytes);
    for (long i = 8; i < HEADER_BYTES; i += 7)
        fixture_flip(path, header + i, 0x5a);
}

/* The newest slot of the page was never written. */
static void forget(uint64_t page)
{
    static const struct slot_header unused = {.state = SLOT_FREE};
    const char *path;
    long header, bytes;

    fixture_locate(&fixture, region, page, &path, &header, &bytes);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, header, SEEK_SET), 0);
    assert_int_equal(fwrite(&unused, HEADER_BYTES, 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

static void test_newer_page_is_damaged(void **state)
{
    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 2, 2), 0);
    fixture_close(&fixture);
    wreck(5);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        assert_int_equal(fixture_get(&fixture, region, 5), -ENODATA);
        assert_int_equal(fixture_get(&fixture, region, 4), 1);
        fixture_close(&fixture);
    }
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 3, 3), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, region, 5), 3);
}

/* As before, the region sharing its pages with another. */
static void test_newer_page_of_a_branch_is_damaged(void **state)
{
    (void)state;
    uint64_t parent = region;
    assert_int_equal(fixture_put(&fixture, parent, 20, 1, 1, 1), 0);
    region = fixture_branch(&fixture, parent, "branch", false);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 2, 2), 0);
    assert_int_equal(store_commit(fixture.store, true), 0);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 3, 3), 0);
    fixture_close(&fixture);
    wreck(5);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), -ENODATA);
}

static void test_file_of_newer_pages_is_missing(void **state)
{
    const char *path;
    long header, bytes;
    uint64_t page = 100;

    (void)state;
    while (fixture_files(&fixture) < 2)
        assert_int_equal(fixture_put(&fixture, region, page++, 1, 1, 9), 0);
    assert_int_equal(store_commit(fixture.store, true), 0);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 2, 2), 0);
    fixture_locate(&fixture, region, 5, &path, &header, &bytes);
    assert_non_null(strstr(path, "segment-000001"));
    fixture_close(&fixture);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), -ENODATA);
    assert_int_equal(fixture_get(&fixture, region, 4), 1);
}

/* A process that was ended between two rounds: nothing is damaged. */
static void test_nothing_is_wrong(void **state)
{
    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 2, 2), 0);
    for (int i = 0; i < 2; i++) {
        fixture_reopen(&fixture);
        assert_int_equal(fixture.report.pages, 10);
        assert_int_equal(fixture_get(&fixture, region, 5), 2);
    }
}

/* The newer page was lost with the power, the mark in the older one's slot was not. */
static void test_undone_by_a_power_cut(void **state)
{
    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 2, 2), 0);
    fixture_close(&fixture);
    forget(5);
    starts++;
    assert_int_equal(fixture_open(&fixture), 0);
    assert_true(fixture.report.power_cut);
    assert_int_equal(fixture_get(&fixture, region, 5), 1);
    /* Its slot is one like others again: damage elsewhere does not make it doubtful. */
    assert_int_equal(fixture_put(&fixture, region, 6, 1, 3, 3), 0);
    fixture_close(&fixture);
    wreck(6);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), 1);
    assert_int_equal(fixture_get(&fixture, region, 6), -ENODATA);
}

/* After a power cut the mark may be missing: then any page may be one that was replaced by what is
 * damaged. What is stored from then on is sure. */
static void test_damage_and_a_power_cut(void **state)
{
    (void)state;
    wreck(5);
    starts++;
    for (int i = 0; i < 2; i++) {
        fixture_reopen(&fixture);
        for (uint64_t page = 0; page < 11; page++)
            assert_int_equal(fixture_get(&fixture, region, page), -ENODATA);
    }
    assert_int_equal(fixture_put(&fixture, region, 4, 2, 2, 2), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, region, 4), 2);
    assert_int_equal(fixture_get(&fixture, region, 5), 2);
    assert_int_equal(fixture_get(&fixture, region, 6), -ENODATA);
}

/* Stores page 5 anew, and the slot it had cannot be marked. */
static int put_unmarked(void)
{
    const char *path;
    long header, bytes;

    fixture_locate(&fixture, region, 5, &path, &header, &bytes);
    bad_place = header;
    return fixture_put(&fixture, region, 5, 1, 2, 2);
}

/* The old slot looks as if it counted, and the newer one cannot be told. */
static void test_mark_could_not_be_written(void **state)
{
    (void)state;
    assert_int_equal(put_unmarked(), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), 2);
    bad_place = -1;
    fixture_close(&fixture);
    wreck(5);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        assert_int_equal(fixture_get(&fixture, region, 5), -ENODATA);
        fixture_close(&fixture);
    }
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 3, 3), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, region, 5), 3);
}

/* It was written later: then other pages are as sure as ever. */
static void test_mark_is_written_later(void **state)
{
    (void)state;
    assert_int_equal(put_unmarked(), 0);
    bad_place = -1;
    assert_int_equal(fixture_put(&fixture, region, 6, 1, 3, 3), 0);
    assert_int_equal(store_commit(fixture.store, true), 0);
    fixture_close(&fixture);
    wreck(5);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), -ENODATA);
    assert_int_equal(fixture_get(&fixture, region, 4), 1);
    assert_int_equal(fixture_get(&fixture, region, 6), 3);
}

/* Neither can it be noted that there is a mark missing: nothing more is changed, or said to be. */
static void test_mark_cannot_even_be_noted(void **state)
{
    (void)state;
    bad_bytes = 256;
    assert_int_equal(put_unmarked(), -EIO);
    assert_int_equal(store_failure(fixture.store), -EIO);
    bad_place = -1;
    bad_bytes = 0;
    assert_int_equal(fixture_put(&fixture, region, 6, 1, 3, 3), -EIO);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_put(&fixture, region, 6, 1, 3, 3), 0);
}

/* The headers of a group are gone, where there were some. */
static void test_headers_are_zeros(void **state)
{
    static const char zeros[SEGMENT_BLOCK_BYTES];
    const char *path;
    long header, bytes;

    (void)state;
    fixture_locate(&fixture, region, 5, &path, &header, &bytes);
    fixture_close(&fixture);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, header - header % SEGMENT_BLOCK_BYTES, SEEK_SET), 0);
    assert_int_equal(fwrite(zeros, sizeof(zeros), 1, file), 1);
    assert_int_equal(fclose(file), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        assert_int_equal(fixture.report.damaged_headers, SEGMENT_GROUP_SLOTS);
        for (uint64_t page = 0; page < 11; page++)
            assert_int_equal(fixture_get(&fixture, region, page), -ENODATA);
        fixture_close(&fixture);
    }
}

/* Blocks that were given back, and such as were never asked for, are full of zeros too. */
static void test_holes_are_no_damage(void **state)
{
    (void)state;
    for (uint64_t page = 100; page < 1000; page += 50)
        assert_int_equal(fixture_put(&fixture, region, page, 50, 1, 1), 0);
    assert_int_equal(fixture_drop(&fixture, region, 100, 700, 1), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(store_commit(fixture.store, true), 0);
        assert_int_equal(fixture_used(&fixture), 210);
    }
    for (int i = 0; i < 3; i++) {
        fixture_reopen(&fixture);
        assert_int_equal(fixture.report.damaged_headers, 0);
        assert_int_equal(fixture.report.damaged_files, 0);
        assert_int_equal(fixture_get(&fixture, region, 100), -1);
        assert_int_equal(fixture_get(&fixture, region, 999), 1);
        assert_int_equal(fixture_put(&fixture, region, 2000, 60, 2, 2), 0);
        assert_int_equal(fixture_drop(&fixture, region, 2000, 60, 2), 0);
    }
}

/* Without durability nothing is known of what is on disk, and a power cut must not be told
 * otherwise by the note of a run before. */
static void test_note_is_withdrawn(void **state)
{
    static struct cut_disk cut;

    (void)state;
    fixture_close(&fixture);
    cut_disk_begin(&cut, fixture.dir.path, 1);
    fixture.disk = &cut.disk;
    for (int i = 0; i < 20; i++) {
        fixture.durability = STORE_INTERVAL;
        assert_int_equal(fixture_open(&fixture), 0);
        assert_false(fixture.report.power_cut);
        fixture_close(&fixture);
        fixture.durability = STORE_NONE;
        assert_int_equal(fixture_open(&fixture), 0);
        cut_disk_cut(&cut);
        fixture_close(&fixture);
        cut_disk_restart(&cut);
    }
    cut_disk_end(&cut);
    fixture.disk = NULL;
    assert_int_equal(fixture_open(&fixture), 0);
}

#define SUPERSEDED_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SUPERSEDED_TEST(test_newer_page_is_damaged),
        SUPERSEDED_TEST(test_newer_page_of_a_branch_is_damaged),
        SUPERSEDED_TEST(test_file_of_newer_pages_is_missing),
        SUPERSEDED_TEST(test_nothing_is_wrong),
        SUPERSEDED_TEST(test_undone_by_a_power_cut),
        SUPERSEDED_TEST(test_damage_and_a_power_cut),
        SUPERSEDED_TEST(test_mark_could_not_be_written),
        SUPERSEDED_TEST(test_mark_is_written_later),
        SUPERSEDED_TEST(test_mark_cannot_even_be_noted),
        SUPERSEDED_TEST(test_headers_are_zeros),
        SUPERSEDED_TEST(test_holes_are_no_damage),
        SUPERSEDED_TEST(test_note_is_withdrawn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
