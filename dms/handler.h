/*
 * handler: answers one request from the store.
 *
 * Thread: the shard's.
 */
#ifndef EDM_DMS_HANDLER_H
#define EDM_DMS_HANDLER_H

#include "notice.h"
#include "store.h"
#include "../proto/wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* What a request may come up against; a line in the log for each, not each time. */
enum handler_limit {
    HANDLER_CAPACITY,
    HANDLER_DISK,
    HANDLER_REGION,
    HANDLER_REGIONS,
    HANDLER_FILES,
    HANDLER_MEMORY,
    HANDLER_LIMITS,
};

/* What the answers say of the shard. */
struct handler {
    struct store *store;
    uint64_t instance; /* random, new at each start */
    uint32_t shard, nshards;
    uint64_t first_page; /* pages below are refused */
    uint64_t requests;   /* answered so far */
    const char *part;    /* the shard's name in the log */
    uint32_t max_pages;  /* in a request; 0: what the wire can carry */
    struct notice limits[HANDLER_LIMITS];
};

/* The body of an answer, where the store has it: valid until the store is used again. */
struct handler_body {
    struct iovec parts[WIRE_MAX_PAGES];
    unsigned nparts; /* 0: none */
};

/* Answers REQUEST, as wire_unpack_request() left it after returning UNPACKED (0 or -errno), with
 * its body BODY. CONNECTION: a number for where it came from, the same as long as that lasts. Fills
 * in what wire_pack_reply() packs of REPLY, and OUT, which belongs to the reply if its status is
 * WIRE_OK. */
void handler_answer(struct handler *handler, const struct wire_request *request, int unpacked,
                    const void *body, uint64_t connection, struct wire_reply *reply,
                    struct handler_body *out);

/* Whether REQUEST, which unpacking took for valid, is a PAGE_PUT that this server takes, as far as
 * can be told without the store. */
bool handler_takes_put(const struct handler *handler, const struct wire_request *request);

/* Stores NPAGES pages, each number once, of NREQUESTS such requests for one region. True: each of
 * them is to be answered with WIRE_OK. False: they are to be answered one by one. */
bool handler_put_together(struct handler *handler, uint32_t nrequests, uint64_t region,
                          uint64_t epoch, const struct wire_page *pages, uint32_t npages,
                          const void *body);

/* Fills in the answer to REQUEST, as far as it was unpacked, without doing anything. */
void handler_refuse(const struct wire_request *request, enum wire_status status, const char *detail,
                    struct wire_reply *reply);

#endif
