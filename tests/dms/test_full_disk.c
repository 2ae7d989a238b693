/* A store on a file system that runs full, a small tmpfs in a mount namespace of the test's own.
 * Skipped (77) where that cannot be mounted. */
#include "store_fixture.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

enum { SKIPPED = 77, BATCH = 64, CAPACITY = 64 << 20 };

static struct store_fixture fixture;

static bool mount_small(const char *path)
{
    return mount("tmpfs", path, "tmpfs", 0, "size=12m") == 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&fixture, 0, sizeof(fixture));
    temp_dir_make(&fixture.dir);
    fixture.capacity_bytes = CAPACITY;
    if (!mount_small(fixture.dir.path))
        return -1;
    return fixture_open(&fixture);
}

static int teardown(void **state)
{
    (void)state;
    fixture_close(&fixture);
    umount(fixture.dir.path);
    temp_dir_remove(&fixture.dir);
    return 0;
}

/* Stores batches until there is no room; returns how many pages are stored. */
static uint64_t fill_up(uint64_t region, uint8_t byte)
{
    uint64_t pages = 0;
    int err;

    while ((err = fixture_put(&fixture, region, pages, BATCH, 1, byte)) == 0)
        pages += BATCH;
    assert_int_equal(err, -ENOSPC);
    assert_true(pages >= BATCH && pages * WIRE_PAGE_BYTES < CAPACITY);
    return pages;
}

static void test_full_disk_refuses_and_keeps(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    uint64_t pages = fill_up(region, 1);
    assert_int_equal(fixture_put(&fixture, region, pages - 10, BATCH, 2, 2), -ENOSPC);
    for (int i = 0; i < 2; i++) {
        for (uint64_t page = 0; page < pages; page++)
            assert_int_equal(fixture_get(&fixture, region, page), 1);
        assert_int_equal(fixture_get(&fixture, region, pages), -1);
        fixture_reopen(&fixture);
    }
    assert_int_equal(fixture_drop(&fixture, region, 0, BATCH, 1), 0);
    assert_int_equal(fixture_put(&fixture, region, pages, BATCH, 2, 2), 0);
    assert_int_equal(fixture_get(&fixture, region, pages), 2);
}

/* Takes what the file system has left. */
static void fill_rest(void)
{
    static const char block[65536];
    int fd = open(temp_dir_path(&fixture.dir, "rest"), O_WRONLY | O_CREAT, 0600);

    assert_true(fd >= 0);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    while (write(fd, block, 1) > 0)
        ;
    close(fd);
}

static void test_region_can_be_removed_from_a_full_disk(void **state)
{
    uint64_t regions[100];
    uint32_t nregions = 0;

    (void)state;
    regions[nregions++] = fixture_region(&fixture, "a");
    uint64_t pages = fill_up(regions[0], 1);
    fill_rest();
    /* Regions can be made as long as the manifest has room, and then are refused. */
    for (;; nregions++) {
        const struct region *made;
        char name[32];
        snprintf(name, sizeof(name), "more-%u", nregions);
        int err = store_claim(fixture.store, name, 0, 1, &made);
        if (err != 0) {
            assert_int_equal(err, -ENOSPC);
            break;
        }
        if (nregions < 100)
            regions[nregions] = made->id;
        assert_true(nregions < 5000);
    }
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.regions, nregions);
    assert_int_equal(fixture_get(&fixture, regions[0], pages - 1), 1);
    for (uint32_t i = 0; i < nregions && i < 20; i++)
        assert_int_equal(fixture_remove(&fixture, regions[i]), 0);
    assert_int_equal(fixture_used(&fixture), 0);
    assert_int_equal(fixture_files(&fixture), 0);
    uint64_t region = fixture_region(&fixture, "b");
    assert_int_equal(fixture_put(&fixture, region, 0, BATCH, 1, 2), 0);
}

/* Slots of one size have all the room, most of them free: the next pages are of other sizes. */
static void test_room_of_other_sizes_is_used(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    uint64_t pages = fill_up(region, 1);
    fill_rest();
    assert_int_equal(fixture_put_length(&fixture, region, 1 << 20, BATCH, 1, 2, 900), -ENOSPC);
    for (uint64_t page = 0; page < pages; page += 8)
        assert_int_equal(fixture_drop(&fixture, region, page + 1, 7, 1), 0);
    /* Before the background has had its turn, and all of it. */
    uint64_t more = 0;
    int err = 0;
    for (; err == 0; more += err == 0 ? BATCH : 0) {
        uint32_t len = 9 + (uint32_t)(more * 37 % 4087);
        err = fixture_put_length(&fixture, region, (1 << 20) + more, BATCH, 1, 2, len);
    }
    assert_int_equal(err, -ENOSPC);
    assert_true(more > pages / 2);
    for (int i = 0; i < 2; i++) {
        for (uint64_t page = 0; page < pages; page++)
            assert_int_equal(fixture_get(&fixture, region, page), page % 8 == 0 ? 1 : -1);
        for (uint64_t page = 0; page < more; page++)
            assert_int_equal(fixture_get(&fixture, region, (1 << 20) + page), 2);
        fixture_reopen(&fixture);
        assert_int_equal(fixture.report.damaged_headers + fixture.report.damaged_pages, 0);
    }
}

/* Holes were given back and somebody else took the room: nothing writes to them, or reads them in a
 * way that would need a block. */
static void test_holes_on_a_full_disk(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    int err = 0;

    (void)state;
    uint64_t pages = fill_up(region, 1);
    for (uint64_t page = 0; page < pages; page += 16)
        assert_int_equal(fixture_drop(&fixture, region, page + 1, 15, 1), 0);
    fixture_used(&fixture); /* with all that can wait */
    assert_true(fixture_disk_bytes(&fixture) < pages * WIRE_PAGE_BYTES / 4);
    fill_rest();
    for (int i = 0; i < 2; i++) {
        for (uint64_t page = 0; page < pages; page++)
            assert_int_equal(fixture_get(&fixture, region, page), page % 16 == 0 ? 1 : -1);
        fixture_reopen(&fixture);
        assert_int_equal(fixture.report.pages, (pages + 15) / 16);
    }
    /* What was open is full soon, and then it is refused. */
    uint64_t more = 0;
    for (; err == 0; more += err == 0 ? BATCH : 0)
        err = fixture_put(&fixture, region, (1 << 20) + more, BATCH, 1, 2);
    assert_int_equal(err, -ENOSPC);
    assert_true(more < pages / 4);
    assert_int_equal(fixture_drop(&fixture, region, 0, pages, 1), 0);
    assert_int_equal(unlink(temp_dir_path(&fixture.dir, "rest")), 0);
    assert_int_equal(fixture_put(&fixture, region, 0, BATCH, 2, 3), 0);
    for (uint64_t page = 0; page < more; page++)
        assert_int_equal(fixture_get(&fixture, region, (1 << 20) + page), 2);
    assert_int_equal(fixture_get(&fixture, region, BATCH - 1), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full_disk_refuses_and_keeps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_region_can_be_removed_from_a_full_disk, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_room_of_other_sizes_is_used, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holes_on_a_full_disk, setup, teardown),
    };

    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        printf("skipped: no file system can be mounted here\n");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
