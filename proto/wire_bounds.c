#include "wire_bounds.h"

#include <string.h>

enum {
    FILL_BYTES = 8,
    MAX_STATUS = 16,
    PAGE_SET_SLOTS = 512, /* a power of two, twice WIRE_MAX_PAGES: short searches */
};

bool wire_page_is_valid(const struct wire_page *page)
{
    if (page->page >= WIRE_MAX_PAGE || page->sequence == 0)
        return false;
    switch (page->encoding) {
    case WIRE_RAW:
        return page->length_bytes == WIRE_PAGE_BYTES;
    case WIRE_FILL:
        return page->length_bytes == FILL_BYTES;
    case WIRE_LZ4:
        return page->length_bytes >= 1 && page->length_bytes < WIRE_PAGE_BYTES;
    default:
        return false;
    }
}

static bool holds_absent(const struct wire_page *page)
{
    return page->page < WIRE_MAX_PAGE && page->encoding == WIRE_ABSENT && page->sequence == 0 &&
           page->checksum == 0 && page->length_bytes == 0;
}

static size_t slot_of(uint64_t page)
{
    /* Fibonacci hashing; the top 9 bits number PAGE_SET_SLOTS slots. */
    return (size_t)(page * 0x9e3779b97f4a7c15u >> 55);
}

/* Adds PAGE to SET (page numbers + 1, 0 for a free slot). False when it was there. */
static bool add_to_set(uint64_t *set, uint64_t page)
{
    size_t slot = slot_of(page);

    while (set[slot] != 0) {
        if (set[slot] == page + 1)
            return false;
        slot = (slot + 1) % PAGE_SET_SLOTS;
    }
    set[slot] = page + 1;
    return true;
}

static bool are_distinct(const struct wire_page *pages, uint32_t npages)
{
    uint64_t set[PAGE_SET_SLOTS];
    uint32_t ascending = 1;

    /* Nearly every batch is in ascending order and needs no set. */
    while (ascending < npages && pages[ascending].page > pages[ascending - 1].page)
        ascending++;
    if (ascending == npages)
        return true;
    memset(set, 0, sizeof(set));
    for (uint32_t i = 0; i < npages; i++) {
        if (!add_to_set(set, pages[i].page))
            return false;
    }
    return true;
}

static bool hold_put(const struct wire_request *msg)
{
    if (msg->npages < 1 || msg->npages > WIRE_MAX_PAGES)
        return false;
    for (uint32_t i = 0; i < msg->npages; i++) {
        if (!wire_page_is_valid(&msg->pages[i]))
            return false;
    }
    return are_distinct(msg->pages, msg->npages);
}

static bool hold_get(const struct wire_request *msg)
{
    if (msg->npages < 1 || msg->npages > WIRE_MAX_PAGES)
        return false;
    for (uint32_t i = 0; i < msg->npages; i++) {
        if (msg->pages[i].page >= WIRE_MAX_PAGE)
            return false;
    }
    return true;
}

static bool hold_ranges(const struct wire_request *msg)
{
    if (msg->nranges < 1 || msg->nranges > WIRE_MAX_RANGES)
        return false;
    for (uint32_t i = 0; i < msg->nranges; i++) {
        const struct wire_range *range = &msg->ranges[i];
        if (range->first >= WIRE_MAX_PAGE || range->npages < 1 ||
            range->npages > WIRE_MAX_PAGE - range->first)
            return false;
    }
    return true;
}

bool wire_bounds_hold_request(const struct wire_request *msg)
{
    switch (msg->method) {
    case WIRE_HELLO:
        return msg->version_min >= 1 && msg->version_min <= msg->version_max &&
               wire_name_is_valid(msg->name);
    case WIRE_OPEN:
    case WIRE_FREEZE:
    case WIRE_BRANCH:
        return wire_name_is_valid(msg->name);
    case WIRE_PAGE_GET:
        return hold_get(msg);
    case WIRE_PAGE_PUT:
        return hold_put(msg);
    case WIRE_PAGE_DROP:
        return hold_ranges(msg);
    case WIRE_LIST:
        return msg->name[0] == '\0' || wire_name_is_valid(msg->name);
    case WIRE_STAT:
    case WIRE_REMOVE:
        return true;
    default:
        return false;
    }
}

static bool hold_got(const struct wire_reply *msg)
{
    if (msg->npages < 1 || msg->npages > WIRE_MAX_PAGES)
        return false;
    for (uint32_t i = 0; i < msg->npages; i++) {
        if (!wire_page_is_valid(&msg->pages[i]) && !holds_absent(&msg->pages[i]))
            return false;
    }
    return true;
}

static bool hold_regions(const struct wire_reply *msg, uint32_t max_regions)
{
    if (msg->nregions > max_regions)
        return false;
    for (uint32_t i = 0; i < msg->nregions; i++) {
        if (!wire_name_is_valid(msg->regions[i].name) || msg->regions[i].region == 0)
            return false;
    }
    return true;
}

static bool hold_results(const struct wire_reply *msg)
{
    switch (msg->method) {
    case WIRE_HELLO:
        return msg->version >= 1 && msg->shard < msg->nshards && msg->max_pages >= 1 &&
               msg->max_pages <= WIRE_MAX_PAGES;
    case WIRE_OPEN:
        return msg->region != 0 && msg->epoch != 0;
    case WIRE_FREEZE:
    case WIRE_BRANCH:
        return msg->region != 0;
    case WIRE_PAGE_GET:
        return hold_got(msg);
    case WIRE_LIST:
        return hold_regions(msg, WIRE_MAX_LISTED);
    case WIRE_STAT:
        return hold_regions(msg, 1);
    case WIRE_PAGE_PUT:
    case WIRE_PAGE_DROP:
    case WIRE_REMOVE:
        return true;
    default:
        return false;
    }
}

bool wire_bounds_hold_reply(const struct wire_reply *msg)
{
    if (msg->status > MAX_STATUS ||
        strnlen(msg->detail, WIRE_MAX_DETAIL_BYTES + 1) > WIRE_MAX_DETAIL_BYTES)
        return false;
    /* The method of a refused request may be one this version does not know. */
    if (msg->status != WIRE_OK)
        return true;
    return msg->detail[0] == '\0' && hold_results(msg);
}

static size_t add_lengths(const struct wire_page *pages, uint32_t npages)
{
    size_t sum = 0;

    for (uint32_t i = 0; i < npages; i++)
        sum += pages[i].length_bytes;
    return sum;
}

size_t wire_bounds_request_body(const struct wire_request *msg)
{
    return msg->method == WIRE_PAGE_PUT ? add_lengths(msg->pages, msg->npages) : 0;
}

size_t wire_bounds_reply_body(const struct wire_reply *msg)
{
    bool has_pages = msg->method == WIRE_PAGE_GET && msg->status == WIRE_OK;

    return has_pages ? add_lengths(msg->pages, msg->npages) : 0;
}
