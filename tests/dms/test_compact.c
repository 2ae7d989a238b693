/* slot_pool: when slots are chosen to be moved, and which. The clock is the test's own. */
#include "temp_dir.h"
#include "test.h"

#include "../../dms/slot_pool.h"

#include <stdio.h>
#include <sys/stat.h>

enum {
    GROUPS = 40,
    SLOTS = GROUPS * SEGMENT_GROUP_SLOTS,
    BATCH = 16,
    WINDOW_MS = 2000, /* it is quiet when little was stored for so long */
    MOST_CALLS = 1000,
};

static struct temp_dir dir;
static struct slot_pool *pool;
static uint64_t refs[4 * SLOTS];
static uint32_t nrefs;

static int no_visit(void *context, uint64_t ref, const struct slot_header *header,
                    enum slot_check check)
{
    (void)context;
    (void)ref;
    (void)header;
    (void)check;
    fail();
    return 0;
}

static int setup(void **state)
{
    struct damage_list damage = {0};

    (void)state;
    temp_dir_make(&dir);
    assert_int_equal(slot_pool_open(&pool, &disk_real, dir.path, SLOT_POOL_MAX_SLOTS, &damage), 0);
    assert_int_equal(slot_pool_scan(pool, 1, no_visit, NULL, &damage), 0);
    nrefs = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    slot_pool_close(&pool);
    temp_dir_remove(&dir);
    return 0;
}

/* Fills COUNT slots with pages of LEN bytes. */
static void fill(uint32_t count, uint32_t len)
{
    static const uint8_t bytes[WIRE_PAGE_BYTES];
    uint32_t counts[SIZE_CLASSES] = {0};
    struct wire_page page = {
        .page = 7,
        .sequence = 1,
        .length_bytes = len,
        .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW : WIRE_LZ4,
        .checksum = wire_checksum(7, bytes, len),
    };
    struct slot_source source = {.region = 1, .stamp = 1, .page = &page, .bytes = bytes};

    counts[size_class_of(len)] = 1;
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(slot_pool_reserve(pool, counts), 0);
        assert_int_equal(slot_pool_fill(pool, 1, &source, &refs[nrefs++]), 1);
    }
}

/* Frees all but each KEEP-th of the slots there are. */
static void thin_out(uint32_t keep)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < nrefs; i++) {
        if (i % keep == 0)
            refs[left++] = refs[i];
        else
            slot_pool_release(pool, refs[i]);
    }
    nrefs = left;
    assert_int_equal(slot_pool_flush(pool), 0);
}

/* Asks until there is a pause, or slots to be moved. Returns how many of these. */
static uint32_t choose(int64_t now_ms, uint64_t *chosen, int *pause_ms)
{
    uint32_t count = 0;

    *pause_ms = 0;
    for (uint32_t i = 0; i < MOST_CALLS && count == 0 && *pause_ms == 0; i++)
        count = slot_pool_choose(pool, now_ms, chosen, BATCH, pause_ms);
    return count;
}

/* Asks again and again until there is nothing to wait for. Returns how many slots were chosen. */
static uint32_t choose_all(int64_t now_ms)
{
    uint64_t chosen[BATCH];
    uint32_t total = 0;
    int pause_ms = 0;

    while (pause_ms >= 0) {
        uint32_t count = choose(now_ms, chosen, &pause_ms);
        total += count;
        now_ms += pause_ms > 0 ? pause_ms : 1;
        assert_true(now_ms < 1000000);
        if (count > 0)
            pause_ms = 0;
    }
    return total;
}

/* Not before it was quiet for a while, and not too many at a time. */
static void test_waits_until_it_is_quiet(void **state)
{
    uint64_t chosen[BATCH];
    int64_t now_ms = 1000;
    int pause_ms;

    (void)state;
    fill(SLOTS, WIRE_PAGE_BYTES);
    thin_out(16);
    assert_int_equal(choose(now_ms, chosen, &pause_ms), 0);
    assert_int_equal(pause_ms, WINDOW_MS);
    now_ms += pause_ms;
    assert_int_equal(choose(now_ms, chosen, &pause_ms), 0);
    assert_int_equal(pause_ms, WINDOW_MS);
    fill(nrefs / 32, WIRE_PAGE_BYTES);
    assert_int_equal(choose(now_ms + WINDOW_MS - 1, chosen, &pause_ms), 0);
    assert_int_equal(pause_ms, 1);
    now_ms += WINDOW_MS;
    assert_in_range(choose(now_ms, chosen, &pause_ms), 1, BATCH);
    assert_int_equal(choose(now_ms, chosen, &pause_ms), 0);
    assert_int_equal(pause_ms, 1);
    assert_in_range(choose(now_ms + 1, chosen, &pause_ms), 1, BATCH);
}

/* So many windows, in each of which a PART-th of the pages is stored: nothing is chosen. Returns
 * when they are over. */
static int64_t store_through(int64_t now_ms, int windows, uint32_t part)
{
    uint64_t chosen[BATCH];
    int pause_ms;

    for (int i = 0; i < windows; i++) {
        fill(nrefs / part, WIRE_PAGE_BYTES);
        assert_int_equal(choose(now_ms, chosen, &pause_ms), 0);
        assert_int_equal(pause_ms, WINDOW_MS);
        now_ms += WINDOW_MS;
    }
    return now_ms;
}

/* What is stored fills what is free. */
static void test_not_while_much_is_stored(void **state)
{
    uint64_t chosen[BATCH];
    int pause_ms;

    (void)state;
    fill(SLOTS, WIRE_PAGE_BYTES);
    thin_out(16);
    int64_t now_ms = store_through(1000, 5, 8);
    assert_in_range(choose(now_ms, chosen, &pause_ms), 1, BATCH);
    /* Neither when that begins later. */
    fill(nrefs / 8, WIRE_PAGE_BYTES);
    now_ms += WINDOW_MS;
    assert_int_equal(choose(now_ms, chosen, &pause_ms), 0);
}

/* What is not worth it while pages are stored is when that has ended, though nothing more was
 * freed. */
static void test_again_when_idle(void **state)
{
    uint64_t chosen[BATCH];
    int pause_ms;

    (void)state;
    fill(SLOTS, WIRE_PAGE_BYTES);
    thin_out(4);
    int64_t now_ms = store_through(1000, 3, 32);
    assert_in_range(choose(now_ms, chosen, &pause_ms), 1, BATCH);
}

/* Whole pages have blocks of their own: only headers can be saved, of one in two left hardly any.
 * Of small ones, one in four have as many blocks as all. */
static void test_only_what_is_worth_it(void **state)
{
    static const struct {
        uint32_t len, keep;
        bool is_worth;
    } cases[] = {
        {WIRE_PAGE_BYTES, 2, false},
        {WIRE_PAGE_BYTES, 4, true},
        {WIRE_PAGE_BYTES, 16, true},
        {600, 1, false},
        {600, 2, true},
        {600, 16, true},
        {8, 2, true},
        {3000, 8, true},
    };
    void *unused = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        teardown(&unused);
        setup(&unused);
        fill(SLOTS, cases[i].len);
        thin_out(cases[i].keep);
        uint32_t count = choose_all(1000);
        assert_int_equal(count > 0, cases[i].is_worth);
        assert_true(count < nrefs);
    }
}

/* Those chosen are of sparse groups, each once, and those of the fullest groups stay. */
static void test_sparse_groups_are_emptied(void **state)
{
    static uint64_t all[SLOTS];
    uint32_t total = 0, sparse = 0;
    int64_t now_ms = 1000;
    int pause_ms;

    (void)state;
    slot_pool_set_compacting(pool, true);
    fill(SLOTS, 600);
    /* Groups 0, 4, 8 ... have 60 pages, the others 2. */
    uint32_t left = 0;
    for (uint32_t i = 0; i < nrefs; i++) {
        bool is_full = i / SEGMENT_GROUP_SLOTS % 4 == 0;
        uint32_t at = i % SEGMENT_GROUP_SLOTS;
        if (is_full ? at < 60 : at < 2)
            refs[left++] = refs[i];
        else
            slot_pool_release(pool, refs[i]);
        sparse += !is_full && at < 2;
    }
    nrefs = left;
    assert_int_equal(slot_pool_flush(pool), 0);
    for (uint32_t count = 1; count > 0; total += count)
        count = choose(now_ms, &all[total], &pause_ms);
    /* They have room in the ten that are nearly full, but for twenty: those stay, in ten groups. */
    assert_in_range(total, sparse - 20, sparse);
    for (uint32_t i = 0; i < total; i++) {
        assert_int_not_equal((uint32_t)all[i] / SEGMENT_GROUP_SLOTS % 4, 0);
        for (uint32_t k = 0; k < i; k++)
            assert_true(all[i] != all[k]);
    }
}

/* Moves what is chosen, until there is nothing to wait for. */
static void move_all(int64_t now_ms)
{
    static uint8_t bytes[WIRE_PAGE_BYTES];
    uint64_t chosen[BATCH], copy;
    int pause_ms = 0;

    while (pause_ms >= 0) {
        uint32_t count = choose(now_ms, chosen, &pause_ms);
        for (uint32_t i = 0; i < count; i++) {
            struct slot_header header;
            assert_true(slot_pool_read(pool, chosen[i], &header, bytes));
            struct wire_page page = {
                .page = header.page,
                .sequence = header.sequence,
                .checksum = header.checksum,
                .length_bytes = header.length_bytes,
                .encoding = header.encoding,
            };
            struct slot_source source = {
                .region = 1, .stamp = 1, .moves = 1, .moved = 2, .page = &page, .bytes = bytes};
            assert_int_equal(slot_pool_fill_chosen(pool, 1, &source, &copy), 1);
            slot_pool_release(pool, chosen[i]);
        }
        assert_int_equal(slot_pool_flush(pool), 0);
        now_ms += pause_ms > 0 ? pause_ms : 1;
        if (count > 0)
            pause_ms = 0;
    }
}

static uint64_t disk_bytes(void)
{
    struct slot_pool_file file;
    struct stat st;
    char name[64];
    uint64_t bytes = 0;

    for (uint32_t i = 0; slot_pool_next_file(pool, &i, &file);) {
        slot_pool_name(&file, name, sizeof(name));
        assert_int_equal(stat(temp_dir_path(&dir, name), &st), 0);
        bytes += (uint64_t)st.st_blocks * 512;
    }
    return bytes;
}

/* Also blocks that could not be given back before, as other slots were in them. */
static void test_room_is_given_back_after_moving(void **state)
{
    (void)state;
    fill(4 * SLOTS, 600);
    thin_out(8);
    while (slot_pool_trim(pool, false))
        ;
    uint64_t need = (uint64_t)nrefs * (640 + SIZE_CLASS_HEADER_BYTES);
    assert_true(disk_bytes() > 3 * need);
    move_all(1000);
    while (slot_pool_trim(pool, false))
        ;
    assert_true(disk_bytes() <= need + need / 8 + 64 * 1024);
}

/* And those of slots that are freed where it has looked already, while it is still looking. */
static void test_room_is_given_back_behind_it(void **state)
{
    (void)state;
    fill(4 * SLOTS, WIRE_PAGE_BYTES);
    uint32_t half = nrefs / 2, left = half;
    for (uint32_t i = half; i < nrefs; i++) {
        if (i % 2 == 0)
            refs[left++] = refs[i];
        else
            slot_pool_release(pool, refs[i]);
    }
    assert_int_equal(slot_pool_flush(pool), 0);
    assert_true(slot_pool_trim(pool, false));
    for (uint32_t i = 0; i < half; i++)
        slot_pool_release(pool, refs[i]);
    assert_int_equal(slot_pool_flush(pool), 0);
    while (slot_pool_trim(pool, false))
        ;
    uint64_t need = (uint64_t)(left - half) * (WIRE_PAGE_BYTES + SIZE_CLASS_HEADER_BYTES);
    assert_true(disk_bytes() <= need + need / 8);
}

#define COMPACT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        COMPACT_TEST(test_waits_until_it_is_quiet),
        COMPACT_TEST(test_not_while_much_is_stored),
        COMPACT_TEST(test_again_when_idle),
        COMPACT_TEST(test_only_what_is_worth_it),
        COMPACT_TEST(test_sparse_groups_are_emptied),
        COMPACT_TEST(test_room_is_given_back_after_moving),
        COMPACT_TEST(test_room_is_given_back_behind_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
