#include "slot_identify.h"

#include "stamp.h"
#include "../proto/wire.h"

#include <stddef.h>
#include <string.h>

/* Bytes of a header, from FROM up to TO. */
struct span {
    size_t from, to;
};

#define FIELD(name)                                                                               \
    (struct span)                                                                                 \
    {                                                                                             \
        offsetof(struct slot_header, name), offsetof(struct slot_header, name) + FIELD_SIZE(name) \
    }
/* All that says whether the page was moved, and what is between. */
#define MOVE_FIELDS                                                 \
    (struct span)                                                   \
    {                                                               \
        offsetof(struct slot_header, moves),                        \
            offsetof(struct slot_header, moved) + FIELD_SIZE(moved) \
    }
#define FIELD_SIZE(name) sizeof(((const struct slot_header *)NULL)->name)

static bool is_encoding(uint8_t encoding)
{
    return encoding == WIRE_RAW || encoding == WIRE_FILL || encoding == WIRE_LZ4 ||
           encoding == SLOT_LOST;
}

/* Where the one damaged byte must be, if there is only one: in the field that cannot be as it is.
 * Of a page's own bytes, taken for headers, mostly several cannot: an empty span. */
static struct span find_suspects(const struct slot_header *header, uint32_t slot_bytes)
{
    const struct {
        bool is_wrong;
        struct span field;
    } fields[] = {
        {!is_encoding(header->encoding), FIELD(encoding)},
        {header->region == 0, FIELD(region)},
        {header->page >= WIRE_MAX_PAGE, FIELD(page)},
        {header->sequence == 0, FIELD(sequence)},
        {header->stamp > STAMP_MAX, FIELD(stamp)},
        {slot_bytes > 0 && header->moves == 0 && header->moved != 0, MOVE_FIELDS},
    };
    struct span span = {offsetof(struct slot_header, length_bytes), sizeof(*header)};

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (!fields[i].is_wrong)
            continue;
        span.from = fields[i].field.from > span.from ? fields[i].field.from : span.from;
        span.to = fields[i].field.to < span.to ? fields[i].field.to : span.to;
    }
    return span;
}

bool slot_identify(const struct slot_header *damaged, uint32_t slot, uint32_t slot_bytes,
                   struct slot_header *found)
{
    unsigned char *bytes = (unsigned char *)found;

    memcpy(found, damaged, sizeof(*found));
    if (slot_header_is_whole(found, slot, slot_bytes))
        return true;
    struct span span = find_suspects(found, slot_bytes);
    for (size_t i = span.from; i < span.to; i++) {
        unsigned char was = bytes[i];
        for (unsigned change = 1; change < 256; change++) {
            bytes[i] = (unsigned char)(was ^ change);
            if (slot_header_is_whole(found, slot, slot_bytes))
                return true;
        }
        bytes[i] = was;
    }
    return false;
}
