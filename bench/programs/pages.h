// Pages whose every word follows from their number and version, so that each can be checked.
#ifndef BENCH_PAGES_H
#define BENCH_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define WORD_STEP 0xD1B54A32D192ED03u

// No word of a page is like another and LZ4 finds nothing in it.
static inline uint64_t page_first_word(uint64_t page, uint32_t version)
{
    return (page << 32 | version) * 0x9E3779B97F4A7C15u + 1;
}

static inline void page_fill(uint64_t *words, uint64_t page, uint32_t version)
{
    uint64_t first = page_first_word(page, version);
    for (size_t i = 0; i < PAGE_WORDS; i++)
        words[i] = first + i * WORD_STEP;
}

// Whether all of it is as page_fill() writes it.
static inline int page_is(const uint64_t *words, uint64_t page, uint32_t version)
{
    uint64_t first = page_first_word(page, version);
    uint64_t wrong = 0;
    for (size_t i = 0; i < PAGE_WORDS; i++)
        wrong |= words[i] ^ (first + i * WORD_STEP);
    return wrong == 0;
}

#endif
