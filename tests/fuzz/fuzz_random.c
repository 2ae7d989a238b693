/*
 * fuzz_random: stands in for random_number(), so that an input does the same each time.
 */
#include "fuzz_input.h"
#include "fuzz_random.h"

int __wrap_random_number(uint64_t *out);

static uint64_t drawn;

void fuzz_random_restart(void)
{
    drawn = 0;
}

int __wrap_random_number(uint64_t *out)
{
    *out = (++drawn) * 0x9e3779b97f4a7c15U | 1;
    return 0;
}
