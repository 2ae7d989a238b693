/*
 * page_code: pages in fewer bytes, as they are sent and stored (enum wire_encoding).
 *
 * A page that repeats its first 8 bytes is those 8 bytes. Others may become an LZ4 block (liblz4;
 * the format is LZ4's "Block Format Description").
 *
 * Whether decoding gave back the right page is not known here: that is what the page's hash is for.
 *
 * Thread: none; pure.
 */
#ifndef EDM_CLIENT_PAGE_CODE_H
#define EDM_CLIENT_PAGE_CODE_H

#include "page_hash.h"

#include <stddef.h>
#include <stdint.h>

enum {
    PAGE_FILL_BYTES = 8,
    /* A block that is hardly shorter than the page is not worth the work of decoding it. */
    PAGE_CODE_MOST_BYTES = PAGE_BYTES - PAGE_BYTES / 8,
};

/* True when PAGE is its first 8 bytes again and again. */
bool page_is_filled(const void *page);

/* PAGE as an LZ4 block at OUT (PAGE_CODE_MOST_BYTES). Returns its length, or 0 when it is longer
 * than that. */
uint32_t page_compress(const void *page, void *out);

/* The PAGE_BYTES bytes at OUT that the LEN bytes at CODE stand for. False when they are no page in
 * this encoding; OUT is then undefined. */
bool page_decode(uint8_t encoding, const void *code, size_t len, void *out);

#endif
