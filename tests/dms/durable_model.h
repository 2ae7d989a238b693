/*
 * durable_model: what a store may hold after a power cut. It keeps every state the store has gone
 * through since the one that is sure to be on disk: afterwards each page must be as it was in one
 * of them, and what is frozen exactly as it was.
 *
 * A page's content is its version, a number that is never used again.
 */
#ifndef EDM_TESTS_DMS_DURABLE_MODEL_H
#define EDM_TESTS_DMS_DURABLE_MODEL_H

#include "../../dms/store.h"

#include <stdbool.h>
#include <stdint.h>

enum { DURABLE_REGIONS = 7, DURABLE_PAGES = 160, DURABLE_STATES = 256 };

struct durable_region {
    bool used;
    bool frozen;
    bool branched;
    uint64_t id; /* 0: made by an operation that did not come back */
    uint64_t epoch;
    uint64_t pages[DURABLE_PAGES]; /* versions, 0: absent */
    uint64_t sequences[DURABLE_PAGES];
};

struct durable_state {
    struct durable_region regions[DURABLE_REGIONS];
};

/* Begins with one state, all zero. */
struct durable_model {
    uint64_t random;
    uint64_t version;     /* the last one */
    bool claims_are_sure; /* as soon as they have come back */
    bool may_be_damaged;  /* a page may be refused, which is better than wrong */
    uint32_t ndamaged;    /* so many were */
    uint32_t nstates;     /* the first is sure, the last is now */
    struct durable_state states[DURABLE_STATES];
};

/* Does one random thing to both. Returns what the store returned; the model then has a state in
 * which it was done, whatever that was. */
int durable_model_step(struct durable_model *model, struct store *store);

/* What was done last was not done. */
void durable_model_undo(struct durable_model *model);

/* State number FIRST has become sure. */
void durable_model_make_sure(struct durable_model *model, uint32_t first);

/* Checks what STORE holds against the states, and goes on from that. EXACT: only the last two
 * states count, for there was no power cut. */
void durable_model_check(struct durable_model *model, struct store *store, bool exact);

#endif
