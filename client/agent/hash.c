#include "hash.h"

/* All of it in here, and no call to anything (memcpy, malloc): the agent is linked with nothing. */
#define XXH_INLINE_ALL
#define XXH_FORCE_MEMORY_ACCESS 1
#include <xxhash.h>

struct agent_hash hash_page(const void *page)
{
    XXH128_hash_t hash = XXH3_128bits(page, AGENT_PAGE_BYTES);
    return (struct agent_hash){hash.low64, hash.high64};
}
