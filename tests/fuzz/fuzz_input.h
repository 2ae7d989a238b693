/*
 * fuzz_input: an input read from its beginning to its end as small choices; past the end they are
 * all zero. Bytes a fuzzer changes then change one choice, not what all later ones mean.
 */
#ifndef EDM_TESTS_FUZZ_INPUT_H
#define EDM_TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a target may say of all inputs so far, for the replay to print. */
const char *fuzz_summary(void);

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/* What must be so, whatever the input: the fuzzer reports the abort. */
#define fuzz_require(condition) ((condition) ? (void)0 : fuzz_fail(#condition, __FILE__, __LINE__))

_Noreturn static inline void fuzz_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->at++;
}

static inline uint64_t fuzz_number(struct fuzz_input *input, unsigned nbytes)
{
    uint64_t number = 0;

    for (unsigned i = 0; i < nbytes; i++)
        number |= (uint64_t)fuzz_byte(input) << 8 * i;
    return number;
}

/* The next LEN bytes, fewer at the end; *GOT says how many. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *input, size_t len, size_t *got)
{
    const uint8_t *bytes = input->at;

    *got = len < input->left ? len : input->left;
    input->at += *got;
    input->left -= *got;
    return bytes;
}

#endif
