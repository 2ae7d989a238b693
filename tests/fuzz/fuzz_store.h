/*
 * fuzz_store: what the targets ask of a store in fuzz_dir().
 */
#ifndef EDM_TESTS_FUZZ_STORE_H
#define EDM_TESTS_FUZZ_STORE_H

#include "../../dms/store.h"

/* NULL where it cannot be opened. It moves pages whenever that saves a group of slots. */
struct store *fuzz_store_open(uint64_t capacity_bytes, enum store_durability durability,
                              struct store_report *report);

/* Reads page->page of REGION and requires that its bytes have the checksum that *PAGE has then and
 * that the wire can carry it. Returns 0 or what the store says. */
int fuzz_store_get(const struct store *store, const struct region *region, struct wire_page *page);

/* A number for all that the store holds: its regions and their pages, damaged ones too. */
uint64_t fuzz_store_digest(const struct store *store);

#endif
