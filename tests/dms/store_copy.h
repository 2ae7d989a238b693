/* What store_view() shows, copied. */
#ifndef EDM_TESTS_DMS_STORE_COPY_H
#define EDM_TESTS_DMS_STORE_COPY_H

#include "../../dms/store.h"

#include <string.h>

/* BODY: found->body_bytes. What store_view() returned. */
static inline int store_copy(const struct store *store, const struct wire_page *pages,
                             uint32_t npages, const struct store_found *found, void *body,
                             uint64_t *bad)
{
    struct iovec parts[WIRE_MAX_PAGES];
    unsigned nparts = 0;
    char *to = body;
    int err = store_view(store, pages, npages, found, parts, &nparts, bad);

    for (unsigned i = 0; err == 0 && i < nparts; i++) {
        memcpy(to, parts[i].iov_base, parts[i].iov_len);
        to += parts[i].iov_len;
    }
    return err;
}

#endif
