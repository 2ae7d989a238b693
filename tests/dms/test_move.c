/* Pages that are moved to other slots: with everything that points at them, whatever happens to
 * them or to the machine before their copies are on disk. */
#include "cut_disk.h"
#include "store_fixture.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../../dms/segment_file.h"
#include "../../dms/slot_header.h"

enum {
    CAPACITY = 64 << 20,
    PAGES = 320,
    KEEP = 16,
    LEFT = PAGES / KEEP,
    TRIES = 12,
    CUT_CAPACITY = 16 << 20, /* smaller files: a cut looks at all of them */
    PER_GROUP = 64 / KEEP,
    KIB = 1024
};

/* The real disk on a machine that can be started anew. */
static struct disk_ops ops;
static const struct disk disk = {&ops, NULL};
static uint64_t starts;

static struct store_fixture fixture;
static uint64_t region;

static int boot(void *context, uint64_t id[2])
{
    (void)context;
    id[0] = starts;
    id[1] = 1;
    return 0;
}

static void work(void)
{
    while (store_work(fixture.store))
        ;
}

static void commit(void)
{
    assert_int_equal(store_commit(fixture.store, true), 0);
}

/* What a page that stays is full of, and those beside it: no slot in another group holds by chance
 * what is moved there. */
static uint8_t byte_of(uint64_t page)
{
    return (uint8_t)(10 + page % 241);
}

/* Five groups of slots of LEN bytes, in each of which few are left, and marked so on disk. Nothing
 * is moved yet. */
static void make_sparse(uint32_t len)
{
    region = fixture_region(&fixture, "a");
    for (uint64_t page = 0; page < PAGES; page += KEEP)
        assert_int_equal(fixture_put_length(&fixture, region, page, KEEP, 1, byte_of(page), len),
                         0);
    for (uint64_t page = 0; page < PAGES; page += KEEP)
        assert_int_equal(fixture_drop(&fixture, region, page + 1, KEEP - 1, 1), 0);
    for (int i = 0; i < 3 && fixture.durability != STORE_NONE; i++)
        commit();
    assert_int_equal(store_moved(fixture.store), 0);
}

static void begin(enum store_durability durability, const struct disk *on)
{
    fixture_begin(&fixture, CAPACITY);
    fixture_close(&fixture);
    fixture.disk = on;
    fixture.durability = durability;
    fixture.moves = STORE_MOVES_EAGERLY;
    assert_int_equal(fixture_open(&fixture), 0);
}

static int setup(void **state)
{
    (void)state;
    ops = *disk_real.ops;
    ops.boot = boot;
    starts = 1;
    begin(STORE_INTERVAL, &disk);
    make_sparse(WIRE_PAGE_BYTES);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&fixture);
    return 0;
}

/* All that is left of it is there, but for page EXCEPT. */
static void check_region(uint64_t id, uint64_t except)
{
    for (uint64_t page = 0; page < PAGES; page++) {
        if (page != except)
            assert_int_equal(fixture_get(&fixture, id, page),
                             page % KEEP == 0 ? byte_of(page) : -1);
    }
}

static void check_sound(void)
{
    assert_int_equal(fixture.report.damaged_headers + fixture.report.damaged_pages +
                         fixture.report.damaged_records + fixture.report.damaged_files,
                     0);
}

static void check_reopened(void)
{
    fixture_reopen(&fixture);
    check_sound();
    check_region(region, UINT64_MAX);
    assert_int_equal(fixture.report.pages, LEFT);
}

/* Pages of all kinds of slots: without bytes, smaller than a block, as large as one. */
static void test_few_groups_are_left(void **state)
{
    static const uint32_t lengths[] = {8, 600, 3000, WIRE_PAGE_BYTES};

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        for (int how = STORE_NONE; how <= STORE_ALWAYS; how++) {
            fixture_end(&fixture);
            begin((enum store_durability)how, &disk);
            make_sparse(lengths[i]);
            work();
            assert_in_range(store_moved(fixture.store), LEFT - PER_GROUP, LEFT);
            check_region(region, UINT64_MAX);
            check_reopened();
            for (int round = 0; round < 3; round++) {
                if (how != STORE_NONE)
                    commit();
                work();
            }
            /* Of five groups one with all of them and one for the next pages, and what the file
             * system needs itself. */
            assert_true(fixture_disk_bytes(&fixture) <=
                        (uint64_t)2 * 64 * (lengths[i] + 256) + 128 * KIB);
            check_reopened();
        }
    }
}

/* Once all are where they belong nothing is moved any more, round after round. */
static void test_comes_to_rest(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        work();
        commit();
    }
    uint64_t moved = store_moved(fixture.store);
    assert_int_equal(moved, LEFT - PER_GROUP);
    for (int i = 0; i < 5; i++) {
        work();
        commit();
    }
    assert_int_equal(store_moved(fixture.store), moved);
    assert_false(store_unsettled(fixture.store));
}

/* Slots that several page tables point at, some of them through the same leaf. */
static void test_branches_follow(void **state)
{
    (void)state;
    uint64_t b = fixture_branch(&fixture, region, "b", true);
    uint64_t c = fixture_branch(&fixture, b, "c", false);
    uint64_t d = fixture_branch(&fixture, b, "d", false);
    assert_int_equal(fixture_put(&fixture, region, 16, 1, 2, 2), 0);
    assert_int_equal(fixture_put(&fixture, c, 32, 1, 3, 3), 0);
    assert_int_equal(fixture_drop(&fixture, c, 48, 1, 3), 0);
    commit();
    for (int i = 0; i < 4; i++) {
        work();
        assert_true(i > 0 || store_moved(fixture.store) >= LEFT - PER_GROUP);
        check_region(region, 16);
        assert_int_equal(fixture_get(&fixture, region, 16), 2);
        check_region(b, UINT64_MAX);
        check_region(d, UINT64_MAX);
        assert_int_equal(fixture_get(&fixture, c, 16), byte_of(16));
        assert_int_equal(fixture_get(&fixture, c, 32), 3);
        assert_int_equal(fixture_get(&fixture, c, 48), -1);
        assert_int_equal(fixture_get(&fixture, c, 64), byte_of(64));
        if (i < 2)
            commit();
        else
            fixture_reopen(&fixture);
        check_sound();
        assert_int_equal(fixture_used(&fixture), LEFT + 2);
    }
    assert_int_equal(fixture_remove(&fixture, region), 0);
    assert_int_equal(fixture_remove(&fixture, b), 0);
    assert_int_equal(fixture_remove(&fixture, c), 0);
    fixture_reopen(&fixture);
    check_region(d, UINT64_MAX);
    assert_int_equal(fixture_used(&fixture), LEFT);
    assert_int_equal(fixture_remove(&fixture, d), 0);
    assert_int_equal(fixture_used(&fixture), 0);
}

/* Where page 32 is. */
static long place_of_page(const char **path, long *bytes)
{
    long header;

    fixture_locate(&fixture, region, 32, path, &header, bytes);
    return header;
}

/* More page tables have leaves of their own than are looked into for one page: what these leaves
 * point at stays. */
static void test_shared_by_too_many(void **state)
{
    enum { BRANCHES = 1100 };
    const char *path;
    char name[16];
    long bytes, header = place_of_page(&path, &bytes);

    (void)state;
    for (uint32_t i = 0; i < BRANCHES; i++) {
        snprintf(name, sizeof(name), "b%u", (unsigned)i);
        uint64_t branch = fixture_branch(&fixture, region, name, false);
        assert_int_equal(fixture_drop(&fixture, branch, 16, 1, 2), 0);
    }
    work();
    assert_int_equal(place_of_page(&path, &bytes), header);
    check_region(region, UINT64_MAX);
    fixture_reopen(&fixture);
    check_sound();
    work();
    check_region(region, UINT64_MAX);
    assert_int_equal(fixture.report.pages, LEFT);
}

static void test_not_in_a_round(void **state)
{
    struct sync_job *job;

    (void)state;
    assert_int_equal(store_begin_sync(fixture.store, true, &job), 0);
    assert_false(store_work(fixture.store));
    assert_int_equal(store_moved(fixture.store), 0);
    assert_int_equal(store_end_sync(fixture.store, sync_job_run(job)), 0);
    work();
    assert_true(store_moved(fixture.store) > 0);
}

/* What is damaged stays where it is, and is reported. */
static void test_damaged_page_stays(void **state)
{
    const char *path;
    long bytes, header = place_of_page(&path, &bytes);

    (void)state;
    fixture_flip(path, bytes + 100, 4);
    work();
    assert_true(store_moved(fixture.store) > 0);
    assert_int_equal(place_of_page(&path, &bytes), header);
    for (int i = 0; i < 3; i++) {
        check_region(region, 32);
        assert_int_equal(fixture_get(&fixture, region, 32), -EBADMSG);
        work();
        commit();
        fixture_reopen(&fixture);
        assert_int_equal(fixture.report.damaged_pages, 1);
    }
}

/* A copy of which nothing but the header came to the disk counts for nothing, now and later. */
static void test_torn_copy(void **state)
{
    const char *path;
    long bytes, header = place_of_page(&path, &bytes);

    (void)state;
    work();
    assert_int_not_equal(place_of_page(&path, &bytes), header);
    fixture_close(&fixture);
    fixture_flip(path, bytes + 5, 1);
    starts++;
    assert_int_equal(fixture_open(&fixture), 0);
    assert_true(fixture.report.power_cut);
    check_sound();
    check_region(region, UINT64_MAX);
    assert_int_equal(fixture_drop(&fixture, region, 32, 1, 1), 0);
    for (int i = 0; i < 2; i++) {
        fixture_reopen(&fixture);
        check_sound();
        check_region(region, 32);
        assert_int_equal(fixture_get(&fixture, region, 32), -1);
    }
}

/* A copy that is damaged once the original is gone is damage. */
static void test_damaged_copy(void **state)
{
    const char *path;
    long bytes;

    (void)state;
    work();
    commit();
    work();
    (void)place_of_page(&path, &bytes);
    fixture_close(&fixture);
    fixture_flip(path, bytes + 5, 1);
    starts++;
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_pages, 1);
    check_region(region, 32);
    assert_int_equal(fixture_get(&fixture, region, 32), -EBADMSG);
}

enum change { CHANGE_NONE, CHANGE_DROP, CHANGE_PUT };

/* Killed when the copies were written, with or without the marks in the originals, and the page
 * changed after that. */
static void change_and_kill(enum change change, int how)
{
    int want = change == CHANGE_DROP ? -1 : change == CHANGE_PUT ? 2 : byte_of(32);

    fixture_end(&fixture);
    begin((enum store_durability)how, &disk);
    make_sparse(600);
    work();
    if (change == CHANGE_DROP)
        assert_int_equal(fixture_drop(&fixture, region, 32, 1, 1), 0);
    if (change == CHANGE_PUT)
        assert_int_equal(fixture_put(&fixture, region, 32, 1, 2, 2), 0);
    for (int i = 0; i < 3; i++) {
        fixture_reopen(&fixture);
        check_sound();
        check_region(region, 32);
        assert_int_equal(fixture_get(&fixture, region, 32), want);
        work();
    }
}

static void test_changed_and_killed(void **state)
{
    (void)state;
    for (int how = STORE_NONE; how <= STORE_ALWAYS; how++) {
        for (int change = CHANGE_NONE; change <= CHANGE_PUT; change++)
            change_and_kill((enum change)change, how);
    }
}

/* The originals and the copies are all there, none of them marked: as if the marks had not come to
 * the disk. */
static void unmark(void)
{
    static const uint32_t used = SLOT_USED;
    struct slot_header slot;
    const char *path = temp_dir_path(&fixture.dir, "segment-000000-4096");
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    struct segment_shape shape;
    assert_int_equal(fseek(file, 12, SEEK_SET), 0);
    assert_int_equal(fread(&shape, sizeof(shape), 1, file), 1);
    for (uint32_t i = 0; i < shape.nslots; i++) {
        long at = (long)segment_header_offset(shape, i);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fread(&slot, sizeof(slot), 1, file), 1);
        if (slot.state != SLOT_SUPERSEDED)
            continue;
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fwrite(&used, sizeof(used), 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
}

/* The last copy says what became of the page, wherever in the files it is; with and without
 * branches. */
static void drop_with_original(bool branched)
{
    struct wire_range dropped = {32, 1};

    fixture_end(&fixture);
    begin(STORE_INTERVAL, &disk);
    make_sparse(WIRE_PAGE_BYTES);
    work();
    assert_int_equal(store_drop(fixture.store, region, 1, 1, &dropped, 1), 0);
    if (branched)
        (void)fixture_branch(&fixture, region, "b", false);
    fixture_close(&fixture);
    unmark();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        check_sound();
        check_region(region, 32);
        assert_int_equal(fixture_get(&fixture, region, 32), -1);
        assert_int_equal(fixture_used(&fixture), LEFT - 1);
        fixture_close(&fixture);
    }
    assert_int_equal(fixture_open(&fixture), 0);
}

static void test_dropped_with_an_original(void **state)
{
    (void)state;
    drop_with_original(false);
    drop_with_original(true);
}

static uint8_t moves_of_page(void)
{
    struct slot_header slot;
    const char *path;
    long bytes, header = place_of_page(&path, &bytes);
    FILE *file = fopen(path, "rb");

    assert_non_null(file);
    assert_int_equal(fseek(file, header, SEEK_SET), 0);
    assert_int_equal(fread(&slot, sizeof(slot), 1, file), 1);
    assert_int_equal(fclose(file), 0);
    return slot.moves;
}

/* As before with a copy of a copy. */
static void test_moved_twice_and_dropped(void **state)
{
    (void)state;
    work();
    commit();
    assert_int_equal(moves_of_page(), 1);
    /* Page 32 is all that is left of where it is, or nearly, and other groups are nearly full. */
    uint64_t other = fixture_region(&fixture, "other");
    assert_int_equal(fixture_put(&fixture, other, 0, 256, 1, 5), 0);
    for (uint64_t page = 0; page < 256; page += 8)
        assert_int_equal(fixture_drop(&fixture, other, page, 1, 1), 0);
    assert_int_equal(fixture_drop(&fixture, region, 0, 32, 1), 0);
    assert_int_equal(fixture_drop(&fixture, region, 33, PAGES, 1), 0);
    for (int i = 0; i < 3; i++)
        commit();
    work();
    assert_int_equal(moves_of_page(), 2);
    assert_int_equal(fixture_drop(&fixture, region, 32, 1, 1), 0);
    fixture_close(&fixture);
    unmark();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        check_sound();
        assert_int_equal(fixture_get(&fixture, region, 32), -1);
        assert_int_equal(fixture_get(&fixture, other, 9), 5);
        assert_int_equal(fixture_used(&fixture), 256 - 32);
        fixture_close(&fixture);
    }
    assert_int_equal(fixture_open(&fixture), 0);
}

static struct cut_disk cut;

/* A store on a disk whose power can be cut, its pages moved and nothing of that synced. */
static void begin_to_cut(uint64_t seed, uint32_t len)
{
    fixture_end(&fixture);
    fixture_begin(&fixture, CUT_CAPACITY);
    fixture_close(&fixture);
    cut_disk_begin(&cut, fixture.dir.path, seed);
    fixture.disk = &cut.disk;
    fixture.durability = STORE_INTERVAL;
    fixture.moves = STORE_MOVES_EAGERLY;
    assert_int_equal(fixture_open(&fixture), 0);
    make_sparse(len);
    work();
    assert_true(store_moved(fixture.store) > 0);
}

/* The power, or (IS_KILL) the process. */
static void cut_and_reopen(bool is_kill)
{
    cut.is_kill = is_kill;
    cut_disk_cut(&cut);
    fixture_close(&fixture);
    cut_disk_restart(&cut);
    cut.is_kill = false;
    assert_int_equal(fixture_open(&fixture), 0);
    check_sound();
}

static void end_of_cuts(void)
{
    fixture_close(&fixture);
    cut_disk_end(&cut);
    fixture.disk = &disk;
    assert_int_equal(fixture_open(&fixture), 0);
}

/* The power goes at some time after pages were moved, and one changed: what was made sure of is
 * there, and no page is another than it was. */
static void test_power_cuts(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < TRIES; i++) {
        enum change change = (enum change)(i % 3);
        bool is_sure = i % 2 == 0;
        int want = change == CHANGE_DROP ? -1 : change == CHANGE_PUT ? 2 : byte_of(32);
        begin_to_cut(i + 1, i % 4 < 2 ? WIRE_PAGE_BYTES : 600);
        if (change == CHANGE_DROP)
            assert_int_equal(fixture_drop(&fixture, region, 32, 1, 1), 0);
        if (change == CHANGE_PUT)
            assert_int_equal(fixture_put(&fixture, region, 32, 1, 2, 2), 0);
        if (is_sure)
            assert_int_equal(store_commit(fixture.store, false), 0);
        cut_and_reopen(false);
        check_region(region, 32);
        int got = fixture_get(&fixture, region, 32);
        assert_true(got == want || (!is_sure && got == byte_of(32)));
        end_of_cuts();
    }
}

/* The sync of the copies fails. They are in memory alone, and who is started again reads them
 * there: it must write them once more before the originals go. */
static void test_sync_fails(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 4; i++) {
        begin_to_cut(i + 1, i % 2 == 0 ? WIRE_PAGE_BYTES : 600);
        cut.fail_sync = true;
        assert_int_equal(store_commit(fixture.store, true), -EIO);
        work();
        cut_and_reopen(true);
        check_region(region, UINT64_MAX);
        for (int round = 0; round < 3; round++) {
            commit();
            work();
        }
        cut_and_reopen(false);
        check_region(region, UINT64_MAX);
        end_of_cuts();
    }
}

#define MOVE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MOVE_TEST(test_few_groups_are_left),
        MOVE_TEST(test_comes_to_rest),
        MOVE_TEST(test_branches_follow),
        MOVE_TEST(test_shared_by_too_many),
        MOVE_TEST(test_not_in_a_round),
        MOVE_TEST(test_damaged_page_stays),
        MOVE_TEST(test_torn_copy),
        MOVE_TEST(test_damaged_copy),
        MOVE_TEST(test_changed_and_killed),
        MOVE_TEST(test_dropped_with_an_original),
        MOVE_TEST(test_moved_twice_and_dropped),
        MOVE_TEST(test_power_cuts),
        MOVE_TEST(test_sync_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
