/* giveup: gives pages up (MADV_DONTNEED) that are on their way in, because their neighbours are
 * read. What is read must be what was written, what was given up must be zero. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    WORDS = PAGE_BYTES / sizeof(uint64_t),
    NPAGES = 32768,
    BLOCK_PAGES = 64,
    BLOCKS_APART = 7,
    ROUNDS = 60,
    STRIDE = 13,
    PAUSE_US = 3000,
};

static uint64_t *memory;

static bool is_right(size_t page, uint64_t want)
{
    const volatile uint64_t *words = memory + page * WORDS;
    return words[0] == want && words[WORDS - 1] == want;
}

static void *read_even(void *first)
{
    for (size_t page = *(size_t *)first, end = page + BLOCK_PAGES; page < end; page += 2)
        if (!is_right(page, page + 1)) {
            fprintf(stderr, "giveup: page %zu is wrong\n", page);
            exit(EXIT_FAILURE);
        }
    return NULL;
}

static void give_up_odd(size_t first)
{
    for (size_t i = 0; i < BLOCK_PAGES / 2; i++) {
        /* In an order of its own: each page is met before, while and after it comes in. */
        size_t page = first + 1 + 2 * (i * STRIDE % (BLOCK_PAGES / 2));
        if (madvise(memory + page * WORDS, PAGE_BYTES, MADV_DONTNEED) != 0)
            perror("madvise");
        usleep(PAUSE_US);
    }
}

int main(void)
{
    memory = mmap(NULL, (size_t)NPAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    for (size_t page = 0; page < NPAGES; page++)
        for (size_t i = 0; i < WORDS; i++)
            memory[page * WORDS + i] = page + 1;
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t first = round * BLOCKS_APART * BLOCK_PAGES;
        pthread_t reader;
        if (pthread_create(&reader, NULL, read_even, &first) != 0)
            return EXIT_FAILURE;
        give_up_odd(first);
        pthread_join(reader, NULL);
        for (size_t page = first + 1; page < first + BLOCK_PAGES; page += 2)
            if (!is_right(page, 0)) {
                fprintf(stderr, "giveup: page %zu is not gone\n", page);
                return EXIT_FAILURE;
            }
    }
    puts("giveup: ok");
    return EXIT_SUCCESS;
}
