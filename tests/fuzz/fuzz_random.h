/*
 * fuzz_random: random_number() of the store under test; the same numbers after each restart.
 */
#ifndef EDM_TESTS_FUZZ_RANDOM_H
#define EDM_TESTS_FUZZ_RANDOM_H

void fuzz_random_restart(void);

#endif
