/*
 * touch: takes memory from malloc and touches it, as fast as it can, in several threads.
 *
 *     touch --size=1G --threads=8 [--block=SIZE]
 *
 * Each thread takes its share in blocks (by default one) and writes a word into each page. When all
 * have done so each reads its own words again: a wrong one ends the run with exit 1.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 4096, MAX_THREADS = 64, EXIT_WRONG = 1, EXIT_USAGE = 2 };

struct toucher {
    pthread_t thread;
    uint64_t index;
    size_t nblocks;
    unsigned char **blocks;
};

static size_t block_bytes;
static pthread_barrier_t barrier;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "touch: %s: %s\n", what, strerror(errno));
    exit(EXIT_USAGE);
}

static uint64_t word_of(const struct toucher *toucher, size_t block, size_t at)
{
    return (toucher->index << 56 | (uint64_t)block << 32 | at / PAGE_BYTES) + 1;
}

static void *touch(void *argument)
{
    struct toucher *toucher = argument;

    for (size_t i = 0; i < toucher->nblocks; i++) {
        unsigned char *bytes = malloc(block_bytes);
        if (bytes == NULL)
            fail("malloc");
        toucher->blocks[i] = bytes;
        for (size_t at = 0; at + sizeof(uint64_t) <= block_bytes; at += PAGE_BYTES) {
            uint64_t word = word_of(toucher, i, at);
            memcpy(bytes + at, &word, sizeof(word));
        }
    }
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < toucher->nblocks; i++) {
        for (size_t at = 0; at + sizeof(uint64_t) <= block_bytes; at += PAGE_BYTES) {
            uint64_t word;
            memcpy(&word, toucher->blocks[i] + at, sizeof(word));
            if (word == word_of(toucher, i, at))
                continue;
            fprintf(stderr,
                    "touch: thread %" PRIu64 " block %zu offset %zu: expected %" PRIx64
                    " got %" PRIx64 "\n",
                    toucher->index, i, at, word_of(toucher, i, at), word);
            exit(EXIT_WRONG);
        }
        free(toucher->blocks[i]);
    }
    return NULL;
}

static size_t parse_size(const char *text)
{
    static const char units[] = "KMG";
    char *end;
    size_t bytes = strtoull(text, &end, 10);
    const char *unit = *end == '\0' ? NULL : strchr(units, *end);

    if (end == text || (*end != '\0' && unit == NULL)) {
        fprintf(stderr, "touch: bad size '%s'\n", text);
        exit(EXIT_USAGE);
    }
    return unit == NULL ? bytes : bytes << 10 * (unit - units + 1);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"size", required_argument, NULL, 's'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"block", required_argument, NULL, 'b'},
                                          {NULL, 0, NULL, 0}};
    static struct toucher touchers[MAX_THREADS];
    size_t size_bytes = (size_t)1 << 30, nthreads = 1;
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 's')
            size_bytes = parse_size(optarg);
        else if (option == 't')
            nthreads = strtoul(optarg, NULL, 10);
        else if (option == 'b')
            block_bytes = parse_size(optarg);
        else
            return EXIT_USAGE;
    }
    if (nthreads < 1 || nthreads > MAX_THREADS)
        return EXIT_USAGE;
    if (block_bytes == 0)
        block_bytes = size_bytes / nthreads;
    pthread_barrier_init(&barrier, NULL, (unsigned)nthreads);
    for (size_t i = 0; i < nthreads; i++) {
        struct toucher *toucher = &touchers[i];
        toucher->index = i;
        toucher->nblocks = size_bytes / nthreads / block_bytes;
        toucher->blocks = calloc(toucher->nblocks, sizeof(*toucher->blocks));
        if (toucher->blocks == NULL)
            fail("calloc");
        errno = pthread_create(&toucher->thread, NULL, touch, toucher);
        if (errno != 0)
            fail("pthread_create");
    }
    for (size_t i = 0; i < nthreads; i++)
        pthread_join(touchers[i].thread, NULL);
    printf("touch: ok bytes=%zu threads=%zu block=%zu\n", size_bytes, nthreads, block_bytes);
    return EXIT_SUCCESS;
}
