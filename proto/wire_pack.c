#include "wire.h"

#include "wire_bounds.h"
#include "wire_text.h"

#include <errno.h>
#include <msgpack.h>
#include <string.h>

/* The packer's output. Once something did not fit, nothing more is written, so the calls that
 * pack need no check of their own. */
struct sink {
    char *bytes;
    size_t used, cap;
    bool is_full;
};

static int write_sink(void *data, const char *bytes, size_t len)
{
    struct sink *sink = data;

    if (sink->is_full || len > sink->cap - sink->used) {
        sink->is_full = true;
        return -1;
    }
    memcpy(sink->bytes + sink->used, bytes, len);
    sink->used += len;
    return 0;
}

static void put_array(msgpack_packer *pk, size_t nelements)
{
    (void)msgpack_pack_array(pk, nelements);
}

static void put_number(msgpack_packer *pk, uint64_t number)
{
    (void)msgpack_pack_uint64(pk, number);
}

static void put_text(msgpack_packer *pk, const char *text)
{
    size_t len = strlen(text);

    (void)msgpack_pack_str(pk, len);
    if (len > 0)
        (void)msgpack_pack_str_body(pk, text, len);
}

static void put_page(msgpack_packer *pk, const struct wire_page *page)
{
    put_array(pk, 5);
    put_number(pk, page->page);
    put_number(pk, page->sequence);
    put_number(pk, page->encoding);
    put_number(pk, page->length_bytes);
    put_number(pk, page->checksum);
}

static void put_pages(msgpack_packer *pk, const struct wire_page *pages, uint32_t npages)
{
    put_array(pk, npages);
    for (uint32_t i = 0; i < npages; i++)
        put_page(pk, &pages[i]);
}

static void put_range(msgpack_packer *pk, uint64_t first, uint64_t npages)
{
    put_array(pk, 2);
    put_number(pk, first);
    put_number(pk, npages);
}

/* How many of the pages from FIRST on follow each other. */
static uint32_t measure_run(const struct wire_page *pages, uint32_t npages, uint32_t first)
{
    uint32_t end = first + 1;

    while (end < npages && pages[end].page == pages[end - 1].page + 1)
        end++;
    return end - first;
}

/* The pages of a PAGE_GET, consecutive ones as one range. */
static void put_wanted(msgpack_packer *pk, const struct wire_page *pages, uint32_t npages)
{
    uint32_t nruns = 0;

    for (uint32_t i = 0; i < npages; i += measure_run(pages, npages, i))
        nruns++;
    put_array(pk, nruns);
    for (uint32_t i = 0; i < npages;) {
        uint32_t len = measure_run(pages, npages, i);
        put_range(pk, pages[i].page, len);
        i += len;
    }
}

static void put_ranges(msgpack_packer *pk, const struct wire_range *ranges, uint32_t nranges)
{
    put_array(pk, nranges);
    for (uint32_t i = 0; i < nranges; i++)
        put_range(pk, ranges[i].first, ranges[i].npages);
}

static void put_hello(msgpack_packer *pk, const struct wire_request *msg)
{
    put_array(pk, 4);
    put_number(pk, msg->version_min);
    put_number(pk, msg->version_max);
    put_number(pk, msg->features);
    put_text(pk, msg->name);
}

static void put_drop(msgpack_packer *pk, const struct wire_request *msg)
{
    put_array(pk, 4);
    put_number(pk, msg->region);
    put_number(pk, msg->epoch);
    put_number(pk, msg->sequence);
    put_ranges(pk, msg->ranges, msg->nranges);
}

static void put_region_epoch(msgpack_packer *pk, size_t nparams, const struct wire_request *msg)
{
    put_array(pk, nparams);
    put_number(pk, msg->region);
    put_number(pk, msg->epoch);
}

static void put_params(msgpack_packer *pk, const struct wire_request *msg)
{
    switch (msg->method) {
    case WIRE_HELLO:
        put_hello(pk, msg);
        break;
    case WIRE_OPEN:
        put_array(pk, 2);
        put_text(pk, msg->name);
        put_number(pk, msg->epoch);
        break;
    case WIRE_PAGE_GET:
        put_region_epoch(pk, 3, msg);
        put_wanted(pk, msg->pages, msg->npages);
        break;
    case WIRE_PAGE_PUT:
        put_region_epoch(pk, 3, msg);
        put_pages(pk, msg->pages, msg->npages);
        break;
    case WIRE_PAGE_DROP:
        put_drop(pk, msg);
        break;
    case WIRE_FREEZE:
    case WIRE_BRANCH:
        put_region_epoch(pk, 3, msg);
        put_text(pk, msg->name);
        break;
    case WIRE_LIST:
        put_array(pk, 1);
        put_text(pk, msg->name);
        break;
    case WIRE_STAT:
        put_array(pk, 1);
        put_number(pk, msg->region);
        break;
    case WIRE_REMOVE:
        put_region_epoch(pk, 2, msg);
        break;
    }
}

ssize_t wire_pack_request(const struct wire_request *msg, void *buf, size_t cap)
{
    struct sink sink = {.bytes = buf, .cap = cap};
    msgpack_packer pk;

    if (!wire_bounds_hold_request(msg))
        return -EINVAL;
    msgpack_packer_init(&pk, &sink, write_sink);
    put_array(&pk, 5);
    put_number(&pk, WIRE_VERSION);
    put_number(&pk, msg->method);
    put_number(&pk, msg->id);
    put_number(&pk, msg->deadline_ms);
    put_params(&pk, msg);
    return sink.is_full ? -ENOSPC : (ssize_t)sink.used;
}

static void put_greeting(msgpack_packer *pk, const struct wire_reply *msg)
{
    put_array(pk, 7);
    put_number(pk, msg->version);
    put_number(pk, msg->features);
    put_number(pk, msg->store);
    put_number(pk, msg->instance);
    put_number(pk, msg->shard);
    put_number(pk, msg->nshards);
    put_number(pk, msg->max_pages);
}

static void put_regions(msgpack_packer *pk, const struct wire_reply *msg)
{
    put_array(pk, msg->nregions);
    for (uint32_t i = 0; i < msg->nregions; i++) {
        const struct wire_region_info *info = &msg->regions[i];
        put_array(pk, 7);
        put_text(pk, info->name);
        put_number(pk, info->region);
        put_number(pk, info->parent);
        put_number(pk, info->epoch);
        put_number(pk, info->sequence);
        put_number(pk, info->npages);
        put_number(pk, info->flags);
    }
}

static void put_shard(msgpack_packer *pk, const struct wire_shard_info *info)
{
    put_array(pk, 5);
    put_number(pk, info->npages);
    put_number(pk, info->used_bytes);
    put_number(pk, info->capacity_bytes);
    put_number(pk, info->nregions);
    put_number(pk, info->requests);
}

static void put_results(msgpack_packer *pk, const struct wire_reply *msg)
{
    switch (msg->method) {
    case WIRE_HELLO:
        put_greeting(pk, msg);
        break;
    case WIRE_OPEN:
        put_array(pk, 3);
        put_number(pk, msg->region);
        put_number(pk, msg->epoch);
        put_number(pk, msg->sequence);
        break;
    case WIRE_FREEZE:
    case WIRE_BRANCH:
        put_array(pk, 1);
        put_number(pk, msg->region);
        break;
    case WIRE_PAGE_GET:
        put_array(pk, 1);
        put_pages(pk, msg->pages, msg->npages);
        break;
    case WIRE_LIST:
        put_array(pk, 1);
        put_regions(pk, msg);
        break;
    case WIRE_STAT:
        put_array(pk, 2);
        put_shard(pk, &msg->shard_info);
        put_regions(pk, msg);
        break;
    default:
        put_array(pk, 0);
        break;
    }
}

ssize_t wire_pack_reply(const struct wire_reply *msg, void *buf, size_t cap)
{
    struct sink sink = {.bytes = buf, .cap = cap};
    char detail[WIRE_MAX_DETAIL_BYTES + 1];
    msgpack_packer pk;

    if (!wire_bounds_hold_reply(msg))
        return -EINVAL;
    wire_text_copy_printable(detail, msg->detail, strlen(msg->detail));
    msgpack_packer_init(&pk, &sink, write_sink);
    put_array(&pk, 6);
    put_number(&pk, WIRE_VERSION);
    put_number(&pk, msg->method);
    put_number(&pk, msg->id);
    put_number(&pk, msg->status);
    put_text(&pk, detail);
    if (msg->status == WIRE_OK)
        put_results(&pk, msg);
    else
        put_array(&pk, 0);
    return sink.is_full ? -ENOSPC : (ssize_t)sink.used;
}
