/*
 * random_number: 64 bits nobody can guess or has drawn before.
 *
 * Thread: any.
 */
#ifndef EDM_DMS_RANDOM_NUMBER_H
#define EDM_DMS_RANDOM_NUMBER_H

#include <stdint.h>

/* Never 0. Returns 0 or -errno. */
int random_number(uint64_t *out) __attribute__((warn_unused_result));

#endif
