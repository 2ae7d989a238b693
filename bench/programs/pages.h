// Pages whose every word follows from their number and version, so that each can be checked.
#ifndef BENCH_PAGES_H
#define BENCH_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define WORD_STEP 0xD1B54A32D192ED03u

// After so many words a page's words are the first ones again (a power of two): 256, and LZ4 makes
// half of it. By default no word is like another and LZ4 finds nothing.
static size_t page_period = PAGE_WORDS;

static inline uint64_t page_first_word(uint64_t page, uint32_t version)
{
    return (page << 32 | version) * 0x9E3779B97F4A7C15u + 1;
}

static inline void page_fill(uint64_t *words, uint64_t page, uint32_t version)
{
    uint64_t first = page_first_word(page, version);
    for (size_t i = 0; i < PAGE_WORDS; i++)
        words[i] = first + (i & (page_period - 1)) * WORD_STEP;
}

// Whether all of it is as page_fill() writes it.
static inline int page_is(const uint64_t *words, uint64_t page, uint32_t version)
{
    uint64_t first = page_first_word(page, version);
    uint64_t wrong = 0;
    for (size_t i = 0; i < PAGE_WORDS; i++)
        wrong |= words[i] ^ (first + (i & (page_period - 1)) * WORD_STEP);
    return wrong == 0;
}

#endif
