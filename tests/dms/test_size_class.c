/* size_class: every length has the smallest slot that holds it, and little is lost. */
#include "test.h"

#include "../../dms/size_class.h"
#include "../../proto/wire.h"

static void test_every_length_has_the_smallest_slot(void **state)
{
    (void)state;
    for (uint32_t len = 0; len <= WIRE_PAGE_BYTES; len++) {
        uint32_t size_class = size_class_of(len);
        assert_true(size_class < SIZE_CLASSES);
        uint32_t room = size_class == 0 ? SIZE_CLASS_INLINE_BYTES : size_class_bytes(size_class);
        assert_true(len <= room);
        if (size_class == 1)
            assert_true(len > SIZE_CLASS_INLINE_BYTES);
        else if (size_class > 1)
            assert_true(len > size_class_bytes(size_class - 1));
    }
    assert_int_equal(size_class_bytes(size_class_of(WIRE_PAGE_BYTES)), WIRE_PAGE_BYTES);
    assert_int_equal(size_class_of(WIRE_PAGE_BYTES), SIZE_CLASSES - 1);
}

static void test_slots_make_whole_blocks(void **state)
{
    (void)state;
    assert_int_equal(size_class_bytes(0), 0);
    for (uint32_t size_class = 1; size_class < SIZE_CLASSES; size_class++) {
        assert_true(size_class_bytes(size_class) > size_class_bytes(size_class - 1));
        assert_int_equal(size_class_bytes(size_class) * 64 % 4096, 0);
    }
}

static void test_little_is_lost(void **state)
{
    (void)state;
    for (uint32_t len = SIZE_CLASS_INLINE_BYTES + 1; len <= WIRE_PAGE_BYTES; len++) {
        uint32_t lost = size_class_bytes(size_class_of(len)) - len;
        assert_true(lost < 64 || lost * 8 < len);
    }
}

static void test_classes_are_found_by_their_bytes(void **state)
{
    uint32_t found = 0;

    (void)state;
    for (uint32_t slot_bytes = 0; slot_bytes <= 2 * WIRE_PAGE_BYTES; slot_bytes++) {
        uint32_t size_class = size_class_find(slot_bytes);
        if (size_class == SIZE_CLASSES)
            continue;
        assert_int_equal(size_class, found);
        assert_int_equal(size_class_bytes(size_class), slot_bytes);
        found++;
    }
    assert_int_equal(found, SIZE_CLASSES);
}

static void test_no_page_is_free_of_charge(void **state)
{
    (void)state;
    assert_int_equal(size_class_charge(0), 64);
    for (uint32_t size_class = 1; size_class < SIZE_CLASSES; size_class++)
        assert_int_equal(size_class_charge(size_class), size_class_bytes(size_class));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length_has_the_smallest_slot),
        cmocka_unit_test(test_slots_make_whole_blocks),
        cmocka_unit_test(test_little_is_lost),
        cmocka_unit_test(test_classes_are_found_by_their_bytes),
        cmocka_unit_test(test_no_page_is_free_of_charge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
