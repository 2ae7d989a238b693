/*
 * store_fixture: a store in a directory of its own, and short ways to use it.
 *
 * Everything asserts that it works unless it returns the store's error.
 */
#ifndef EDM_TESTS_DMS_STORE_FIXTURE_H
#define EDM_TESTS_DMS_STORE_FIXTURE_H

#include "temp_dir.h"

#include "../../dms/store.h"

#include <stdbool.h>
#include <stdint.h>

struct store_fixture {
    struct temp_dir dir;
    struct store *store;
    struct store_report report; /* of the last opening */
    uint64_t capacity_bytes;
    uint64_t region_bytes; /* 0: no limit */
    uint32_t max_regions;  /* 0: no limit of its own */
    /* For the next opening: */
    enum store_durability durability;
    const struct disk *disk; /* NULL: the real one */
    enum store_moves moves;  /* never, if not said otherwise */
};

void fixture_begin(struct store_fixture *fixture, uint64_t capacity_bytes);
void fixture_end(struct store_fixture *fixture);

/* Closes the store, as kill -9 would leave it, and opens it. */
void fixture_reopen(struct store_fixture *fixture);
void fixture_close(struct store_fixture *fixture);
int fixture_open(struct store_fixture *fixture);

/* The id of region NAME, owned with the epoch it has or, if new, 1. */
uint64_t fixture_region(struct store_fixture *fixture, const char *name);

/* Stores COUNT raw pages from number FIRST on, full of BYTE, under the epoch in force. */
int fixture_put(struct store_fixture *fixture, uint64_t region, uint64_t first, uint32_t count,
                uint64_t sequence, uint8_t byte);

/* The same with pages of LEN bytes: 8 same-filled, 4096 raw, others LZ4. */
int fixture_put_length(struct store_fixture *fixture, uint64_t region, uint64_t first,
                       uint32_t count, uint64_t sequence, uint8_t byte, uint32_t len);

/* What is there: the byte PAGE is full of, or -1 absent, -EBADMSG damaged. */
int fixture_get(struct store_fixture *fixture, uint64_t region, uint64_t page);
int fixture_drop(struct store_fixture *fixture, uint64_t region, uint64_t first, uint64_t count,
                 uint64_t sequence);
int fixture_remove(struct store_fixture *fixture, uint64_t region);
uint64_t fixture_branch(struct store_fixture *fixture, uint64_t region, const char *name,
                        bool frozen);

/* Page slots in use, after all that can wait was done. */
uint64_t fixture_used(struct store_fixture *fixture);

/* What the pages count, as the store says. */
uint64_t fixture_used_bytes(const struct store_fixture *fixture);

/* Segment files there are, and the bytes they take on disk. */
uint32_t fixture_files(const struct store_fixture *fixture);
uint64_t fixture_disk_bytes(const struct store_fixture *fixture);

/* Where the used slot of the page (its newest) is: file path, offset of its header and bytes. */
void fixture_locate(const struct store_fixture *fixture, uint64_t region, uint64_t page,
                    const char **path, long *header, long *bytes);

/* Turns BITS around in the byte of PATH at OFFSET. */
void fixture_flip(const char *path, long offset, uint8_t bits);

#endif
