/* A store on a disk whose operations fail, tear, fall short, take long or write something else, one
 * after the other. What has failed must not have happened, what has not must be there, at once and
 * after a restart. Arguments: faults for each kind and setting, seed. */
#include "durable_model.h"
#include "fault_disk.h"
#include "temp_dir.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAULTS = 150, CAPACITY = 12 << 20, MOST_OPERATIONS = 30 };

static unsigned nfaults = FAULTS;
static uint64_t seed = 99;

struct run {
    struct temp_dir dir;
    struct fault_disk fault;
    struct durable_model model;
    struct store *store;
    enum store_durability durability;
    enum fault kind;
    unsigned nfailed, nstopped, nfailed_opens;
    uint64_t nmoved;
};

static uint32_t below(struct run *run, uint32_t bound)
{
    return (uint32_t)(test_random(&run->model.random) % bound);
}

static int open_store(struct run *run)
{
    struct store_options options = {
        .disk = &run->fault.disk,
        .dir = run->dir.path,
        .capacity_bytes = CAPACITY,
        .durability = run->durability,
        .scan_threads = 1,
        .moves = STORE_MOVES_EAGERLY,
    };
    struct store_report report;
    int err = store_open(&run->store, &options, &report);

    if (err != 0)
        return err;
    assert_int_equal(report.damaged_headers, 0);
    assert_int_equal(report.damaged_records, 0);
    assert_int_equal(report.damaged_files, 0);
    assert_int_equal(report.recovered, 0);
    if (run->kind != FAULT_CORRUPT)
        assert_int_equal(report.damaged_pages, 0);
    return 0;
}

/* The store holds the last state and nothing else. */
static void check(struct run *run)
{
    durable_model_make_sure(&run->model, run->model.nstates - 1);
    durable_model_check(&run->model, run->store, true);
}

/* Takes a random error of those disks have. */
static int pick_error(struct run *run)
{
    static const int errors[] = {-EIO, -ENOSPC, -EDQUOT, -ENOMEM};

    return errors[below(run, 4)];
}

/* Operations until the fault comes; then the store must say so and be as before. */
static void work_until_fault(struct run *run)
{
    while (!run->fault.fired) {
        if (run->model.nstates > DURABLE_STATES / 2)
            durable_model_make_sure(&run->model, run->model.nstates - 1);
        int err = durable_model_step(&run->model, run->store);
        if (err != 0) {
            assert_true(run->fault.fired);
            /* Some calls have more than one thing to ask of the disk. */
            assert_true(err == run->fault.err || err == -ENOSPC);
            durable_model_undo(&run->model);
            run->nfailed++;
        } else if (run->durability != STORE_NONE && below(run, 4) == 0) {
            err = store_commit(run->store, below(run, 2) == 0);
            assert_int_equal(err, store_failure(run->store));
        }
        uint64_t before = store_moved(run->store);
        for (uint32_t i = below(run, 8); i > 0; i--)
            store_work(run->store);
        run->nmoved += store_moved(run->store) - before;
    }
}

/* After a failed sync nothing may change any more, and everything can be read. */
static void check_stopped(struct run *run)
{
    run->nstopped++;
    for (int i = 0; i < 20; i++) {
        struct durable_state before = run->model.states[run->model.nstates - 1];
        int err = durable_model_step(&run->model, run->store);
        struct durable_state *after = &run->model.states[run->model.nstates - 1];
        if (memcmp(&before, after, sizeof(before)) != 0)
            assert_int_equal(err, store_failure(run->store));
        durable_model_undo(&run->model);
    }
    assert_int_not_equal(store_commit(run->store, true), 0);
    check(run);
}

/* Opens the store again; now and then that goes wrong, and then it goes well. */
static void restart(struct run *run)
{
    store_close(&run->store);
    if (run->kind == FAULT_FAIL || run->kind == FAULT_TEAR)
        fault_disk_order(&run->fault, run->kind, pick_error(run), 1 + below(run, 60));
    int err = open_store(run);
    fault_disk_order(&run->fault, run->kind, 0, 0);
    if (err != 0) {
        run->nfailed_opens++;
        assert_int_equal(open_store(run), 0);
    }
    check(run);
}

static void run_faults(enum store_durability durability, enum fault kind)
{
    static struct run run;

    run = (struct run){.durability = durability, .kind = kind};
    run.model.random = seed;
    run.model.nstates = 1;
    run.model.may_be_damaged = kind == FAULT_CORRUPT;
    temp_dir_make(&run.dir);
    fault_disk_begin(&run.fault);
    assert_int_equal(open_store(&run), 0);
    for (unsigned i = 0; i < nfaults; i++) {
        fault_disk_order(&run.fault, kind, pick_error(&run), 1 + below(&run, MOST_OPERATIONS));
        work_until_fault(&run);
        if (store_failure(run.store) != 0)
            check_stopped(&run);
        else
            check(&run);
        if (store_failure(run.store) != 0 || below(&run, 3) == 0)
            restart(&run);
    }
    restart(&run);
    printf("%u operations failed, %u stores stopped, %u were not opened; %u damaged pages read, "
           "%llu moved\n",
           run.nfailed, run.nstopped, run.nfailed_opens, run.model.ndamaged,
           (unsigned long long)run.nmoved);
    assert_true(nfaults < FAULTS || run.nmoved > 0);
    /* The faults have been felt. */
    if (kind == FAULT_FAIL || kind == FAULT_TEAR)
        assert_true(run.nfailed > 0 && run.nfailed_opens > 0);
    if ((kind == FAULT_FAIL || kind == FAULT_TEAR) && durability != STORE_NONE)
        assert_true(run.nstopped > 0);
    if (kind == FAULT_CORRUPT)
        assert_true(run.model.ndamaged > 0);
    store_close(&run.store);
    temp_dir_remove(&run.dir);
}

static void run_kind(enum fault kind)
{
    run_faults(STORE_NONE, kind);
    run_faults(STORE_ALWAYS, kind);
}

static void test_fail(void **state)
{
    (void)state;
    run_kind(FAULT_FAIL);
}

static void test_tear(void **state)
{
    (void)state;
    run_kind(FAULT_TEAR);
}

static void test_short(void **state)
{
    (void)state;
    run_kind(FAULT_SHORT);
}

static void test_delay(void **state)
{
    (void)state;
    run_kind(FAULT_DELAY);
}

static void test_corrupt(void **state)
{
    (void)state;
    run_kind(FAULT_CORRUPT);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail),  cmocka_unit_test(test_tear),    cmocka_unit_test(test_short),
        cmocka_unit_test(test_delay), cmocka_unit_test(test_corrupt),
    };

    if (argc > 1)
        nfaults = (unsigned)strtoul(argv[1], NULL, 0);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 0);
    printf("%u faults, seed %llu\n", nfaults, (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
