#include "handler.h"

#include "../ini/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One request being answered. */
struct call {
    struct handler *handler;
    const struct wire_request *request;
    const void *body;
    uint64_t connection;
    struct wire_reply *reply;
    struct handler_body *out;
};

__attribute__((format(printf, 3, 4))) static void
refuse(const struct call *call, enum wire_status status, const char *format, ...)
{
    va_list arguments;

    call->reply->status = (uint8_t)status;
    va_start(arguments, format);
    vsnprintf(call->reply->detail, sizeof(call->reply->detail), format, arguments);
    va_end(arguments);
}

static void refuse_page(const struct call *call, int err, uint64_t page)
{
    if (err == -EBADMSG && call->request->method == WIRE_PAGE_PUT) {
        refuse(call, WIRE_INVALID_ARGUMENT, "page %" PRIu64 ": its bytes do not match its checksum",
               page);
        return;
    }
    const char *what = err == -ENODATA ? "may be lost" : "is damaged";
    refuse(call, WIRE_DATA_LOSS, "page %" PRIu64 " %s", page, what);
    log_error(call->handler->part, "page %" PRIu64 " of region %016" PRIx64 " %s", page,
              call->request->region, what);
}

static void refuse_limit(const struct call *call, enum handler_limit limit)
{
    static const char *const texts[HANDLER_LIMITS] = {
        [HANDLER_CAPACITY] = "the store is full (--capacity)",
        [HANDLER_DISK] = "the file system is full",
        [HANDLER_REGION] = "the region is full (--region-capacity)",
        [HANDLER_REGIONS] = "no further regions (--max-regions)",
        [HANDLER_FILES] = "no further file can be opened (ulimit -n)",
        [HANDLER_MEMORY] = "out of memory",
    };
    struct handler *handler = call->handler;
    uint64_t count;

    refuse(call, WIRE_RESOURCE_EXHAUSTED, "%s", texts[limit]);
    if (notice_is_due(&handler->limits[limit], &count))
        log_warn(handler->part, "%s: %" PRIu64 " requests refused, the last one %s", texts[limit],
                 count, wire_method_name(call->request->method));
}

/* Whether the request has more pages than this server takes. */
static bool refuse_pages(const struct call *call)
{
    uint32_t most = call->handler->max_pages;

    if (most == 0 || call->request->npages <= most)
        return false;
    refuse(call, WIRE_INVALID_ARGUMENT, "more than %" PRIu32 " pages (--max-request)", most);
    return true;
}

/* The one place where the store's errors become statuses. */
static void refuse_error(const struct call *call, int err)
{
    const struct wire_request *request = call->request;
    const struct region *region;

    switch (err) {
    case -ENOENT:
        refuse(call, WIRE_NOT_FOUND, "no region %016" PRIx64, request->region);
        return;
    case -ESTALE:
        region =
            request->method == WIRE_OPEN ? NULL : store_find(call->handler->store, request->region);
        if (region == NULL)
            refuse(call, WIRE_FAILED_PRECONDITION, "FENCED: epoch %" PRIu64 " is old",
                   request->epoch);
        else
            refuse(call, WIRE_FAILED_PRECONDITION, "FENCED: epoch %" PRIu64 ", now %" PRIu64,
                   request->epoch, region->epoch);
        return;
    case -EROFS:
        refuse(call, WIRE_FAILED_PRECONDITION, "region %016" PRIx64 " is frozen", request->region);
        return;
    case -EEXIST:
        refuse(call, WIRE_ALREADY_EXISTS, "%s is another region", request->name);
        return;
    case -ENOSPC:
    case -EDQUOT:
        refuse_limit(call, store_is_full(call->handler->store) ? HANDLER_CAPACITY : HANDLER_DISK);
        return;
    case -E2BIG:
        refuse_limit(call, HANDLER_REGION);
        return;
    case -EUSERS:
        refuse_limit(call, HANDLER_REGIONS);
        return;
    case -EMFILE:
    case -ENFILE:
        refuse_limit(call, HANDLER_FILES);
        return;
    case -ENOMEM:
        refuse_limit(call, HANDLER_MEMORY);
        return;
    default:
        refuse(call, WIRE_INTERNAL, "%s", strerror(-err));
        log_error(call->handler->part, "%s failed: %s", wire_method_name(request->method),
                  strerror(-err));
    }
}

static void answer_hello(const struct call *call)
{
    const struct wire_request *request = call->request;
    struct wire_reply *reply = call->reply;

    if (request->version_min > WIRE_VERSION || request->version_max < WIRE_VERSION) {
        refuse(call, WIRE_FAILED_PRECONDITION,
               "no common version: the client speaks %" PRIu32 " to %" PRIu32
               ", this server speaks %d",
               request->version_min, request->version_max, WIRE_VERSION);
        return;
    }
    reply->version = WIRE_VERSION;
    reply->features = 0;
    reply->store = store_id(call->handler->store);
    reply->instance = call->handler->instance;
    reply->shard = call->handler->shard;
    reply->nshards = call->handler->nshards;
    uint32_t most = call->handler->max_pages;
    reply->max_pages = most == 0 ? WIRE_MAX_PAGES : most;
    log_debug(call->handler->part, "hello from %s", request->name);
}

/* A number for the request itself: a repetition on the same connection has the same one. */
static uint64_t number_claim(const struct call *call)
{
    uint64_t claim = wire_checksum(call->request->id, &call->connection, sizeof(call->connection));

    return claim == 0 ? 1 : claim;
}

static void answer_open(const struct call *call)
{
    const struct wire_request *request = call->request;
    const struct region *region;
    int err = store_claim(call->handler->store, request->name, request->epoch, number_claim(call),
                          &region);

    if (err != 0) {
        refuse_error(call, err);
        return;
    }
    call->reply->region = region->id;
    call->reply->epoch = region->epoch;
    call->reply->sequence = region->sequence;
    log_info(call->handler->part, "region %s opened: epoch %" PRIu64 ", %" PRIu64 " pages",
             region->name, region->epoch, page_tree_count(region->pages));
}

static void answer_get(const struct call *call)
{
    const struct wire_request *request = call->request;
    struct wire_reply *reply = call->reply;
    struct store *store = call->handler->store;
    struct store_found found;
    uint64_t bad = 0;

    if (refuse_pages(call))
        return;
    reply->npages = request->npages;
    for (uint32_t i = 0; i < request->npages; i++)
        reply->pages[i].page = request->pages[i].page;
    int err = store_locate(store, request->region, request->epoch, reply->pages, reply->npages,
                           &found, &bad);
    if (err == 0)
        err = store_view(store, reply->pages, reply->npages, &found, call->out->parts,
                         &call->out->nparts, &bad);
    if (err == -EBADMSG || err == -ENODATA)
        refuse_page(call, err, bad);
    else if (err != 0)
        refuse_error(call, err);
}

static void answer_put(const struct call *call)
{
    const struct wire_request *request = call->request;
    uint64_t bad = 0;

    if (refuse_pages(call))
        return;
    for (uint32_t i = 0; i < request->npages; i++) {
        if (request->pages[i].page < call->handler->first_page) {
            refuse(call, WIRE_INVALID_ARGUMENT,
                   "page %" PRIu64 " is below this server's start address", request->pages[i].page);
            return;
        }
    }
    int err = store_put(call->handler->store, request->region, request->epoch, request->pages,
                        request->npages, call->body, &bad);
    if (err == -EBADMSG || err == -ENODATA)
        refuse_page(call, err, bad);
    else if (err != 0)
        refuse_error(call, err);
}

static void answer_drop(const struct call *call)
{
    const struct wire_request *request = call->request;
    int err = store_drop(call->handler->store, request->region, request->epoch, request->sequence,
                         request->ranges, request->nranges);

    if (err != 0)
        refuse_error(call, err);
}

static void answer_branch(const struct call *call)
{
    const struct wire_request *request = call->request;
    bool frozen = request->method == WIRE_FREEZE;
    const struct region *region;
    int err = store_branch(call->handler->store, request->region, request->epoch, request->name,
                           frozen, &region);

    if (err != 0) {
        refuse_error(call, err);
        return;
    }
    call->reply->region = region->id;
    log_info(call->handler->part, "region %s %s: %" PRIu64 " pages", region->name,
             frozen ? "frozen" : "branched", page_tree_count(region->pages));
}

static void describe_region(const struct region *region, struct wire_region_info *info)
{
    memcpy(info->name, region->name, sizeof(info->name));
    info->region = region->id;
    info->parent = region->parent;
    info->epoch = region->epoch;
    info->sequence = region->sequence;
    info->npages = page_tree_count(region->pages);
    info->flags = ((region->flags & REGION_FROZEN) != 0 ? WIRE_REGION_FROZEN : 0) |
                  ((region->flags & REGION_DOUBTFUL) != 0 ? WIRE_REGION_INCOMPLETE : 0);
}

static void answer_list(const struct call *call)
{
    const struct region *region = store_after(call->handler->store, call->request->name);
    uint32_t count = 0;

    for (; region != NULL && count < WIRE_MAX_LISTED; count++) {
        describe_region(region, &call->reply->regions[count]);
        region = store_after(call->handler->store, region->name);
    }
    call->reply->nregions = count;
}

static void answer_stat(const struct call *call)
{
    uint64_t id = call->request->region;
    const struct region *region = id == 0 ? NULL : store_find(call->handler->store, id);

    if (id != 0 && region == NULL) {
        refuse_error(call, -ENOENT);
        return;
    }
    store_stat(call->handler->store, &call->reply->shard_info);
    call->reply->shard_info.requests = call->handler->requests;
    call->reply->nregions = region != NULL;
    if (region != NULL)
        describe_region(region, &call->reply->regions[0]);
}

static void answer_remove(const struct call *call)
{
    const struct wire_request *request = call->request;
    const struct region *region = store_find(call->handler->store, request->region);
    char name[WIRE_MAX_NAME_BYTES + 1] = "";

    if (region != NULL)
        memcpy(name, region->name, sizeof(name));
    int err = store_remove(call->handler->store, request->region, request->epoch);
    if (err != 0)
        refuse_error(call, err);
    else
        log_info(call->handler->part, "region %s removed", name);
}

/* What did not come out of the unpacking as a valid request. */
static void refuse_unpacked(const struct call *call, int err)
{
    if (err == -EPROTONOSUPPORT)
        refuse(call, WIRE_FAILED_PRECONDITION, "this server speaks version %d", WIRE_VERSION);
    else if (err == -EOPNOTSUPP)
        refuse(call, WIRE_UNIMPLEMENTED, "no method %u", call->request->method);
    else if (err == -ENOMEM)
        refuse_error(call, err);
    else
        refuse(call, WIRE_INVALID_ARGUMENT, "not a valid request");
}

void handler_answer(struct handler *handler, const struct wire_request *request, int unpacked,
                    const void *body, uint64_t connection, struct wire_reply *reply,
                    struct handler_body *out)
{
    static void (*const answer[])(const struct call *call) = {
        [WIRE_HELLO] = answer_hello,    [WIRE_OPEN] = answer_open,
        [WIRE_PAGE_GET] = answer_get,   [WIRE_PAGE_PUT] = answer_put,
        [WIRE_PAGE_DROP] = answer_drop, [WIRE_FREEZE] = answer_branch,
        [WIRE_BRANCH] = answer_branch,  [WIRE_LIST] = answer_list,
        [WIRE_STAT] = answer_stat,      [WIRE_REMOVE] = answer_remove,
    };
    struct call call = {handler, request, body, connection, reply, out};

    reply->method = request->method;
    reply->id = request->id;
    reply->status = WIRE_OK;
    reply->detail[0] = '\0';
    out->nparts = 0;
    if (unpacked == 0 &&
        (request->method >= sizeof(answer) / sizeof(answer[0]) || answer[request->method] == NULL))
        unpacked = -EOPNOTSUPP;
    if (unpacked != 0)
        refuse_unpacked(&call, unpacked);
    else
        answer[request->method](&call);
    handler->requests++;
}

bool handler_takes_put(const struct handler *handler, const struct wire_request *request)
{
    if (request->method != WIRE_PAGE_PUT ||
        (handler->max_pages != 0 && request->npages > handler->max_pages))
        return false;
    for (uint32_t i = 0; i < request->npages; i++) {
        if (request->pages[i].page < handler->first_page)
            return false;
    }
    return true;
}

bool handler_put_together(struct handler *handler, uint32_t nrequests, uint64_t region,
                          uint64_t epoch, const struct wire_page *pages, uint32_t npages,
                          const void *body)
{
    uint64_t bad;

    if (store_put(handler->store, region, epoch, pages, npages, body, &bad) != 0)
        return false;
    handler->requests += nrequests;
    return true;
}

void handler_refuse(const struct wire_request *request, enum wire_status status, const char *detail,
                    struct wire_reply *reply)
{
    reply->method = request->method;
    reply->id = request->id;
    reply->status = (uint8_t)status;
    snprintf(reply->detail, sizeof(reply->detail), "%s", detail);
}
