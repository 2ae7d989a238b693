/* segment: pages of every length in the slots made for them, and what segments take on disk: blocks
 * are there when slots are ready, and gone when they were punched, whatever lies beside them. */
#include "temp_dir.h"
#include "test.h"

#include "../../dms/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { NSLOTS = 256, NGROUPS = NSLOTS / SEGMENT_GROUP_SLOTS, ROUNDS = 16 };

static struct temp_dir dir;

/* What a slot must hold. */
struct held {
    uint32_t len; /* 0: nothing */
    uint64_t seed;
};

static struct held held[NSLOTS];
static struct segment_shape shape;
static struct segment *segment;

static const char *path(void)
{
    return temp_dir_path(&dir, "segment");
}

static int setup(void **state)
{
    (void)state;
    temp_dir_make(&dir);
    memset(held, 0, sizeof(held));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    segment_close(&segment);
    temp_dir_remove(&dir);
    return 0;
}

/* One less that points at the slot; at zero it is freed. */
static bool release(struct segment *of, uint32_t slot)
{
    bool is_last = segment_unhold(of, slot);

    if (is_last)
        segment_free(of, slot);
    return is_last;
}

static void make_bytes(uint64_t seed, uint8_t *bytes, uint32_t len)
{
    uint64_t random = seed + 1;

    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(test_random(&random) >> 32);
}

/* Fills up to COUNT ready slots with pages of LEN bytes; returns how many. */
static uint32_t fill(uint32_t count, uint32_t len, uint64_t seed)
{
    static uint8_t bytes[SEGMENT_GROUP_SLOTS][WIRE_PAGE_BYTES];
    struct wire_page pages[SEGMENT_GROUP_SLOTS];
    struct slot_source sources[SEGMENT_GROUP_SLOTS];
    uint32_t first = 0;
    uint32_t taken = segment_take(segment, count, &first);

    for (uint32_t i = 0; i < taken; i++) {
        make_bytes(seed + i, bytes[i], len);
        pages[i] = (struct wire_page){
            .page = seed + i,
            .sequence = 1,
            .length_bytes = len,
            .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW : WIRE_LZ4,
            .checksum = wire_checksum(seed + i, bytes[i], len),
        };
        sources[i] = (struct slot_source){.region = 9, .page = &pages[i], .bytes = bytes[i]};
        assert_int_equal(held[first + i].len, 0);
        held[first + i] = (struct held){len, seed + i};
    }
    assert_int_equal(segment_fill(segment, first, taken, sources), 0);
    return taken;
}

static void check_group(uint32_t group, uint8_t *checks)
{
    static uint8_t buffer[SEGMENT_GROUP_BYTES];
    bool headers_lost = false;

    segment_check_group(segment, group, buffer, checks, &headers_lost);
    assert_false(headers_lost);
}

static void check_all(void)
{
    static uint8_t bytes[WIRE_PAGE_BYTES];
    uint8_t checks[NSLOTS] = {0};

    for (uint32_t group = 0; group < shape.nslots / SEGMENT_GROUP_SLOTS; group++)
        check_group(group, &checks[group * SEGMENT_GROUP_SLOTS]);
    for (uint32_t slot = 0; slot < shape.nslots; slot++) {
        if (held[slot].len == 0) {
            assert_int_equal(checks[slot], SLOT_CHECK_EMPTY);
            continue;
        }
        assert_int_equal(checks[slot], SLOT_CHECK_GOOD);
        assert_int_equal(segment_check(segment, slot, true), SLOT_CHECK_GOOD);
        const struct slot_header *header = segment_header(segment, slot);
        make_bytes(held[slot].seed, bytes, held[slot].len);
        assert_int_equal(header->page, held[slot].seed);
        assert_int_equal(header->length_bytes, held[slot].len);
        assert_memory_equal(segment_bytes(segment, slot), bytes, held[slot].len);
    }
}

static void reopen(void)
{
    uint8_t checks[SEGMENT_GROUP_SLOTS] = {0};
    unsigned faults;

    segment_close(&segment);
    assert_int_equal(segment_open(&segment, &disk_real, path(), shape, &faults), 0);
    assert_int_equal(faults, 0);
    for (uint32_t slot = 0; slot < shape.nslots; slot++) {
        if (slot % SEGMENT_GROUP_SLOTS == 0)
            check_group(slot / SEGMENT_GROUP_SLOTS, checks);
        segment_adopt(segment, slot, checks[slot % SEGMENT_GROUP_SLOTS]);
    }
    assert_int_equal(segment_end_adoption(segment), 0);
}

static uint64_t disk_bytes(void)
{
    struct stat st;

    assert_int_equal(stat(path(), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void begin(uint32_t slot_bytes, uint32_t nslots)
{
    segment_close(&segment);
    unlink(path());
    memset(held, 0, sizeof(held));
    shape = (struct segment_shape){slot_bytes, nslots};
    assert_int_equal(segment_create(&segment, &disk_real, path(), shape), 0);
}

static void test_every_length(void **state)
{
    (void)state;
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        uint32_t room = size_class == 0 ? SIZE_CLASS_INLINE_BYTES : size_class_bytes(size_class);
        uint32_t len = size_class == 0   ? 1
                       : size_class == 1 ? SIZE_CLASS_INLINE_BYTES + 1
                                         : size_class_bytes(size_class - 1) + 1;
        begin(size_class_bytes(size_class), NSLOTS);
        for (; len <= room; len++) {
            assert_int_equal(size_class_of(len), size_class);
            if (segment_ready_slots(segment) == 0)
                assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
            assert_int_equal(fill(1, len, len * 1000), 1);
        }
        /* Runs, with the room beside them full. */
        while (segment_holes(segment) > 0)
            assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
        for (uint32_t i = 0; segment_ready_slots(segment) > 0; i++)
            assert_true(fill(1 + i % 9, room - i % 3, 7000000 + i * 100) > 0);
        check_all();
        reopen();
        check_all();
    }
}

/* A file of its size from the start, with next to nothing on disk. */
static void test_new_segment_takes_a_block(void **state)
{
    struct stat st;

    (void)state;
    begin(WIRE_PAGE_BYTES, 16384);
    assert_int_equal(stat(path(), &st), 0);
    assert_int_equal(st.st_size, 4096 + 16384 * (64 + WIRE_PAGE_BYTES));
    assert_true(disk_bytes() <= 4096);
    assert_int_equal(segment_take(segment, 1, &(uint32_t){0}), 0);
    assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
    assert_true(disk_bytes() <= 4096 + 64 * (64 + WIRE_PAGE_BYTES) + 8192);
}

/* Blocks that what is held needs, and those of headers. */
static uint64_t needed_blocks(void)
{
    uint64_t blocks = 0;
    size_t last = SIZE_MAX;

    for (uint32_t group = 0; group < NGROUPS; group++) {
        bool any = false;
        for (uint32_t slot = group * 64; slot < (group + 1) * 64; slot++)
            any = any || held[slot].len > 0;
        blocks += any;
    }
    for (uint32_t slot = 0; slot < NSLOTS; slot++) {
        size_t from = segment_slot_offset(shape, slot) / 4096;
        size_t to = (segment_slot_offset(shape, slot) + shape.slot_bytes + 4095) / 4096;
        for (size_t block = from; held[slot].len > 0 && shape.slot_bytes > 0 && block < to;
             block++) {
            blocks += block != last;
            last = block;
        }
    }
    return blocks;
}

static void punch_all(void)
{
    for (uint32_t slot = 0; slot < shape.nslots;) {
        uint32_t from = slot, free = segment_ready_slots(segment) + segment_holes(segment);
        unsigned calls = 2;
        assert_int_equal(segment_punch(segment, &slot, &calls), 0);
        assert_true(slot > from && (calls < 2 || slot % SEGMENT_GROUP_SLOTS == 0));
        assert_int_equal(segment_ready_slots(segment) + segment_holes(segment), free);
    }
}

static void release_some(uint64_t *random, uint32_t percent)
{
    for (uint32_t slot = 0; slot < NSLOTS; slot++) {
        if (held[slot].len == 0 || test_random(random) % 100 >= percent)
            continue;
        assert_true(release(segment, slot));
        held[slot].len = 0;
    }
    assert_int_equal(segment_flush(segment), 0);
}

/* Random filling, freeing, punching and opening again, for slots of one size. */
static void play(uint32_t size_class, uint64_t random)
{
    uint32_t room = size_class == 0 ? SIZE_CLASS_INLINE_BYTES : size_class_bytes(size_class);
    uint32_t least = size_class == 0   ? 1
                     : size_class == 1 ? SIZE_CLASS_INLINE_BYTES + 1
                                       : size_class_bytes(size_class - 1) + 1;

    begin(size_class_bytes(size_class), NSLOTS);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        for (uint32_t i = 0; i < 20; i++) {
            uint64_t number = test_random(&random);
            if (segment_ready_slots(segment) == 0 && segment_holes(segment) > 0)
                assert_true(segment_reserve(segment) > 0);
            fill(1 + (uint32_t)(number % 20), least + (uint32_t)(number >> 20) % (room - least + 1),
                 round * 1000000 + i * 1000);
        }
        check_all();
        release_some(&random, round % 3 == 0 ? 100 : (uint32_t)(round * 37 % 100));
        /* Opened again, a few blocks may be left that nobody knows of. */
        bool known = round <= ROUNDS / 2;
        if (!known)
            reopen();
        punch_all();
        check_all();
        assert_true(disk_bytes() >= needed_blocks() * 4096);
        /* The file's header, and what the file system needs for a file in pieces. */
        assert_true(!known || disk_bytes() <= (1 + needed_blocks()) * 4096 + 8192);
    }
}

static void test_punching_leaves_what_is_held(void **state)
{
    (void)state;
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++)
        play(size_class, 1000 + size_class);
}

/* After a restart nobody knows which blocks free slots have: looked at once, they are given back.
 */
static void test_blocks_are_given_back_after_a_restart(void **state)
{
    (void)state;
    begin(WIRE_PAGE_BYTES, NSLOTS);
    while (segment_holes(segment) > 0)
        assert_true(segment_reserve(segment) > 0);
    while (segment_ready_slots(segment) > 0)
        fill(SEGMENT_GROUP_SLOTS, WIRE_PAGE_BYTES, 1 + segment_ready_slots(segment));
    for (uint32_t slot = 0; slot < NSLOTS; slot++) {
        if (slot % 50 == 0)
            continue;
        assert_true(release(segment, slot));
        held[slot].len = 0;
    }
    assert_int_equal(segment_flush(segment), 0);
    reopen();
    assert_true(segment_is_unsure(segment));
    assert_int_equal(segment_ready_slots(segment), 0);
    assert_true(disk_bytes() > NSLOTS * WIRE_PAGE_BYTES);
    punch_all();
    segment_be_sure(segment);
    assert_true(disk_bytes() <= (1 + needed_blocks()) * 4096 + 8192);
    check_all();
    reopen();
    assert_false(segment_is_unsure(segment));
    check_all();
}

static void overwrite(off_t offset, const void *bytes, size_t len)
{
    int fd = open(path(), O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, offset), (ssize_t)len);
    close(fd);
}

/* The last byte of a page, its slot's neighbours being full, in every class. */
static void test_damage_is_found_in_every_class(void **state)
{
    uint8_t checks[SEGMENT_GROUP_SLOTS], byte;

    (void)state;
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        uint32_t room = size_class == 0 ? SIZE_CLASS_INLINE_BYTES : size_class_bytes(size_class);
        begin(size_class_bytes(size_class), SEGMENT_GROUP_SLOTS);
        assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
        assert_int_equal(fill(SEGMENT_GROUP_SLOTS, room, 5), SEGMENT_GROUP_SLOTS);
        byte = ((const uint8_t *)segment_bytes(segment, 33))[room - 1] ^ 8U;
        off_t at = size_class == 0 ? (off_t)(segment_header_offset(shape, 33) +
                                             offsetof(struct slot_header, bytes) + room - 1)
                                   : (off_t)segment_slot_offset(shape, 33) + room - 1;
        overwrite(at, &byte, 1);
        check_group(0, checks);
        for (uint32_t slot = 0; slot < SEGMENT_GROUP_SLOTS; slot++)
            assert_int_equal(checks[slot], slot != 33        ? SLOT_CHECK_GOOD
                                           : size_class == 0 ? SLOT_CHECK_BAD_HEADER
                                                             : SLOT_CHECK_BAD_PAGE);
    }
}

static void check_state(uint32_t slot, enum slot_state state, enum slot_check check)
{
    uint8_t checks[SEGMENT_GROUP_SLOTS];

    assert_int_equal(atomic_load(&segment_header(segment, slot)->state), state);
    check_group(0, checks);
    assert_int_equal(checks[slot], check);
    assert_int_equal(segment_check(segment, slot, true), check);
}

/* In slots with and without bytes of their own; what lies beside them stays as it is. */
static void test_marks_are_seen_after_a_restart(void **state)
{
    (void)state;
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class += 8) {
        uint32_t room = size_class == 0 ? SIZE_CLASS_INLINE_BYTES : size_class_bytes(size_class);
        begin(size_class_bytes(size_class), SEGMENT_GROUP_SLOTS);
        assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
        assert_int_equal(fill(8, room, 5), 8);
        (void)segment_begin_sync(segment, true);
        assert_true(segment_unhold(segment, 2));
        segment_supersede(segment, 2);
        check_state(2, SLOT_USED, SLOT_CHECK_GOOD);
        assert_int_equal(segment_flush(segment), 0);
        check_state(2, SLOT_SUPERSEDED, SLOT_CHECK_SUPERSEDED);
        /* Nothing is lost if that is not synced at once. */
        assert_int_equal(segment_begin_sync(segment, false), -1);
        segment_drop(segment, 5, true);
        assert_int_equal(segment_flush(segment), 0);
        assert_int_not_equal(segment_begin_sync(segment, false), -1);
        reopen();
        check_state(1, SLOT_USED, SLOT_CHECK_GOOD);
        check_state(2, SLOT_SUPERSEDED, SLOT_CHECK_SUPERSEDED);
        check_state(3, SLOT_USED, SLOT_CHECK_GOOD);
        check_state(5, SLOT_DROPPED, SLOT_CHECK_DROPPED);
        assert_true(segment_is_sound(segment, 2) && segment_is_sound(segment, 5));
        assert_true(segment_is_dropped(segment, 5));
        segment_revive(segment, 2);
        assert_int_equal(segment_flush(segment), 0);
        assert_true(release(segment, 5));
        assert_int_equal(segment_flush(segment), 0);
        check_state(2, SLOT_USED, SLOT_CHECK_GOOD);
        check_state(5, SLOT_FREE, SLOT_CHECK_EMPTY);
    }
}

/* A header that is sound, in a slot too small for what it says. */
static void test_page_longer_than_its_slot_is_damage(void **state)
{
    struct slot_header header;

    (void)state;
    begin(2048, SEGMENT_GROUP_SLOTS);
    assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
    assert_int_equal(fill(2, 1984, 5), 2);
    memcpy(&header, segment_header(segment, 1), sizeof(header));
    begin(1920, SEGMENT_GROUP_SLOTS);
    assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
    overwrite((off_t)segment_header_offset(shape, 1), &header, sizeof(header));
    assert_int_equal(segment_check(segment, 1, false), SLOT_CHECK_BAD_HEADER);
    begin(0, SEGMENT_GROUP_SLOTS);
    assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
    overwrite((off_t)segment_header_offset(shape, 1), &header, sizeof(header));
    assert_int_equal(segment_check(segment, 1, false), SLOT_CHECK_BAD_HEADER);
}

/* A sound file header counts, whatever the name says; if it is damaged, the name's word is taken.
 */
static void test_shape_comes_from_the_file(void **state)
{
    unsigned faults;

    (void)state;
    for (int damage = 0; damage < 2; damage++) {
        begin(1280, NSLOTS);
        assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
        assert_int_equal(fill(30, 1200, 5), 30);
        segment_close(&segment);
        if (damage)
            overwrite(13, "\xff", 1);
        struct segment_shape said = damage ? shape : (struct segment_shape){64, 4096};
        assert_int_equal(segment_open(&segment, &disk_real, path(), said, &faults), 0);
        assert_int_equal(faults, damage ? SEGMENT_BAD_HEADER : 0);
        assert_int_equal(segment_shape(segment).slot_bytes, 1280);
        assert_int_equal(segment_shape(segment).nslots, NSLOTS);
        check_all();
    }
}

/* Opens it again; of the slots FROM to TO the headers are said to be EXPECTED, all others to be
 * right. */
static void reopen_with(bool in_doubt, uint32_t from, uint32_t to, enum slot_check expected)
{
    uint8_t checks[NSLOTS] = {0};
    unsigned faults;

    segment_close(&segment);
    assert_int_equal(segment_open(&segment, &disk_real, path(), shape, &faults), 0);
    if (in_doubt)
        segment_set_in_doubt(segment);
    for (uint32_t slot = 0; slot < shape.nslots; slot++) {
        if (slot % SEGMENT_GROUP_SLOTS == 0)
            check_group(slot / SEGMENT_GROUP_SLOTS, &checks[slot]);
        bool is_one = slot >= from && slot < to;
        enum slot_check right = held[slot].len == 0 ? SLOT_CHECK_EMPTY : SLOT_CHECK_GOOD;
        assert_int_equal(checks[slot], is_one ? expected : right);
        segment_adopt(segment, slot, checks[slot]);
    }
    assert_int_equal(segment_end_adoption(segment), 0);
}

/* Zeros where there were headers are damage, after a power cut only within a sector; then they
 * become headers. */
static void test_zeros_for_headers(void **state)
{
    static const char zeros[16 * sizeof(struct slot_header)];
    uint32_t two = 2 * sizeof(struct slot_header);

    (void)state;
    begin(1280, NSLOTS);
    assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
    assert_int_equal(fill(10, 1200, 5), 10);
    reopen_with(false, 0, 0, SLOT_CHECK_EMPTY);
    overwrite((long)segment_header_offset(shape, 40), zeros, sizeof(zeros));
    reopen_with(false, 40, 56, SLOT_CHECK_BAD_HEADER);
    reopen_with(true, 40, 56, SLOT_CHECK_EMPTY);
    reopen_with(false, 0, 0, SLOT_CHECK_EMPTY);
    overwrite((long)segment_header_offset(shape, 3), zeros, two);
    reopen_with(true, 3, 5, SLOT_CHECK_BAD_HEADER);
    reopen_with(false, 3, 5, SLOT_CHECK_BAD_HEADER);
}

/* Which groups have headers is damaged: it is found out anew. */
static void test_map_of_groups_is_damaged(void **state)
{
    unsigned faults;

    (void)state;
    begin(1280, NSLOTS);
    assert_int_equal(segment_reserve(segment), SEGMENT_GROUP_SLOTS);
    assert_int_equal(fill(10, 1200, 5), 10);
    segment_close(&segment);
    overwrite(40, "\x5a", 1);
    assert_int_equal(segment_open(&segment, &disk_real, path(), shape, &faults), 0);
    assert_int_equal(faults, SEGMENT_BAD_HEADER);
    check_all();
    for (uint32_t slot = 0; slot < shape.nslots; slot++)
        segment_adopt(segment, slot, held[slot].len == 0 ? SLOT_CHECK_EMPTY : SLOT_CHECK_GOOD);
    assert_int_equal(segment_end_adoption(segment), 0);
    assert_int_equal(segment_mend(segment), 0);
    reopen_with(false, 0, 0, SLOT_CHECK_EMPTY);
}

static void test_other_formats_are_refused(void **state)
{
    static const uint32_t formats[] = {0, 1, 2, SEGMENT_FORMAT + 1};
    uint8_t header[32];
    unsigned faults;

    (void)state;
    begin(1280, NSLOTS);
    segment_close(&segment);
    for (int i = 0; i < 4; i++) {
        int fd = open(path(), O_RDONLY);
        assert_int_equal(pread(fd, header, sizeof(header), 0), sizeof(header));
        close(fd);
        memcpy(header + 8, &formats[i], sizeof(formats[i]));
        uint64_t sum = XXH3_64bits(header, 24);
        memcpy(header + 24, &sum, sizeof(sum));
        overwrite(0, header, sizeof(header));
        assert_int_equal(segment_open(&segment, &disk_real, path(), shape, &faults),
                         -EPROTONOSUPPORT);
        assert_null(segment);
    }
}

#define SPACE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPACE_TEST(test_every_length),
        SPACE_TEST(test_new_segment_takes_a_block),
        SPACE_TEST(test_punching_leaves_what_is_held),
        SPACE_TEST(test_blocks_are_given_back_after_a_restart),
        SPACE_TEST(test_damage_is_found_in_every_class),
        SPACE_TEST(test_marks_are_seen_after_a_restart),
        SPACE_TEST(test_page_longer_than_its_slot_is_damage),
        SPACE_TEST(test_shape_comes_from_the_file),
        SPACE_TEST(test_zeros_for_headers),
        SPACE_TEST(test_map_of_groups_is_damaged),
        SPACE_TEST(test_other_formats_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
