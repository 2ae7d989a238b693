/*
 * examples: the worked examples of PROTOCOL.md, as the code makes them.
 *
 * Thread: none; works on its arguments alone.
 */
#ifndef EDM_TESTS_EXAMPLES_H
#define EDM_TESTS_EXAMPLES_H

#include "../../proto/wire.h"

#include <stdio.h>

enum { EXAMPLE_MAX_BODY_BYTES = 64 };

struct example {
    const char *name; /* ends in "request" or "reply" */
    unsigned char header[WIRE_MAX_HEADER_BYTES];
    size_t header_bytes;
    unsigned char body[EXAMPLE_MAX_BODY_BYTES];
    size_t body_bytes;
};

int examples_count(void);

/* Makes example NUMBER, 0 to examples_count() - 1. Returns 0 or what packing returned. */
int examples_make(struct example *out, int number);

/* The page that the examples' LZ4 block decodes to: WIRE_PAGE_BYTES at OUT; and that block. */
void examples_page(unsigned char *out);
const unsigned char *examples_lz4(size_t *len_bytes);

/* Writes an example as it stands in PROTOCOL.md: one MessagePack object a line, with what it is. */
void examples_print(const struct example *example, FILE *out);

#endif
