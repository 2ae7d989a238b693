/*
 * compress_rule: whether it pays to compress pages before they are sent.
 *
 * It pays where the bytes that are saved would have taken the connection longer than compressing
 * takes the processor. Both are measured: what a page gets shorter by and what trying costs, of the
 * pages that were tried last; and how fast the connection is. While it does not pay a
 * few pages are tried all the same, to see when it does; where nothing is known of the connection,
 * or where it is so fast that nothing could pay, none are.
 *
 * Thread: none; whoever owns the struct.
 */
#ifndef EDM_CLIENT_COMPRESS_RULE_H
#define EDM_CLIENT_COMPRESS_RULE_H

#include "../ini/config.h"

#include <stdint.h>

struct compress_rule {
    enum config_compress how; /* whether to decide at all */
    uint32_t tried;           /* pages; no more than is needed to trust the rest */
    double saved_bytes;       /* by a page */
    double cost_us;           /* of trying a page */
};

/* How many of NPAGES pages to try, for a connection that carries RATE bytes a second (0: not
 * known): all, a few, or none. */
uint32_t compress_rule_how_many(const struct compress_rule *rule, uint32_t npages, uint64_t rate);

/* NPAGES pages were tried: SAVED_BYTES fewer of all of them together, for COST_US of processor
 * time. */
void compress_rule_learn(struct compress_rule *rule, uint32_t npages, uint64_t saved_bytes,
                         double cost_us);

#endif
