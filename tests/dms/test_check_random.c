/* Stores damaged at random: whatever was hit, nothing wrong is served, what a check calls sound is
 * whole, and a repair leaves a store that is sound and serves all that was not hit. And stores that
 * were not damaged are called sound. A seed and a number of rounds may be given. */
#include "check_fixture.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CAPACITY = 8 << 20, PAGES = 150, REGIONS = 5, STEPS = 60, ROUNDS = 60, ABSENT = -1 };

/* What a region should hold. */
struct expected {
    uint64_t id; /* 0: none */
    int pages[PAGES];
    bool was[PAGES][256]; /* at some time, in it or in what it came from */
};

static struct check_fixture fixture;
static struct expected model[REGIONS];
static uint64_t random_state, sequence, nmoved;
static bool manifest_hit, file_missing, may_reopen;
static unsigned long seed = 20261123, rounds = ROUNDS;

static uint64_t below(uint64_t bound)
{
    return test_random(&random_state) % bound;
}

static void make_region(uint32_t i)
{
    char name[32];
    const struct expected *from = &model[below(REGIONS)];

    snprintf(name, sizeof(name), "region-%u-%u", i, (unsigned)++sequence);
    if (from->id != 0 && from != &model[i] && below(3) > 0) {
        model[i] = *from;
        model[i].id = fixture_branch(&fixture.store, from->id, name, false);
        return;
    }
    memset(&model[i], 0, sizeof(model[i]));
    for (uint32_t page = 0; page < PAGES; page++)
        model[i].pages[page] = ABSENT;
    model[i].id = fixture_region(&fixture.store, name);
}

static void step(void)
{
    uint32_t i = (uint32_t)below(REGIONS), first = (uint32_t)below(PAGES);
    uint32_t count = 1 + (uint32_t)below(PAGES - first < 30 ? PAGES - first : 30);
    int byte = (int)below(256);

    if (model[i].id == 0) {
        make_region(i);
        return;
    }
    uint64_t kind = below(20);
    if (kind == 0) {
        assert_int_equal(fixture_remove(&fixture.store, model[i].id), 0);
        model[i].id = 0;
    } else if (kind < 4) {
        assert_int_equal(fixture_drop(&fixture.store, model[i].id, first, count, ++sequence), 0);
        for (uint32_t page = first; page < first + count; page++) {
            model[i].pages[page] = ABSENT;
        }
    } else if (kind == 4 && may_reopen) {
        fixture_reopen(&fixture.store);
    } else {
        static const uint32_t lengths[] = {WIRE_PAGE_BYTES, 600, WIRE_PAGE_BYTES, 8, 3000};
        uint32_t len = lengths[below(5)];
        assert_int_equal(fixture_put_length(&fixture.store, model[i].id, first, count, ++sequence,
                                            (uint8_t)byte, len),
                         0);
        for (uint32_t page = first; page < first + count; page++) {
            model[i].pages[page] = byte;
            model[i].was[page][byte] = true;
        }
    }
    uint64_t before = store_moved(fixture.store.store);
    while (below(16) != 0 && store_work(fixture.store.store))
        ;
    nmoved += store_moved(fixture.store.store) - before;
}

/* Some bytes of the file become others: a bit, or a stretch of anything but zeros, which are what
 * was never written. */
static void spoil(const char *path, size_t size)
{
    uint8_t bytes[4096];
    /* Half of the time among the headers. */
    size_t end = below(2) == 0 && size > 16384 ? 16384 : size;
    size_t at = below(end);
    size_t len = below(2) == 0 ? 1 : 1 + below(below(2) == 0 ? 16 : sizeof(bytes));
    int fd = open(path, O_RDWR);

    assert_true(fd >= 0);
    len = len < size - at ? len : size - at;
    assert_int_equal(pread(fd, bytes, len, (off_t)at), (ssize_t)len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(len == 1 ? bytes[i] ^ 1U << below(8) : 1 + below(255));
    assert_int_equal(pwrite(fd, bytes, len, (off_t)at), (ssize_t)len);
    close(fd);
}

static void damage_something(void)
{
    char names[64][CHECK_FIXTURE_NAME_BYTES];
    uint32_t count = check_fixture_names(&fixture, names, 64);
    if (count == 0)
        return;
    const char *name = names[below(count)];
    const char *path = temp_dir_path(&fixture.store.dir, name);
    struct stat st;
    uint64_t kind = below(10);

    assert_int_equal(stat(path, &st), 0);
    file_missing = file_missing || kind == 0;
    manifest_hit = manifest_hit || strcmp(name, "manifest") == 0;
    if (kind == 0)
        assert_int_equal(unlink(path), 0);
    else if (kind == 1)
        assert_int_equal(truncate(path, (off_t)below((uint64_t)st.st_size + 1)), 0);
    else if (st.st_size > 0)
        spoil(path, (size_t)st.st_size);
}

/* EXACT: nothing is damaged. */
static void compare(bool exact)
{
    for (uint32_t i = 0; i < REGIONS; i++) {
        if (model[i].id != 0 && store_find(fixture.store.store, model[i].id) == NULL) {
            assert_true(manifest_hit && !exact);
            continue;
        }
        for (uint32_t page = 0; model[i].id != 0 && page < PAGES; page++) {
            int want = model[i].pages[page];
            int got = fixture_get(&fixture.store, model[i].id, page);
            /* The manifest says what was dropped, and what was branched: that a record of it is
             * lost is known, but not which. */
            bool is_old = manifest_hit && got >= 0 && model[i].was[page][got];
            /* The same goes for which files there are. */
            bool is_missing = manifest_hit && file_missing && got == ABSENT;
            if (got == want || (!exact && (got < ABSENT || is_old || is_missing)))
                continue;
            fail_msg("page %u of region %016" PRIx64 ": %d, not %d; the check said\n%s", page,
                     model[i].id, got, want, fixture.said);
        }
    }
}

static void build(void)
{
    check_fixture_begin(&fixture, CAPACITY);
    fixture.store.moves = STORE_MOVES_EAGERLY;
    fixture_reopen(&fixture.store);
    memset(model, 0, sizeof(model));
    may_reopen = true;
    manifest_hit = file_missing = false;
    for (int i = 0; i < STEPS; i++)
        step();
    fixture_close(&fixture.store);
    assert_int_equal(check_fixture_run(&fixture, false), CHECK_SOUND);
    for (uint64_t i = 1 + below(4); i > 0; i--)
        damage_something();
}

/* Waits up to MOST_US and kills CHILD. */
static void kill_soon(pid_t child, uint64_t most_us)
{
    int status;

    assert_true(child > 0);
    usleep((useconds_t)below(most_us));
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
}

/* A repair that does not get to its end. */
static void repair_halfway(void)
{
    fflush(NULL);
    pid_t child = fork();

    if (child == 0) {
        check_fixture_run(&fixture, true);
        _exit(0);
    }
    kill_soon(child, 6000);
}

static void test_random_damage(void **state)
{
    uint32_t ndamaged = 0;

    (void)state;
    for (unsigned long round = 0; round < rounds; round++) {
        random_state = (seed << 20) + round + 1;
        build();
        /* As a DMS would, without a repair. */
        bool opened = below(2) == 0 && fixture_open(&fixture.store) == 0;
        if (opened) {
            compare(false);
            fixture_close(&fixture.store);
        }
        uint64_t before = check_fixture_files(&fixture);
        enum check_result result = check_fixture_run(&fixture, false);
        assert_true(result == CHECK_SOUND || result == CHECK_DAMAGED);
        assert_int_equal(check_fixture_files(&fixture), before);
        if (below(2) == 0)
            repair_halfway();
        assert_int_equal(check_fixture_run(&fixture, true), CHECK_SOUND);
        assert_int_equal(check_fixture_run(&fixture, false), CHECK_SOUND);
        assert_int_equal(fixture_open(&fixture.store), 0);
        /* A start makes files whole: what is then sound was damaged. */
        compare(result == CHECK_SOUND && !opened);
        ndamaged += result == CHECK_DAMAGED;
        fixture_reopen(&fixture.store);
        compare(false);
        check_fixture_end(&fixture);
        memset(&fixture, 0, sizeof(fixture));
    }
    printf("%llu pages were moved\n", (unsigned long long)nmoved);
    assert_true(ndamaged > rounds / 4 && (nmoved > 0 || rounds < ROUNDS));
}

/* Until it is killed. */
static void work(enum store_durability durability)
{
    struct store_options options = {.dir = fixture.store.dir.path,
                                    .capacity_bytes = CAPACITY,
                                    .durability = durability,
                                    .scan_threads = 1,
                                    .moves = STORE_MOVES_EAGERLY};

    if (store_open(&fixture.store.store, &options, &fixture.store.report) != 0)
        _exit(1);
    const struct region *region;
    while ((region = store_after(fixture.store.store, "")) != NULL)
        assert_int_equal(fixture_remove(&fixture.store, region->id), 0);
    memset(model, 0, sizeof(model));
    may_reopen = false;
    for (;;) {
        step();
        bool full = below(4) == 0;
        if (durability == STORE_ALWAYS || (durability == STORE_INTERVAL && below(8) == 0)) {
            if (store_commit(fixture.store.store, full) != 0)
                _exit(1);
        }
    }
}

static void test_killed_is_sound(void **state)
{
    (void)state;
    for (unsigned long round = 0; round < rounds; round++) {
        random_state = (seed << 20) + round + 1;
        sequence += 1000000; /* names are not used again */
        enum store_durability durability = (enum store_durability)below(3);
        if (round % 8 == 0) {
            check_fixture_begin(&fixture, CAPACITY);
            fixture_close(&fixture.store);
        }
        fflush(NULL);
        pid_t child = fork();
        if (child == 0)
            work(durability);
        kill_soon(child, 40000);
        if (check_fixture_run(&fixture, false) != CHECK_SOUND)
            fail_msg("round %lu, killed, and then:\n%s", round, fixture.said);
        assert_null(strstr(fixture.said, "incomplete"));
        if (round % 8 == 7 || round + 1 == rounds) {
            check_fixture_end(&fixture);
            memset(&fixture, 0, sizeof(fixture));
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_damage),
                                       cmocka_unit_test(test_killed_is_sound)};

    if (argc > 1)
        seed = strtoul(argv[1], NULL, 10);
    if (argc > 2)
        rounds = strtoul(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
