/*
 * placement: which shard keeps an extent.
 *
 * Rendezvous hashing (Thaler, Ravishankar: "A name-based mapping scheme for rendezvous", 1996), as
 * PROTOCOL.md lays down: of all shards the one with the highest XXH3-64 of (extent, store). Adding
 * a shard moves only what goes to it, and no table has to be kept anywhere.
 *
 * Thread: none; pure.
 */
#ifndef EDM_CLIENT_PLACEMENT_H
#define EDM_CLIENT_PLACEMENT_H

#include <stdint.h>

/* The index, 0 to NSTORES - 1, of the shard that keeps the page with this key. STORES: the shards'
 * store numbers, NSTORES at least 1. */
uint32_t placement_of(uint64_t key, const uint64_t *stores, uint32_t nstores);

#endif
