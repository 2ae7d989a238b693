/* segment: slots are found again as they were filled, and every kind of damage is found out. */
#include "temp_dir.h"
#include "test.h"

#include "../../dms/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NSLOTS = 128, HEADERS_AT = 4096, HEADER_BYTES = 64, DATA_AT = 4096 + NSLOTS * 64 };

static const struct segment_shape RAW = {WIRE_PAGE_BYTES, NSLOTS};

static struct temp_dir dir;

static const char *path(void)
{
    return temp_dir_path(&dir, "segment");
}

static int setup(void **state)
{
    (void)state;
    temp_dir_make(&dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

/* One less that points at the slot; at zero it is freed. */
static bool release(struct segment *segment, uint32_t slot)
{
    bool is_last = segment_unhold(segment, slot);

    if (is_last)
        segment_free(segment, slot);
    return is_last;
}

static struct segment *create_shape(struct segment_shape shape)
{
    struct segment *segment;

    assert_int_equal(segment_create(&segment, &disk_real, path(), shape), 0);
    assert_int_equal(segment_ready_slots(segment), 0);
    while (segment_holes(segment) > 0)
        assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
    assert_int_equal(segment_ready_slots(segment), shape.nslots);
    return segment;
}

static struct segment *create(void)
{
    return create_shape(RAW);
}

static struct segment *reopen(bool expect_repaired)
{
    struct segment *segment;
    unsigned faults;

    assert_int_equal(segment_open(&segment, &disk_real, path(), RAW, &faults), 0);
    assert_int_equal(faults != 0, expect_repaired);
    return segment;
}

static void fill(struct segment *segment, uint32_t count, uint8_t byte, uint32_t len,
                 uint32_t *first)
{
    static uint8_t bytes[NSLOTS][WIRE_PAGE_BYTES];
    static struct wire_page pages[NSLOTS];
    static struct slot_source sources[NSLOTS];

    for (uint32_t i = 0; i < count; i++) {
        memset(bytes[i], byte + (int)i, len);
        pages[i] = (struct wire_page){
            .page = 1000 + i,
            .sequence = 7,
            .length_bytes = len,
            .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW : WIRE_LZ4,
        };
        pages[i].checksum = wire_checksum(pages[i].page, bytes[i], len);
        sources[i] =
            (struct slot_source){.region = 99, .stamp = 5, .page = &pages[i], .bytes = bytes[i]};
    }
    assert_int_equal(segment_take(segment, count, first), count);
    assert_int_equal(segment_fill(segment, *first, count, sources), 0);
}

static void check_filled(const struct segment *segment, uint32_t first, uint32_t count,
                         uint8_t byte, uint32_t len)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct slot_header *header = segment_header(segment, first + i);
        const uint8_t *bytes = segment_bytes(segment, first + i);
        assert_int_equal(segment_check(segment, first + i, true), SLOT_CHECK_GOOD);
        assert_int_equal(header->page, 1000 + i);
        assert_int_equal(header->region, 99);
        assert_int_equal(header->length_bytes, len);
        for (uint32_t k = 0; k < len; k++)
            assert_int_equal(bytes[k], (uint8_t)(byte + i));
    }
}

static void flip(off_t offset, uint8_t bits)
{
    uint8_t byte;
    int fd = open(path(), O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static void test_filled_slots_are_found_again(void **state)
{
    struct segment *segment = create();
    uint32_t single, run, few;

    (void)state;
    fill(segment, 1, 1, WIRE_PAGE_BYTES, &single);
    fill(segment, 40, 2, WIRE_PAGE_BYTES, &run);
    fill(segment, 20, 60, 3900, &few);
    assert_int_equal(segment_ready_slots(segment), NSLOTS - 61);
    segment_close(&segment);
    segment = reopen(false);
    check_filled(segment, single, 1, 1, WIRE_PAGE_BYTES);
    check_filled(segment, run, 40, 2, WIRE_PAGE_BYTES);
    check_filled(segment, few, 20, 60, 3900);
    assert_int_equal(segment_check(segment, NSLOTS - 1, true), SLOT_CHECK_EMPTY);
    segment_close(&segment);
}

static void test_slots_are_taken_once(void **state)
{
    struct segment *segment = create();
    uint32_t first, taken, total = 0;
    uint8_t seen[NSLOTS] = {0};

    (void)state;
    while ((taken = segment_take(segment, 17, &first)) > 0) {
        for (uint32_t i = first; i < first + taken; i++)
            assert_int_equal(seen[i]++, 0);
        total += taken;
    }
    assert_int_equal(total, NSLOTS);
    for (uint32_t i = 0; i < NSLOTS; i += 2)
        segment_untake(segment, i, 1);
    assert_int_equal(segment_ready_slots(segment), 0);
    assert_int_equal(segment_flush(segment), 0);
    assert_int_equal(segment_ready_slots(segment), NSLOTS / 2);
    for (uint32_t i = 0; i < NSLOTS / 2; i++) {
        assert_int_equal(segment_take(segment, 9, &first), 1);
        assert_int_equal(first % 2, 0);
    }
    assert_int_equal(segment_take(segment, 1, &first), 0);
    segment_close(&segment);
}

static void test_released_slot_is_empty_for_good(void **state)
{
    struct segment *segment = create();
    uint32_t first;

    (void)state;
    fill(segment, 2, 1, WIRE_PAGE_BYTES, &first);
    segment_retain(segment, first);
    assert_false(release(segment, first));
    assert_int_equal(segment_check(segment, first, true), SLOT_CHECK_GOOD);
    assert_true(release(segment, first));
    assert_int_equal(segment_check(segment, first, true), SLOT_CHECK_GOOD);
    assert_int_equal(segment_ready_slots(segment), NSLOTS - 2);
    assert_int_equal(segment_flush(segment), 0);
    assert_int_equal(segment_ready_slots(segment), NSLOTS - 1);
    segment_close(&segment);
    segment = reopen(false);
    assert_int_equal(segment_check(segment, first, true), SLOT_CHECK_EMPTY);
    assert_int_equal(segment_check(segment, first + 1, true), SLOT_CHECK_GOOD);
    segment_close(&segment);
}

/* Every byte of a slot header, each bit pattern of some. */
static void test_every_header_byte_is_covered(void **state)
{
    struct segment *segment = create();
    uint32_t first;

    (void)state;
    fill(segment, 3, 1, WIRE_PAGE_BYTES, &first);
    segment_close(&segment);
    for (uint32_t byte = 0; byte < HEADER_BYTES; byte++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            off_t offset = HEADERS_AT + (off_t)(first + 1) * HEADER_BYTES + (off_t)byte;
            flip(offset, (uint8_t)(1U << bit));
            segment = reopen(false);
            assert_int_equal(segment_check(segment, first + 1, true), SLOT_CHECK_BAD_HEADER);
            assert_int_equal(segment_check(segment, first, true), SLOT_CHECK_GOOD);
            assert_int_equal(segment_check(segment, first + 2, true), SLOT_CHECK_GOOD);
            segment_close(&segment);
            flip(offset, (uint8_t)(1U << bit));
        }
    }
}

static void test_header_of_another_slot_is_damage(void **state)
{
    struct segment *segment = create();
    uint32_t first;
    uint8_t header[HEADER_BYTES];

    (void)state;
    fill(segment, 2, 1, WIRE_PAGE_BYTES, &first);
    segment_close(&segment);
    int fd = open(path(), O_RDWR);
    assert_int_equal(pread(fd, header, sizeof(header), HEADERS_AT), sizeof(header));
    assert_int_equal(pwrite(fd, header, sizeof(header), HEADERS_AT + HEADER_BYTES), sizeof(header));
    close(fd);
    segment = reopen(false);
    assert_int_equal(segment_check(segment, first, true), SLOT_CHECK_GOOD);
    assert_int_equal(segment_check(segment, first + 1, true), SLOT_CHECK_BAD_HEADER);
    segment_close(&segment);
}

static void test_damaged_page_is_found(void **state)
{
    struct segment *segment = create();
    uint32_t first;

    (void)state;
    fill(segment, 2, 1, WIRE_PAGE_BYTES, &first);
    segment_close(&segment);
    flip(DATA_AT + (off_t)first * WIRE_PAGE_BYTES + 1234, 0x10);
    segment = reopen(false);
    assert_int_equal(segment_check(segment, first, false), SLOT_CHECK_GOOD);
    assert_int_equal(segment_check(segment, first, true), SLOT_CHECK_BAD_PAGE);
    assert_int_equal(segment_check(segment, first + 1, true), SLOT_CHECK_GOOD);
    segment_close(&segment);
}

static void test_file_cut_short_is_mended(void **state)
{
    struct segment *segment = create();
    uint32_t first;
    struct stat st;

    (void)state;
    fill(segment, 100, 1, WIRE_PAGE_BYTES, &first);
    segment_close(&segment);
    assert_int_equal(stat(path(), &st), 0);
    off_t whole = st.st_size;
    assert_int_equal(truncate(path(), DATA_AT + 50 * WIRE_PAGE_BYTES), 0);
    segment = reopen(true);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(segment_check(segment, first + i, true),
                         i < 50 ? SLOT_CHECK_GOOD : SLOT_CHECK_BAD_PAGE);
    segment_close(&segment);
    assert_int_equal(stat(path(), &st), 0);
    assert_int_equal(st.st_size, whole);
}

static void test_damaged_file_header_is_mended(void **state)
{
    struct segment *segment = create();
    uint32_t first;

    (void)state;
    fill(segment, 5, 1, WIRE_PAGE_BYTES, &first);
    segment_close(&segment);
    flip(2, 0xff);
    segment = reopen(true);
    check_filled(segment, first, 5, 1, WIRE_PAGE_BYTES);
    segment_close(&segment);
    segment = reopen(true);
    assert_int_equal(segment_mend(segment), 0);
    segment_close(&segment);
    segment = reopen(false);
    segment_close(&segment);
}

static void test_existing_file_is_not_overwritten(void **state)
{
    struct segment *segment = create();

    (void)state;
    segment_close(&segment);
    assert_int_equal(segment_create(&segment, &disk_real, path(), RAW), -EEXIST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_filled_slots_are_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slots_are_taken_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_released_slot_is_empty_for_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_header_byte_is_covered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header_of_another_slot_is_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_page_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_cut_short_is_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_file_header_is_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(test_existing_file_is_not_overwritten, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
