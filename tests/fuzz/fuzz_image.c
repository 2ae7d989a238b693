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

enum { MORE_BYTES = 4096, HEADERS_AT = 4096, FEW_RECORDS = 64 };

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
        bool fill = i % 5 == 4;
        pages[i] = (struct wire_page){.page = first + i,
                                      .sequence = sequence,
                                      .length_bytes = fill ? 8 : WIRE_PAGE_BYTES,
                                      .encoding = fill ? WIRE_FILL : WIRE_RAW};
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
    struct store *store = fuzz_store_open(IMAGE_CAPACITY_BYTES, &report);

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

static void make_image(void)
{
    static const char *const names[] = {"segment-000000", "segment-000001", "shard", "manifest"};

    fuzz_dir();
    fuzz_dir_clear();
    fuzz_random_restart();
    make_store();
    for (uint32_t i = 0; i < 4; i++)
        load_file(&original.files[i], names[i]);
    original.nsegments = 2;
    original.nfiles = 4;
    for (uint32_t i = 0; i < 4; i++) {
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
    copy.shard = &copy.files[2];
    copy.manifest = &copy.files[3];
    return &copy;
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
        fuzz_require(write(fd, file->bytes, file->len) == (ssize_t)file->len);
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
