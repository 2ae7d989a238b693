#include "slot_header.h"

#include "stamp.h"
#include "../proto/wire.h"

#include <stddef.h>
#include <string.h>
#include <xxhash.h>

uint64_t slot_header_checksum(const struct slot_header *header, uint32_t slot)
{
    size_t from = offsetof(struct slot_header, length_bytes);
    size_t to = offsetof(struct slot_header, header_checksum);

    return XXH3_64bits_withSeed((const char *)header + from, to - from, slot);
}

uint64_t slot_header_written(const struct slot_header *header, uint32_t slot_bytes)
{
    return slot_bytes > 0 && header->moves > 0 ? header->moved : header->stamp;
}

/* Where the bytes within the header are not the page's, they say when it was moved, if it was. */
static bool has_moved(const struct slot_header *header)
{
    if (header->moves == 0)
        return header->moved == 0;
    return header->moved > header->stamp && header->moved <= STAMP_MAX;
}

/* What of the bytes within the header is not the page's is zero. */
static bool has_room(const struct slot_header *header, uint32_t slot_bytes)
{
    static const uint8_t zeros[SIZE_CLASS_INLINE_BYTES];
    size_t used = slot_bytes == 0 ? header->length_bytes : 0;
    bool is_lost = header->encoding == SLOT_LOST;

    if (header->length_bytes > WIRE_PAGE_BYTES)
        return false;
    if (!is_lost && size_class_bytes(size_class_of(header->length_bytes)) != slot_bytes)
        return false;
    if (slot_bytes > 0)
        return has_moved(header);
    return memcmp(header->bytes + used, zeros, sizeof(zeros) - used) == 0;
}

bool slot_header_is_page(const struct slot_header *header, uint32_t slot_bytes)
{
    struct wire_page page = {
        .page = header->page,
        .sequence = header->sequence,
        .length_bytes = header->length_bytes,
        .encoding = header->encoding,
    };

    if (header->region == 0 || header->stamp > STAMP_MAX)
        return false;
    if (header->encoding == SLOT_LOST && page.length_bytes != 0)
        return false;
    if (!has_room(header, slot_bytes))
        return false;
    if (header->encoding == SLOT_LOST)
        return page.page < WIRE_MAX_PAGE && page.sequence != 0;
    return wire_page_is_valid(&page);
}

bool slot_header_is_whole(const struct slot_header *header, uint32_t slot, uint32_t slot_bytes)
{
    /* The cheaper half first: whoever guesses asks thousands of times. */
    return slot_header_is_page(header, slot_bytes) &&
           header->header_checksum == slot_header_checksum(header, slot);
}
