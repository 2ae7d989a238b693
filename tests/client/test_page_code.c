/* page_code: what is encoded decodes to itself, and what is no page of its encoding is refused. */
#include "../../client/page_code.h"
#include "../../proto/wire.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

static void noise(unsigned char *page, uint64_t *seed)
{
    for (int i = 0; i < PAGE_BYTES; i++)
        page[i] = (unsigned char)(test_random(seed) >> 56);
}

static void test_filled(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES], decoded[PAGE_BYTES];
    uint64_t seed = 5;
    for (int round = 0; round < 100; round++) {
        noise(page, &seed);
        assert_false(page_is_filled(page));
        for (int at = PAGE_FILL_BYTES; at < PAGE_BYTES; at++)
            page[at] = page[at - PAGE_FILL_BYTES];
        assert_true(page_is_filled(page));
        assert_true(page_decode(WIRE_FILL, page, PAGE_FILL_BYTES, decoded));
        assert_memory_equal(decoded, page, PAGE_BYTES);
    }
    /* Every byte counts. */
    for (int at = 0; at < PAGE_BYTES; at++) {
        page[at] ^= 1;
        assert_false(page_is_filled(page));
        page[at] ^= 1;
    }
    assert_false(page_decode(WIRE_FILL, page, PAGE_FILL_BYTES - 1, decoded));
    assert_false(page_decode(WIRE_FILL, page, PAGE_BYTES, decoded));
}

/* From pages that get very short to such that do not. */
static void test_blocks(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES], decoded[PAGE_BYTES];
    unsigned char *block = malloc(PAGE_CODE_MOST_BYTES); /* of just this size: for the sanitizer */
    uint64_t seed = 6;
    uint32_t longest = 0, whole = 0;
    assert_non_null(block);
    for (int round = 0; round < 2000; round++) {
        noise(page, &seed);
        size_t kept = test_random(&seed) % (PAGE_BYTES + 1);
        memset(page + kept, round, PAGE_BYTES - kept);
        uint32_t len = page_compress(page, block);
        assert_in_range(len, 0, PAGE_CODE_MOST_BYTES);
        whole += len == 0;
        if (len == 0)
            continue;
        longest = len > longest ? len : longest;
        assert_true(page_decode(WIRE_LZ4, block, len, decoded));
        assert_memory_equal(decoded, page, PAGE_BYTES);
    }
    assert_in_range(whole, 100, 700);
    assert_in_range(longest, PAGE_CODE_MOST_BYTES - 100, PAGE_CODE_MOST_BYTES);
    noise(page, &seed);
    assert_int_equal(page_compress(page, block), 0);
    free(block);
}

static void test_whole(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES], decoded[PAGE_BYTES];
    uint64_t seed = 7;
    noise(page, &seed);
    assert_true(page_decode(WIRE_RAW, page, PAGE_BYTES, decoded));
    assert_memory_equal(decoded, page, PAGE_BYTES);
    assert_false(page_decode(WIRE_RAW, page, PAGE_BYTES - 1, decoded));
    assert_false(page_decode(WIRE_ABSENT, page, 0, decoded));
    assert_false(page_decode(77, page, PAGE_BYTES, decoded));
}

/* Blocks that are cut short, longer than a page, or nonsense: nothing is written beyond the page.
 */
static void test_bad_blocks(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES], block[PAGE_CODE_MOST_BYTES];
    unsigned char *decoded = malloc(PAGE_BYTES);
    uint64_t seed = 8;
    assert_non_null(decoded);
    noise(page, &seed);
    memset(page + 200, 'x', PAGE_BYTES - 200);
    uint32_t len = page_compress(page, block);
    assert_in_range(len, 200, 300);
    for (uint32_t cut = 0; cut < len; cut++)
        assert_false(page_decode(WIRE_LZ4, block, cut, decoded));
    /* Twice the page. */
    memcpy(block + len, block, len);
    assert_false(page_decode(WIRE_LZ4, block, 2 * len, decoded));
    assert_false(page_decode(WIRE_LZ4, page, (size_t)1 << 32, decoded));
    for (int round = 0; round < 20000; round++) {
        noise(page, &seed);
        (void)page_decode(WIRE_LZ4, page, 1 + test_random(&seed) % (PAGE_BYTES - 1), decoded);
    }
    free(decoded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filled),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_bad_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
