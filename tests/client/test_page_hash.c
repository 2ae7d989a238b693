/* page_hash: the hash is XXH3-128, and sees every bit. */
#include "../../client/page_hash.h"
#include "test.h"

#include <string.h>

static void test_known(void **state)
{
    (void)state;
    static unsigned char page[PAGE_BYTES];
    /* Computed with python3-xxhash. */
    assert_true(page_hash_equal(page_hash_of(page),
                                (struct page_hash){0x93d76fe148c689ba, 0x3ee8dc4f9e7ee495}));
    for (int i = 0; i < PAGE_BYTES; i++)
        page[i] = (unsigned char)(i % 251);
    assert_true(page_hash_equal(page_hash_of(page),
                                (struct page_hash){0x7135ffa504f1bc71, 0xe12cd72144990fe5}));
}

static void test_every_bit_counts(void **state)
{
    (void)state;
    static unsigned char page[PAGE_BYTES];
    memset(page, 0, sizeof page);
    struct page_hash zero = page_hash_of(page);
    struct page_hash before = zero;
    assert_true(page_is_zero(page));
    for (int bit = 0; bit < PAGE_BYTES * 8; bit++) {
        page[bit / 8] = (unsigned char)(1 << bit % 8);
        struct page_hash hash = page_hash_of(page);
        assert_false(page_is_zero(page));
        assert_false(page_hash_equal(hash, zero));
        assert_false(page_hash_equal(hash, before));
        before = hash;
        page[bit / 8] = 0;
    }
    assert_true(page_hash_equal(page_hash_of(page), zero));
    assert_true(page_is_zero(page));
    memset(page, 0xff, sizeof page);
    assert_false(page_is_zero(page));
}

static void test_half_of_a_hash_is_not_enough(void **state)
{
    (void)state;
    struct page_hash hash = {1, 2};
    assert_true(page_hash_equal(hash, (struct page_hash){1, 2}));
    assert_false(page_hash_equal(hash, (struct page_hash){1, 3}));
    assert_false(page_hash_equal(hash, (struct page_hash){3, 2}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_half_of_a_hash_is_not_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
