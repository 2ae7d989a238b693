#include "wire.h"

#include "wire_bounds.h"
#include "wire_reader.h"
#include "wire_scan.h"
#include "wire_text.h"

#include <errno.h>
#include <msgpack.h>
#include <string.h>

static void take_page(struct wire_reader *list, struct wire_page *out)
{
    struct wire_reader entry = wire_reader_list(list, 5);

    out->page = wire_reader_u64(&entry);
    out->sequence = wire_reader_u64(&entry);
    out->encoding = wire_reader_u8(&entry);
    out->length_bytes = wire_reader_u32(&entry);
    out->checksum = wire_reader_u64(&entry);
    wire_reader_end_list(list, &entry);
}

static uint32_t take_pages(struct wire_reader *reader, struct wire_page *out)
{
    struct wire_reader list = wire_reader_list(reader, WIRE_MAX_PAGES);
    uint32_t npages = 0;

    while (list.left > 0 && !list.is_bad)
        take_page(&list, &out[npages++]);
    wire_reader_end_list(reader, &list);
    return npages;
}

static struct wire_range take_range(struct wire_reader *list)
{
    struct wire_reader entry = wire_reader_list(list, 2);
    struct wire_range range;

    range.first = wire_reader_u64(&entry);
    range.npages = wire_reader_u64(&entry);
    wire_reader_end_list(list, &entry);
    return range;
}

/* The pages of a PAGE_GET: ranges on the wire, single pages in OUT. */
static uint32_t take_wanted(struct wire_reader *reader, struct wire_page *out)
{
    struct wire_reader list = wire_reader_list(reader, WIRE_MAX_PAGES);
    uint32_t npages = 0;

    while (list.left > 0 && !list.is_bad) {
        struct wire_range range = take_range(&list);
        if (range.npages < 1 || range.npages > WIRE_MAX_PAGES - npages ||
            range.first > WIRE_MAX_PAGE - range.npages) {
            list.is_bad = true;
            break;
        }
        for (uint64_t i = 0; i < range.npages; i++)
            out[npages++].page = range.first + i;
    }
    wire_reader_end_list(reader, &list);
    return npages;
}

static uint32_t take_ranges(struct wire_reader *reader, struct wire_range *out)
{
    struct wire_reader list = wire_reader_list(reader, WIRE_MAX_RANGES);
    uint32_t nranges = 0;

    while (list.left > 0 && !list.is_bad)
        out[nranges++] = take_range(&list);
    wire_reader_end_list(reader, &list);
    return nranges;
}

static void take_hello(struct wire_reader *params, struct wire_request *out)
{
    out->version_min = wire_reader_u32(params);
    out->version_max = wire_reader_u32(params);
    out->features = wire_reader_u64(params);
    wire_reader_name(params, false, out->name);
}

static void take_region_epoch(struct wire_reader *params, struct wire_request *out)
{
    out->region = wire_reader_u64(params);
    out->epoch = wire_reader_u64(params);
}

static void take_params(struct wire_reader *params, struct wire_request *out)
{
    switch (out->method) {
    case WIRE_HELLO:
        take_hello(params, out);
        break;
    case WIRE_OPEN:
        wire_reader_name(params, false, out->name);
        out->epoch = wire_reader_u64(params);
        break;
    case WIRE_PAGE_GET:
        take_region_epoch(params, out);
        out->npages = take_wanted(params, out->pages);
        break;
    case WIRE_PAGE_PUT:
        take_region_epoch(params, out);
        out->npages = take_pages(params, out->pages);
        break;
    case WIRE_PAGE_DROP:
        take_region_epoch(params, out);
        out->sequence = wire_reader_u64(params);
        out->nranges = take_ranges(params, out->ranges);
        break;
    case WIRE_FREEZE:
    case WIRE_BRANCH:
        take_region_epoch(params, out);
        wire_reader_name(params, false, out->name);
        break;
    case WIRE_LIST:
        wire_reader_name(params, true, out->name);
        break;
    case WIRE_STAT:
        out->region = wire_reader_u64(params);
        break;
    case WIRE_REMOVE:
        take_region_epoch(params, out);
        break;
    }
}

static bool has_method(uint8_t method)
{
    return method >= WIRE_HELLO && method <= WIRE_REMOVE;
}

static bool read_request(struct wire_request *out, const msgpack_object *object)
{
    struct wire_reader header = wire_reader_of(object);

    (void)wire_reader_u64(&header); /* the version, known from the prefix */
    out->method = wire_reader_u8(&header);
    out->id = wire_reader_u64(&header);
    out->deadline_ms = wire_reader_u32(&header);
    struct wire_reader params = wire_reader_of(wire_reader_next(&header));
    take_params(&params, out);
    return wire_reader_is_done(&header) && wire_reader_is_done(&params);
}

static void take_greeting(struct wire_reader *results, struct wire_reply *out)
{
    out->version = wire_reader_u32(results);
    out->features = wire_reader_u64(results);
    out->store = wire_reader_u64(results);
    out->instance = wire_reader_u64(results);
    out->shard = wire_reader_u32(results);
    out->nshards = wire_reader_u32(results);
    out->max_pages = wire_reader_u32(results);
}

static void take_region(struct wire_reader *list, struct wire_region_info *out)
{
    struct wire_reader entry = wire_reader_list(list, 7);

    wire_reader_name(&entry, false, out->name);
    out->region = wire_reader_u64(&entry);
    out->parent = wire_reader_u64(&entry);
    out->epoch = wire_reader_u64(&entry);
    out->sequence = wire_reader_u64(&entry);
    out->npages = wire_reader_u64(&entry);
    out->flags = wire_reader_u32(&entry);
    wire_reader_end_list(list, &entry);
}

static uint32_t take_regions(struct wire_reader *reader, struct wire_region_info *out)
{
    struct wire_reader list = wire_reader_list(reader, WIRE_MAX_LISTED);
    uint32_t nregions = 0;

    while (list.left > 0 && !list.is_bad)
        take_region(&list, &out[nregions++]);
    wire_reader_end_list(reader, &list);
    return nregions;
}

static void take_shard(struct wire_reader *results, struct wire_shard_info *out)
{
    struct wire_reader entry = wire_reader_list(results, 5);

    out->npages = wire_reader_u64(&entry);
    out->used_bytes = wire_reader_u64(&entry);
    out->capacity_bytes = wire_reader_u64(&entry);
    out->nregions = wire_reader_u64(&entry);
    out->requests = wire_reader_u64(&entry);
    wire_reader_end_list(results, &entry);
}

static void take_results(struct wire_reader *results, struct wire_reply *out)
{
    switch (out->method) {
    case WIRE_HELLO:
        take_greeting(results, out);
        break;
    case WIRE_OPEN:
        out->region = wire_reader_u64(results);
        out->epoch = wire_reader_u64(results);
        out->sequence = wire_reader_u64(results);
        break;
    case WIRE_FREEZE:
    case WIRE_BRANCH:
        out->region = wire_reader_u64(results);
        break;
    case WIRE_PAGE_GET:
        out->npages = take_pages(results, out->pages);
        break;
    case WIRE_LIST:
        out->nregions = take_regions(results, out->regions);
        break;
    case WIRE_STAT:
        take_shard(results, &out->shard_info);
        out->nregions = take_regions(results, out->regions);
        break;
    }
}

static void take_detail(struct wire_reader *header, char *out)
{
    const msgpack_object_str *text = wire_reader_text(header, WIRE_MAX_DETAIL_BYTES);

    if (text)
        wire_text_copy_printable(out, text->ptr, text->size);
}

static bool read_reply(struct wire_reply *out, const msgpack_object *object)
{
    struct wire_reader header = wire_reader_of(object);

    (void)wire_reader_u64(&header); /* the version, known from the prefix */
    out->method = wire_reader_u8(&header);
    out->id = wire_reader_u64(&header);
    out->status = wire_reader_u8(&header);
    take_detail(&header, out->detail);
    struct wire_reader results = wire_reader_of(wire_reader_next(&header));
    if (!header.is_bad && out->status == WIRE_OK)
        take_results(&results, out);
    return wire_reader_is_done(&header) && wire_reader_is_done(&results);
}

/* Decodes what wire_scan found sound, and so cannot make the library take much memory. */
static int decode(msgpack_unpacked *out, const void *buf, size_t len)
{
    size_t end = 0;

    switch (msgpack_unpack_next(out, buf, len, &end)) {
    case MSGPACK_UNPACK_SUCCESS:
        return end == len ? 0 : -EBADMSG;
    case MSGPACK_UNPACK_NOMEM_ERROR:
        return -ENOMEM;
    default:
        return -EBADMSG;
    }
}

/* What can be said of a message before it is decoded. */
static int check_frame(const struct wire_prefix *prefix, bool has_prefix, const void *buf,
                       size_t len, size_t body_bytes)
{
    if (prefix->version != 0 && prefix->version != WIRE_VERSION)
        return -EPROTONOSUPPORT;
    if (!has_prefix || prefix->version != WIRE_VERSION || len > WIRE_MAX_HEADER_BYTES ||
        body_bytes > WIRE_MAX_BODY_BYTES || !wire_scan_is_sound(buf, len))
        return -EBADMSG;
    return 0;
}

static int decode_request(struct wire_request *out, const void *buf, size_t len, size_t body_bytes)
{
    msgpack_unpacked decoded;

    msgpack_unpacked_init(&decoded);
    int err = decode(&decoded, buf, len);
    if (err == 0 && !(read_request(out, &decoded.data) && wire_bounds_hold_request(out) &&
                      wire_bounds_request_body(out) == body_bytes))
        err = -EBADMSG;
    msgpack_unpacked_destroy(&decoded);
    return err;
}

static int decode_reply(struct wire_reply *out, const void *buf, size_t len, size_t body_bytes)
{
    msgpack_unpacked decoded;

    msgpack_unpacked_init(&decoded);
    int err = decode(&decoded, buf, len);
    if (err == 0 && !(read_reply(out, &decoded.data) && wire_bounds_hold_reply(out) &&
                      wire_bounds_reply_body(out) == body_bytes))
        err = -EBADMSG;
    msgpack_unpacked_destroy(&decoded);
    return err;
}

/* On failure nothing half read is left: only what the prefix says, to answer with. */
int wire_unpack_request(struct wire_request *out, const void *buf, size_t len, size_t body_bytes)
{
    struct wire_prefix prefix;
    bool has_prefix = wire_scan_prefix(&prefix, buf, len);
    int err = check_frame(&prefix, has_prefix, buf, len, body_bytes);

    memset(out, 0, sizeof(*out));
    if (err == 0 && !has_method(prefix.method))
        err = -EOPNOTSUPP;
    if (err == 0)
        err = decode_request(out, buf, len, body_bytes);
    if (err != 0) {
        memset(out, 0, sizeof(*out));
        out->method = prefix.method;
        out->id = prefix.id;
    }
    return err;
}

int wire_unpack_reply(struct wire_reply *out, const void *buf, size_t len, size_t body_bytes)
{
    struct wire_prefix prefix;
    bool has_prefix = wire_scan_prefix(&prefix, buf, len);
    int err = check_frame(&prefix, has_prefix, buf, len, body_bytes);

    memset(out, 0, sizeof(*out));
    if (err == 0)
        err = decode_reply(out, buf, len, body_bytes);
    if (err != 0) {
        memset(out, 0, sizeof(*out));
        out->method = prefix.method;
        out->id = prefix.id;
    }
    return err;
}
