#include "page_code.h"

#include "../proto/wire.h"

#include <lz4.h>
#include <string.h>

bool page_is_filled(const void *page)
{
    const char *bytes = page;
    /* The first words settle it for nearly every page that is not. */
    return memcmp(bytes, bytes + PAGE_FILL_BYTES, 2 * PAGE_FILL_BYTES) == 0 &&
           memcmp(bytes, bytes + PAGE_FILL_BYTES, PAGE_BYTES - PAGE_FILL_BYTES) == 0;
}

uint32_t page_compress(const void *page, void *out)
{
    return (uint32_t)LZ4_compress_default(page, out, PAGE_BYTES, PAGE_CODE_MOST_BYTES);
}

static void repeat(const void *code, char *out)
{
    for (size_t at = 0; at < PAGE_BYTES; at += PAGE_FILL_BYTES)
        memcpy(out + at, code, PAGE_FILL_BYTES);
}

bool page_decode(uint8_t encoding, const void *code, size_t len, void *out)
{
    switch (encoding) {
    case WIRE_RAW:
        if (len != PAGE_BYTES)
            return false;
        memcpy(out, code, PAGE_BYTES);
        return true;
    case WIRE_FILL:
        if (len != PAGE_FILL_BYTES)
            return false;
        repeat(code, out);
        return true;
    case WIRE_LZ4:
        return len <= PAGE_BYTES &&
               LZ4_decompress_safe(code, out, (int)len, PAGE_BYTES) == PAGE_BYTES;
    default:
        return false;
    }
}
