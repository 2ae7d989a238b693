/* area_map under a random storm of what a program does to its mappings, against an array. */
#include "../../client/area_map.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

enum { PAGES = 512, STEPS = 20000, MOST = 64 };

static uint64_t random_state = 1234567891011ull;

static uint64_t draw(uint64_t below)
{
    return test_random(&random_state) % below;
}

struct model {
    bool there[PAGES];
    uint64_t key[PAGES];
};

static bool is_free(const struct model *model, uint64_t start, uint64_t npages)
{
    for (uint64_t i = 0; i < npages; i++)
        if (model->there[start + i])
            return false;
    return true;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void compare(const struct area_map *map, const struct model *model)
{
    uint64_t keys[PAGES];
    size_t nkeys = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        const struct area *area = area_map_find(map, page);
        assert_int_equal(area != NULL, model->there[page]);
        if (area) {
            assert_int_equal(area_key(area, page), model->key[page]);
            keys[nkeys++] = model->key[page];
        }
    }
    /* No two pages may ever share a key: one would be given the other's bytes. */
    qsort(keys, nkeys, sizeof *keys, by_value);
    for (size_t i = 1; i < nkeys; i++)
        assert_true(keys[i - 1] < keys[i]);
}

static void test_storm(void **state)
{
    (void)state;
    static struct model model;
    struct area_map *map;
    assert_int_equal(area_map_new(&map), 0);
    for (int step = 0; step < STEPS; step++) {
        uint64_t npages = 1 + draw(MOST);
        uint64_t start = draw(PAGES - npages);
        uint64_t to = draw(PAGES - npages);
        switch (draw(3)) {
        case 0:
            if (!is_free(&model, start, npages))
                break;
            assert_int_equal(area_map_add(map, start, start + npages), 0);
            for (uint64_t i = 0; i < npages; i++) {
                model.there[start + i] = true;
                model.key[start + i] = area_key(area_map_find(map, start + i), start + i);
            }
            break;
        case 1:
            assert_int_equal(area_map_remove(map, start, start + npages), 0);
            for (uint64_t i = 0; i < npages; i++)
                model.there[start + i] = false;
            break;
        default:
            if (!is_free(&model, to, npages) || (to < start + npages && start < to + npages))
                break;
            assert_int_equal(area_map_move(map, start, to, npages), 0);
            for (uint64_t i = 0; i < npages; i++) {
                model.there[to + i] = model.there[start + i];
                model.key[to + i] = model.key[start + i];
                model.there[start + i] = false;
            }
            break;
        }
        compare(map, &model);
    }
    area_map_destroy(&map);
}

static struct area_map *draw_map(struct model *model)
{
    struct area_map *map;
    assert_int_equal(area_map_new(&map), 0);
    memset(model, 0, sizeof *model);
    for (int i = 0; i < 20; i++) {
        uint64_t npages = 1 + draw(MOST);
        uint64_t start = draw(PAGES - npages);
        if (!is_free(model, start, npages))
            continue;
        assert_int_equal(area_map_add(map, start, start + npages), 0);
        memset(model->there + start, true, npages);
    }
    return map;
}

static void test_differing(void **state)
{
    (void)state;
    for (int step = 0; step < 500; step++) {
        struct model one_model, other_model;
        struct area_map *one = draw_map(&one_model), *other = draw_map(&other_model);
        uint64_t start = draw(PAGES);
        uint64_t end = start + draw(PAGES - start + 1);
        uint64_t count = 0;
        for (uint64_t page = start; page < end; page++)
            count += one_model.there[page] != other_model.there[page];
        assert_int_equal(area_map_differing(one, other, start, end), count);
        assert_int_equal(area_map_differing(one, one, start, end), 0);
        area_map_destroy(&one);
        area_map_destroy(&other);
    }
}

static void test_keys_are_page_numbers(void **state)
{
    (void)state;
    struct area_map *map;
    assert_int_equal(area_map_new(&map), 0);
    assert_int_equal(area_map_add(map, 1000, 2000), 0);
    assert_int_equal(area_key(area_map_find(map, 1500), 1500), 1500);
    /* Moved away, the keys go with it; what comes to the old place gets others. */
    assert_int_equal(area_map_move(map, 1000, 50000, 1000), 0);
    assert_int_equal(area_key(area_map_find(map, 50500), 50500), 1500);
    assert_int_equal(area_map_add(map, 1000, 2000), 0);
    assert_true(area_key(area_map_find(map, 1500), 1500) >= (uint64_t)1 << 45);
    area_map_destroy(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_differing),
        cmocka_unit_test(test_keys_are_page_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
