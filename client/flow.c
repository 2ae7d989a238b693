#include "flow.h"

/* Shorter messages, and shorter rests of them, say nothing. */
enum { LEAST_BYTES = 64 * 1024, LEAST_REST_BYTES = 16 * 1024 };

/* Beyond this nobody has to know: bytes a second. */
#define MOST_RATE ((uint64_t)8 << 30)

void flow_pause(struct flow *flow, uint64_t have, uint64_t now_ns)
{
    if (flow->begun_ns != 0 || have == 0)
        return;
    flow->begun_ns = now_ns;
    flow->begun_bytes = have;
}

static uint64_t rate_of(const struct flow *flow, uint64_t nbytes, uint64_t now_ns)
{
    uint64_t rest = nbytes - flow->begun_bytes;
    uint64_t ns = now_ns - flow->begun_ns;
    if (flow->begun_ns == 0 || rest < LEAST_REST_BYTES || ns == 0)
        return MOST_RATE; /* all of it was there as soon as one looked */
    double rate = (double)rest * 1e9 / (double)ns;
    return rate < (double)MOST_RATE ? (uint64_t)rate : MOST_RATE;
}

void flow_end(struct flow *flow, uint64_t nbytes, uint64_t now_ns)
{
    if (nbytes >= LEAST_BYTES) {
        uint64_t rate = rate_of(flow, nbytes, now_ns);
        if (flow->rate == 0)
            flow->rate = rate < MOST_RATE ? rate : 0; /* one that is too fast says nothing yet */
        else if (rate > flow->rate)
            flow->rate += flow->rate < MOST_RATE ? flow->rate / 5 : 0;
        else if (rate < flow->rate)
            flow->rate -= flow->rate / 5;
    }
    flow->begun_ns = 0;
}

void flow_reset(struct flow *flow)
{
    *flow = (struct flow){0};
}
