#include "slot_identify.h"

#include <stddef.h>
#include <string.h>

bool slot_identify(const struct slot_header *damaged, uint32_t slot, uint32_t slot_bytes,
                   struct slot_header *found)
{
    unsigned char *bytes = (unsigned char *)found;

    memcpy(found, damaged, sizeof(*found));
    if (slot_header_is_whole(found, slot, slot_bytes))
        return true;
    for (size_t i = offsetof(struct slot_header, state) + sizeof(found->state); i < sizeof(*found);
         i++) {
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
