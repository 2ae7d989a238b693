#include "notice.h"
#include "store_parts.h"

enum {
    BATCH_PAGES = 16, /* moved in a step: some 100 us */
    /* Page tables looked into in a step. Where there are more, a page that many regions share stays
     * where it is if one of them is not found before. */
    MOST_LOOKS = 1024,
};

/* Pages to be moved. */
struct moves {
    uint32_t count;
    uint64_t refs[BATCH_PAGES];
    uint64_t copies[BATCH_PAGES];
    struct wire_page pages[BATCH_PAGES];
    struct slot_source sources[BATCH_PAGES];
    char bytes[BATCH_PAGES][WIRE_PAGE_BYTES];
};

/* Reads what of the COUNT chosen slots can be moved: good pages, so that damage stays where it is
 * and is found. */
static void read_pages(struct store *store, struct moves *moves, uint32_t count)
{
    moves->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct slot_header header;
        uint32_t at = moves->count;
        uint64_t ref = moves->refs[i];
        if (!slot_pool_read(store->pool, ref, &header, moves->bytes[at]) ||
            header.encoding == SLOT_LOST || header.moves == SLOT_MAX_MOVES)
            continue;
        moves->refs[at] = ref;
        moves->pages[at] = (struct wire_page){
            .page = header.page,
            .sequence = header.sequence,
            .checksum = header.checksum,
            .length_bytes = header.length_bytes,
            .encoding = header.encoding,
        };
        moves->sources[at] = (struct slot_source){
            .region = header.region,
            .stamp = header.stamp,
            .moves = (uint8_t)(header.moves + 1),
            .moved = ++store->stamp,
            .page = &moves->pages[at],
            .bytes = moves->bytes[at],
        };
        moves->count++;
    }
}

/* Fills slots with copies. Returns how many there are; the others stay where they are. */
static uint32_t write_copies(struct store *store, struct moves *moves)
{
    uint32_t done = 0;

    while (done < moves->count) {
        uint64_t first;
        int run =
            slot_pool_fill_chosen(store->pool, moves->count - done, &moves->sources[done], &first);
        if (run < 0)
            break;
        for (int i = 0; i < run; i++)
            moves->copies[done++] = first + (unsigned)i;
    }
    return done;
}

/* Points what points at slot FROM of REGION's page at slot TO, at most MOST of them. Returns how
 * many did. All that do are REGION itself and what was branched from it. */
static uint32_t repoint(struct store *store, uint64_t id, uint64_t page, uint64_t from, uint64_t to,
                        uint32_t most)
{
    struct region *region = region_table_find(store->regions, id);
    uint32_t nregions = region_table_size(store->regions), count = 0;

    if (region != NULL && region->pages != NULL)
        count += page_tree_replace(region->pages, page, from, to);
    for (uint32_t i = 0; i < nregions && i < MOST_LOOKS && count < most; i++) {
        region = region_table_at(store->regions, i);
        if (region->pages != NULL)
            count += page_tree_replace(region->pages, page, from, to);
    }
    return count;
}

/* The copy takes the slot's place in all page tables, or in none. */
static void exchange(struct store *store, uint64_t ref, uint64_t copy,
                     const struct slot_source *source)
{
    uint64_t id = source->region, page = source->page->page;
    uint32_t nrefs = slot_pool_refs(store->pool, ref);
    uint32_t count = repoint(store, id, page, ref, copy, nrefs);

    if (count < nrefs) {
        (void)repoint(store, id, page, copy, ref, count);
        slot_pool_discard(store->pool, copy);
        return;
    }
    for (uint32_t i = 1; i < nrefs; i++)
        slot_pool_retain(store->pool, copy);
    for (uint32_t i = 0; i < nrefs; i++)
        slot_pool_release(store->pool, ref);
    store->moved++;
}

bool store_move_pages(struct store *store)
{
    struct moves moves;
    uint32_t nregions = region_table_size(store->regions), max = BATCH_PAGES;

    store->pause_ms = -1;
    if (store->failed != 0 || store->unmarked || store->doomed != NULL)
        return false;
    if (nregions > MOST_LOOKS / BATCH_PAGES)
        max = nregions < MOST_LOOKS ? MOST_LOOKS / nregions : 1;
    uint32_t count =
        slot_pool_choose(store->pool, (int64_t)notice_now_ms(), moves.refs, max, &store->pause_ms);
    if (count == 0)
        return store->pause_ms == 0;
    read_pages(store, &moves, count);
    count = write_copies(store, &moves);
    for (uint32_t i = 0; i < count; i++)
        exchange(store, moves.refs[i], moves.copies[i], &moves.sources[i]);
    store_mark(store);
    return true;
}
