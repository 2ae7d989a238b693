/*
 * leaks: built with AddressSanitizer, which looks for leaks when the program ends.
 *
 *     leaks MIB
 *
 * Makes a list of so many MiB, checks it, and ends with 7, the list still reachable.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { NODE_WORDS = 200, NODES_PER_MIB = 600, AS_EXPECTED = 7 };

static struct node {
    struct node *next;
    uint64_t words[NODE_WORDS];
} * first;

int main(int argc, char **argv)
{
    uint64_t nnodes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) * NODES_PER_MIB;
    for (uint64_t i = 0; i < nnodes; i++) {
        struct node *node = malloc(sizeof *node);
        if (!node)
            return 1;
        for (uint64_t w = 0; w < NODE_WORDS; w++)
            node->words[w] = i * NODE_WORDS + w;
        node->next = first;
        first = node;
    }
    uint64_t left = nnodes;
    for (struct node *node = first; node; node = node->next) {
        left--;
        for (uint64_t w = 0; w < NODE_WORDS; w++)
            if (node->words[w] != left * NODE_WORDS + w)
                return 1;
    }
    puts("ok");
    return AS_EXPECTED;
}
