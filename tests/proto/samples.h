/*
 * samples: one or more valid messages of each method, for the tests of the wire.
 *
 * Thread: none; works on its arguments alone.
 */
#ifndef EDM_TESTS_SAMPLES_H
#define EDM_TESTS_SAMPLES_H

#include "../../proto/wire.h"

enum { SAMPLE_REQUESTS = 17, SAMPLE_REPLIES = 16 };

/* Fills OUT with sample NUMBER, 0 to SAMPLE_REQUESTS - 1; all it does not use is zero. Returns the
 * bytes of the body that goes with it. */
size_t samples_request(struct wire_request *out, int number);
size_t samples_reply(struct wire_reply *out, int number);

#endif
