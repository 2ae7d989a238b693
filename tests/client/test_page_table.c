/* page_table against a simple array, and its legal transitions. */
#include "../../client/page_table.h"
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 4096, STEPS = 400000 };

static uint64_t random_state = 88172645463325252ull;

static uint64_t draw(void)
{
    return test_random(&random_state) >> 11;
}

/* Far apart, so that all levels of the table are used. */
static uint64_t page_of(uint32_t i)
{
    return (uint64_t)(i / 1024) * 0x3ffffffffull + i % 1024 * 3;
}

static bool is_out(enum page_state state)
{
    return state != PAGE_NATIVE && state != PAGE_ZERO && state != PAGE_RESIDENT;
}

static void test_model(void **state)
{
    (void)state;
    static enum page_state model[PAGES];
    static bool stored[PAGES], sealed[PAGES];
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
            sealed[i] = sealed[i] && is_out(to);
        }
        if (is_out(model[i]) && draw() % 4 == 0) {
            page_table_seal(table, page);
            sealed[i] = true;
        }
        assert_int_equal(page_table_sealed(table, page), sealed[i]);
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

/* Every pair; a dot is what must not be. In the order of enum page_state. */
static const char *const legal[PAGE_NSTATES] = {
    [PAGE_NATIVE] = ".R.....Z", [PAGE_RESIDENT] = "N.M....Z", [PAGE_MOVING] = "NR.S...Z",
    [PAGE_STAGED] = "NR..r..Z", [PAGE_REMOTE] = "N....F.Z",   [PAGE_FETCHING] = "NR..r.AZ",
    [PAGE_READY] = "NR..r..Z",  [PAGE_ZERO] = "NR......",
};

/* Brings a page that is NATIVE into STATE on a legal way. */
static void bring(struct page_table *table, uint64_t page, enum page_state state)
{
    static const enum page_state way[] = {PAGE_RESIDENT, PAGE_MOVING,   PAGE_STAGED,
                                          PAGE_REMOTE,   PAGE_FETCHING, PAGE_READY};
    if (state == PAGE_ZERO)
        page_table_set(table, page, PAGE_ZERO);
    for (size_t i = 0; state != PAGE_NATIVE && state != PAGE_ZERO; i++) {
        page_table_set(table, page, way[i]);
        if (way[i] == state)
            return;
    }
}

static void test_every_transition(void **state)
{
    (void)state;
    struct page_table *table;
    assert_int_equal(page_table_new(&table), 0);
    for (int from = 0; from < PAGE_NSTATES; from++)
        for (int to = 0; to < PAGE_NSTATES; to++) {
            bool is_legal = legal[from][to] != '.';
            assert_int_equal(page_table_may((enum page_state)from, (enum page_state)to), is_legal);
            if (!is_legal)
                continue;
            bring(table, 12345, (enum page_state)from);
            assert_int_equal(page_table_state(table, 12345), from);
            page_table_set(table, 12345, (enum page_state)to);
            assert_int_equal(page_table_state(table, 12345), to);
            for (int s = PAGE_RESIDENT; s < PAGE_NSTATES; s++)
                assert_int_equal(page_table_count(table, (enum page_state)s), s == to);
            if (to != PAGE_NATIVE)
                page_table_set(table, 12345, PAGE_NATIVE);
        }
    assert_false(page_table_may(PAGE_NSTATES, PAGE_NATIVE));
    assert_false(page_table_may(PAGE_NATIVE, PAGE_NSTATES));
    for (int s = 0; s < PAGE_NSTATES; s++)
        assert_string_not_equal(page_state_name((enum page_state)s), "?");
    page_table_destroy(&table);
}

/* A mistake of ours ends the process before it can spoil a page. */
static void test_illegal_transitions_end_the_process(void **state)
{
    (void)state;
    struct page_table *table;
    assert_int_equal(page_table_new(&table), 0);
    for (int from = 0; from < PAGE_NSTATES; from++)
        for (int to = 0; to < PAGE_NSTATES; to++) {
            if (legal[from][to] != '.')
                continue;
            pid_t child = fork();
            if (child == 0) {
                int null = open("/dev/null", O_WRONLY);
                dup2(null, STDERR_FILENO);
                setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
                signal(SIGABRT, SIG_DFL);
                bring(table, 7, (enum page_state)from);
                page_table_set(table, 7, (enum page_state)to);
                _exit(0);
            }
            int status;
            assert_int_equal(waitpid(child, &status, 0), child);
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        }
    page_table_destroy(&table);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Pages from one end of the address space to the other, close together and far apart. */
static void test_next_over_sparse_ranges(void **state)
{
    (void)state;
    enum { COUNT = 400, TRIES = 2000 };
    const uint64_t end = (uint64_t)1 << 45;
    static uint64_t pages[COUNT] = {0,
                                    1,
                                    511,
                                    512,
                                    513,
                                    (1 << 21) - 1,
                                    1 << 21,
                                    1ull << 33,
                                    (1ull << 33) - 1,
                                    (1ull << 45) - 1,
                                    (1ull << 45) - 513};
    struct page_table *table;
    assert_int_equal(page_table_new(&table), 0);
    assert_true(page_table_next(table, 0, end) == end);
    size_t empty_bytes = page_table_bytes(table);
    for (int i = 11; i < COUNT; i++)
        pages[i] = i % 3 && i > 12 ? pages[i - 1] + 1 + draw() % 2000 : draw() % (end - 10000000);
    for (int i = 0; i < COUNT; i++)
        if (page_table_state(table, pages[i]) == PAGE_NATIVE)
            page_table_set(table, pages[i], i % 2 ? PAGE_RESIDENT : PAGE_ZERO);
    assert_true(page_table_bytes(table) > empty_bytes);
    qsort(pages, COUNT, sizeof *pages, by_value);
    for (int i = 0; i < TRIES; i++) {
        /* Ranges that begin and end at pages, beside them, and anywhere. */
        uint64_t from = i % 2 ? pages[draw() % COUNT] + draw() % 3 : draw() % end;
        uint64_t to = i % 3 ? pages[draw() % COUNT] + draw() % 2 : draw() % end;
        uint64_t expected = to;
        for (int j = COUNT; j-- > 0;)
            if (pages[j] >= from && pages[j] < to)
                expected = pages[j];
        assert_true(page_table_next(table, from, to) == expected);
    }
    /* What has been forgotten is passed over. */
    page_table_set(table, pages[COUNT - 1], PAGE_NATIVE);
    assert_true(page_table_next(table, pages[COUNT - 1], end) == end);
    page_table_destroy(&table);
}

static void test_what_a_page_has_beside_its_state(void **state)
{
    (void)state;
    struct page_table *table;
    struct page_hash hash;
    assert_int_equal(page_table_new(&table), 0);
    /* Pages nobody asked about, also beyond all addresses. */
    for (uint64_t page = 1; page; page <<= 1) {
        assert_int_equal(page_table_state(table, page), PAGE_NATIVE);
        assert_int_equal(page_table_generation(table, page), 0);
        assert_int_equal(page_table_evicted_at(table, page), 0);
        assert_false(page_table_stored(table, page, &hash));
        page_table_clear_stored(table, page);
    }
    page_table_set_stored(table, 99, (struct page_hash){5, 6});
    page_table_set_evicted_at(table, 99, 65535);
    for (int i = 1; i <= 300; i++)
        assert_int_equal(page_table_renew(table, 99), i & 255);
    /* The state comes and goes without them. */
    for (int s = PAGE_RESIDENT; s < PAGE_NSTATES; s++) {
        bring(table, 99, (enum page_state)s);
        assert_true(page_table_stored(table, 99, &hash));
        assert_true(hash.low == 5 && hash.high == 6);
        page_table_set(table, 99, PAGE_NATIVE);
    }
    assert_int_equal(page_table_evicted_at(table, 99), 65535);
    assert_int_equal(page_table_generation(table, 99), 300 & 255);
    assert_int_equal(page_table_generation(table, 98), 0);
    assert_false(page_table_stored(table, 98, &hash));
    page_table_clear_stored(table, 99);
    assert_false(page_table_stored(table, 99, &hash));
    page_table_destroy(&table);
}

/* Moved memory: what was known of each page is known of the other, in any state. */
static void test_rename_in_every_state(void **state)
{
    (void)state;
    struct page_table *table;
    struct page_hash hash;
    assert_int_equal(page_table_new(&table), 0);
    for (int s = PAGE_NATIVE; s < PAGE_NSTATES; s++) {
        for (int stored = 0; stored < 2; stored++) {
            uint64_t from = 1000 + (uint64_t)(2 * s + stored);
            uint64_t to = from + ((uint64_t)1 << 40);
            bring(table, from, (enum page_state)s);
            page_table_set_evicted_at(table, from, (uint16_t)(s + 1));
            if (stored)
                page_table_set_stored(table, from, (struct page_hash){from, to});
            page_table_rename(table, from, to);
            assert_int_equal(page_table_state(table, to), s);
            assert_int_equal(page_table_state(table, from), PAGE_NATIVE);
            assert_int_equal(page_table_evicted_at(table, to), s + 1);
            assert_int_equal(page_table_stored(table, to, &hash), stored);
            assert_false(page_table_stored(table, from, &hash));
            assert_true(!stored || (page_table_stored(table, to, &hash) && hash.low == from));
            if (s != PAGE_NATIVE)
                assert_int_equal(page_table_count(table, (enum page_state)s), stored + 1);
        }
    }
    /* Nothing known: nothing to move. */
    page_table_rename(table, (uint64_t)1 << 44, 5);
    assert_int_equal(page_table_state(table, 5), PAGE_NATIVE);
    page_table_destroy(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_transitions),
        cmocka_unit_test(test_rename),
        cmocka_unit_test(test_every_transition),
        cmocka_unit_test(test_illegal_transitions_end_the_process),
        cmocka_unit_test(test_next_over_sparse_ranges),
        cmocka_unit_test(test_what_a_page_has_beside_its_state),
        cmocka_unit_test(test_rename_in_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
