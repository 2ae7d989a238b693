/* put_gather: which PAGE_PUTs are stored together, and that each is what it was. */
#include "test.h"

#include "../../dms/put_gather.h"

#include <string.h>

static struct put_gather gather;
static struct wire_request request;

/* Adds a PUT of NPAGES pages from FIRST on, of LEN bytes each, all of them the number of the first.
 */
static bool add(uint64_t region, uint64_t first, uint32_t npages, uint32_t len)
{
    static char body[WIRE_MAX_BODY_BYTES];

    request = (struct wire_request){.method = WIRE_PAGE_PUT,
                                    .id = 1000 + first,
                                    .region = region,
                                    .epoch = 3,
                                    .npages = npages};
    memset(body, (int)first, (size_t)npages * len);
    for (uint32_t i = 0; i < npages; i++)
        request.pages[i] = (struct wire_page){
            .page = first + i, .sequence = 5, .checksum = first * 7, .length_bytes = len};
    return put_gather_add(&gather, &request, body, first << 40);
}

static void check(uint32_t i, uint64_t region, uint64_t first, uint32_t npages, uint32_t len)
{
    static struct wire_request got;
    const char *bytes = put_gather_request(&gather, i, &got);

    assert_int_equal(got.method, WIRE_PAGE_PUT);
    assert_int_equal(got.id, 1000 + first);
    assert_int_equal(got.region, region);
    assert_int_equal(got.epoch, 3);
    assert_int_equal(got.npages, npages);
    assert_int_equal(gather.puts[i].peer, first << 40);
    for (uint32_t j = 0; j < npages; j++) {
        assert_int_equal(got.pages[j].page, first + j);
        assert_int_equal(got.pages[j].checksum, first * 7);
        assert_int_equal(got.pages[j].length_bytes, len);
    }
    for (uint32_t j = 0; j < npages * len; j++)
        assert_int_equal(bytes[j], first);
}

static int teardown(void **state)
{
    (void)state;
    put_gather_clear(&gather);
    assert_int_equal(gather.nputs, 0);
    return 0;
}

static void test_each_is_what_it_was(void **state)
{
    (void)state;
    assert_true(add(9, 10, 1, WIRE_PAGE_BYTES));
    assert_true(add(9, 20, 3, 8));
    assert_true(add(9, 30, PUT_GATHER_MAX_PAGES, 600));
    assert_int_equal(gather.npages, 4 + PUT_GATHER_MAX_PAGES);
    check(0, 9, 10, 1, WIRE_PAGE_BYTES);
    check(1, 9, 20, 3, 8);
    check(2, 9, 30, PUT_GATHER_MAX_PAGES, 600);
    put_gather_clear(&gather);
    assert_true(add(8, 40, 2, 100));
    check(0, 8, 40, 2, 100);
}

static void test_what_does_not_go_together(void **state)
{
    (void)state;
    assert_false(add(9, 1, PUT_GATHER_MAX_PAGES + 1, 8));
    assert_true(add(9, 10, 2, 8));
    assert_false(add(8, 20, 1, 8)); /* another region */
    assert_false(add(9, 11, 1, 8)); /* a page twice */
    assert_false(add(9, 9, 3, 8));
    assert_true(add(9, 12, 1, 8));
    request.epoch = 4;
    request.pages[0].page = 50;
    assert_false(put_gather_add(&gather, &request, "", 1));
    assert_int_equal(gather.nputs, 2);
}

static void test_no_more_than_a_message(void **state)
{
    uint64_t page = 0;

    (void)state;
    while (gather.npages + 3 <= WIRE_MAX_PAGES) {
        assert_true(add(9, page, 3, WIRE_PAGE_BYTES));
        page += 3;
    }
    assert_false(add(9, page, 3, WIRE_PAGE_BYTES));
    assert_int_equal(gather.nbytes, gather.npages * WIRE_PAGE_BYTES);
    assert_true(add(9, page, WIRE_MAX_PAGES - gather.npages, WIRE_PAGE_BYTES));
    assert_int_equal(gather.npages, WIRE_MAX_PAGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_each_is_what_it_was, teardown),
        cmocka_unit_test_teardown(test_what_does_not_go_together, teardown),
        cmocka_unit_test_teardown(test_no_more_than_a_message, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
