#include "samples.h"

#include <stdio.h>
#include <string.h>

/* Numbers of every encoded width, by turns. */
static uint64_t vary(uint32_t i)
{
    static const uint64_t some[] = {
        1, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1, UINT64_MAX};
    return some[i % (sizeof(some) / sizeof(some[0]))];
}

static size_t fill_page(struct wire_page *page, uint32_t i)
{
    page->sequence = vary(i);
    page->checksum = vary(i + 3);
    switch (i % 3) {
    case 0:
        page->encoding = WIRE_RAW;
        page->length_bytes = WIRE_PAGE_BYTES;
        break;
    case 1:
        page->encoding = WIRE_FILL;
        page->length_bytes = 8;
        break;
    default:
        page->encoding = WIRE_LZ4;
        page->length_bytes = i % 2 ? 1 : WIRE_PAGE_BYTES - 1;
        break;
    }
    return page->length_bytes;
}

static void set_name(char *name, size_t len)
{
    /* "ä" every three bytes: two bytes of UTF-8 and one of ASCII. */
    for (size_t i = 0; i < len; i++)
        name[i] = "\xc3\xa4-"[i % 3];
    if (len % 3 == 1)
        name[len - 1] = 'x';
    name[len] = '\0';
}

static size_t many_puts(struct wire_request *out, uint32_t npages, bool is_descending)
{
    size_t body = 0;

    out->npages = npages;
    for (uint32_t i = 0; i < npages; i++) {
        uint64_t page = (uint64_t)i * 1000003;
        out->pages[i].page = is_descending ? WIRE_MAX_PAGE - 1 - page : page;
        body += fill_page(&out->pages[i], i);
    }
    return body;
}

static size_t full_puts(struct wire_request *out)
{
    out->npages = WIRE_MAX_PAGES;
    for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++)
        out->pages[i] = (struct wire_page){WIRE_MAX_PAGE - WIRE_MAX_PAGES + i, UINT64_MAX,
                                           UINT64_MAX, WIRE_PAGE_BYTES, WIRE_RAW};
    return WIRE_MAX_BODY_BYTES;
}

static void want_pages(struct wire_request *out, uint32_t npages, uint64_t stride)
{
    out->npages = npages;
    for (uint32_t i = 0; i < npages; i++)
        out->pages[i].page = ((uint64_t)1 << 40) + i * stride;
}

static void drop_ranges(struct wire_request *out, uint32_t nranges)
{
    out->nranges = nranges;
    for (uint32_t i = 0; i < nranges; i++) {
        out->ranges[i].first = WIRE_MAX_PAGE / 2 + (uint64_t)i * 70000;
        out->ranges[i].npages = i == 0 ? WIRE_MAX_PAGE / 2 : i;
    }
}

static void set_region(struct wire_request *out, uint64_t region, uint64_t epoch)
{
    out->region = region;
    out->epoch = epoch;
}

static size_t fill_page_request(struct wire_request *out, int number)
{
    set_region(out, vary((uint32_t)number), vary((uint32_t)number + 1));
    switch (number) {
    case 0:
        return many_puts(out, 1, false);
    case 1:
        return many_puts(out, WIRE_MAX_PAGES, true);
    case 2:
        return full_puts(out);
    case 3:
        want_pages(out, 1, 1);
        break;
    case 4:
        want_pages(out, WIRE_MAX_PAGES, 1);
        break;
    case 5:
        want_pages(out, WIRE_MAX_PAGES, 3);
        break;
    case 6:
        drop_ranges(out, 1);
        out->sequence = UINT64_MAX;
        break;
    default:
        drop_ranges(out, WIRE_MAX_RANGES);
        break;
    }
    return 0;
}

size_t samples_request(struct wire_request *out, int number)
{
    static const uint8_t methods[SAMPLE_REQUESTS] = {
        WIRE_HELLO,    WIRE_OPEN,     WIRE_OPEN,      WIRE_LIST,      WIRE_LIST,     WIRE_STAT,
        WIRE_FREEZE,   WIRE_BRANCH,   WIRE_PAGE_PUT,  WIRE_PAGE_PUT,  WIRE_PAGE_PUT, WIRE_PAGE_GET,
        WIRE_PAGE_GET, WIRE_PAGE_GET, WIRE_PAGE_DROP, WIRE_PAGE_DROP, WIRE_REMOVE,
    };
    memset(out, 0, sizeof(*out));
    out->method = methods[number];
    out->id = vary((uint32_t)number);
    out->deadline_ms = number % 2 ? UINT32_MAX : 0;
    switch (number) {
    case 0:
        out->version_min = 1;
        out->version_max = UINT32_MAX;
        out->features = UINT64_MAX;
        set_name(out->name, 20);
        return 0;
    case 1:
    case 2:
        out->epoch = number == 1 ? 0 : UINT64_MAX;
        set_name(out->name, number == 1 ? 1 : WIRE_MAX_NAME_BYTES);
        return 0;
    case 3:
        return 0;
    case 4:
        set_name(out->name, WIRE_MAX_NAME_BYTES);
        return 0;
    case 5:
        out->region = 0;
        return 0;
    case 6:
    case 7:
        set_region(out, UINT64_MAX, 1);
        set_name(out->name, 33);
        return 0;
    case 16:
        set_region(out, 300, 70000);
        return 0;
    default:
        return fill_page_request(out, number - 8);
    }
}

static size_t got_pages(struct wire_reply *out, uint32_t npages)
{
    size_t body = 0;

    out->npages = npages;
    for (uint32_t i = 0; i < npages; i++) {
        out->pages[i].page = (uint64_t)i * 77;
        if (i % 5 == 4)
            out->pages[i].encoding = WIRE_ABSENT;
        else
            body += fill_page(&out->pages[i], i);
    }
    return body;
}

static void list_regions(struct wire_reply *out, uint32_t nregions)
{
    out->nregions = nregions;
    for (uint32_t i = 0; i < nregions; i++) {
        struct wire_region_info *info = &out->regions[i];
        set_name(info->name, WIRE_MAX_NAME_BYTES - i);
        info->region = vary(i);
        info->parent = i % 2 ? vary(i + 1) : 0;
        info->epoch = vary(i + 2);
        info->sequence = vary(i + 3);
        info->npages = vary(i + 4);
        info->flags = i % 3 ? WIRE_REGION_FROZEN : 0;
    }
}

static void fill_stat(struct wire_reply *out, uint32_t nregions)
{
    list_regions(out, nregions);
    out->shard_info = (struct wire_shard_info){1, 4096, UINT64_MAX, 0, (uint64_t)1 << 33};
}

static void fill_refusal(struct wire_reply *out, int number)
{
    if (number == 13) {
        out->method = WIRE_PAGE_PUT;
        out->status = WIRE_FAILED_PRECONDITION;
        strcpy(out->detail, "FENCED: epoch 3, region 7 is at epoch 4");
    } else if (number == 14) {
        out->method = WIRE_PAGE_GET;
        out->status = WIRE_UNAUTHENTICATED;
        set_name(out->detail, WIRE_MAX_NAME_BYTES);
    } else {
        out->method = 0;
        out->id = 0;
        out->status = WIRE_INVALID_ARGUMENT;
    }
}

size_t samples_reply(struct wire_reply *out, int number)
{
    static const uint8_t methods[SAMPLE_REPLIES] = {
        WIRE_HELLO,     WIRE_OPEN,   WIRE_PAGE_GET, WIRE_PAGE_GET, WIRE_PAGE_PUT,
        WIRE_PAGE_DROP, WIRE_FREEZE, WIRE_BRANCH,   WIRE_LIST,     WIRE_LIST,
        WIRE_STAT,      WIRE_STAT,   WIRE_REMOVE,
    };
    memset(out, 0, sizeof(*out));
    out->method = methods[number];
    out->id = vary((uint32_t)number);
    switch (number) {
    case 0:
        out->version = 1;
        out->store = out->instance = UINT64_MAX;
        out->nshards = UINT32_MAX;
        out->shard = UINT32_MAX - 1;
        out->max_pages = WIRE_MAX_PAGES;
        return 0;
    case 1:
        out->region = out->epoch = 1;
        return 0;
    case 2:
        return got_pages(out, 5);
    case 3:
        return got_pages(out, WIRE_MAX_PAGES);
    case 6:
    case 7:
        out->region = UINT64_MAX;
        return 0;
    case 9:
        list_regions(out, WIRE_MAX_LISTED);
        return 0;
    case 10:
    case 11:
        fill_stat(out, number == 11);
        return 0;
    case 13:
    case 14:
    case 15:
        fill_refusal(out, number);
        return 0;
    default:
        return 0;
    }
}
