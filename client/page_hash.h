/*
 * page_hash: the 128-bit hash by which the client knows a page's content again (XXH3-128, xxHash
 * 0.8). A page that hashes as it did when it was last stored is clean; a page that comes back and
 * does not hash as it did when it was stored is not let into the program.
 *
 * Thread: none; pure.
 */
#ifndef EDM_CLIENT_PAGE_HASH_H
#define EDM_CLIENT_PAGE_HASH_H

#include <stdbool.h>
#include <stdint.h>

enum { PAGE_BYTES = 4096 };

struct page_hash {
    uint64_t low, high;
};

struct page_hash page_hash_of(const void *page);

static inline bool page_hash_equal(struct page_hash a, struct page_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* True when all PAGE_BYTES bytes are zero. */
bool page_is_zero(const void *page);

#endif
