#include "put_gather.h"

#include <string.h>

static uint32_t count_bytes(const struct wire_request *request)
{
    uint32_t nbytes = 0;

    for (uint32_t i = 0; i < request->npages; i++)
        nbytes += request->pages[i].length_bytes;
    return nbytes;
}

static bool has_page(const struct put_gather *gather, uint64_t page)
{
    uint32_t i = 0;

    while (i < gather->npages && gather->pages[i].page != page)
        i++;
    return i < gather->npages;
}

static bool goes_with(const struct put_gather *gather, const struct wire_request *request)
{
    if (gather->nputs == 0)
        return true;
    if (request->region != gather->region || request->epoch != gather->epoch ||
        request->npages > WIRE_MAX_PAGES - gather->npages)
        return false;
    for (uint32_t i = 0; i < request->npages; i++) {
        if (has_page(gather, request->pages[i].page))
            return false;
    }
    return true;
}

bool put_gather_add(struct put_gather *gather, const struct wire_request *request, const void *body,
                    uint64_t peer)
{
    if (request->npages > PUT_GATHER_MAX_PAGES || !goes_with(gather, request))
        return false;
    struct put_gather_entry *put = &gather->puts[gather->nputs++];
    uint32_t nbytes = count_bytes(request);
    *put = (struct put_gather_entry){.peer = peer,
                                     .id = request->id,
                                     .first = gather->npages,
                                     .npages = request->npages,
                                     .offset = gather->nbytes};
    gather->region = request->region;
    gather->epoch = request->epoch;
    memcpy(&gather->pages[gather->npages], request->pages,
           request->npages * sizeof(request->pages[0]));
    memcpy(gather->bytes + gather->nbytes, body, nbytes);
    gather->npages += request->npages;
    gather->nbytes += nbytes;
    return true;
}

const void *put_gather_request(const struct put_gather *gather, uint32_t i,
                               struct wire_request *out)
{
    const struct put_gather_entry *put = &gather->puts[i];

    out->method = WIRE_PAGE_PUT;
    out->id = put->id;
    out->region = gather->region;
    out->epoch = gather->epoch;
    out->npages = put->npages;
    memcpy(out->pages, &gather->pages[put->first], put->npages * sizeof(out->pages[0]));
    return gather->bytes + put->offset;
}

void put_gather_clear(struct put_gather *gather)
{
    gather->nputs = gather->npages = gather->nbytes = 0;
}
