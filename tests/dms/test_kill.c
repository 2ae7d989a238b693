/* A store killed with SIGKILL at random instants under load: whatever it acknowledged is there
 * when it is opened again, nothing else is, and no slot is lost. Arguments: rounds, seed.
 *
 * The child that runs the store writes down, in memory it shares with this process, what it is
 * about to do and when it was acknowledged. What was not acknowledged may be there or not, page by
 * page. The bytes of a page follow from its region, number and sequence. */
#include "temp_dir.h"
#include "test.h"

#include "../../dms/store.h"
#include "store_copy.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 40, LIVE = 3, FROZEN = 4, PAGES = 500, MAX_COUNT = 64, MAX_DELAY_US = 40000 };

enum action { ACTION_NONE, ACTION_PUT, ACTION_DROP, ACTION_FREEZE, ACTION_REMOVE };

struct view {
    uint64_t id; /* 0: not there */
    uint32_t source;
    uint64_t sequences[PAGES]; /* 0: absent */
};

struct shared {
    struct view live[LIVE];
    struct view frozen[FROZEN];
    uint64_t next_sequence;
    uint64_t acknowledged; /* actions so far */
    uint64_t nmoved;       /* pages, in the background */
    /* What is being done. */
    _Atomic int action;
    atomic_bool done; /* and was acknowledged */
    uint32_t region, checkpoint;
    uint32_t first, count;
    uint64_t sequence;
    uint64_t made; /* id of the checkpoint */
};

static struct shared *shared;
static struct temp_dir dir;
static unsigned rounds = ROUNDS;
static uint64_t seed = 4711;

static uint64_t number(uint32_t page)
{
    return page < PAGES / 2 ? page : ((uint64_t)1 << 35) + page;
}

static void make_bytes(uint32_t source, uint32_t page, uint64_t sequence, uint64_t *words)
{
    uint64_t random = (sequence << 20 | page << 4 | source) + 1;

    for (uint32_t i = 0; i < WIRE_PAGE_BYTES / 8; i++)
        words[i] = test_random(&random);
}

/* Pages of all encodings and of slots of several sizes. */
static uint32_t length_of(uint32_t page, uint64_t sequence)
{
    static const uint32_t lengths[] = {WIRE_PAGE_BYTES, 600, WIRE_PAGE_BYTES, 8, 3001, 64};

    return lengths[(page / 3 + sequence) % 6];
}

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
                         report.recovered,
                     0);
    return store;
}

static int do_put(struct store *store)
{
    static uint64_t body[MAX_COUNT * WIRE_PAGE_BYTES / 8];
    struct wire_page pages[MAX_COUNT];
    uint64_t words[WIRE_PAGE_BYTES / 8];
    char *at = (char *)body;
    uint64_t bad;

    for (uint32_t i = 0; i < shared->count; i++) {
        uint32_t page = shared->first + i;
        uint32_t len = length_of(page, shared->sequence);
        make_bytes(shared->region, page, shared->sequence, words);
        memcpy(at, words, len);
        pages[i] = (struct wire_page){
            .page = number(page),
            .sequence = shared->sequence,
            .checksum = wire_checksum(number(page), words, len),
            .length_bytes = len,
            .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW
                        : len == 8             ? WIRE_FILL
                                               : WIRE_LZ4,
        };
        at += len;
    }
    return store_put(store, shared->live[shared->region].id, 1, pages, shared->count, body, &bad);
}

static int do_drop(struct store *store)
{
    struct wire_range ranges[MAX_COUNT];

    for (uint32_t i = 0; i < shared->count; i++)
        ranges[i] = (struct wire_range){number(shared->first + i), 1};
    return store_drop(store, shared->live[shared->region].id, 1, shared->sequence, ranges,
                      shared->count);
}

static int do_freeze(struct store *store)
{
    const struct region *made;
    char name[32];

    snprintf(name, sizeof(name), "checkpoint-%u", shared->checkpoint);
    int err = store_branch(store, shared->live[shared->region].id, 1, name, true, &made);
    if (err == 0)
        shared->made = made->id;
    return err;
}

static int do_action(struct store *store)
{
    switch (atomic_load(&shared->action)) {
    case ACTION_PUT:
        return do_put(store);
    case ACTION_DROP:
        return do_drop(store);
    case ACTION_FREEZE:
        return do_freeze(store);
    default:
        return store_remove(store, shared->frozen[shared->checkpoint].id, 1);
    }
}

static enum action choose(uint64_t *random)
{
    uint32_t what = (uint32_t)(test_random(random) % 100);

    shared->region = (uint32_t)(test_random(random) % LIVE);
    shared->checkpoint = (uint32_t)(test_random(random) % FROZEN);
    shared->count = 1 + (uint32_t)(test_random(random) % MAX_COUNT);
    shared->first = (uint32_t)(test_random(random) % (PAGES - MAX_COUNT));
    shared->sequence = shared->next_sequence++;
    shared->made = 0;
    if (what < 70)
        return ACTION_PUT;
    if (what < 85)
        return ACTION_DROP;
    return shared->frozen[shared->checkpoint].id == 0 ? ACTION_FREEZE : ACTION_REMOVE;
}

/* What an acknowledged action did to the pages. Doing it twice does no harm. */
static void commit(void)
{
    struct view *live = &shared->live[shared->region];
    struct view *frozen = &shared->frozen[shared->checkpoint];

    switch (atomic_load(&shared->action)) {
    case ACTION_PUT:
    case ACTION_DROP:
        for (uint32_t i = shared->first; i < shared->first + shared->count; i++)
            live->sequences[i] = atomic_load(&shared->action) == ACTION_PUT ? shared->sequence : 0;
        break;
    case ACTION_FREEZE:
        memcpy(frozen->sequences, live->sequences, sizeof(frozen->sequences));
        frozen->source = live->source;
        frozen->id = shared->made;
        break;
    default:
        frozen->id = 0;
    }
    shared->acknowledged++;
    atomic_store(&shared->action, ACTION_NONE);
    atomic_store(&shared->done, false);
}

/* The child: works until it is killed. */
static void work(uint64_t random)
{
    struct store *store = open_store();

    for (;;) {
        enum action action = choose(&random);
        atomic_store(&shared->action, (int)action);
        if (do_action(store) != 0) {
            fprintf(stderr, "action %d failed\n", (int)action);
            _exit(1);
        }
        atomic_store(&shared->done, true);
        commit();
        uint64_t before = store_moved(store);
        for (uint64_t i = test_random(&random) % 8; i > 0; i--)
            store_work(store);
        shared->nmoved += store_moved(store) - before;
    }
}

/* The page's sequence, its bytes being right for it; 0 when absent. */
static uint64_t read_page(struct store *store, const struct view *view, uint32_t page)
{
    uint64_t words[WIRE_PAGE_BYTES / 8], right[WIRE_PAGE_BYTES / 8];
    struct wire_page entry = {.page = number(page)};
    struct store_found found;
    uint64_t bad;

    assert_int_equal(store_locate(store, view->id, 1, &entry, 1, &found, &bad), 0);
    if (entry.encoding == WIRE_ABSENT)
        return 0;
    assert_int_equal(store_copy(store, &entry, 1, &found, words, &bad), 0);
    make_bytes(view->source, page, entry.sequence, right);
    assert_int_equal(entry.length_bytes, length_of(page, entry.sequence));
    assert_memory_equal(words, right, entry.length_bytes);
    return entry.sequence;
}

/* Takes over what an unacknowledged PUT or DROP did: old or new, for each page. */
static void settle_pages(struct store *store)
{
    struct view *live = &shared->live[shared->region];
    uint64_t fresh = atomic_load(&shared->action) == ACTION_PUT ? shared->sequence : 0;

    for (uint32_t i = shared->first; i < shared->first + shared->count; i++) {
        uint64_t sequence = read_page(store, live, i);
        assert_true(sequence == live->sequences[i] || sequence == fresh);
        live->sequences[i] = sequence;
    }
}

/* An unacknowledged checkpoint is there whole or not at all; one being removed likewise. */
static void settle_checkpoint(struct store *store)
{
    struct view *frozen = &shared->frozen[shared->checkpoint];
    char name[32];

    snprintf(name, sizeof(name), "checkpoint-%u", shared->checkpoint);
    const struct region *there = NULL;
    for (const struct region *at = store_after(store, ""); at != NULL;
         at = store_after(store, at->name)) {
        if (strcmp(at->name, name) == 0)
            there = at;
    }
    if (atomic_load(&shared->action) == ACTION_REMOVE) {
        if (there == NULL)
            frozen->id = 0;
        return;
    }
    if (there == NULL)
        return;
    shared->made = there->id;
    commit();
}

static void check_view(struct store *store, const struct view *view)
{
    if (view->id == 0)
        return;
    assert_non_null(store_find(store, view->id));
    for (uint32_t page = 0; page < PAGES; page++)
        assert_int_equal(read_page(store, view, page), view->sequences[page]);
}

/* Different versions that some region has: as many slots must be in use. */
static uint64_t count_slots(void)
{
    uint64_t count = 0;

    for (uint32_t source = 0; source < LIVE; source++) {
        for (uint32_t page = 0; page < PAGES; page++) {
            uint64_t seen[FROZEN + 1];
            uint32_t nseen = 0;
            for (uint32_t v = 0; v <= FROZEN; v++) {
                const struct view *view = v == 0 ? &shared->live[source] : &shared->frozen[v - 1];
                uint64_t sequence = view->sequences[page];
                bool counts = view->id != 0 && view->source == source && sequence != 0;
                for (uint32_t i = 0; i < nseen; i++)
                    counts = counts && seen[i] != sequence;
                if (counts)
                    seen[nseen++] = sequence;
            }
            count += nseen;
        }
    }
    return count;
}

static void check_store(void)
{
    struct store *store = open_store();
    struct wire_shard_info info;

    switch (atomic_load(&shared->action)) {
    case ACTION_NONE:
        break;
    case ACTION_PUT:
    case ACTION_DROP:
        if (!atomic_load(&shared->done))
            settle_pages(store);
        else
            commit();
        break;
    default:
        if (!atomic_load(&shared->done))
            settle_checkpoint(store);
        else
            commit();
    }
    atomic_store(&shared->action, ACTION_NONE);
    atomic_store(&shared->done, false);
    for (uint32_t i = 0; i < LIVE; i++)
        check_view(store, &shared->live[i]);
    for (uint32_t i = 0; i < FROZEN; i++)
        check_view(store, &shared->frozen[i]);
    while (store_work(store))
        ;
    store_stat(store, &info);
    assert_int_equal(info.npages, count_slots());
    store_close(&store);
}

static void kill_one(uint64_t random)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        work(random);
        _exit(1);
    }
    usleep((useconds_t)(test_random(&random) % MAX_DELAY_US));
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_killed_at_any_instant(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    shared->next_sequence = 1;
    struct store *store = open_store();
    for (uint32_t i = 0; i < LIVE; i++) {
        const struct region *region;
        char name[32];
        snprintf(name, sizeof(name), "live-%u", i);
        assert_int_equal(store_claim(store, name, 1, 1, &region), 0);
        shared->live[i].id = region->id;
        shared->live[i].source = i;
    }
    store_close(&store);
    for (unsigned round = 0; round < rounds; round++) {
        kill_one(test_random(&seed));
        check_store();
    }
    printf("%u kills, %llu actions acknowledged, %llu pages moved\n", rounds,
           (unsigned long long)shared->acknowledged, (unsigned long long)shared->nmoved);
    assert_true(shared->acknowledged > rounds && shared->nmoved > 0);
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
        cmocka_unit_test_setup_teardown(test_killed_at_any_instant, setup, teardown),
    };

    if (argc > 1)
        rounds = (unsigned)strtoul(argv[1], NULL, 0);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
