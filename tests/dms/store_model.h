/*
 * store_model: a store as arrays in memory, to compare a real one with.
 *
 * Pages are made from their region's number in the model, their number and their sequence, so what
 * a page must hold needs not be kept.
 */
#ifndef EDM_TESTS_DMS_STORE_MODEL_H
#define EDM_TESTS_DMS_STORE_MODEL_H

#include "../../dms/store.h"

#include <stdbool.h>
#include <stdint.h>

enum { MODEL_REGIONS = 10, MODEL_PAGES = 700 };

struct model_page {
    uint64_t sequence; /* 0: absent */
    uint64_t seed;     /* of its bytes */
};

struct model_region {
    bool used;
    bool frozen;
    uint64_t id;
    uint64_t parent;
    uint64_t epoch;
    uint64_t sequence;
    char name[64];
    struct model_page pages[MODEL_PAGES];
};

struct model {
    struct model_region regions[MODEL_REGIONS];
    uint64_t random;
    uint64_t names; /* made so far */
};

/* The number of the model's I-th page: dense, far, lone. */
uint64_t model_number(uint32_t i);

/* The bytes of a page made from SEED, and what the wire says of it. */
struct wire_page model_page(uint64_t page, uint64_t sequence, uint64_t seed, uint8_t *bytes);

/* Does one random thing, the same to both, and checks that the answer is right. */
void model_step(struct model *model, struct store *store);

/* Compares everything. */
void model_compare(const struct model *model, struct store *store);

#endif
