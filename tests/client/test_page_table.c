/* page_table against a simple array, and its legal transitions. */
#include "../../client/page_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

enum { PAGES = 4096, STEPS = 400000 };

static uint64_t random_state = 88172645463325252ull;

static uint64_t draw(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 11;
}

/* Far apart, so that all levels of the table are used. */
static uint64_t page_of(uint32_t i)
{
    return (uint64_t)(i / 1024) * 0x3ffffffffull + i % 1024 * 3;
}

static void test_model(void **state)
{
    (void)state;
    static enum page_state model[PAGES];
    static bool stored[PAGES];
    static struct page_hash hashes[PAGES];
    struct page_table *table;
    assert_int_equal(page_table_new(&table), 0);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t i = (uint32_t)(draw() % PAGES);
        uint64_t page = page_of(i);
        enum page_state to = (enum page_state)(draw() % PAGE_NSTATES);
        if (page_table_may(model[i], to)) {
            page_table_set(table, page, to);
            model[i] = to;
        }
        if (draw() % 4 == 0) {
            stored[i] = draw() % 2;
            hashes[i] = (struct page_hash){draw(), draw()};
            if (stored[i])
                page_table_set_stored(table, page, hashes[i]);
            else
                page_table_clear_stored(table, page);
        }
        struct page_hash hash;
        assert_int_equal(page_table_state(table, page), model[i]);
        assert_int_equal(page_table_stored(table, page, &hash), stored[i]);
        if (stored[i])
            assert_true(page_hash_equal(hash, hashes[i]));
    }
    uint64_t counts[PAGE_NSTATES] = {0};
    for (uint32_t i = 0; i < PAGES; i++) {
        assert_int_equal(page_table_state(table, page_of(i)), model[i]);
        counts[model[i]]++;
    }
    for (int s = PAGE_RESIDENT; s < PAGE_NSTATES; s++)
        assert_int_equal(page_table_count(table, (enum page_state)s), counts[s]);
    /* Walking finds exactly the pages that are not NATIVE. */
    uint64_t found = 0;
    uint64_t end = (uint64_t)1 << 45;
    for (uint64_t page = page_table_next(table, 0, end); page < end;
         page = page_table_next(table, page + 1, end))
        found++;
    assert_int_equal(found, PAGES - counts[PAGE_NATIVE]);
    page_table_destroy(&table);
    assert_null(table);
}

static void test_transitions(void **state)
{
    (void)state;
    /* What must never happen. */
    assert_false(
        page_table_may(PAGE_RESIDENT, PAGE_REMOTE)); /* only an acknowledged page is remote */
    assert_false(page_table_may(PAGE_RESIDENT, PAGE_STAGED));
    assert_false(page_table_may(PAGE_MOVING, PAGE_REMOTE));
    assert_false(page_table_may(PAGE_REMOTE, PAGE_RESIDENT)); /* only what was fetched comes in */
    assert_false(page_table_may(PAGE_NATIVE, PAGE_REMOTE));
    assert_false(page_table_may(PAGE_ZERO, PAGE_FETCHING));
    for (int s = PAGE_RESIDENT; s < PAGE_NSTATES; s++)
        assert_true(page_table_may((enum page_state)s, PAGE_NATIVE));
}

static void test_rename(void **state)
{
    (void)state;
    struct page_table *table;
    assert_int_equal(page_table_new(&table), 0);
    struct page_hash hash = {1, 2}, got;
    page_table_set(table, 100, PAGE_RESIDENT);
    page_table_set(table, 100, PAGE_MOVING);
    page_table_set(table, 100, PAGE_STAGED);
    page_table_set(table, 100, PAGE_REMOTE);
    page_table_set_stored(table, 100, hash);
    uint8_t before = page_table_generation(table, 100);
    page_table_rename(table, 100, 9000000);
    assert_int_equal(page_table_state(table, 100), PAGE_NATIVE);
    assert_false(page_table_stored(table, 100, &got));
    assert_int_not_equal(page_table_generation(table, 100), before);
    assert_int_equal(page_table_state(table, 9000000), PAGE_REMOTE);
    assert_true(page_table_stored(table, 9000000, &got));
    assert_true(page_hash_equal(got, hash));
    assert_int_equal(page_table_count(table, PAGE_REMOTE), 1);
    page_table_destroy(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_transitions),
        cmocka_unit_test(test_rename),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
