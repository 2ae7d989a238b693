/* A store against a model: a seeded random sequence of all operations, the store closed and opened
 * again in between. Arguments: number of steps, seed (0: by the time), steps between two openings.
 */
#include "store_model.h"
#include "temp_dir.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint32_t steps = 100000, between_reopens = 1997;
static uint64_t seed = 20240607;
static struct temp_dir dir;

static struct store *open_store(void)
{
    struct store_options options = {.dir = dir.path,
                                    .capacity_bytes = 64 << 20,
                                    .scan_threads = 2,
                                    .moves = STORE_MOVES_EAGERLY};
    struct store_report report;
    struct store *store;

    assert_int_equal(store_open(&store, &options, &report), 0);
    assert_int_equal(report.damaged_headers + report.damaged_pages + report.damaged_records +
                         report.damaged_files + report.recovered,
                     0);
    return store;
}

/* With every region gone there is nothing left. */
static void check_empty(struct model *model, struct store *store)
{
    struct wire_shard_info info;

    for (uint32_t i = 0; i < MODEL_REGIONS; i++) {
        const struct model_region *region = &model->regions[i];
        if (region->used)
            assert_int_equal(store_remove(store, region->id, region->epoch), 0);
    }
    while (store_work(store))
        ;
    store_stat(store, &info);
    assert_int_equal(info.npages, 0);
    assert_int_equal(info.used_bytes, 0);
    assert_int_equal(info.nregions, 0);
    store_close(&store);
    store = open_store();
    store_stat(store, &info);
    assert_int_equal(info.npages, 0);
    store_close(&store);
}

static void test_model(void **state)
{
    static struct model model;
    uint64_t nmoved = 0;

    (void)state;
    model.random = seed;
    struct store *store = open_store();
    for (uint32_t step = 1; step <= steps; step++) {
        model_step(&model, store);
        if (step % between_reopens != 0)
            continue;
        nmoved += store_moved(store);
        model_compare(&model, store);
        store_close(&store);
        store = open_store();
        model_compare(&model, store);
    }
    check_empty(&model, store);
    printf("%llu pages were moved\n", (unsigned long long)nmoved);
    assert_true(nmoved >= steps / 100);
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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
    };

    if (argc > 1)
        steps = (uint32_t)strtoul(argv[1], NULL, 0);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 0);
    if (argc > 3)
        between_reopens = (uint32_t)strtoul(argv[3], NULL, 0);
    if (seed == 0)
        seed = (uint64_t)time(NULL);
    printf("%u steps, seed %llu\n", steps, (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
