#include "slot_identify.h"

#include <string.h>

static bool is_whole(const struct slot_header *header, uint32_t slot)
{
    return header->header_checksum == segment_header_checksum(header, slot) &&
           segment_header_is_page(header);
}

bool slot_identify(const struct slot_header *damaged, uint32_t slot, struct slot_header *found)
{
    unsigned char *bytes = (unsigned char *)found;

    memcpy(found, damaged, sizeof(*found));
    if (is_whole(found, slot))
        return true;
    for (size_t i = offsetof(struct slot_header, state) + sizeof(found->state); i < sizeof(*found);
         i++) {
        unsigned char was = bytes[i];
        for (unsigned change = 1; change < 256; change++) {
            bytes[i] = (unsigned char)(was ^ change);
            if (is_whole(found, slot))
                return true;
        }
        bytes[i] = was;
    }
    return false;
}
