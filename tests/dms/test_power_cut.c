/* Power cuts, kills and syncs that fail at random operations of a store, many times over on the
 * same files; what is found afterwards is compared with what may be there. Arguments: cuts for each
 * setting, seed. The environment's EDM_POWER_CUTS is the first, too. */
#include "cut_disk.h"
#include "durable_model.h"
#include "temp_dir.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CUTS = 400,
    CAPACITY = 2 << 20,
    MOST_OPERATIONS = 120, /* of the disk, between two cuts */
    MOST_STATES = DURABLE_STATES - 8,
};

static unsigned ncuts = CUTS;
static uint64_t seed = 20261123;

/* One store that lives through all cuts. */
struct run {
    struct temp_dir dir;
    struct cut_disk cut;
    struct durable_model model;
    struct store *store;
    enum store_durability durability;
    unsigned nreopened, nopen_cuts, nfailed;
};

static uint32_t below(struct run *run, uint32_t bound)
{
    return (uint32_t)(test_random(&run->model.random) % bound);
}

/* The power is gone, or a sync has failed: nothing more can be done. */
static bool is_over(const struct run *run)
{
    return run->cut.dead || store_failure(run->store) != 0;
}

static int open_store(struct run *run)
{
    struct store_options options = {
        .disk = &run->cut.disk,
        .dir = run->dir.path,
        .capacity_bytes = CAPACITY,
        .durability = run->durability,
        .scan_threads = 1,
    };
    struct store_report report;
    int err = store_open(&run->store, &options, &report);

    if (err == 0) {
        assert_int_equal(report.damaged_headers, 0);
        assert_int_equal(report.damaged_pages, 0);
        assert_int_equal(report.damaged_records, 0);
        assert_int_equal(report.damaged_files, 0);
        assert_int_equal(report.recovered, 0);
    }
    return err;
}

/* The states before number FIRST are not what a cut may lead back to any more. */
static void commit(struct run *run)
{
    if (store_commit(run->store, below(run, 3) == 0) == 0)
        durable_model_make_sure(&run->model, run->model.nstates - 1);
}

/* Operations, and after some of them a commit. */
static void work_always(struct run *run)
{
    uint32_t group = 1 + below(run, 6);

    for (uint32_t i = 0; i < group && !is_over(run); i++) {
        int err = durable_model_step(&run->model, run->store);
        if (err != 0 && !is_over(run))
            fail_msg("an operation returned %s", strerror(-err));
    }
    if (is_over(run))
        return;
    commit(run);
    for (uint32_t i = below(run, 3); i > 0 && !is_over(run); i--)
        store_work(run->store);
}

/* A round of syncing while operations go on. */
static void work_interval(struct run *run)
{
    struct sync_job *job;

    for (uint32_t i = below(run, 12); i > 0 && !is_over(run); i--)
        assert_true(durable_model_step(&run->model, run->store) == 0 || is_over(run));
    if (is_over(run) || store_begin_sync(run->store, true, &job) != 0)
        return;
    uint32_t begun = run->model.nstates - 1;
    for (uint32_t i = below(run, 6); i > 0 && !is_over(run); i--)
        assert_true(durable_model_step(&run->model, run->store) == 0 || is_over(run));
    int err = sync_job_run(job);
    for (uint32_t i = below(run, 6); i > 0 && !is_over(run); i--)
        assert_true(durable_model_step(&run->model, run->store) == 0 || is_over(run));
    if (store_end_sync(run->store, err) == 0)
        durable_model_make_sure(&run->model, begun);
    if (!is_over(run))
        store_work(run->store);
}

static void work_until_cut(struct run *run)
{
    run->cut.fail_sync = below(run, 6) == 0;
    if (!run->cut.fail_sync)
        run->cut.cut_at = run->cut.operations + 1 + below(run, MOST_OPERATIONS);
    run->cut.is_kill = below(run, 4) == 0;
    while (!is_over(run) && run->model.nstates < MOST_STATES) {
        if (run->durability == STORE_ALWAYS)
            work_always(run);
        else
            work_interval(run);
    }
    /* Who could not sync is started again, by and by, and finds what is still in memory. */
    if (store_failure(run->store) != 0 && !run->cut.dead) {
        run->cut.is_kill = true;
        run->nfailed++;
    }
    cut_disk_cut(&run->cut);
}

/* Opens the store again; now and then the power goes while it is being read back. */
static void restart(struct run *run)
{
    for (;;) {
        cut_disk_restart(&run->cut);
        if (below(run, 4) == 0)
            run->cut.cut_at = 1 + below(run, 20);
        int err = open_store(run);
        if (err == 0 && !run->cut.dead)
            break;
        assert_true(run->cut.dead);
        run->nopen_cuts++;
        store_close(&run->store);
    }
    run->cut.cut_at = 0;
    run->nreopened++;
}

static void run_cuts(enum store_durability durability)
{
    static struct run run;

    run = (struct run){.durability = durability};
    run.model.random = seed;
    run.model.nstates = 1;
    run.model.claims_are_sure = durability == STORE_INTERVAL;
    temp_dir_make(&run.dir);
    cut_disk_begin(&run.cut, run.dir.path, seed);
    assert_int_equal(open_store(&run), 0);
    for (unsigned i = 0; i < ncuts; i++) {
        work_until_cut(&run);
        bool exact = run.cut.is_kill;
        store_close(&run.store);
        unsigned before = run.nopen_cuts;
        restart(&run);
        durable_model_check(&run.model, run.store, exact && run.nopen_cuts == before);
    }
    printf("%u restarts, %u of them after a failed sync, %u cuts while opening\n", run.nreopened,
           run.nfailed, run.nopen_cuts);
    assert_true(ncuts < CUTS || (run.nfailed > 0 && run.nopen_cuts > 0));
    store_close(&run.store);
    cut_disk_end(&run.cut);
    temp_dir_remove(&run.dir);
}

static void test_always(void **state)
{
    (void)state;
    run_cuts(STORE_ALWAYS);
}

static void test_interval(void **state)
{
    (void)state;
    run_cuts(STORE_INTERVAL);
}

static int put_page(struct store *store, const struct region *region)
{
    static const char body[WIRE_PAGE_BYTES];
    struct wire_page page = {.page = 5, .sequence = 1, .length_bytes = sizeof(body)};
    uint64_t bad;

    page.checksum = wire_checksum(page.page, body, sizeof(body));
    return store_put(store, region->id, region->epoch, &page, 1, body, &bad);
}

static bool has_page(struct store *store, const struct region *region)
{
    struct wire_page page = {.page = 5};
    struct store_found found;
    uint64_t bad;

    assert_int_equal(store_locate(store, region->id, region->epoch, &page, 1, &found, &bad), 0);
    return page.encoding != WIRE_ABSENT;
}

/* A branch is removed and a page it shared is dropped, and the power goes before either is synced.
 * The removal may be lost and the drop not. Returns whether that was so. */
static bool lose_a_removal(uint64_t cut_seed)
{
    static struct run run;
    const struct region *region, *branch;
    struct wire_range all = {0, 10};

    run = (struct run){.durability = STORE_INTERVAL};
    temp_dir_make(&run.dir);
    cut_disk_begin(&run.cut, run.dir.path, cut_seed);
    assert_int_equal(open_store(&run), 0);
    assert_int_equal(store_claim(run.store, "a", 1, 1, &region), 0);
    assert_int_equal(put_page(run.store, region), 0);
    assert_int_equal(store_branch(run.store, region->id, 1, "b", true, &branch), 0);
    assert_int_equal(store_commit(run.store, true), 0);
    assert_int_equal(store_remove(run.store, branch->id, 1), 0);
    while (store_work(run.store))
        ;
    assert_int_equal(store_drop(run.store, region->id, 1, 1, &all, 1), 0);
    cut_disk_cut(&run.cut);
    store_close(&run.store);
    cut_disk_restart(&run.cut);
    assert_int_equal(open_store(&run), 0);
    region = store_after(run.store, "");
    branch = store_after(run.store, "a");
    bool back = branch != NULL && !has_page(run.store, region);
    assert_true(branch == NULL || has_page(run.store, branch));
    store_close(&run.store);
    cut_disk_end(&run.cut);
    temp_dir_remove(&run.dir);
    return back;
}

static void test_removed_branch(void **state)
{
    enum { TRIES = 100 };
    unsigned nback = 0;

    (void)state;
    for (uint64_t i = 0; i < TRIES; i++)
        nback += lose_a_removal(seed + i);
    printf("%u of %d removals were lost and the drop after them was not\n", nback, TRIES);
    assert_true(nback > 0);
}

/* What waits for rounds of syncing waits for a few of them, and then there is nothing to sync. */
static void test_comes_to_rest(void **state)
{
    enum { MOST_ROUNDS = 5 };
    static struct run run;
    const struct region *region, *branch;
    struct wire_range all = {0, 10};
    unsigned nrounds = 0;

    (void)state;
    run = (struct run){.durability = STORE_INTERVAL};
    temp_dir_make(&run.dir);
    cut_disk_begin(&run.cut, run.dir.path, seed);
    assert_int_equal(open_store(&run), 0);
    assert_int_equal(store_claim(run.store, "a", 1, 1, &region), 0);
    assert_int_equal(put_page(run.store, region), 0);
    assert_int_equal(store_branch(run.store, region->id, 1, "b", true, &branch), 0);
    assert_int_equal(store_remove(run.store, branch->id, 1), 0);
    assert_int_equal(store_drop(run.store, region->id, 1, 1, &all, 1), 0);
    for (; store_unsettled(run.store) && nrounds <= MOST_ROUNDS; nrounds++) {
        while (store_work(run.store))
            ;
        assert_int_equal(store_commit(run.store, true), 0);
    }
    assert_in_range(nrounds, 1, MOST_ROUNDS);
    assert_false(store_changed(run.store));
    store_close(&run.store);
    cut_disk_end(&run.cut);
    temp_dir_remove(&run.dir);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_always),
        cmocka_unit_test(test_interval),
        cmocka_unit_test(test_removed_branch),
        cmocka_unit_test(test_comes_to_rest),
    };

    const char *more = getenv("EDM_POWER_CUTS"); /* NOLINT(concurrency-mt-unsafe) */
    if (more != NULL)
        ncuts = (unsigned)strtoul(more, NULL, 0);
    if (argc > 1)
        ncuts = (unsigned)strtoul(argv[1], NULL, 0);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 0);
    printf("%u cuts, seed %llu\n", ncuts, (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
