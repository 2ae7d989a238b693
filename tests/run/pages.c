#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    CHUNK_PAGES = 64,
    ENTRIES_AT_ONCE = 128,
    FRESH_PAGES = 1024,
    /* Rounds over the whole ballast; a few are enough unless something cannot leave. */
    MOST_ROUNDS = 40,
    SOME_ROUNDS = 2,
    STAYED_MOST = 4, /* one of so many */
    STORED_MS = 30,  /* long enough for the write-back; nothing depends on it */
};

const char *const pages_where_names[PAGES_NWHERE] = {"resident", "staged", "remote", "flight"};

static const char *name = "start";
static char *ballast;
static size_t ballast_pages, ballast_next;
static size_t npressed, nstayed;
static int pagemap = -1;

static struct {
    pthread_t thread;
    _Atomic bool on;
    char *at;
    size_t npages;
} flight;

void pages_name(const char *what)
{
    name = what;
}

void pages_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char text[400];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s: %s\n", name, text);
    _exit(1);
}

void pages_must(bool well, const char *call)
{
    if (!well)
        pages_fail("%s: %s", call, strerror(errno));
}

bool pages_managed(void)
{
    return getenv("EDM_AGENT") != NULL;
}

char *pages_map(size_t npages)
{
    char *at =
        mmap(NULL, npages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        pages_fail("mmap of %zu pages: %s", npages, strerror(errno));
    return at;
}

void pages_start(size_t ballast_bytes)
{
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        pages_fail("/proc/self/pagemap: %s", strerror(errno));
    if (!pages_managed())
        return;
    ballast_pages = ballast_bytes / PAGE_BYTES;
    ballast = pages_map(ballast_pages);
    for (size_t i = 0; i < ballast_pages; i++)
        memset(ballast + i * PAGE_BYTES, (int)(i % 251) + 1, PAGE_BYTES);
}

static uint64_t word_of(uint64_t id, size_t page, size_t word)
{
    uint64_t x = id * 0x9E3779B97F4A7C15u + (uint64_t)page * 0xBF58476D1CE4E5B9u + word;
    x ^= x >> 31;
    x *= 0x94D049BB133111EBu;
    return (x ^ x >> 29) | 1;
}

void pages_fill(char *at, uint64_t id, size_t first, size_t npages)
{
    for (size_t i = 0; i < npages; i++)
        for (size_t w = 0; w < PAGE_WORDS; w++) {
            uint64_t word = word_of(id, first + i, w);
            memcpy(at + i * PAGE_BYTES + w * 8, &word, 8);
        }
}

void pages_check(const char *at, uint64_t id, size_t first, size_t npages)
{
    for (size_t i = 0; i < npages; i++)
        for (size_t w = 0; w < PAGE_WORDS; w++) {
            uint64_t word;
            memcpy(&word, at + i * PAGE_BYTES + w * 8, 8);
            if (word != word_of(id, first + i, w))
                pages_fail("page %zu of %llu at %p, word %zu: %#llx, not %#llx", first + i,
                           (unsigned long long)id, (const void *)(at + i * PAGE_BYTES), w,
                           (unsigned long long)word, (unsigned long long)word_of(id, first + i, w));
        }
}

void pages_check_zero(const char *at, size_t npages)
{
    for (size_t i = 0; i < npages * PAGE_BYTES; i++)
        if (at[i])
            pages_fail("byte %zu at %p: %#x, not zero", i, (const void *)(at + i), at[i] & 0xff);
}

size_t pages_present(const char *at, size_t npages)
{
    uint64_t entries[ENTRIES_AT_ONCE];
    size_t count = 0;
    while (npages > 0) {
        size_t n = npages < ENTRIES_AT_ONCE ? npages : ENTRIES_AT_ONCE;
        off_t offset = (off_t)((uintptr_t)at / PAGE_BYTES * sizeof *entries);
        if (pread(pagemap, entries, n * sizeof *entries, offset) != (ssize_t)(n * sizeof *entries))
            pages_fail("pagemap: %s", strerror(errno));
        for (size_t i = 0; i < n; i++)
            count += entries[i] >> 63;
        at += n * PAGE_BYTES;
        npages -= n;
    }
    return count;
}

static bool is_out(const char *at, size_t npages)
{
    return pages_present(at, npages) == 0;
}

/* New pages push out those that came once, old ones those that have come back before. */
static bool press_once(const char *at, size_t npages)
{
    char *fresh = pages_map(FRESH_PAGES);
    bool out = false;
    for (size_t i = 0; i < FRESH_PAGES && !out; i++) {
        fresh[i * PAGE_BYTES] = 1;
        out = i % CHUNK_PAGES == 0 && is_out(at, npages);
    }
    for (size_t i = 0; i < ballast_pages && !out; i++) {
        ballast[ballast_next * PAGE_BYTES]++;
        ballast_next = (ballast_next + 1) % ballast_pages;
        out = i % CHUNK_PAGES == 0 && is_out(at, npages);
    }
    munmap(fresh, FRESH_PAGES * PAGE_BYTES);
    return out;
}

void pages_press(const char *at, size_t npages)
{
    pages_land();
    if (!pages_managed() || is_out(at, npages))
        return;
    for (int round = 0; round < MOST_ROUNDS; round++)
        if (press_once(at, npages))
            return;
    pages_fail("%zu of %zu pages do not leave memory", pages_present(at, npages), npages);
}

void pages_press_some(const char *at, size_t npages)
{
    pages_land();
    if (!pages_managed())
        return;
    for (int round = 0; round < SOME_ROUNDS && !is_out(at, npages); round++)
        press_once(at, npages);
    npressed += npages;
    nstayed += pages_present(at, npages);
}

void pages_end(void)
{
    fprintf(stderr, "%zu of %zu pages were out when they were checked\n", npressed - nstayed,
            npressed);
    if (pages_managed() && nstayed > npressed / STAYED_MOST)
        pages_fail("too many pages stayed in memory");
}

/* Reads through the kernel, which does not mind memory that is not there. */
static void *fly(void *arg)
{
    (void)arg;
    char byte;
    unsigned random = 1;
    while (flight.on) {
        random = random * 1103515245 + 12345;
        struct iovec to = {&byte, 1};
        struct iovec from = {flight.at + (random >> 8) % flight.npages * PAGE_BYTES, 1};
        (void)!process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    }
    return NULL;
}

void pages_put(char *at, size_t npages, enum pages_where where)
{
    if (where == PAGES_RESIDENT)
        return;
    pages_press(at, npages);
    if (where == PAGES_STAGED)
        return;
    nanosleep(&(struct timespec){.tv_nsec = STORED_MS * 1000000}, NULL);
    if (where != PAGES_FLIGHT)
        return;
    flight.at = at;
    flight.npages = npages;
    flight.on = true;
    if (pthread_create(&flight.thread, NULL, fly, NULL))
        pages_fail("no thread");
}

void pages_land(void)
{
    if (!flight.on)
        return;
    flight.on = false;
    pthread_join(flight.thread, NULL);
}
