#include "fuzz_image.h"

#include "fuzz_dir.h"
#include "fuzz_input.h"
#include "fuzz_random.h"
#include "fuzz_store.h"

#include "../../dms/manifest.h"
#include "../../dms/segment.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

enum { MORE_BYTES = 4096, HEADERS_AT = 4096, FEW_RECORDS = 64, BLOCK = 4096 };

static struct image original, copy;

static const struct region *own(struct store *store, const char *name)
{
    const struct region *region = NULL;

    fuzz_require(store_claim(store, name, 1, 1, &region) == 0);
    return region;
}

static void put(struct store *store, const struct region *region, uint64_t first, uint32_t npages,
                uint64_t sequence)
{
    static uint8_t body[WIRE_MAX_BODY_BYTES];
    static struct wire_page pages[WIRE_MAX_PAGES];
    uint8_t *at = body;
    uint64_t bad;

    for (uint32_t i = 0; i < npages; i++) {
        static const uint32_t lengths[] = {WIRE_PAGE_BYTES, 600, WIRE_PAGE_BYTES, 3000, 8};
        uint32_t len = lengths[i % 5];
        pages[i] = (struct wire_page){.page = first + i,
                                      .sequence = sequence,
                                      .length_bytes = len,
                                      .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW
                                                  : len == 8             ? WIRE_FILL
                                                                         : WIRE_LZ4};
        memset(at, (int)(first + i + sequence), pages[i].length_bytes);
        pages[i].checksum = wire_checksum(first + i, at, pages[i].length_bytes);
        at += pages[i].length_bytes;
    }
    fuzz_require(store_put(store, region->id, 1, pages, npages, body, &bad) == 0);
}

static void drop(struct store *store, const struct region *region, uint64_t first, uint64_t npages,
                 uint64_t sequence)
{
    struct wire_range range = {first, npages};

    fuzz_require(store_drop(store, region->id, 1, sequence, &range, 1) == 0);
}

static const struct region *branch(struct store *store, const struct region *region,
                                   const char *name, bool frozen)
{
    const struct region *made = NULL;

    fuzz_require(store_branch(store, region->id, 1, name, frozen, &made) == 0);
    return made;
}

/* A little of everything: regions alone and related, drops, a region removed that others share. */
static void make_store(void)
{
    struct store_report report;
    struct store *store = fuzz_store_open(IMAGE_CAPACITY_BYTES, STORE_NONE, &report);

    fuzz_require(store != NULL);
    const struct region *alone = own(store, "alone"), *parent = own(store, "parent");
    put(store, alone, 0, 10, 1);
    put(store, alone, 5, 10, 2);
    drop(store, alone, 8, 2, 2);
    put(store, parent, 500, 20, 1);
    put(store, parent, (uint64_t)1 << 40, 4, 2);
    const struct region *frozen = branch(store, parent, "frozen", true);
    const struct region *child = branch(store, frozen, "child", false);
    put(store, parent, 505, 5, 3);
    put(store, child, 510, 20, 4);
    drop(store, child, 500, 3, 4);
    drop(store, parent, 515, 10, 3);
    const struct region *gone = branch(store, child, "gone", false);
    put(store, gone, 512, 3, 5);
    fuzz_require(branch(store, gone, "last", false) != NULL);
    fuzz_require(store_remove(store, gone->id, 1) == 0);
    store_close(&store);
}

static void load_file(struct image_file *file, const char *name)
{
    int fd = open(fuzz_dir_path(name), O_RDONLY | O_CLOEXEC);

    fuzz_require(fd >= 0);
    off_t len = lseek(fd, 0, SEEK_END);
    snprintf(file->name, sizeof(file->name), "%s", name);
    file->len = (size_t)len;
    /* Of the manifest's room only what may matter: it is mostly empty. */
    if (strcmp(name, "manifest") == 0 && file->len > FEW_RECORDS * sizeof(struct manifest_record))
        file->len = FEW_RECORDS * sizeof(struct manifest_record);
    file->cap = file->len + MORE_BYTES;
    file->bytes = calloc(1, file->cap);
    fuzz_require(file->bytes != NULL);
    fuzz_require(pread(fd, file->bytes, file->len, 0) == (ssize_t)file->len);
    close(fd);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct image_file *)a)->name, ((const struct image_file *)b)->name);
}

static void load_segments(void)
{
    DIR *listing = opendir(fuzz_dir());
    struct dirent *entry;

    fuzz_require(listing != NULL);
    while ((entry = readdir(listing)) != NULL) {
        if (strncmp(entry->d_name, "segment-", 8) != 0)
            continue;
        fuzz_require(original.nsegments + 2 < IMAGE_MAX_FILES);
        load_file(&original.files[original.nsegments++], entry->d_name);
    }
    closedir(listing);
    qsort(original.files, original.nsegments, sizeof(original.files[0]), compare_names);
}

static void make_image(void)
{
    fuzz_dir();
    fuzz_dir_clear();
    fuzz_random_restart();
    make_store();
    load_segments();
    fuzz_require(original.nsegments >= 4);
    original.nfiles = original.nsegments + 2;
    load_file(&original.files[original.nsegments], "shard");
    load_file(&original.files[original.nsegments + 1], "manifest");
    for (uint32_t i = 0; i < original.nfiles; i++) {
        copy.files[i].bytes = malloc(original.files[i].cap);
        fuzz_require(copy.files[i].bytes != NULL);
    }
}

struct image *image_take(void)
{
    if (original.nfiles == 0)
        make_image();
    for (uint32_t i = 0; i < original.nfiles; i++) {
        uint8_t *bytes = copy.files[i].bytes;
        copy.files[i] = original.files[i];
        copy.files[i].bytes = bytes;
        memcpy(bytes, original.files[i].bytes, original.files[i].cap);
    }
    copy.nfiles = original.nfiles;
    copy.nsegments = original.nsegments;
    copy.shard = &copy.files[copy.nsegments];
    copy.manifest = &copy.files[copy.nsegments + 1];
    return &copy;
}

/* Blocks of zeros become holes, as they are in a store. */
static void write_blocks(int fd, const struct image_file *file)
{
    static const uint8_t zeros[BLOCK];

    fuzz_require(ftruncate(fd, (off_t)file->len) == 0);
    for (size_t at = 0; at < file->len; at += BLOCK) {
        size_t len = file->len - at < BLOCK ? file->len - at : BLOCK;
        if (memcmp(file->bytes + at, zeros, len) != 0)
            fuzz_require(pwrite(fd, file->bytes + at, len, (off_t)at) == (ssize_t)len);
    }
}

void image_write(const struct image *image)
{
    fuzz_dir_clear();
    for (uint32_t i = 0; i < image->nfiles; i++) {
        const struct image_file *file = &image->files[i];
        if (file->missing)
            continue;
        int fd = open(fuzz_dir_path(file->name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        fuzz_require(fd >= 0);
        write_blocks(fd, file);
        close(fd);
    }
}

void image_seal_slot(struct image_file *segment, uint32_t slot)
{
    uint8_t *header = segment->bytes + HEADERS_AT + slot * sizeof(struct slot_header);
    size_t from = offsetof(struct slot_header, length_bytes);
    size_t to = offsetof(struct slot_header, header_checksum);
    uint64_t sum = XXH3_64bits_withSeed(header + from, to - from, slot);

    memcpy(header + to, &sum, sizeof(sum));
}

void image_seal_segment(struct image_file *segment)
{
    uint64_t sum = XXH3_64bits(segment->bytes, 24);

    memcpy(segment->bytes + 24, &sum, sizeof(sum));
}

void image_seal_record(struct image_file *manifest, size_t record)
{
    uint8_t *bytes = manifest->bytes + record * sizeof(struct manifest_record);
    uint8_t *at = bytes + offsetof(struct manifest_record, checksum);

    memset(at, 0, 8);
    uint64_t sum = XXH3_64bits(bytes, sizeof(struct manifest_record));
    memcpy(at, &sum, sizeof(sum));
}

void image_seal_shard(struct image_file *shard)
{
    uint64_t sum = XXH3_64bits(shard->bytes, 24);

    memcpy(shard->bytes + 24, &sum, sizeof(sum));
}
