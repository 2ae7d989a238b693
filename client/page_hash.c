#include "page_hash.h"

#include "../proto/xxh3.h"

#include <string.h>

struct page_hash page_hash_of(const void *page)
{
    XXH128_hash_t hash = XXH3_128bits(page, PAGE_BYTES);
    return (struct page_hash){hash.low64, hash.high64};
}

bool page_is_zero(const void *page)
{
    const char *bytes = page;
    /* The first word settles it for nearly every page that is not zero. */
    static const char zero[16];
    return memcmp(bytes, zero, sizeof zero) == 0 &&
           memcmp(bytes, bytes + sizeof zero, PAGE_BYTES - sizeof zero) == 0;
}
