#include "store_fixture.h"

#include "../../dms/segment.h"
#include "test.h"
#include "store_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int fixture_open(struct store_fixture *fixture)
{
    struct store_options options = {
        .dir = fixture->dir.path,
        .capacity_bytes = fixture->capacity_bytes,
        .scan_threads = 2,
        .moves = fixture->moves,
        .region_bytes = fixture->region_bytes,
        .max_regions = fixture->max_regions,
        .durability = fixture->durability,
        .disk = fixture->disk,
    };

    return store_open(&fixture->store, &options, &fixture->report);
}

void fixture_close(struct store_fixture *fixture)
{
    store_close(&fixture->store);
}

void fixture_begin(struct store_fixture *fixture, uint64_t capacity_bytes)
{
    memset(fixture, 0, sizeof(*fixture));
    temp_dir_make(&fixture->dir);
    fixture->capacity_bytes = capacity_bytes;
    fixture->moves = STORE_MOVES_NEVER;
    assert_int_equal(fixture_open(fixture), 0);
}

void fixture_end(struct store_fixture *fixture)
{
    store_close(&fixture->store);
    temp_dir_remove(&fixture->dir);
}

void fixture_reopen(struct store_fixture *fixture)
{
    store_close(&fixture->store);
    assert_int_equal(fixture_open(fixture), 0);
}

static uint64_t epoch_of(struct store_fixture *fixture, uint64_t region)
{
    const struct region *found = store_find(fixture->store, region);

    return found == NULL ? 0 : found->epoch;
}

uint64_t fixture_region(struct store_fixture *fixture, const char *name)
{
    const struct region *region = NULL;
    uint64_t epoch = 1;

    for (const struct region *at = store_after(fixture->store, ""); at != NULL;
         at = store_after(fixture->store, at->name)) {
        if (strcmp(at->name, name) == 0)
            epoch = at->epoch;
    }
    assert_int_equal(store_claim(fixture->store, name, epoch, 1, &region), 0);
    return region->id;
}

int fixture_put_length(struct store_fixture *fixture, uint64_t region, uint64_t first,
                       uint32_t count, uint64_t sequence, uint8_t byte, uint32_t len)
{
    static uint8_t body[WIRE_MAX_BODY_BYTES];
    static struct wire_page pages[WIRE_MAX_PAGES];
    uint64_t bad;

    memset(body, byte, (size_t)count * len);
    for (uint32_t i = 0; i < count; i++)
        pages[i] = (struct wire_page){
            .page = first + i,
            .sequence = sequence,
            .checksum = wire_checksum(first + i, body, len),
            .length_bytes = len,
            .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW
                        : len == 8             ? WIRE_FILL
                                               : WIRE_LZ4,
        };
    return store_put(fixture->store, region, epoch_of(fixture, region), pages, count, body, &bad);
}

int fixture_put(struct store_fixture *fixture, uint64_t region, uint64_t first, uint32_t count,
                uint64_t sequence, uint8_t byte)
{
    return fixture_put_length(fixture, region, first, count, sequence, byte, WIRE_PAGE_BYTES);
}

int fixture_get(struct store_fixture *fixture, uint64_t region, uint64_t page)
{
    uint8_t bytes[WIRE_PAGE_BYTES];
    struct wire_page entry = {.page = page};
    struct store_found found;
    uint64_t bad = 0;
    int err =
        store_locate(fixture->store, region, epoch_of(fixture, region), &entry, 1, &found, &bad);

    if (err == 0 && entry.encoding == WIRE_ABSENT)
        return -1;
    if (err == 0)
        err = store_copy(fixture->store, &entry, 1, &found, bytes, &bad);
    if (err != 0) {
        assert_int_equal(bad, page);
        return err;
    }
    assert_int_equal(found.body_bytes, entry.length_bytes);
    for (uint32_t i = 1; i < entry.length_bytes; i++)
        assert_int_equal(bytes[i], bytes[0]);
    return bytes[0];
}

int fixture_drop(struct store_fixture *fixture, uint64_t region, uint64_t first, uint64_t count,
                 uint64_t sequence)
{
    struct wire_range range = {first, count};

    return store_drop(fixture->store, region, epoch_of(fixture, region), sequence, &range, 1);
}

int fixture_remove(struct store_fixture *fixture, uint64_t region)
{
    return store_remove(fixture->store, region, epoch_of(fixture, region));
}

uint64_t fixture_branch(struct store_fixture *fixture, uint64_t region, const char *name,
                        bool frozen)
{
    const struct region *branch;

    assert_int_equal(
        store_branch(fixture->store, region, epoch_of(fixture, region), name, frozen, &branch), 0);
    return branch->id;
}

uint64_t fixture_used(struct store_fixture *fixture)
{
    struct wire_shard_info info;

    while (store_work(fixture->store))
        ;
    store_stat(fixture->store, &info);
    return info.npages;
}

uint64_t fixture_used_bytes(const struct store_fixture *fixture)
{
    struct wire_shard_info info;

    store_stat(fixture->store, &info);
    return info.used_bytes;
}

static bool is_segment(const char *name)
{
    return strncmp(name, "segment-", 8) == 0;
}

uint32_t fixture_files(const struct store_fixture *fixture)
{
    DIR *listing = opendir(fixture->dir.path);
    struct dirent *entry;
    uint32_t count = 0;

    assert_non_null(listing);
    while ((entry = readdir(listing)) != NULL)
        count += is_segment(entry->d_name);
    closedir(listing);
    return count;
}

uint64_t fixture_disk_bytes(const struct store_fixture *fixture)
{
    DIR *listing = opendir(fixture->dir.path);
    struct dirent *entry;
    struct stat st;
    uint64_t bytes = 0;

    assert_non_null(listing);
    while ((entry = readdir(listing)) != NULL) {
        if (is_segment(entry->d_name) &&
            stat(temp_dir_path(&fixture->dir, entry->d_name), &st) == 0)
            bytes += (uint64_t)st.st_blocks * 512;
    }
    closedir(listing);
    return bytes;
}

/* What kind of slots a file has, from its header. */
static struct segment_shape read_shape(FILE *file)
{
    struct segment_shape shape;

    assert_int_equal(fseek(file, 12, SEEK_SET), 0);
    assert_int_equal(fread(&shape, sizeof(shape), 1, file), 1);
    assert_true(segment_shape_is_valid(shape));
    return shape;
}

/* Looks for the newest slot of the page, the last copy of it, in one file. */
static void search_file(const char *path, uint64_t region, uint64_t page, uint64_t *newest,
                        long *header, long *bytes)
{
    struct slot_header slot;
    FILE *file = fopen(path, "rb");

    assert_non_null(file);
    struct segment_shape shape = read_shape(file);
    for (uint32_t i = 0; i < shape.nslots; i++) {
        long at = (long)segment_header_offset(shape, i);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_equal(fread(&slot, sizeof(slot), 1, file), 1);
        if (slot.state == SLOT_USED && slot.region == region && slot.page == page &&
            (slot.stamp << 8 | slot.moves) > *newest) {
            *newest = slot.stamp << 8 | slot.moves;
            *header = at;
            *bytes = shape.slot_bytes == 0 ? at + (long)offsetof(struct slot_header, bytes)
                                           : (long)segment_slot_offset(shape, i);
        }
    }
    fclose(file);
}

void fixture_locate(const struct store_fixture *fixture, uint64_t region, uint64_t page,
                    const char **path, long *header, long *bytes)
{
    static char found[512];
    DIR *listing = opendir(fixture->dir.path);
    struct dirent *entry;
    uint64_t newest = 0;

    assert_non_null(listing);
    while ((entry = readdir(listing)) != NULL) {
        const char *candidate = temp_dir_path(&fixture->dir, entry->d_name);
        uint64_t before = newest;
        if (is_segment(entry->d_name))
            search_file(candidate, region, page, &newest, header, bytes);
        if (newest != before)
            snprintf(found, sizeof(found), "%s", candidate);
    }
    closedir(listing);
    assert_true(newest > 0);
    *path = found;
}

void fixture_flip(const char *path, long offset, uint8_t bits)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}
