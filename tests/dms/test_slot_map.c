/* slot_map: a random sequence of its operations against an array. */
#include "test.h"

#include "../../dms/slot_map.h"

#include <string.h>

enum { NSLOTS = 256, STEPS = 20000 };

enum what { USED, READY, HOLE, PENDING };

static uint8_t slots[NSLOTS];
static bool dropped[NSLOTS], superseded[NSLOTS], marked[NSLOTS];

static uint32_t count(enum what what)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < NSLOTS; i++)
        n += slots[i] == what;
    return n;
}

static uint32_t change(uint32_t group, uint64_t which, enum what from, enum what to)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < 64; i++) {
        uint8_t *slot = &slots[group * 64 + i];
        if (*slot != from || ((which >> i) & 1) == 0)
            continue;
        *slot = (uint8_t)to;
        n++;
    }
    return n;
}

static void take(struct slot_map *map, uint32_t max)
{
    uint32_t first = 0;
    uint32_t taken = slot_map_take(map, max, &first);

    assert_true(taken <= max);
    assert_int_equal(taken == 0, count(READY) == 0 || max == 0);
    for (uint32_t i = first; i < first + taken; i++) {
        assert_int_equal(slots[i], READY);
        slots[i] = USED;
    }
    /* A run is cut short only where it ends. */
    if (taken > 0 && taken < max)
        assert_true(first + taken == NSLOTS || slots[first + taken] != READY);
}

static void give(struct slot_map *map, uint32_t slot, enum what what)
{
    if (slots[slot] != USED)
        return;
    if (what != PENDING && (dropped[slot] || superseded[slot] || marked[slot]))
        return;
    dropped[slot] = superseded[slot] = marked[slot] = false;
    slots[slot] = (uint8_t)what;
    if (what == READY)
        slot_map_add_ready(map, slot);
    else if (what == HOLE)
        slot_map_add_hole(map, slot);
    else
        slot_map_add_pending(map, slot);
}

static void drop(struct slot_map *map, uint32_t slot, bool is_dropped)
{
    if (slots[slot] != USED)
        return;
    dropped[slot] = is_dropped;
    marked[slot] = true;
    slot_map_set_dropped(map, slot, is_dropped);
    slot_map_mark(map, slot);
}

static void supersede(struct slot_map *map, uint32_t slot, bool is_superseded)
{
    if (slots[slot] != USED)
        return;
    superseded[slot] = is_superseded;
    marked[slot] = true;
    slot_map_set_superseded(map, slot, is_superseded);
    slot_map_mark(map, slot);
}

static uint32_t count_marked(uint32_t from, uint32_t to)
{
    uint32_t n = 0;

    for (uint32_t i = from; i < to; i++)
        n += marked[i];
    return n;
}

/* The first group with something to be marked is marked. */
static void settle(struct slot_map *map)
{
    if (count(PENDING) == 0 && count_marked(0, NSLOTS) == 0)
        return;
    uint32_t group = slot_map_find_pending(map);
    for (uint32_t i = 0; i < group; i++)
        assert_int_equal(map->pending[i] | map->marks[i], 0);
    slot_map_settle(map, group);
    uint32_t nmarked = count_marked(group * 64, group * 64 + 64);
    memset(&marked[group * 64], 0, 64);
    assert_true(change(group, ~(uint64_t)0, PENDING, READY) + nmarked > 0);
}

static void test_against_an_array(void **state)
{
    struct slot_map map;
    uint64_t random = 99;

    (void)state;
    memset(slots, USED, sizeof(slots));
    assert_int_equal(slot_map_init(&map, NSLOTS), 0);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint64_t number = test_random(&random);
        uint32_t group = (uint32_t)(number >> 40) % 4;
        switch (number % 10) {
        case 0:
        case 1:
        case 2:
            give(&map, (uint32_t)(number >> 32) % NSLOTS, (enum what)(READY + number % 10));
            break;
        case 5:
            settle(&map);
            break;
        case 3:
            if (count(HOLE) > 0) {
                group = slot_map_find_holes(&map);
                assert_int_not_equal(map.holes[group], 0);
            }
            assert_int_equal(slot_map_fill_holes(&map, group),
                             change(group, ~(uint64_t)0, HOLE, READY));
            break;
        case 4:
            number = test_random(&random);
            assert_int_equal(slot_map_make_holes(&map, group, number),
                             change(group, number, READY, HOLE));
            break;
        case 6:
            drop(&map, (uint32_t)(number >> 32) % NSLOTS, (number >> 20) % 3 != 0);
            break;
        case 7:
            supersede(&map, (uint32_t)(number >> 32) % NSLOTS, (number >> 20) % 3 != 0);
            break;
        default:
            take(&map, (uint32_t)(number >> 32) % 70);
        }
        assert_int_equal(map.nready, count(READY));
        assert_int_equal(map.nholes, count(HOLE));
        assert_int_equal(map.npending, count(PENDING));
        assert_int_equal(map.nmarks, count_marked(0, NSLOTS));
        for (uint32_t i = 0; i < NSLOTS; i++) {
            assert_int_equal((map.ready[i / 64] >> (i % 64)) & 1, slots[i] == READY);
            assert_int_equal((map.holes[i / 64] >> (i % 64)) & 1, slots[i] == HOLE);
            assert_int_equal((map.pending[i / 64] >> (i % 64)) & 1, slots[i] == PENDING);
            assert_int_equal((map.marks[i / 64] >> (i % 64)) & 1, marked[i]);
            assert_int_equal(slot_map_is_dropped(&map, i), dropped[i]);
            assert_int_equal(slot_map_is_superseded(&map, i), superseded[i]);
        }
    }
    slot_map_destroy(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_an_array)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
