/* What a store makes of damaged, missing and foreign files when it is opened. */
#include "store_fixture.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../dms/manifest.h"
#include "../../dms/segment.h"

enum { CAPACITY = 16 << 20 };

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

static void flip_slot(uint64_t region, uint64_t page, size_t offset, bool in_page)
{
    const char *path;
    long header, bytes;

    fixture_locate(&fixture, region, page, &path, &header, &bytes);
    fixture_flip(path, (in_page ? bytes : header) + (long)offset, 0x21);
}

static void test_damaged_page_is_said_and_never_served(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 100, 50, 1, 7), 0);
    fixture_close(&fixture);
    flip_slot(region, 120, 99, true);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_pages, 1);
    assert_int_equal(fixture.report.pages, 50);
    for (uint64_t page = 100; page < 150; page++)
        assert_int_equal(fixture_get(&fixture, region, page), page == 120 ? -EBADMSG : 7);
    /* A new version heals it. */
    assert_int_equal(fixture_put(&fixture, region, 120, 1, 2, 8), 0);
    assert_int_equal(fixture_get(&fixture, region, 120), 8);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.damaged_pages, 0);
    assert_int_equal(fixture_get(&fixture, region, 120), 8);
}

static void test_page_damaged_while_open(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 20, 1, 7), 0);
    flip_slot(region, 3, 4000, true);
    flip_slot(region, 4, offsetof(struct slot_header, length_bytes), false);
    flip_slot(region, 5, offsetof(struct slot_header, page), false);
    assert_int_equal(fixture_get(&fixture, region, 3), -EBADMSG);
    assert_int_equal(fixture_get(&fixture, region, 4), -EBADMSG);
    assert_int_equal(fixture_get(&fixture, region, 5), -EBADMSG);
    assert_int_equal(fixture_get(&fixture, region, 6), 7);
    assert_int_equal(fixture_put(&fixture, region, 3, 3, 2, 9), 0);
    for (uint64_t page = 3; page < 6; page++)
        assert_int_equal(fixture_get(&fixture, region, page), 9);
}

/* Every field in turn: a damaged byte hides nothing. */
static void test_damaged_header_says_whose_it_was(void **state)
{
    static const size_t fields[] = {
        offsetof(struct slot_header, state),    offsetof(struct slot_header, length_bytes),
        offsetof(struct slot_header, region),   offsetof(struct slot_header, page),
        offsetof(struct slot_header, sequence), offsetof(struct slot_header, stamp),
        offsetof(struct slot_header, checksum), offsetof(struct slot_header, encoding),
        offsetof(struct slot_header, moves),    offsetof(struct slot_header, header_checksum),
    };
    uint32_t nfields = sizeof(fields) / sizeof(fields[0]);
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 100, 1, 7), 0);
    fixture_close(&fixture);
    for (uint32_t i = 0; i < nfields; i++)
        flip_slot(region, 10 + i, fields[i], false);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_headers, 0);
    assert_int_equal(fixture.report.damaged_pages, nfields);
    assert_int_equal(fixture.report.pages, 100);
    for (uint64_t page = 0; page < 100; page++)
        assert_int_equal(fixture_get(&fixture, region, page),
                         page >= 10 && page < 10 + nfields ? -EBADMSG : 7);
    assert_int_equal(fixture_get(&fixture, region, 100), -1);
    /* Set aside: what is stored now lies elsewhere, and the damage stays to be seen. */
    assert_int_equal(fixture_put(&fixture, region, 1000, 200, 2, 8), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.damaged_pages, nfields);
    assert_int_equal(fixture_get(&fixture, region, 1199), 8);
    /* A new version heals it. */
    assert_int_equal(fixture_put(&fixture, region, 0, 100, 2, 9), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.damaged_pages, 0);
    for (uint64_t page = 0; page < 100; page++)
        assert_int_equal(fixture_get(&fixture, region, page), 9);
}

/* A header that reads as zeros, or says that there is none, is not one of a free slot. */
static void test_header_of_zeros_is_damaged(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    struct slot_header zeros = {0};
    const char *path;
    long header, bytes;

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 7), 0);
    fixture_locate(&fixture, region, 4, &path, &header, &bytes);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, header, SEEK_SET), 0);
    assert_int_equal(fwrite(&zeros, sizeof(zeros), 1, file), 1);
    fixture_locate(&fixture, region, 6, &path, &header, &bytes);
    assert_int_equal(fseek(file, header, SEEK_SET), 0);
    assert_int_equal(fwrite(&zeros.state, sizeof(zeros.state), 1, file), 1);
    assert_int_equal(fclose(file), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.damaged_headers, 1);
    assert_int_equal(fixture.report.damaged_pages, 1);
    assert_int_equal(fixture_get(&fixture, region, 4), -ENODATA);
    assert_int_equal(fixture_get(&fixture, region, 5), 7);
    assert_int_equal(fixture_get(&fixture, region, 6), -EBADMSG);
}

/* Nobody knows what the slot held: what the regions there are do not have may be that. */
static void test_unknown_header_makes_incomplete(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 7), 0);
    fixture_close(&fixture);
    flip_slot(region, 4, offsetof(struct slot_header, checksum), false);
    flip_slot(region, 4, offsetof(struct slot_header, page), false);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        assert_int_equal(fixture.report.damaged_headers, 1);
        assert_int_equal(fixture.report.pages, 9);
        assert_int_equal(fixture_get(&fixture, region, 3), 7);
        assert_int_equal(fixture_get(&fixture, region, 4), -ENODATA);
        assert_int_equal(fixture_get(&fixture, region, 4000), -ENODATA);
        fixture_close(&fixture);
    }
    /* A region made since is whole, also when the old damage is found again. */
    assert_int_equal(fixture_open(&fixture), 0);
    uint64_t young = fixture_region(&fixture, "b");
    uint64_t branch = fixture_branch(&fixture, region, "c", false);
    fixture_reopen(&fixture);
    assert_int_equal(fixture_get(&fixture, young, 4), -1);
    assert_int_equal(fixture_get(&fixture, branch, 4), -ENODATA);
    assert_int_equal(fixture_put(&fixture, region, 4, 1, 2, 8), 0);
    assert_int_equal(fixture_get(&fixture, region, 4), 8);
}

/* One damage that hid pages is mended, another one has come: that there was one before does not
 * excuse it. */
static void test_new_damage_is_not_taken_for_the_old(void **state)
{
    const char *path;
    long header, bytes;
    uint64_t old = fixture_region(&fixture, "old");

    (void)state;
    assert_int_equal(fixture_put(&fixture, old, 0, 10, 1, 7), 0);
    fixture_locate(&fixture, old, 3, &path, &header, &bytes);
    fixture_close(&fixture);
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture_get(&fixture, old, 20), -ENODATA);
    uint64_t young = fixture_region(&fixture, "young");
    assert_int_equal(fixture_put(&fixture, young, 0, 10, 1, 8), 0);
    assert_int_equal(fixture_get(&fixture, young, 20), -1);
    fixture_locate(&fixture, young, 3, &path, &header, &bytes);
    fixture_close(&fixture);
    for (int i = 9; i < 24; i += 5)
        fixture_flip(path, header + i, 0x5a);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_headers, 1);
    assert_int_equal(fixture_get(&fixture, young, 3), -ENODATA);
    assert_int_equal(fixture_get(&fixture, young, 4), 8);
}

/* The branch's own page is damaged: its parent's is not to be shown in its place. */
static void test_branch_does_not_fall_back(void **state)
{
    uint64_t parent = fixture_region(&fixture, "parent");

    (void)state;
    assert_int_equal(fixture_put(&fixture, parent, 0, 10, 1, 1), 0);
    uint64_t branch = fixture_branch(&fixture, parent, "branch", false);
    assert_int_equal(fixture_put(&fixture, branch, 3, 3, 2, 3), 0);
    fixture_close(&fixture);
    flip_slot(branch, 3, offsetof(struct slot_header, stamp), false);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_pages, 1);
    for (uint64_t page = 0; page < 10; page++) {
        assert_int_equal(fixture_get(&fixture, parent, page), 1);
        assert_int_equal(fixture_get(&fixture, branch, page), page == 3              ? -EBADMSG
                                                              : page > 3 && page < 6 ? 3
                                                                                     : 1);
    }
    fixture_close(&fixture);
    /* When it is not known which page it was, it may have been any. */
    flip_slot(branch, 4, offsetof(struct slot_header, stamp), false);
    flip_slot(branch, 4, offsetof(struct slot_header, checksum), false);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_headers, 1);
    for (uint64_t page = 0; page < 10; page++) {
        /* Its parent may have replaced pages that are there for the branch only. */
        assert_int_equal(fixture_get(&fixture, parent, page), -ENODATA);
        assert_int_equal(fixture_get(&fixture, branch, page), page == 3   ? -EBADMSG
                                                              : page == 5 ? 3
                                                                          : -ENODATA);
    }
    /* What is stored now is sure, for branches too. */
    assert_int_equal(fixture_put(&fixture, parent, 4, 1, 3, 4), 0);
    uint64_t young = fixture_branch(&fixture, parent, "young", false);
    assert_int_equal(fixture_get(&fixture, young, 4), 4);
    assert_int_equal(fixture_get(&fixture, young, 40), -ENODATA);
}

static void test_missing_segment_is_missed(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    const char *path;
    long header, bytes;

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 10, 1, 7), 0);
    fixture_locate(&fixture, region, 3, &path, &header, &bytes);
    fixture_close(&fixture);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_files, 1);
    assert_int_equal(fixture_get(&fixture, region, 3), -ENODATA);
}

static void test_missing_shard_file_is_refused(void **state)
{
    (void)state;
    fixture_close(&fixture);
    assert_int_equal(unlink(temp_dir_path(&fixture.dir, "shard")), 0);
    assert_int_equal(fixture_open(&fixture), -EBADMSG);
    assert_int_equal(access(temp_dir_path(&fixture.dir, "shard"), F_OK), -1);
}

/* As after a crash between filling the new slot and freeing the old one. */
static void test_newest_of_two_versions_counts(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    const char *path;
    long header, bytes;
    char old_path[512];
    uint32_t used = SLOT_USED;

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 1, 7), 0);
    fixture_locate(&fixture, region, 5, &path, &header, &bytes);
    snprintf(old_path, sizeof(old_path), "%s", path);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 2, 8), 0);
    fixture_close(&fixture);
    int fd = open(old_path, O_RDWR);
    assert_int_equal(pwrite(fd, &used, sizeof(used), header), sizeof(used));
    close(fd);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        assert_int_equal(fixture_get(&fixture, region, 5), 8);
        assert_int_equal(fixture_used(&fixture), 1);
        fixture_close(&fixture);
    }
    assert_int_equal(fixture_open(&fixture), 0);
}

static void test_lost_manifest_loses_no_page(void **state)
{
    uint64_t region = fixture_region(&fixture, "precious");
    char name[64];

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 30, 4, 7), 0);
    fixture_close(&fixture);
    assert_int_equal(unlink(temp_dir_path(&fixture.dir, "manifest")), 0);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.recovered, 1);
    snprintf(name, sizeof(name), "recovered-%016llx", (unsigned long long)region);
    assert_int_equal(fixture_region(&fixture, name), region);
    assert_int_equal(fixture_get(&fixture, region, 29), 7);
    /* It is a region like others from now on. */
    assert_int_equal(fixture_put(&fixture, region, 29, 1, 5, 8), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.recovered, 0);
    assert_int_equal(fixture_get(&fixture, region, 29), 8);
    assert_int_equal(fixture_remove(&fixture, region), 0);
    fixture_reopen(&fixture);
    assert_int_equal(fixture.report.regions, 0);
    assert_int_equal(fixture_used(&fixture), 0);
}

static void test_damaged_record_is_skipped(void **state)
{
    uint64_t first = fixture_region(&fixture, "first");
    uint64_t second = fixture_region(&fixture, "second");
    uint64_t third = fixture_region(&fixture, "third");

    (void)state;
    assert_int_equal(fixture_put(&fixture, first, 0, 3, 1, 1), 0);
    assert_int_equal(fixture_put(&fixture, second, 0, 3, 1, 2), 0);
    assert_int_equal(fixture_put(&fixture, third, 0, 3, 1, 3), 0);
    fixture_close(&fixture);
    /* The file's header is record 0. */
    fixture_flip(temp_dir_path(&fixture.dir, "manifest"),
                 2 * (long)sizeof(struct manifest_record) + 70, 4);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_records, 1);
    assert_int_equal(fixture.report.recovered, 1);
    assert_int_equal(fixture_region(&fixture, "first"), first);
    assert_int_equal(fixture_region(&fixture, "third"), third);
    assert_int_equal(fixture_get(&fixture, second, 2), 2);
    assert_int_equal(fixture_get(&fixture, third, 2), 3);
}

/* Damages the record that makes region NAME. */
static void flip_record(const char *name)
{
    const char *path = temp_dir_path(&fixture.dir, "manifest");
    struct manifest_record record;
    long at = sizeof(record); /* after the file's header */
    int fd = open(path, O_RDONLY);

    for (bool found = false; !found; at += (long)sizeof(record)) {
        assert_int_equal(pread(fd, &record, sizeof(record), at), sizeof(record));
        found = record.type == MANIFEST_REGION && strcmp(record.name, name) == 0;
    }
    close(fd);
    fixture_flip(path, at - 1, 4);
}

/* The slot of a page that was dropped is still in use, by a branch. Without the branch's record the
 * drop counts all the same. */
static void test_drop_outlives_a_lost_branch(void **state)
{
    uint64_t region = fixture_region(&fixture, "p");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 7, 1, 1, 7), 0);
    fixture_branch(&fixture, region, "frozen", true);
    assert_int_equal(fixture_put(&fixture, region, 7, 1, 2, 8), 0);
    assert_int_equal(fixture_drop(&fixture, region, 7, 1, 2), 0);
    assert_int_equal(fixture_get(&fixture, region, 7), -1);
    fixture_close(&fixture);
    flip_record("frozen");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fixture_open(&fixture), 0);
        assert_int_equal(fixture_get(&fixture, region, 7), -1);
        fixture_close(&fixture);
    }
    assert_int_equal(fixture_open(&fixture), 0);
}

/* What comes late must not take the place of what is newer and damaged. */
static void test_late_put_after_damage(void **state)
{
    const char *path;
    long header, bytes;
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 1, 7), 0);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 10, 8), 0);
    fixture_locate(&fixture, region, 5, &path, &header, &bytes);
    fixture_flip(path, header + 9, 0x21); /* one byte: what it was can be told */
    assert_int_equal(fixture_get(&fixture, region, 5), -EBADMSG);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 1, 7), 0);
    assert_int_equal(fixture_drop(&fixture, region, 5, 1, 9), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), -EBADMSG);
    fixture_flip(path, header + 14, 0x21); /* two: it cannot */
    fixture_flip(path, header + 20, 0x21);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 9, 7), -ENODATA);
    assert_int_equal(fixture_get(&fixture, region, 5), -EBADMSG);
    assert_int_equal(fixture_put(&fixture, region, 5, 1, 11, 9), 0);
    assert_int_equal(fixture_get(&fixture, region, 5), 9);
}

static void test_branch_outlives_a_lost_parent(void **state)
{
    uint64_t parent = fixture_region(&fixture, "parent");

    (void)state;
    assert_int_equal(fixture_put(&fixture, parent, 0, 10, 1, 1), 0);
    uint64_t branch = fixture_branch(&fixture, parent, "branch", false);
    assert_int_equal(fixture_put(&fixture, parent, 0, 5, 2, 2), 0);
    assert_int_equal(fixture_put(&fixture, branch, 3, 5, 2, 3), 0);
    fixture_close(&fixture);
    fixture_flip(temp_dir_path(&fixture.dir, "manifest"), (long)sizeof(struct manifest_record) + 70,
                 4);
    assert_int_equal(fixture_open(&fixture), 0);
    for (uint64_t page = 0; page < 10; page++) {
        assert_int_equal(fixture_get(&fixture, branch, page), page < 3 || page > 7 ? 1 : 3);
        assert_int_equal(fixture_get(&fixture, parent, page), page < 5 ? 2 : 1);
    }
}

static void test_highest_sequence_outlives_its_page(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 1, 10, 1), 0);
    assert_int_equal(fixture_put(&fixture, region, 1, 1, 20, 1), 0);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(fixture_put(&fixture, region, 2, 1, 30 + i, 1), 0);
        assert_int_equal(fixture_drop(&fixture, region, 2, 1, 100), 0);
        assert_int_equal(store_find(fixture.store, region)->sequence, 30 + i);
    }
    fixture_reopen(&fixture);
    assert_int_equal(store_find(fixture.store, region)->sequence, 32);
    assert_int_equal(fixture_get(&fixture, region, 1), 1);
}

static off_t manifest_bytes(void)
{
    struct stat st;

    assert_int_equal(stat(temp_dir_path(&fixture.dir, "manifest"), &st), 0);
    return st.st_size;
}

/* The manifest is written anew when it holds little but history; a removed region whose pages live
 * on in a branch stays known, though its name is used again. */
static void test_long_manifest_is_shortened(void **state)
{
    uint64_t old = fixture_region(&fixture, "name");
    const struct region *region;

    (void)state;
    assert_int_equal(fixture_put(&fixture, old, 0, 20, 1, 1), 0);
    uint64_t branch = fixture_branch(&fixture, old, "branch", false);
    assert_int_equal(fixture_put(&fixture, branch, 0, 5, 2, 2), 0);
    assert_int_equal(fixture_drop(&fixture, branch, 15, 5, 2), 0);
    assert_int_equal(fixture_remove(&fixture, old), 0);
    uint64_t young = fixture_region(&fixture, "name");
    assert_int_equal(fixture_put(&fixture, young, 0, 20, 1, 3), 0);
    for (uint32_t i = 0; i < 2000; i++)
        assert_int_equal(store_claim(fixture.store, "name", 0, 2 + i, &region), 0);
    assert_true(manifest_bytes() > 2000 * 256);
    for (int i = 0; i < 3; i++) {
        fixture_reopen(&fixture);
        assert_true(manifest_bytes() < 500 * 256);
        assert_int_equal(fixture.report.recovered, 0);
        assert_int_equal(fixture.report.regions, 2);
        assert_non_null(store_find(fixture.store, young));
        assert_int_equal(store_find(fixture.store, young)->epoch, 2001);
        for (uint64_t page = 0; page < 20; page++) {
            assert_int_equal(fixture_get(&fixture, young, page), 3);
            assert_int_equal(fixture_get(&fixture, branch, page), page < 5    ? 2
                                                                  : page < 15 ? 1
                                                                              : -1);
        }
        assert_int_equal(fixture_used(&fixture), 20 + 5 + 10);
    }
}

static void overwrite(const char *name, long offset, const void *bytes, size_t len)
{
    int fd = open(temp_dir_path(&fixture.dir, name), O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, offset), (ssize_t)len);
    close(fd);
}

static void test_damaged_shard_file_is_refused(void **state)
{
    (void)state;
    fixture_close(&fixture);
    overwrite("shard", 20, "x", 1);
    assert_int_equal(fixture_open(&fixture), -EBADMSG);
    assert_null(fixture.store);
}

static void test_cut_segment_keeps_the_rest(void **state)
{
    uint64_t region = fixture_region(&fixture, "a");
    const char *path;
    long header, bytes;

    (void)state;
    assert_int_equal(fixture_put(&fixture, region, 0, 40, 1, 7), 0);
    fixture_locate(&fixture, region, 25, &path, &header, &bytes);
    fixture_close(&fixture);
    assert_int_equal(truncate(path, bytes), 0);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.damaged_files, 1);
    assert_int_equal(fixture.report.damaged_pages, 15);
    for (uint64_t page = 0; page < 40; page++)
        assert_int_equal(fixture_get(&fixture, region, page), page < 25 ? 7 : -EBADMSG);
}

static void test_half_made_segment_goes(void **state)
{
    (void)state;
    fixture_close(&fixture);
    const char *path = temp_dir_path(&fixture.dir, "segment-000007-4096.new");
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(fixture_open(&fixture), 0);
    assert_int_equal(access(path, F_OK), -1);
}

#define RECOVERY_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RECOVERY_TEST(test_damaged_page_is_said_and_never_served),
        RECOVERY_TEST(test_page_damaged_while_open),
        RECOVERY_TEST(test_damaged_header_says_whose_it_was),
        RECOVERY_TEST(test_header_of_zeros_is_damaged),
        RECOVERY_TEST(test_unknown_header_makes_incomplete),
        RECOVERY_TEST(test_new_damage_is_not_taken_for_the_old),
        RECOVERY_TEST(test_branch_does_not_fall_back),
        RECOVERY_TEST(test_missing_segment_is_missed),
        RECOVERY_TEST(test_missing_shard_file_is_refused),
        RECOVERY_TEST(test_newest_of_two_versions_counts),
        RECOVERY_TEST(test_lost_manifest_loses_no_page),
        RECOVERY_TEST(test_damaged_record_is_skipped),
        RECOVERY_TEST(test_drop_outlives_a_lost_branch),
        RECOVERY_TEST(test_late_put_after_damage),
        RECOVERY_TEST(test_branch_outlives_a_lost_parent),
        RECOVERY_TEST(test_highest_sequence_outlives_its_page),
        RECOVERY_TEST(test_long_manifest_is_shortened),
        RECOVERY_TEST(test_damaged_shard_file_is_refused),
        RECOVERY_TEST(test_cut_segment_keeps_the_rest),
        RECOVERY_TEST(test_half_made_segment_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
