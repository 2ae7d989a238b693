/* What --mode=check says of sound and damaged stores, and what --repair makes of them. */
#include "check_fixture.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "../../dms/data_dir.h"
#include "../../dms/manifest.h"
#include "../../dms/segment.h"

enum { CAPACITY = 16 << 20, PAGES = 60 };

static struct check_fixture fixture;
static uint64_t region, branch;

/* Region "first" with pages 0 to 59; "second", a branch of it, has 10 to 19 of its own. */
static int setup(void **state)
{
    (void)state;
    check_fixture_begin(&fixture, CAPACITY);
    region = fixture_region(&fixture.store, "first");
    assert_int_equal(fixture_put(&fixture.store, region, 0, PAGES, 1, 1), 0);
    branch = fixture_branch(&fixture.store, region, "second", false);
    assert_int_equal(fixture_put(&fixture.store, branch, 10, 10, 2, 2), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    check_fixture_end(&fixture);
    return 0;
}

static void says(const char *text)
{
    if (strstr(fixture.said, text) == NULL)
        fail_msg("it does not say \"%s\" but:\n%s", text, fixture.said);
}

static void flip_slot(uint64_t of, uint64_t page, size_t offset, bool in_page)
{
    const char *path;
    long header, bytes;

    fixture_locate(&fixture.store, of, page, &path, &header, &bytes);
    fixture_flip(path, (in_page ? bytes : header) + (long)offset, 0x21);
}

static const char *shard_path(const char *name)
{
    return temp_dir_path(&fixture.store.dir, name);
}

/* It is damaged, the check says TEXT and changes nothing. */
static void is_damaged(const char *text)
{
    uint64_t before = check_fixture_files(&fixture);

    assert_int_equal(check_fixture_run(&fixture, false), CHECK_DAMAGED);
    assert_int_equal(check_fixture_files(&fixture), before);
    says(text);
    says("is damaged");
}

/* The repair leaves what is sound; to repair it again changes nothing. */
static void repairs(void)
{
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_SOUND);
    says("is repaired");
    uint64_t before = check_fixture_files(&fixture);
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_SOUND);
    says("is sound");
    assert_int_equal(check_fixture_files(&fixture), before);
    assert_int_equal(check_fixture_run(&fixture, false), CHECK_SOUND);
    assert_int_equal(fixture_open(&fixture.store), 0);
    assert_int_equal(fixture.store.report.damaged_pages, 0);
    assert_int_equal(fixture.store.report.damaged_headers, 0);
    assert_int_equal(fixture.store.report.damaged_files, 0);
    assert_int_equal(fixture.store.report.damaged_records, 0);
}

static void test_sound(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    uint64_t before = check_fixture_files(&fixture);
    assert_int_equal(check_fixture_run(&fixture, false), CHECK_SOUND);
    says("is sound: 2 regions, 70 pages");
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_SOUND);
    assert_int_equal(check_fixture_files(&fixture), before);
}

static void test_in_use(void **state)
{
    struct data_dir *data;
    char why[256];

    (void)state;
    fixture_close(&fixture.store);
    assert_int_equal(data_dir_open(&data, &disk_real, fixture.data.path, 1, why, sizeof(why)), 0);
    assert_int_equal(check_fixture_run(&fixture, false), CHECK_FAILED);
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_FAILED);
    data_dir_close(&data);
    assert_int_equal(check_fixture_run(&fixture, false), CHECK_SOUND);
}

static void test_damaged_pages(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    flip_slot(region, 5, 99, true);
    flip_slot(region, 15, 100, true);
    flip_slot(branch, 17, offsetof(struct slot_header, checksum), false);
    is_damaged("page 5 of first, second is damaged");
    says("page 15 of first is damaged");
    says("page 17 of second is damaged");
    says("region first: 2 of 60 pages lost\n");
    says("region second: 2 of 60 pages lost\n");
    says("3 pages lost, 0 slots of unknown pages");
    repairs();
    says("3 of them lost and marked so");
    assert_int_equal(fixture.store.report.lost_pages, 3);
    for (uint64_t page = 0; page < PAGES; page++) {
        bool own = page >= 10 && page < 20;
        assert_int_equal(fixture_get(&fixture.store, region, page),
                         page == 5 || page == 15 ? -EBADMSG : 1);
        assert_int_equal(fixture_get(&fixture.store, branch, page), page == 5 || page == 17
                                                                        ? -EBADMSG
                                                                    : own ? 2
                                                                          : 1);
    }
    assert_int_equal(fixture_get(&fixture.store, region, PAGES), -1);
    /* Storing it again, or dropping it, ends it; an old copy that comes late does not. */
    assert_int_equal(fixture_put(&fixture.store, branch, 17, 1, 1, 9), 0);
    assert_int_equal(fixture_get(&fixture.store, branch, 17), -EBADMSG);
    assert_int_equal(fixture_put(&fixture.store, branch, 17, 1, 2, 2), 0);
    assert_int_equal(fixture_drop(&fixture.store, region, 15, 1, 10), 0);
    fixture_reopen(&fixture.store);
    assert_int_equal(fixture_get(&fixture.store, branch, 17), 2);
    assert_int_equal(fixture_get(&fixture.store, region, 15), -1);
    assert_int_equal(fixture.store.report.lost_pages, 1);
}

static void test_unknown_slot(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    flip_slot(region, 5, offsetof(struct slot_header, checksum), false);
    flip_slot(region, 5, offsetof(struct slot_header, sequence), false);
    is_damaged("its header is damaged: a page is lost, perhaps page 5 of first");
    says("and perhaps others");
    says("0 pages lost, 1 slots of unknown pages");
    repairs();
    says("2 regions incomplete");
    assert_int_equal(fixture_get(&fixture.store, region, 5), -ENODATA);
    /* Of what was shared nobody knows whether it was replaced. */
    assert_int_equal(fixture_get(&fixture.store, region, 6), -ENODATA);
    assert_int_equal(fixture_get(&fixture.store, branch, 12), 2);
    assert_int_equal(fixture_get(&fixture.store, branch, 6), -ENODATA);
    uint64_t young = fixture_region(&fixture.store, "young");
    fixture_reopen(&fixture.store);
    assert_int_equal(fixture_get(&fixture.store, region, 5), -ENODATA);
    assert_int_equal(fixture_get(&fixture.store, young, 5), -1);
}

static void test_damaged_manifest(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    /* Records: the header, "first", a segment file or more, "second". */
    fixture_flip(shard_path("manifest"), (long)sizeof(struct manifest_record) + 70, 4);
    is_damaged("manifest: record 1: damaged");
    says("the record of region");
    repairs();
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(fixture_get(&fixture.store, region, page), 1);
    assert_int_equal(fixture_get(&fixture.store, region, PAGES), -ENODATA);
    assert_int_equal(fixture_get(&fixture.store, branch, 15), 2);
    assert_int_equal(fixture_get(&fixture.store, branch, 25), 1);
}

static void test_damaged_manifest_header(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    fixture_flip(shard_path("manifest"), 9, 4);
    is_damaged("manifest: the file's header is damaged");
    repairs();
    assert_int_equal(fixture_get(&fixture.store, branch, 15), 2);
}

static void test_missing_manifest(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    assert_int_equal(unlink(shard_path("manifest")), 0);
    is_damaged("manifest: the file is missing");
    repairs();
    assert_int_equal(fixture_get(&fixture.store, region, 5), 1);
    assert_int_equal(fixture_get(&fixture.store, branch, 15), 2);
    assert_int_equal(fixture_get(&fixture.store, branch, 5), -ENODATA);
}

static void test_cut_manifest(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    assert_int_equal(truncate(shard_path("manifest"), 2 * sizeof(struct manifest_record)), 0);
    is_damaged("manifest: the file was cut short");
    repairs();
    assert_int_equal(fixture_get(&fixture.store, region, 5), 1);
    assert_int_equal(fixture_get(&fixture.store, branch, 15), 2);
}

static const char *segment_path(void)
{
    const char *path;
    long header, bytes;

    fixture_locate(&fixture.store, region, 5, &path, &header, &bytes);
    return path;
}

static void test_damaged_segment_header(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    fixture_flip(segment_path(), 9, 4);
    is_damaged("the file's header is damaged");
    repairs();
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(fixture_get(&fixture.store, region, page), 1);
}

static void test_cut_segment(void **state)
{
    const char *path;
    long header, bytes;

    (void)state;
    fixture_close(&fixture.store);
    fixture_locate(&fixture.store, region, 30, &path, &header, &bytes);
    assert_int_equal(truncate(path, bytes), 0);
    is_damaged("the file was cut short");
    says("page 30 of first, second is damaged");
    repairs();
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(fixture_get(&fixture.store, region, page), page < 30 ? 1 : -EBADMSG);
}

static void test_segment_cut_in_its_headers(void **state)
{
    const char *path;
    long header, bytes;

    (void)state;
    fixture_close(&fixture.store);
    fixture_locate(&fixture.store, region, 30, &path, &header, &bytes);
    assert_int_equal(truncate(path, header), 0);
    is_damaged("of which nobody knows");
    repairs();
    assert_int_equal(fixture_get(&fixture.store, region, 45), -ENODATA);
    assert_int_equal(fixture_get(&fixture.store, region, 5), -ENODATA);
}

static void test_missing_segment(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    assert_int_equal(unlink(segment_path()), 0);
    is_damaged("the file is missing");
    repairs();
    assert_int_equal(fixture_get(&fixture.store, region, 5), -ENODATA);
}

static void test_shard_file(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    fixture_flip(shard_path("shard"), 20, 4);
    is_damaged("shard: the file's header is damaged");
    repairs();
    assert_int_equal(fixture_get(&fixture.store, branch, 15), 2);
    fixture_close(&fixture.store);
    assert_int_equal(unlink(shard_path("shard")), 0);
    is_damaged("shard: ");
    repairs();
    assert_int_equal(fixture_get(&fixture.store, branch, 15), 2);
}

static void test_store_file(void **state)
{
    const char *path = temp_dir_path(&fixture.data, "edm-store");
    struct data_dir *data;
    char why[256];

    (void)state;
    fixture_close(&fixture.store);
    fixture_flip(path, 2, 4);
    is_damaged("edm-store: damaged or missing");
    repairs();
    fixture_close(&fixture.store);
    assert_int_equal(unlink(temp_dir_path(&fixture.data, "edm-store")), 0);
    is_damaged("edm-store: damaged or missing");
    repairs();
    assert_int_equal(data_dir_open(&data, &disk_real, fixture.data.path, 1, why, sizeof(why)), 0);
    data_dir_close(&data);
}

static void test_no_store(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    temp_dir_remove(&fixture.data);
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_FAILED);
    assert_int_equal(mkdir(fixture.data.path, 0700), 0);
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_FAILED);
    assert_int_equal(rmdir(fixture.data.path), 0);
}

static void test_missing_shard(void **state)
{
    struct data_dir *data;
    char why[256];

    (void)state;
    fixture_close(&fixture.store);
    int fd = open(temp_dir_path(&fixture.data, "edm-store"), O_WRONLY | O_TRUNC);
    static const char text[] = "edm-store\nformat = 1\nshards = 2\n";
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    assert_int_equal(data_dir_open(&data, &disk_real, fixture.data.path, 2, why, sizeof(why)),
                     -ENOENT);
    is_damaged("shard-1: the directory is missing");
    repairs();
    assert_int_equal(data_dir_open(&data, &disk_real, fixture.data.path, 2, why, sizeof(why)), 0);
    data_dir_close(&data);
}

static void test_foreign_file(void **state)
{
    (void)state;
    fixture_close(&fixture.store);
    close(open(shard_path("segment-of-mine"), O_CREAT | O_WRONLY, 0600));
    assert_int_equal(check_fixture_run(&fixture, false), CHECK_SOUND);
    says("segment-of-mine: not a file of EDM's: left alone");
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_SOUND);
    assert_int_equal(access(shard_path("segment-of-mine"), F_OK), 0);
}

/* Writes format 77 into a header of which LEN bytes before the checksum are checked. */
static void set_format(const char *path, size_t format_at, size_t checksum_at)
{
    char bytes[64];
    uint32_t format = 77;
    int fd = open(path, O_RDWR);

    assert_int_equal(pread(fd, bytes, sizeof(bytes), 0) >= (ssize_t)checksum_at + 8, true);
    memcpy(bytes + format_at, &format, sizeof(format));
    uint64_t checksum = XXH3_64bits(bytes, checksum_at);
    memcpy(bytes + checksum_at, &checksum, sizeof(checksum));
    assert_int_equal(pwrite(fd, bytes, checksum_at + 8, 0), (ssize_t)checksum_at + 8);
    close(fd);
}

static void is_refused(void)
{
    uint64_t before = check_fixture_files(&fixture);

    assert_int_equal(check_fixture_run(&fixture, false), CHECK_FAILED);
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_FAILED);
    assert_int_equal(check_fixture_files(&fixture), before);
    assert_int_equal(fixture_open(&fixture.store), -EPROTONOSUPPORT);
}

static void test_unknown_formats(void **state)
{
    struct manifest_record header;

    (void)state;
    fixture_close(&fixture.store);
    set_format(segment_path(), 8, 24);
    is_refused();
    set_format(shard_path("shard"), 8, 24);
    is_refused();
    assert_int_equal(unlink(shard_path("shard")), 0);
    assert_int_equal(unlink(segment_path()), 0);
    int fd = open(shard_path("manifest"), O_RDWR);
    assert_int_equal(pread(fd, &header, sizeof(header), 0), sizeof(header));
    header.stamp = 77;
    header.checksum = 0;
    header.checksum = XXH3_64bits(&header, sizeof(header));
    assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
    close(fd);
    assert_int_equal(check_fixture_run(&fixture, true), CHECK_FAILED);
}

#define CHECK_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_sound),
        CHECK_TEST(test_in_use),
        CHECK_TEST(test_damaged_pages),
        CHECK_TEST(test_unknown_slot),
        CHECK_TEST(test_damaged_manifest),
        CHECK_TEST(test_damaged_manifest_header),
        CHECK_TEST(test_missing_manifest),
        CHECK_TEST(test_cut_manifest),
        CHECK_TEST(test_damaged_segment_header),
        CHECK_TEST(test_cut_segment),
        CHECK_TEST(test_segment_cut_in_its_headers),
        CHECK_TEST(test_missing_segment),
        CHECK_TEST(test_shard_file),
        CHECK_TEST(test_store_file),
        CHECK_TEST(test_no_store),
        CHECK_TEST(test_missing_shard),
        CHECK_TEST(test_foreign_file),
        CHECK_TEST(test_unknown_formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
