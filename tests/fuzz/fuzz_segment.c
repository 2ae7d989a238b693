/*
 * fuzz_segment: the files of a store, damaged in any way, are opened and read.
 *
 * An input is a byte (odd: the store is used, too) and a list of changes to the files of a valid
 * store (fuzz_image.h): bytes laid over, flipped, a file cut short or gone, slots and records in
 * other places, slots in other states. Some make the checksums right again: what no accident does,
 * but what a file made by somebody else may hold. What must be so:
 *
 * - the store opens or says why not; nothing crashes;
 * - whatever page is served has the checksum it says, and the wire can carry it;
 * - it can be used, and what it acknowledged then is there;
 * - after accidents (nothing was made right again), opening it once more gives the same.
 */
#include "fuzz_dir.h"
#include "fuzz_image.h"
#include "fuzz_input.h"
#include "fuzz_random.h"
#include "fuzz_store.h"

#include "../../dms/manifest.h"
#include "../../dms/segment.h"
#include "../../ini/log.h"

#include <errno.h>

enum { MAX_CHANGES = 40, SHAPE_AT = 12, HEADERS_AT = 4096, FIRST_RECORDS = 24 };

enum change {
    CHANGE_BYTES,     /* any bytes anywhere in a file */
    CHANGE_FLIP,      /* bits of one byte */
    CHANGE_CUT,       /* a file ends earlier, or later with zeros */
    CHANGE_MISSING,   /* a file is gone */
    CHANGE_SLOT,      /* bytes of a slot header */
    CHANGE_SLOT_SEAL, /* the same, and its checksum is right */
    CHANGE_SLOT_COPY, /* a slot's header stands in another place too, sealed for it */
    CHANGE_RECORD,
    CHANGE_RECORD_SEAL,
    CHANGE_RECORD_COPY,
    CHANGE_SHARD_SEAL,
    CHANGE_SHAPE_SEAL, /* a segment file's size and number of slots, and its checksum is right */
    NCHANGES,
    CHANGE_STATE, /* a slot is in another state: used, free, dropped... */
};

static void lay_over(struct fuzz_input *input, uint8_t *at, size_t room)
{
    size_t got;
    const uint8_t *bytes = fuzz_bytes(input, fuzz_byte(input) % 32U, &got);

    memcpy(at, bytes, got < room ? got : room);
}

static void change_slot(struct fuzz_input *input, struct image *image, enum change change)
{
    uint8_t choice = fuzz_byte(input);
    struct image_file *segment = &image->files[choice / 64 % image->nsegments];
    uint32_t slot = choice % IMAGE_SLOTS;
    uint8_t *header = segment->bytes + HEADERS_AT + slot * sizeof(struct slot_header);
    size_t offset = fuzz_byte(input) % sizeof(struct slot_header);

    if (change == CHANGE_SLOT_COPY) {
        uint32_t from = fuzz_byte(input) % IMAGE_SLOTS;
        memcpy(header, segment->bytes + HEADERS_AT + from * sizeof(struct slot_header),
               sizeof(struct slot_header));
    }
    lay_over(input, header + offset, sizeof(struct slot_header) - offset);
    if (change != CHANGE_SLOT)
        image_seal_slot(segment, slot);
}

/* Whether it is a state that no accident makes of another. */
static bool change_state(struct fuzz_input *input, struct image *image)
{
    static const uint32_t states[] = {SLOT_USED, SLOT_FREE, SLOT_UNUSED, SLOT_SUPERSEDED,
                                      SLOT_DROPPED};
    struct image_file *segment = &image->files[fuzz_byte(input) % image->nsegments];
    uint32_t slot = fuzz_byte(input) % IMAGE_SLOTS;
    uint8_t *header = segment->bytes + HEADERS_AT + slot * sizeof(struct slot_header);

    uint32_t state = states[fuzz_byte(input) % 5];

    memcpy(header + offsetof(struct slot_header, state), &state, sizeof(state));
    return state != SLOT_UNUSED;
}

/* Not so many slots that it takes long to read them. */
static void change_shape(struct fuzz_input *input, struct image *image)
{
    struct image_file *segment = &image->files[fuzz_byte(input) % image->nsegments];
    struct segment_shape shape = {fuzz_byte(input) % 65U * 64, (fuzz_byte(input) + 1U) * 64};

    memcpy(segment->bytes + SHAPE_AT, &shape, sizeof(shape));
    image_seal_segment(segment);
}

static void change_record(struct fuzz_input *input, struct image *image, enum change change)
{
    size_t record = fuzz_byte(input) % FIRST_RECORDS;
    uint8_t *bytes = image->manifest->bytes + record * sizeof(struct manifest_record);
    size_t offset = fuzz_byte(input);

    if (change == CHANGE_RECORD_COPY) {
        size_t from = fuzz_byte(input) % FIRST_RECORDS;
        memmove(bytes, image->manifest->bytes + from * sizeof(struct manifest_record),
                sizeof(struct manifest_record));
    }
    lay_over(input, bytes + offset, sizeof(struct manifest_record) - offset);
    if (change != CHANGE_RECORD)
        image_seal_record(image->manifest, record);
}

static void change_file(struct fuzz_input *input, struct image *image, enum change change)
{
    struct image_file *file = &image->files[fuzz_byte(input) % image->nfiles];
    size_t offset = fuzz_number(input, 3);

    if (change == CHANGE_CUT) {
        file->len = offset % (file->cap + 1);
        memset(file->bytes + file->len, 0, file->cap - file->len);
    } else if (change == CHANGE_MISSING) {
        file->missing = 1;
    } else if (file->len > 0 && change == CHANGE_FLIP) {
        file->bytes[offset % file->len] ^= fuzz_byte(input);
    } else if (file->len > 0) {
        lay_over(input, file->bytes + offset % file->len, file->len - offset % file->len);
    }
}

/* Inputs that were found before there was CHANGE_STATE mean what they meant. */
static enum change take_change(struct fuzz_input *input)
{
    uint8_t byte = fuzz_byte(input);

    return byte / 8 == 30 ? CHANGE_STATE : (enum change)(byte % NCHANGES);
}

/* Whether it is one that makes a checksum right again. */
static bool apply_change(struct fuzz_input *input, struct image *image)
{
    enum change change = take_change(input);

    switch (change) {
    case CHANGE_SLOT:
    case CHANGE_SLOT_SEAL:
    case CHANGE_SLOT_COPY:
        change_slot(input, image, change);
        return change != CHANGE_SLOT;
    case CHANGE_RECORD:
    case CHANGE_RECORD_SEAL:
    case CHANGE_RECORD_COPY:
        change_record(input, image, change);
        return change != CHANGE_RECORD;
    case CHANGE_SHARD_SEAL:
        lay_over(input, image->shard->bytes + 8, 24);
        image_seal_shard(image->shard);
        return true;
    case CHANGE_SHAPE_SEAL:
        change_shape(input, image);
        return true;
    case CHANGE_STATE:
        return change_state(input, image);
    default:
        change_file(input, image, change);
        return false;
    }
}

static void use_region(struct store *store, const struct region *region, uint64_t number,
                       uint32_t len)
{
    uint8_t bytes[WIRE_PAGE_BYTES];
    struct wire_page page = {
        .page = number,
        .sequence = region->sequence + 1,
        .length_bytes = len,
        .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW : WIRE_LZ4,
    };
    struct wire_page got = {.page = number};
    uint64_t bad;

    if (page.sequence == 0 || (region->flags & REGION_FROZEN) != 0)
        return;
    memset(bytes, 7, sizeof(bytes));
    page.checksum = wire_checksum(page.page, bytes, len);
    int err = store_put(store, region->id, region->epoch, &page, 1, bytes, &bad);
    fuzz_require(err == 0 || err == -ENOSPC || err == -ENOMEM);
    if (err == 0)
        fuzz_require(fuzz_store_get(store, region, &got) == 0 && got.checksum == page.checksum);
}

/* Stores pages in every region that takes them, makes and removes regions. */
static void use_store(struct store *store)
{
    const struct region *region = store_after(store, ""), *made;

    for (; region != NULL; region = store_after(store, region->name)) {
        use_region(store, region, 7, WIRE_PAGE_BYTES);
        use_region(store, region, 505, 600);
    }
    region = store_after(store, "");
    if (region != NULL && store_branch(store, region->id, region->epoch, "zz", false, &made) == 0)
        fuzz_require(store_remove(store, region->id, region->epoch) == 0);
    while (store_work(store))
        ;
}

static void remove_all(struct store *store)
{
    const struct region *region;

    while ((region = store_after(store, "")) != NULL)
        fuzz_require(store_remove(store, region->id, region->epoch) == 0);
    while (store_work(store))
        ;
}

static struct store *reopen(struct store *store)
{
    struct store_report report;

    store_close(&store);
    store = fuzz_store_open(IMAGE_CAPACITY_BYTES, STORE_NONE, &report);
    fuzz_require(store != NULL);
    return store;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct image *image = image_take();
    struct store_report report;
    bool used = fuzz_byte(&input) % 2 != 0;
    bool by_accident = true;

    for (unsigned i = 0; i < MAX_CHANGES && input.left > 0; i++)
        by_accident = !apply_change(&input, image) && by_accident;
    fuzz_require(log_open("/dev/null", LOG_LEVEL_DEBUG) == 0);
    image_write(image);
    struct store *store = fuzz_store_open(IMAGE_CAPACITY_BYTES, STORE_NONE, &report);
    uint64_t digest = store == NULL ? 0 : fuzz_store_digest(store);
    if (store != NULL && by_accident) {
        store = reopen(store);
        fuzz_require(fuzz_store_digest(store) == digest);
    }
    if (store != NULL && used) {
        use_store(store);
        store = reopen(store);
        (void)fuzz_store_digest(store);
        remove_all(store);
    }
    store_close(&store);
    log_close();
    return 0;
}
