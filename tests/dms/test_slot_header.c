/* slot_header: what may stand beside a slot of each size, and what a damaged header was. */
#include "test.h"

#include "../../dms/slot_header.h"
#include "../../dms/slot_identify.h"
#include "../../dms/stamp.h"
#include "../../proto/wire.h"

#include <stddef.h>
#include <string.h>

enum { SLOT = 77 };

/* The header of a page of LEN bytes. */
static struct slot_header make(uint32_t len)
{
    struct slot_header header = {
        .state = SLOT_USED,
        .length_bytes = (uint16_t)len,
        .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW : WIRE_LZ4,
        .region = 7,
        .page = 1000 + len,
        .sequence = 3,
        .stamp = 9,
        .checksum = 0x1234567890abcdef,
    };

    if (len <= SIZE_CLASS_INLINE_BYTES)
        memset(header.bytes, 0x5a, len);
    header.header_checksum = slot_header_checksum(&header, SLOT);
    return header;
}

static void seal(struct slot_header *header)
{
    header->header_checksum = slot_header_checksum(header, SLOT);
}

static void test_fits_slots_of_its_own_size_only(void **state)
{
    (void)state;
    for (uint32_t len = 1; len <= WIRE_PAGE_BYTES; len++) {
        struct slot_header header = make(len);
        for (uint32_t i = 0; i < SIZE_CLASSES; i++)
            assert_int_equal(slot_header_is_whole(&header, SLOT, size_class_bytes(i)),
                             i == size_class_of(len));
    }
}

static void test_a_lost_page_has_no_bytes_in_any_slot(void **state)
{
    struct slot_header header = make(2000);

    (void)state;
    header.encoding = SLOT_LOST;
    seal(&header);
    for (uint32_t i = 0; i < SIZE_CLASSES; i++)
        assert_false(slot_header_is_whole(&header, SLOT, size_class_bytes(i)));
    header.length_bytes = 0;
    seal(&header);
    for (uint32_t i = 0; i < SIZE_CLASSES; i++)
        assert_true(slot_header_is_whole(&header, SLOT, size_class_bytes(i)));
    header.bytes[3] = 1;
    seal(&header);
    for (uint32_t i = 0; i < SIZE_CLASSES; i++)
        assert_false(slot_header_is_whole(&header, SLOT, size_class_bytes(i)));
}

/* What the wire cannot carry, or no store wrote, is no page however right its checksum is. */
static void test_sealed_nonsense_is_no_page(void **state)
{
    struct slot_header good = make(2000), header;

    (void)state;
    assert_true(slot_header_is_whole(&good, SLOT, 2048));
    assert_false(slot_header_is_whole(&good, SLOT + 1, 2048));
#define REFUSED(field, value)                                    \
    do {                                                         \
        memcpy(&header, &good, sizeof(header));                  \
        header.field = value;                                    \
        seal(&header);                                           \
        assert_false(slot_header_is_whole(&header, SLOT, 2048)); \
    } while (0)
    REFUSED(region, 0);
    REFUSED(page, WIRE_MAX_PAGE);
    REFUSED(sequence, 0);
    REFUSED(stamp, STAMP_MAX + 1);
    REFUSED(encoding, WIRE_RAW);
    REFUSED(encoding, WIRE_FILL);
    REFUSED(encoding, 77);
    REFUSED(length_bytes, 0);
    REFUSED(length_bytes, 1920);
    REFUSED(length_bytes, 2049);
    REFUSED(length_bytes, 0xffff);
    /* Never moved, and moved at some time; moved, and before it was stored, or after the end. */
    REFUSED(moves, 1);
    REFUSED(moved, 10);
    good.moves = 1;
    REFUSED(moved, 9);
    REFUSED(moved, STAMP_MAX + 1);
    good.moved = 10;
    seal(&good);
    assert_true(slot_header_is_whole(&good, SLOT, 2048));
#undef REFUSED
}

/* Every byte of it, with any value, in slots of all kinds. */
static void test_one_damaged_byte_is_found_out(void **state)
{
    static const uint32_t lengths[] = {5, 8, 9, 600, 3000, WIRE_PAGE_BYTES};
    struct slot_header found;

    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        struct slot_header good = make(lengths[i]), damaged;
        uint32_t slot_bytes = size_class_bytes(size_class_of(lengths[i]));
        for (size_t at = 0; at < sizeof(good); at++) {
            memcpy(&damaged, &good, sizeof(good));
            ((uint8_t *)&damaged)[at] ^= (uint8_t)(1 + at * 37 % 255);
            assert_true(slot_identify(&damaged, SLOT, slot_bytes, &found));
            assert_int_equal(found.page, good.page);
            assert_int_equal(found.stamp, good.stamp);
            assert_int_equal(found.length_bytes, lengths[i]);
        }
    }
}

/* What would be whole but for the size of the slots it lies among was never there. */
static void test_a_guess_that_does_not_fit_the_slot_is_none(void **state)
{
    struct slot_header found, damaged = make(600);

    (void)state;
    damaged.sequence ^= 0x40;
    assert_true(slot_identify(&damaged, SLOT, 640, &found));
    for (uint32_t i = 0; i < SIZE_CLASSES; i++)
        assert_int_equal(slot_identify(&damaged, SLOT, size_class_bytes(i), &found),
                         size_class_bytes(i) == 640);
    assert_false(slot_identify(&damaged, SLOT + 1, 640, &found));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits_slots_of_its_own_size_only),
        cmocka_unit_test(test_a_lost_page_has_no_bytes_in_any_slot),
        cmocka_unit_test(test_sealed_nonsense_is_no_page),
        cmocka_unit_test(test_one_damaged_byte_is_found_out),
        cmocka_unit_test(test_a_guess_that_does_not_fit_the_slot_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
