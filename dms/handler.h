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
#include <stddef.h>
#include <stdint.h>

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

/* Where a request came from and where its answer's body goes. */
struct handler_peer {
    uint64_t connection; /* a number for it: the same as long as it lasts */
    /* Makes room for the body of the reply. NULL: no memory. Called at most once a request. The
     * body belongs to the reply if its status is WIRE_OK, otherwise it is not used. */
    void *(*make_body)(void *context, size_t len_bytes);
    void *context;
};

/* Answers REQUEST, as wire_unpack_request() left it after returning UNPACKED (0 or -errno), with
 * its body BODY. Fills in what wire_pack_reply() packs of REPLY. */
void handler_answer(struct handler *handler, const struct wire_request *request, int unpacked,
                    const void *body, const struct handler_peer *peer, struct wire_reply *reply);

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
