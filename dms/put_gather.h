/*
 * put_gather: small PAGE_PUTs for one region that came one after the other, to be stored together:
 * pages, slot headers and marks are then written with a few system calls for all of them.
 *
 * Their bytes are copied: the messages they came in can go.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_PUT_GATHER_H
#define EDM_DMS_PUT_GATHER_H

#include "../proto/wire.h"

#include <stdbool.h>
#include <stdint.h>

/* Larger ones gain nothing. */
enum { PUT_GATHER_MAX_PAGES = 4 };

struct put_gather_entry {
    uint64_t peer; /* who sent it */
    uint64_t id;   /* of the request */
    uint32_t first, npages;
    uint32_t offset; /* of its bytes */
};

/* All zero: empty. */
struct put_gather {
    uint64_t region, epoch;
    uint32_t nputs, npages, nbytes;
    struct put_gather_entry puts[WIRE_MAX_PAGES];
    struct wire_page pages[WIRE_MAX_PAGES];
    char bytes[WIRE_MAX_BODY_BYTES];
};

/* Adds REQUEST, a valid PAGE_PUT of PEER's with its BODY. False: it is too large, or does not go
 * with what is there: another region or epoch, a page that is there already, or too many. */
bool put_gather_add(struct put_gather *gather, const struct wire_request *request, const void *body,
                    uint64_t peer);

/* Makes OUT what number I was, as far as a PAGE_PUT has it. Returns its body. */
const void *put_gather_request(const struct put_gather *gather, uint32_t i,
                               struct wire_request *out);

void put_gather_clear(struct put_gather *gather);

#endif
