/*
 * reuse: a program that goes on using a part of its memory while it goes through the rest.
 *
 *     reuse HOT_MIB SCAN_MIB PASSES
 *
 * Fills all of it, then reads the second part in order, again and again, and four pages of the
 * first, at random, for each page of it. Every page is checked. What is read is the same each time.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES_PER_MIB = 256, HOT_READS = 4 };

static char *memory;

static char byte_of(size_t page)
{
    return (char)(page % 255 + 1);
}

static void check(size_t page)
{
    const volatile char *bytes = memory + page * PAGE;
    if (bytes[page % PAGE] == byte_of(page))
        return;
    fprintf(stderr, "reuse: page %zu is another\n", page);
    exit(1);
}

static size_t next_random(uint64_t *random)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(*random >> 33);
}

static void read_all(size_t hot, size_t scan, uint64_t *random)
{
    for (size_t page = hot; page < hot + scan; page++) {
        check(page);
        for (int i = 0; i < HOT_READS; i++)
            check(next_random(random) % hot);
    }
}

int main(int argc, char **argv)
{
    size_t hot = argc == 4 ? strtoul(argv[1], NULL, 10) * PAGES_PER_MIB : 0;
    size_t scan = hot ? strtoul(argv[2], NULL, 10) * PAGES_PER_MIB : 0;
    if (hot == 0 || scan == 0) {
        fprintf(stderr, "usage: reuse HOT_MIB SCAN_MIB PASSES\n");
        return 2;
    }
    memory =
        mmap(NULL, (hot + scan) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 2;
    for (size_t page = 0; page < hot + scan; page++)
        memset(memory + page * PAGE, byte_of(page), PAGE);
    uint64_t random = 1;
    for (size_t passes = strtoul(argv[3], NULL, 10); passes > 0; passes--)
        read_all(hot, scan, &random);
    return 0;
}
