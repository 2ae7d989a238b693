/*
 * flow: how many bytes a second a connection brings, from how long large messages take from their
 * first bytes to their last. (What is between a request and its answer is none of its business:
 * that is latency.)
 *
 * Where the reader is late it finds more than came just now, and the connection looks faster than
 * it is; where the sender is interrupted, slower. Of such outliers each moves the figure by no more
 * than any other message does: it follows the median (Ma, Muthukrishnan, Sandler, "Frugal Streaming
 * for Estimating Quantiles", 2013, by steps of a fifth).
 *
 * Thread: none; whoever owns the struct.
 */
#ifndef EDM_CLIENT_FLOW_H
#define EDM_CLIENT_FLOW_H

#include <stdint.h>

struct flow {
    uint64_t rate;        /* bytes a second; 0: not known yet */
    uint64_t begun_ns;    /* when what had come of a message had been read; 0: none is under way */
    uint64_t begun_bytes; /* how much that was */
};

/* HAVE bytes of a message have come, and nothing more is there at NOW_NS. */
void flow_pause(struct flow *flow, uint64_t have, uint64_t now_ns);

/* A message of NBYTES is there. */
void flow_end(struct flow *flow, uint64_t nbytes, uint64_t now_ns);

/* The connection is another. */
void flow_reset(struct flow *flow);

#endif
