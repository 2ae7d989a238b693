#include "fuzz_store.h"

#include "fuzz_dir.h"
#include "fuzz_input.h"
#include "../dms/store_copy.h"

#include <errno.h>

struct store *fuzz_store_open(uint64_t capacity_bytes, enum store_durability durability,
                              struct store_report *report)
{
    struct store_options options = {.dir = fuzz_dir(),
                                    .capacity_bytes = capacity_bytes,
                                    .durability = durability,
                                    .scan_threads = 1,
                                    .moves = STORE_MOVES_EAGERLY};
    struct store *store = NULL;

    return store_open(&store, &options, report) == 0 ? store : NULL;
}

/* Whether the wire could carry it as it is. */
static bool is_valid(const struct wire_page *page)
{
    static struct wire_reply reply;
    static uint8_t header[WIRE_MAX_HEADER_BYTES];

    reply.method = WIRE_PAGE_GET;
    reply.npages = 1;
    reply.pages[0] = *page;
    return wire_pack_reply(&reply, header, sizeof(header)) > 0;
}

int fuzz_store_get(const struct store *store, const struct region *region, struct wire_page *page)
{
    static uint8_t bytes[WIRE_PAGE_BYTES];
    struct store_found found;
    uint64_t bad = 0;
    uint64_t number = page->page;
    int err = store_locate((struct store *)store, region->id, region->epoch, page, 1, &found, &bad);

    if (err == 0)
        err = store_copy(store, page, 1, &found, bytes, &bad);
    /* Damaged, or perhaps lost. */
    fuzz_require(err == 0 || ((err == -EBADMSG || err == -ENODATA) && bad == number));
    fuzz_require(page->page == number);
    if (err != 0)
        return err;
    fuzz_require(is_valid(page));
    fuzz_require(found.body_bytes == page->length_bytes);
    if (page->encoding != WIRE_ABSENT)
        fuzz_require(wire_checksum(number, bytes, page->length_bytes) == page->checksum);
    return 0;
}

static void add(uint64_t *digest, uint64_t number)
{
    *digest = wire_checksum(*digest, &number, sizeof(number));
}

static void add_region(const struct store *store, const struct region *region, uint64_t *digest)
{
    uint64_t number = 0;

    add(digest, region->id);
    add(digest, region->epoch);
    add(digest, region->sequence);
    add(digest, region->flags);
    add(digest, page_tree_count(region->pages));
    add(digest, wire_checksum(0, region->name, strlen(region->name)));
    for (; page_tree_next(region->pages, number, &number) != 0; number++) {
        struct wire_page page = {.page = number};
        int err = fuzz_store_get(store, region, &page);
        add(digest, number);
        add(digest, err == 0 ? page.sequence : 0);
        add(digest, err == 0 ? page.checksum : 0);
        add(digest, err == 0 ? page.encoding : 0);
    }
}

uint64_t fuzz_store_digest(const struct store *store)
{
    const struct region *region = store_after(store, "");
    struct wire_shard_info info = {0};
    uint64_t digest = 1;

    store_stat(store, &info);
    add(&digest, info.nregions);
    for (; region != NULL; region = store_after(store, region->name))
        add_region(store, region, &digest);
    return digest;
}
