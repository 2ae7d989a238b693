/* page_tree against arrays: shared trees change alone, and every entry is released exactly when
 * the last tree lets go of it. */
#include "test.h"

#include "../../dms/page_tree.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { NPAGES = 3000, NTREES = 6, MAX_ENTRIES = 400000 };

/* What holds each entry: leaves of trees, as the trees say. */
static uint32_t holders[MAX_ENTRIES];
static uint64_t last_entry;

static void retain(void *owner, uint64_t entry)
{
    (void)owner;
    assert_true(holders[entry] > 0);
    holders[entry]++;
}

static void release(void *owner, uint64_t entry)
{
    (void)owner;
    assert_true(holders[entry] > 0);
    holders[entry]--;
}

static const struct page_tree_ops ops = {retain, release};

/* Dense low pages, a dense stretch far up, and lone ones. */
static uint64_t number_page(uint32_t i)
{
    if (i < NPAGES / 3)
        return i;
    if (i < 2 * NPAGES / 3)
        return ((uint64_t)1 << 51) + i;
    return (uint64_t)i * 7919 * 104729;
}

static uint64_t new_entry(void)
{
    assert_true(last_entry + 1 < MAX_ENTRIES);
    holders[++last_entry] = 1;
    return last_entry;
}

static void test_set_get_clear(void **state)
{
    struct page_tree *tree;
    uint64_t page = 0;

    (void)state;
    assert_int_equal(page_tree_new(&tree, &ops, NULL), 0);
    assert_int_equal(page_tree_get(tree, 5), 0);
    assert_int_equal(page_tree_next(tree, 0, &page), 0);
    uint64_t high = ((uint64_t)1 << 52) - 1;
    uint64_t low_entry = new_entry(), high_entry = new_entry(), newer = new_entry();
    assert_int_equal(page_tree_set(tree, 0, low_entry), 0);
    assert_int_equal(page_tree_set(tree, high, high_entry), 0);
    assert_int_equal(page_tree_get(tree, 0), low_entry);
    assert_int_equal(page_tree_get(tree, high), high_entry);
    assert_int_equal(page_tree_get(tree, high - 1), 0);
    assert_int_equal(page_tree_count(tree), 2);
    assert_int_equal(page_tree_next(tree, 1, &page), high_entry);
    assert_true(page == high);
    assert_int_equal(page_tree_set(tree, 0, newer), 0);
    assert_int_equal(holders[low_entry], 0);
    assert_int_equal(page_tree_count(tree), 2);
    assert_int_equal(page_tree_clear(tree, 77), 0);
    assert_int_equal(page_tree_clear(tree, 0), 0);
    assert_int_equal(page_tree_clear(tree, high), 0);
    assert_int_equal(page_tree_count(tree), 0);
    assert_int_equal(holders[newer] + holders[high_entry], 0);
    page_tree_destroy(&tree);
    assert_null(tree);
}

static void test_prepare_alone_changes_nothing(void **state)
{
    struct page_tree *tree;
    uint64_t page;

    (void)state;
    assert_int_equal(page_tree_new(&tree, &ops, NULL), 0);
    assert_int_equal(page_tree_prepare(tree, 1000000), 0);
    assert_int_equal(page_tree_get(tree, 1000000), 0);
    assert_int_equal(page_tree_count(tree), 0);
    assert_int_equal(page_tree_next(tree, 0, &page), 0);
    page_tree_destroy(&tree);
}

/* Shrinks in small steps; the other trees must not feel it. */
static void drop_tree(struct page_tree **tree)
{
    while (!page_tree_shrink(*tree, 7))
        ;
    page_tree_destroy(tree);
}

static void check_tree(const struct page_tree *tree, const uint64_t *model)
{
    uint64_t count = 0;
    uint64_t page = 0;

    for (uint32_t i = 0; i < NPAGES; i++) {
        assert_int_equal(page_tree_get(tree, number_page(i)), model[i]);
        count += model[i] != 0;
    }
    assert_int_equal(page_tree_count(tree), count);
    for (uint64_t from = 0; page_tree_next(tree, from, &page) != 0; from = page + 1)
        count--;
    assert_int_equal(count, 0);
}

static void test_random_against_model(void **state)
{
    static uint64_t model[NTREES][NPAGES];
    struct page_tree *trees[NTREES] = {NULL};
    uint64_t seed = 42;

    (void)state;
    assert_int_equal(page_tree_new(&trees[0], &ops, NULL), 0);
    for (uint32_t step = 0; step < 300000; step++) {
        uint32_t t = (uint32_t)(test_random(&seed) % NTREES);
        uint32_t i = (uint32_t)(test_random(&seed) % NPAGES);
        uint32_t what = (uint32_t)(test_random(&seed) % 1000);
        if (trees[t] == NULL) {
            uint32_t from = (uint32_t)(test_random(&seed) % NTREES);
            if (trees[from] == NULL)
                continue;
            assert_int_equal(page_tree_clone(&trees[t], trees[from]), 0);
            memcpy(model[t], model[from], sizeof(model[t]));
        } else if (what < 600) {
            model[t][i] = new_entry();
            assert_int_equal(page_tree_set(trees[t], number_page(i), model[t][i]), 0);
        } else if (what < 990) {
            assert_int_equal(page_tree_clear(trees[t], number_page(i)), 0);
            model[t][i] = 0;
        } else if (what < 992 && t != 0) {
            drop_tree(&trees[t]);
        }
        if (step % 20000 == 0)
            check_tree(trees[0], model[0]);
    }
    for (uint32_t t = 0; t < NTREES; t++) {
        if (trees[t] != NULL)
            check_tree(trees[t], model[t]);
    }
    for (uint32_t t = 0; t < NTREES; t++) {
        if (trees[t] != NULL)
            drop_tree(&trees[t]);
    }
    for (uint64_t entry = 1; entry <= last_entry; entry++)
        assert_int_equal(holders[entry], 0);
}

static void test_clone_is_kept_apart(void **state)
{
    struct page_tree *tree, *clone;

    (void)state;
    assert_int_equal(page_tree_new(&tree, &ops, NULL), 0);
    uint64_t old = new_entry(), newer = new_entry();
    assert_int_equal(page_tree_set(tree, 600, old), 0);
    assert_int_equal(page_tree_clone(&clone, tree), 0);
    assert_int_equal(holders[old], 1);
    assert_int_equal(page_tree_set(tree, 600, newer), 0);
    assert_int_equal(page_tree_get(clone, 600), old);
    assert_int_equal(page_tree_get(tree, 600), newer);
    assert_int_equal(holders[old], 1);
    page_tree_destroy(&tree);
    assert_int_equal(holders[newer], 0);
    assert_int_equal(page_tree_get(clone, 600), old);
    page_tree_destroy(&clone);
    assert_int_equal(holders[old], 0);
}

/* An entry becomes another in all trees that share the leaf, and in no other. */
static void test_replace(void **state)
{
    struct page_tree *tree, *shares, *has_own;
    uint64_t old = new_entry(), other = new_entry(), entry = new_entry();

    (void)state;
    assert_int_equal(page_tree_new(&tree, &ops, NULL), 0);
    assert_false(page_tree_replace(tree, 5, old, entry));
    assert_int_equal(page_tree_set(tree, 5, old), 0);
    assert_int_equal(page_tree_clone(&shares, tree), 0);
    assert_int_equal(page_tree_clone(&has_own, tree), 0);
    assert_int_equal(page_tree_set(has_own, 6, other), 0);
    assert_int_equal(holders[old], 2);
    assert_false(page_tree_replace(tree, 6, old, entry));
    assert_false(page_tree_replace(tree, 5 + ((uint64_t)1 << 30), old, entry));
    assert_true(page_tree_replace(tree, 5, old, entry));
    assert_int_equal(page_tree_get(shares, 5), entry);
    assert_false(page_tree_replace(shares, 5, old, entry));
    assert_int_equal(page_tree_get(has_own, 5), old);
    assert_int_equal(page_tree_get(has_own, 6), other);
    assert_true(page_tree_replace(has_own, 5, old, entry));
    assert_int_equal(page_tree_count(tree) + page_tree_count(shares), 2);
    /* It is for the caller to count. */
    assert_int_equal(holders[old], 2);
    holders[old] = 0;
    holders[entry] = 2;
    page_tree_destroy(&tree);
    page_tree_destroy(&shares);
    page_tree_destroy(&has_own);
    assert_int_equal(holders[entry] + holders[other], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_get_clear),
        cmocka_unit_test(test_prepare_alone_changes_nothing),
        cmocka_unit_test(test_clone_is_kept_apart),
        cmocka_unit_test(test_random_against_model),
        cmocka_unit_test(test_replace),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
