/* cmocka and what it needs before it. */
#ifndef EDM_TESTS_CLIENT_TEST_H
#define EDM_TESTS_CLIENT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* A stream of numbers that a seed repeats (xorshift64*). */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dU;
}

#endif
