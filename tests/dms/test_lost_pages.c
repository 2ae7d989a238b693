/* Segment files that are cut short under a store that uses them: what is lost is said to be
 * damaged, the rest goes on, and nothing is stored where it would be lost. */
#include "../../dms/mapped_fault.h"
#include "store_fixture.h"
#include "test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CAPACITY = 16 << 20, PAGES = 200, SEGMENT_SLOTS = 256 };

static struct store_fixture fixture;
static uint64_t region;

static int setup(void **state)
{
    (void)state;
    fixture_begin(&fixture, CAPACITY);
    region = fixture_region(&fixture, "a");
    assert_int_equal(fixture_put(&fixture, region, 0, PAGES, 1, 1), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_end(&fixture);
    return 0;
}

static void cut_first_segment(off_t bytes)
{
    assert_int_equal(truncate(temp_dir_path(&fixture.dir, "segment-000000-4096"), bytes), 0);
}

/* Reads all pages: they hold BYTE or are damaged. Returns how many are damaged. */
static unsigned count_damaged(uint8_t byte)
{
    unsigned count = 0;

    for (uint64_t page = 0; page < PAGES; page++) {
        int got = fixture_get(&fixture, region, page);
        assert_true(got == byte || got == -EBADMSG);
        count += got == -EBADMSG;
    }
    return count;
}

/* Stores all pages anew. The first tries may be refused. */
static void put_again(uint64_t sequence, uint8_t byte)
{
    int err = -EIO;

    for (int i = 0; i < 5 && err == -EIO; i++)
        err = fixture_put(&fixture, region, 0, PAGES, sequence, byte);
    assert_int_equal(err, 0);
    assert_int_equal(count_damaged(byte), 0);
}

static void test_half_of_the_pages(void **state)
{
    (void)state;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    off_t headers = 4096 + SEGMENT_SLOTS * 64;
    cut_first_segment(headers + 100 * WIRE_PAGE_BYTES);
    assert_int_equal(count_damaged(1), 100);
    put_again(2, 2);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.damaged_files, 1);
    assert_int_equal(fixture.report.damaged_pages, 0);
    assert_int_equal(count_damaged(2), 0);
}

static void test_everything(void **state)
{
    (void)state;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    cut_first_segment(0);
    assert_int_equal(count_damaged(1), PAGES);
    put_again(2, 2);
    fixture_reopen(&fixture);
    assert_int_equal(count_damaged(2), 0);
}

/* The headers go while slots are being filled: nothing may be said to be stored that is not. */
static void put_without_headers(uint32_t count)
{
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    cut_first_segment(4096);
    int err = fixture_put(&fixture, region, 1000, count, 2, 7);
    assert_true(err == 0 || err == -EIO);
    fixture_reopen(&fixture);
    for (uint64_t page = 1000; page < 1000 + count; page++)
        assert_int_equal(fixture_get(&fixture, region, page), err == 0 ? 7 : -ENODATA);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(fixture_get(&fixture, region, page), -ENODATA);
}

static void test_headers_under_a_small_put(void **state)
{
    (void)state;
    put_without_headers(2);
}

static void test_headers_under_a_large_put(void **state)
{
    (void)state;
    put_without_headers(40);
}

/* The room for the pages goes, the headers do not: a put that was refused must not be found after a
 * restart, where it would hide what was stored before; one that was not must. */
static void test_pages_under_a_small_put(void **state)
{
    (void)state;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    cut_first_segment(4096 + SEGMENT_SLOTS * 64 + PAGES * WIRE_PAGE_BYTES);
    int err = fixture_put(&fixture, region, 5, 2, 2, 7);
    assert_true(err == 0 || err == -EIO);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.damaged_pages, 0);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(fixture_get(&fixture, region, page),
                         err == 0 && (page == 5 || page == 6) ? 7 : 1);
}

/* A file's headers cannot be read for a while. What is marked free meanwhile must not take the
 * others' headers with it. */
static void test_marks_beside_lost_headers(void **state)
{
    enum { HEADERS = SEGMENT_SLOTS * 64 };
    static char headers[HEADERS];
    FILE *file = fopen(temp_dir_path(&fixture.dir, "segment-000000-4096"), "rb+");

    (void)state;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    assert_non_null(file);
    assert_int_equal(fseek(file, 4096, SEEK_SET), 0);
    assert_int_equal(fread(headers, HEADERS, 1, file), 1);
    struct stat st;
    assert_int_equal(fstat(fileno(file), &st), 0);
    cut_first_segment(4096);
    assert_int_equal(count_damaged(1), PAGES);
    assert_int_equal(ftruncate(fileno(file), st.st_size), 0);
    assert_int_equal(pwrite(fileno(file), headers, HEADERS, 4096), HEADERS);
    fclose(file);
    struct wire_range ranges[] = {{10, 1}, {30, 1}};
    assert_int_equal(store_drop(fixture.store, region, 1, 1, ranges, 2), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.pages, PAGES - 2);
    assert_int_equal(fixture_get(&fixture, region, 10), -1);
    assert_int_equal(fixture_get(&fixture, region, 20), -EBADMSG);
}

static void test_other_operations_go_on(void **state)
{
    (void)state;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    uint64_t frozen = fixture_branch(&fixture, region, "b", true);
    cut_first_segment(4096);
    assert_int_equal(fixture_get(&fixture, frozen, 5), -EBADMSG);
    assert_int_equal(fixture_drop(&fixture, region, 0, 50, 1), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), -1);
    assert_int_equal(fixture_get(&fixture, region, 60), -EBADMSG);
    assert_int_equal(fixture_remove(&fixture, frozen), 0);
    assert_int_equal(fixture_remove(&fixture, region), 0);
    assert_int_equal(fixture_used(&fixture), 0);
    uint64_t other = fixture_region(&fixture, "c");
    assert_int_equal(fixture_put(&fixture, other, 0, PAGES, 1, 3), 0);
    assert_int_equal(fixture_get(&fixture, other, 0), 3);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, other, PAGES - 1), 3);
}

static void copy_file(const char *from, const char *to)
{
    char command[1200];

    snprintf(command, sizeof(command), "cp '%s' '%s'", from, to);
    assert_int_equal(system(command), 0); /* NOLINT(concurrency-mt-unsafe) */
}

/* The slot cannot be told that its page was dropped; it can be read again later. */
static void test_drop_of_what_cannot_be_read(void **state)
{
    char segment[512], copy[512];

    (void)state;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    snprintf(segment, sizeof(segment), "%s", temp_dir_path(&fixture.dir, "segment-000000-4096"));
    snprintf(copy, sizeof(copy), "%s", temp_dir_path(&fixture.dir, "copy"));
    copy_file(segment, copy);
    cut_first_segment(0);
    assert_int_equal(count_damaged(1), PAGES);
    assert_int_equal(fixture_drop(&fixture, region, 0, 50, 1), 0);
    fixture_close(&fixture);
    copy_file(copy, segment);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        for (uint64_t page = 0; page < PAGES; page++)
            assert_int_equal(fixture_get(&fixture, region, page), page < 50 ? -1 : 1);
        fixture_close(&fixture);
    }
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_put(&fixture, region, 20, 1, 2, 5), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, region, 20), 5);
}

static int map_and_cut(void *context, int fd, size_t bytes, void **out)
{
    int err = disk_real.ops->map(context, fd, bytes, out);

    assert_int_equal(ftruncate(fd, 4096), 0);
    return err;
}

/* The headers cannot be read when the store is opened: they are not those of free slots. */
static void test_unreadable_at_the_start(void **state)
{
    static struct disk_ops ops;
    static const struct disk disk = {&ops, NULL};

    (void)state;
    ops = *disk_real.ops;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    fixture_close(&fixture);
    ops.map = map_and_cut;
    struct store_options options = {
        .disk = &disk, .dir = fixture.dir.path, .capacity_bytes = CAPACITY, .scan_threads = 1};
    assert_int_equal(store_open(&fixture.store, &options, &fixture.report), 0);
    assert_int_equal(fixture.report.damaged_files, 1);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(fixture_get(&fixture, region, page), -ENODATA);
}

/* Whoever touches other memory that is not there ends as ever. */
static void test_other_memory(void **state)
{
    (void)state;
    assert_int_equal(mapped_fault_install(), 0); /* in place of cmocka's handler */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char *path = (char *)(uintptr_t)temp_dir_path(&fixture.dir, "other-XXXXXX");
        int fd = mkstemp(path);
        volatile char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        _exit(fd < 0 || map == MAP_FAILED ? 2 : map[0]);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_half_of_the_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_of_what_cannot_be_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_headers_under_a_small_put, setup, teardown),
        cmocka_unit_test_setup_teardown(test_headers_under_a_large_put, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_under_a_small_put, setup, teardown),
        cmocka_unit_test_setup_teardown(test_marks_beside_lost_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_operations_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_at_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
