#include "placement.h"

#include "../proto/wire.h"

#include <endian.h>
#include <xxhash.h>

uint32_t placement_of(uint64_t key, const uint64_t *stores, uint32_t nstores)
{
    uint32_t best = 0;
    uint64_t best_weight = 0;
    for (uint32_t i = 0; nstores > 1 && i < nstores; i++) {
        uint64_t pair[2] = {htole64(key / WIRE_EXTENT_PAGES), htole64(stores[i])};
        uint64_t weight = XXH3_64bits(pair, sizeof pair);
        if (i == 0 || weight > best_weight || (weight == best_weight && stores[i] > stores[best])) {
            best = i;
            best_weight = weight;
        }
    }
    return best;
}
