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
    CUTS = 300,
    CAPACITY = 8 << 20,
    MOST_OPERATIONS = 200, /* of the disk, between two cuts */
    MOST_WORK = 100,
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
    bool only_kills; /* and a setting by chance at each start */
    unsigned nreopened, nopen_cuts, nfailed, nrefused;
    uint64_t nmoved;
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
        .moves = STORE_MOVES_EAGERLY,
    };
    struct store_report report;
    int err = store_open(&run->store, &options, &report);

    /* Where it goes while files are read, these seem damaged; nobody will see that. */
    if (err == 0 && !run->cut.dead) {
        assert_int_equal(report.damaged_headers, 0);
        assert_int_equal(report.damaged_pages, 0);
        assert_int_equal(report.damaged_records, 0);
        assert_int_equal(report.damaged_files, 0);
        assert_int_equal(report.recovered, 0);
    }
    return err;
}

/* A round's job is done. Now and then the slots that can be freed then cannot be marked. */
static int end_sync(struct run *run, int err)
{
    run->cut.fail_write = below(run, 4) == 0;
    err = store_end_sync(run->store, err);
    run->cut.fail_write = false;
    return err;
}

/* The states before the last are not what a cut may lead back to any more. */
static void commit(struct run *run)
{
    struct sync_job *job;
    int err = store_begin_sync(run->store, below(run, 3) == 0, &job);

    if (err == 0)
        err = end_sync(run, sync_job_run(job));
    if (err == 0)
        durable_model_make_sure(&run->model, run->model.nstates - 1);
}

/* One operation. Now and then the disk is full: then it gives back what it can, or refuses. */
static void step(struct run *run)
{
    run->cut.is_full = below(run, 8) == 0;
    int err = durable_model_step(&run->model, run->store);
    bool was_full = run->cut.is_full;

    run->cut.is_full = false;
    if (err == -ENOSPC && was_full && !is_over(run)) {
        durable_model_undo(&run->model);
        run->nrefused++;
    } else if (err != 0 && !is_over(run)) {
        fail_msg("an operation returned %s", strerror(-err));
    }
}

/* The power goes, or the process (is_kill); then the disk works again. */
static void stop_and_restart(struct run *run)
{
    cut_disk_cut(&run->cut);
    store_close(&run->store);
    cut_disk_restart(&run->cut);
}

/* What can wait: a little of it, or as much as there is. */
static void background(struct run *run)
{
    uint32_t most = below(run, 3) == 0 ? MOST_WORK : 3;

    for (uint32_t i = below(run, most); i > 0 && !is_over(run); i--)
        store_work(run->store);
}

/* Operations, and after some of them a commit. */
static void work_always(struct run *run)
{
    uint32_t group = 1 + below(run, 6);

    for (uint32_t i = 0; i < group && !is_over(run); i++)
        step(run);
    if (is_over(run))
        return;
    commit(run);
    background(run);
}

/* A round of syncing while operations go on. */
static void work_interval(struct run *run)
{
    struct sync_job *job;

    for (uint32_t i = below(run, 12); i > 0 && !is_over(run); i--)
        step(run);
    if (is_over(run) || store_begin_sync(run->store, true, &job) != 0)
        return;
    uint32_t begun = run->model.nstates - 1;
    for (uint32_t i = below(run, 6); i > 0 && !is_over(run); i--)
        step(run);
    int err = sync_job_run(job);
    for (uint32_t i = below(run, 6); i > 0 && !is_over(run); i--)
        step(run);
    if (end_sync(run, err) == 0)
        durable_model_make_sure(&run->model, begun);
    background(run);
}

static void work_until_cut(struct run *run)
{
    run->cut.fail_sync = !run->only_kills && below(run, 6) == 0;
    if (!run->cut.fail_sync)
        run->cut.cut_at = run->cut.operations + 1 + below(run, MOST_OPERATIONS);
    run->cut.is_kill = run->only_kills || below(run, 4) == 0;
    while (!is_over(run) && run->model.nstates < MOST_STATES) {
        if (run->durability == STORE_NONE) {
            step(run);
            if (below(run, 8) == 0 && !is_over(run))
                background(run);
        } else if (run->durability == STORE_ALWAYS) {
            work_always(run);
        } else {
            work_interval(run);
        }
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
        if (run->only_kills)
            run->durability = below(run, 2) == 0 ? STORE_NONE : STORE_INTERVAL;
        run->cut.is_kill = run->only_kills;
        if (below(run, 4) == 0)
            run->cut.cut_at = 1 + below(run, 20);
        int err = open_store(run);
        if (err == 0 && !run->cut.dead)
            break;
        assert_true(run->cut.dead);
        run->nopen_cuts++;
        store_close(&run->store);
    }
    run->cut.is_kill = false;
    run->cut.cut_at = 0;
    run->nreopened++;
}

static void run_cuts(enum store_durability durability, bool only_kills)
{
    static struct run run;

    run = (struct run){.durability = durability, .only_kills = only_kills};
    run.model.random = seed;
    run.model.nstates = 1;
    run.model.claims_are_sure = durability == STORE_INTERVAL;
    temp_dir_make(&run.dir);
    cut_disk_begin(&run.cut, run.dir.path, seed);
    assert_int_equal(open_store(&run), 0);
    for (unsigned i = 0; i < ncuts; i++) {
        work_until_cut(&run);
        bool exact = run.cut.is_kill;
        if (run.model.nstates > 2 && only_kills)
            durable_model_make_sure(&run.model, run.model.nstates - 2);
        run.nmoved += store_moved(run.store);
        store_close(&run.store);
        unsigned before = run.nopen_cuts;
        restart(&run);
        durable_model_check(&run.model, run.store,
                            exact && (only_kills || run.nopen_cuts == before));
    }
    printf("%u restarts, %u of them after a failed sync, %u cuts while opening, %u holes made, "
           "%u refused, %llu pages moved\n",
           run.nreopened, run.nfailed, run.nopen_cuts, run.cut.npunched, run.nrefused,
           (unsigned long long)run.nmoved);
    assert_true(ncuts < CUTS || ((only_kills || run.nfailed > 0) && run.nopen_cuts > 0 &&
                                 run.cut.npunched > 20 && run.nmoved > 0));
    store_close(&run.store);
    cut_disk_end(&run.cut);
    temp_dir_remove(&run.dir);
}

static void test_always(void **state)
{
    (void)state;
    run_cuts(STORE_ALWAYS, false);
}

static void test_interval(void **state)
{
    (void)state;
    run_cuts(STORE_INTERVAL, false);
}

static void test_kills(void **state)
{
    (void)state;
    run_cuts(STORE_NONE, true);
}

/* Page 5, LEN bytes long. */
static int put_version(struct store *store, const struct region *region, uint64_t sequence,
                       uint32_t len)
{
    static const char body[WIRE_PAGE_BYTES];
    struct wire_page page = {.page = 5,
                             .sequence = sequence,
                             .length_bytes = len,
                             .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW : WIRE_FILL};
    uint64_t bad;

    page.checksum = wire_checksum(page.page, body, len);
    return store_put(store, region->id, region->epoch, &page, 1, body, &bad);
}

static int put_page(struct store *store, const struct region *region)
{
    return put_version(store, region, 1, WIRE_PAGE_BYTES);
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
    stop_and_restart(&run);
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

/* Page 5 is stored twice and dropped. The slot of its second version, in another file, is marked
 * before that of the first if they are marked together. */
static void drop_second_version(struct run *run, uint64_t cut_seed)
{
    const struct region *region;
    struct wire_range range = {5, 1};

    *run = (struct run){.durability = STORE_INTERVAL};
    temp_dir_make(&run->dir);
    cut_disk_begin(&run->cut, run->dir.path, cut_seed);
    assert_int_equal(open_store(run), 0);
    assert_int_equal(store_claim(run->store, "a", 1, 1, &region), 0);
    assert_int_equal(put_version(run->store, region, 1, WIRE_PAGE_BYTES), 0);
    assert_int_equal(store_commit(run->store, true), 0);
    assert_int_equal(put_version(run->store, region, 2, 8), 0);
    assert_int_equal(store_drop(run->store, region->id, 1, 2, &range, 1), 0);
}

static void end_run(struct run *run)
{
    store_close(&run->store);
    cut_disk_end(&run->cut);
    temp_dir_remove(&run->dir);
}

/* The first version's slot cannot be marked free when it is time, but the second's can: a power cut
 * then must not bring back the first. */
static void test_mark_that_fails(void **state)
{
    enum { TRIES = 100 };
    static struct run run;
    struct sync_job *job;

    (void)state;
    for (uint64_t i = 0; i < TRIES; i++) {
        drop_second_version(&run, seed + i);
        assert_int_equal(store_begin_sync(run.store, true, &job), 0);
        int err = sync_job_run(job);
        run.cut.fail_write = true;
        assert_int_equal(store_end_sync(run.store, err), 0);
        assert_false(run.cut.fail_write);
        assert_int_equal(store_commit(run.store, true), 0);
        stop_and_restart(&run);
        assert_int_equal(open_store(&run), 0);
        assert_false(has_page(run.store, store_after(run.store, "")));
        end_run(&run);
    }
}

/* The same store is killed, opened without durability, which frees both slots, and killed at every
 * operation of that. */
static void test_kill_while_freeing(void **state)
{
    static struct run run;
    bool is_done = false;

    (void)state;
    for (uint64_t at = 1; !is_done; at++) {
        drop_second_version(&run, seed);
        run.cut.is_kill = true;
        stop_and_restart(&run);
        run.durability = STORE_NONE;
        run.cut.is_kill = true;
        run.cut.cut_at = run.cut.operations + at;
        is_done = open_store(&run) == 0 && !run.cut.dead;
        stop_and_restart(&run);
        assert_int_equal(open_store(&run), 0);
        assert_false(has_page(run.store, store_after(run.store, "")));
        end_run(&run);
    }
}

/* While a round is under way nothing is given back: see DESIGN.md, Giving back. */
static void test_nothing_is_given_back_in_a_round(void **state)
{
    static struct run run;
    struct sync_job *job;
    struct wire_range all = {0, 1000};

    (void)state;
    drop_second_version(&run, seed);
    const struct region *region = store_after(run.store, "");
    assert_int_equal(store_drop(run.store, region->id, 1, 2, &all, 1), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(store_commit(run.store, true), 0);
    assert_int_equal(put_version(run.store, region, 3, WIRE_PAGE_BYTES), 0);
    assert_int_equal(store_drop(run.store, region->id, 1, 3, &all, 1), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(store_commit(run.store, true), 0);
    assert_int_equal(store_begin_sync(run.store, true, &job), 0);
    uint64_t before = run.cut.operations;
    assert_false(store_work(run.store));
    assert_int_equal(run.cut.operations, before);
    assert_int_equal(store_end_sync(run.store, sync_job_run(job)), 0);
    assert_true(store_work(run.store));
    end_run(&run);
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
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_removed_branch),
        cmocka_unit_test(test_mark_that_fails),
        cmocka_unit_test(test_kill_while_freeing),
        cmocka_unit_test(test_nothing_is_given_back_in_a_round),
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
