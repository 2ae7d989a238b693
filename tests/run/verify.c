/*
 * verify: a program that knows what every byte of its memory has to be.
 *
 *     verify --size=1G --threads=4 --seconds=60 --seed=1 [--small] [--churn] [--verbose]
 *     verify --self-test
 *
 * Each thread owns a part of the memory and writes it, whole pages and pieces of pages. A page
 * holds its number, version and owner, and words that follow from them and the seed; a page never
 * written is zero. What each page must hold stands in a table, checked too. Threads read each
 * other's parts while nobody writes. In the end all is read once more. The first wrong byte ends
 * the run: one line on standard error, exit 1.
 *
 * --small: many small mappings and malloc blocks in place of one large mapping. --churn: mappings
 * are replaced, moved, grown and discarded, and malloc blocks come and go, in every thread.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    PAGE_WORDS = PAGE_BYTES / 8,
    HEADER_WORDS = 3,
    MAX_THREADS = 64,
    /* Blocks of this size come out of malloc's arenas, not from mmap (from 128 KiB on). */
    SMALL_CHUNK_PAGES = 24,
    /* Of every UNUSED_OF groups of pages one is never written. */
    UNUSED_GROUP_PAGES = 64,
    UNUSED_OF = 16,
    PIECE_MAX_BYTES = 3 * PAGE_BYTES,
    PAGES_PER_CLOCK = 16,
    NBLOCKS = 256,
    BLOCK_MAX_BITS = 20,
    SCRATCH_MIN_PAGES = 512,
    SCRATCH_MAX_PAGES = 4096,
    SELF_TEST_BYTES = 8 << 20,
    EXIT_WRONG = 1,
    EXIT_USAGE = 2,
};

/* What a page must hold: version everywhere, but piece_version in [piece_from, piece_to). */
struct expected {
    uint32_t version;
    uint32_t piece_version;
    uint16_t piece_from;
    uint16_t piece_to;
    uint32_t checksum;
};

/* A malloc block of --churn. */
struct block {
    unsigned char *bytes;
    size_t len_bytes;
    uint64_t key;
};

/* A mapping of --churn, which lives on while it is moved and resized. */
struct scratch {
    unsigned char *bytes;
    size_t npages;
    uint64_t key;
    unsigned step;
};

struct worker {
    pthread_t thread;
    unsigned index;
    size_t first_page, npages;
    uint64_t random;
    uint32_t last_version;
    uint32_t table_sum; /* all checksums of the part's table entries, xored */
    uint64_t npages_written, npages_read, nchurned;
    struct block blocks[NBLOCKS];
    struct scratch scratch;
    uint64_t image[PAGE_WORDS], piece_image[PAGE_WORDS];
    unsigned char piece[PIECE_MAX_BYTES];
};

enum corruption {
    CORRUPT_NOTHING,
    CORRUPT_BYTE,
    CORRUPT_ZEROED,
    CORRUPT_STALE,
    CORRUPT_MISPLACED,
    CORRUPT_HALF,
    CORRUPT_UNUSED,
    CORRUPT_TABLE,
    CORRUPT_STALE_TABLE,
    CORRUPT_SCRATCH,
    CORRUPT_BLOCK,
    NCORRUPTIONS,
};

static const char *const corruption_names[NCORRUPTIONS] = {
    "nothing",
    "byte",
    "zeroed page",
    "stale page",
    "misplaced page",
    "half of a page",
    "byte of a page never written",
    "table",
    "stale table",
    "moving mapping",
    "malloc block",
};

static struct {
    size_t size_bytes;
    unsigned nthreads;
    double seconds;
    uint64_t seed;
    bool small, churn, verbose;
    enum corruption corruption;
} options = {.size_bytes = (size_t)1 << 30, .nthreads = 4, .seconds = 60, .seed = 1};

static size_t npages, chunk_pages;
static unsigned char **chunks;
static struct expected *table;
static struct worker *workers;
static pthread_barrier_t barrier;
static double begun, deadline;
static bool stopping;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "verify: %s: %s\n", what, strerror(errno));
    _exit(EXIT_USAGE);
}

static void say(const struct worker *worker, const char *phase)
{
    if (options.verbose)
        fprintf(stderr, "verify: %7.2f s thread %u %s\n", now() - begun, worker->index, phase);
}

static uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= 0xd6e8feb86659fd93;
    value ^= value >> 29;
    value *= 0xff51afd7ed558ccd;
    return value ^ value >> 32;
}

static uint64_t draw(struct worker *worker)
{
    worker->random += 0x9e3779b97f4a7c15;
    return mix(worker->random);
}

static size_t draw_below(struct worker *worker, size_t limit)
{
    return (size_t)(draw(worker) % limit);
}

/* ---- what a page must hold ---- */

static unsigned char *page_at(size_t page)
{
    return chunks[page / chunk_pages] + page % chunk_pages * PAGE_BYTES;
}

static unsigned owner_of(size_t page)
{
    for (unsigned i = 0; i < options.nthreads; i++)
        if (page < workers[i].first_page + workers[i].npages)
            return i;
    return options.nthreads;
}

static bool is_unused(size_t page)
{
    return page / UNUSED_GROUP_PAGES % UNUSED_OF == UNUSED_OF - 1;
}

static void make_image(uint64_t *image, size_t page, unsigned owner, uint32_t version)
{
    if (version == 0) {
        memset(image, 0, PAGE_BYTES);
        return;
    }
    uint64_t key = mix(mix(options.seed ^ mix(page)) + version);
    image[0] = page;
    image[1] = version;
    image[2] = owner;
    for (uint64_t i = HEADER_WORDS; i < PAGE_WORDS; i++)
        image[i] = mix(key + i * 0x9e3779b97f4a7c15);
}

static uint32_t checksum_of(size_t page, const struct expected *expected)
{
    uint64_t sum = mix(options.seed + page);

    sum = mix(sum ^ ((uint64_t)expected->version << 32 | expected->piece_version));
    return (uint32_t)mix(sum ^ ((uint64_t)expected->piece_from << 16 | expected->piece_to));
}

static struct expected expected_of(size_t page)
{
    struct expected expected = table[page];

    if (expected.checksum != checksum_of(page, &expected)) {
        fprintf(stderr,
                "verify: table entry of page %zu offset %zu: expected checksum %08" PRIx32
                " got %08" PRIx32 "\n",
                page, page * sizeof(struct expected), checksum_of(page, &expected),
                expected.checksum);
        _exit(EXIT_WRONG);
    }
    return expected;
}

static void expect(struct worker *worker, size_t page, struct expected expected)
{
    worker->table_sum ^= expected_of(page).checksum;
    expected.checksum = checksum_of(page, &expected);
    worker->table_sum ^= expected.checksum;
    table[page] = expected;
}

/* The part's table must be the one we wrote last, not an older one. */
static void check_table(const struct worker *worker)
{
    uint32_t sum = 0;

    for (size_t page = worker->first_page; page < worker->first_page + worker->npages; page++)
        sum ^= expected_of(page).checksum;
    if (sum != worker->table_sum) {
        fprintf(stderr,
                "verify: table of pages %zu to %zu: expected sum %08" PRIx32 " got %08" PRIx32 "\n",
                worker->first_page, worker->first_page + worker->npages - 1, worker->table_sum,
                sum);
        _exit(EXIT_WRONG);
    }
}

static const char *guess(size_t page, const unsigned char *got, const struct expected *expected)
{
    static const unsigned char zero[PAGE_BYTES];
    uint64_t header[HEADER_WORDS];

    memcpy(header, got, sizeof(header));
    if (memcmp(got, zero, PAGE_BYTES) == 0)
        return "the whole page is zero";
    if (header[0] != page)
        return "the page calls itself another page, or nothing known";
    return header[1] < expected->version ? "the page calls itself an older version"
                                         : "the page calls itself the right one";
}

static _Noreturn void report(size_t page, const unsigned char *want, const unsigned char *got,
                             const struct expected *expected)
{
    unsigned char copy[PAGE_BYTES];
    uint64_t header[HEADER_WORDS];
    size_t at = 0, nwrong = 0;

    memcpy(copy, got, PAGE_BYTES);
    while (at < PAGE_BYTES - 1 && copy[at] == want[at])
        at++;
    for (size_t i = at; i < PAGE_BYTES; i++)
        nwrong += copy[i] != want[i];
    memcpy(header, copy, sizeof(header));
    fprintf(stderr,
            "verify: page %zu offset %zu: expected %02x got %02x (%zu bytes of the page are wrong; "
            "address %p; expected version %" PRIu32 " piece %" PRIu32 " [%u,%u) owner %u; found "
            "page %" PRIu64 " version %" PRIu64 " owner %" PRIu64 "; %s)\n",
            page, at, want[at], copy[at], nwrong, (const void *)got, expected->version,
            expected->piece_version, expected->piece_from, expected->piece_to, owner_of(page),
            header[0], header[1], header[2], guess(page, copy, expected));
    if (nwrong == 0)
        fprintf(stderr, "verify: page %zu: it was wrong at first, and right when read again\n",
                page);
    _exit(EXIT_WRONG);
}

static void check_page(struct worker *worker, size_t page)
{
    struct expected expected = expected_of(page);
    unsigned owner = owner_of(page);
    unsigned char *image = (unsigned char *)worker->image;

    make_image(worker->image, page, owner, expected.version);
    if (expected.piece_from < expected.piece_to) {
        make_image(worker->piece_image, page, owner, expected.piece_version);
        memcpy(image + expected.piece_from,
               (unsigned char *)worker->piece_image + expected.piece_from,
               expected.piece_to - expected.piece_from);
    }
    if (memcmp(page_at(page), image, PAGE_BYTES) != 0)
        report(page, image, page_at(page), &expected);
    worker->npages_read++;
}

/* ---- writing ---- */

static void write_page(struct worker *worker, size_t page)
{
    if (is_unused(page))
        return;
    struct expected expected = {.version = ++worker->last_version};
    make_image((uint64_t *)(void *)page_at(page), page, worker->index, expected.version);
    expect(worker, page, expected);
    worker->npages_written++;
}

/* A page has one piece of another version at most: an older one becomes as the rest of the page. */
static void undo_piece(struct worker *worker, size_t page)
{
    struct expected expected = expected_of(page);
    size_t from = expected.piece_from;

    if (from == expected.piece_to)
        return;
    make_image(worker->image, page, worker->index, expected.version);
    memcpy(page_at(page) + from, (unsigned char *)worker->image + from, expected.piece_to - from);
    expect(worker, page, (struct expected){.version = expected.version});
}

/* How many bytes from the start of PAGE on lie together, are this worker's, and may be written. */
static size_t run_bytes(const struct worker *worker, size_t page)
{
    size_t end = page;

    while (end < worker->first_page + worker->npages && end / chunk_pages == page / chunk_pages &&
           !is_unused(end) && end - page < PIECE_MAX_BYTES / PAGE_BYTES)
        end++;
    return (end - page) * PAGE_BYTES;
}

/* Writes from the middle of a page on, by one memcpy that may cross into the next pages. */
static void write_piece(struct worker *worker, size_t page)
{
    size_t run = run_bytes(worker, page);

    if (run == 0)
        return;
    size_t from = draw_below(worker, PAGE_BYTES);
    size_t to = from + 1 + draw_below(worker, run - from);
    uint32_t version = ++worker->last_version;
    for (size_t i = 0; i * PAGE_BYTES < to; i++) {
        struct expected expected;
        size_t start = i * PAGE_BYTES;
        undo_piece(worker, page + i);
        expected = expected_of(page + i);
        expected.piece_version = version;
        expected.piece_from = (uint16_t)(i == 0 ? from : 0);
        expected.piece_to = (uint16_t)(to - start < PAGE_BYTES ? to - start : PAGE_BYTES);
        make_image(worker->piece_image, page + i, worker->index, version);
        memcpy(worker->piece + start, worker->piece_image, PAGE_BYTES);
        expect(worker, page + i, expected);
        worker->npages_written++;
    }
    memcpy(page_at(page) + from, worker->piece + from, to - from);
}

/* ---- churn ---- */

static _Noreturn void report_bytes(const char *what, const unsigned char *bytes, size_t at,
                                   unsigned want, unsigned got)
{
    fprintf(stderr, "verify: %s at %p: page %zu offset %zu: expected %02x got %02x\n", what,
            (const void *)bytes, at / PAGE_BYTES, at % PAGE_BYTES, want, got);
    _exit(EXIT_WRONG);
}

static unsigned char pattern_byte(uint64_t key, size_t at)
{
    return (unsigned char)(mix(key + at / 8) >> at % 8 * 8);
}

static void fill_bytes(unsigned char *bytes, size_t from, size_t to, uint64_t key)
{
    for (size_t i = from; i < to; i++)
        bytes[i] = pattern_byte(key, i);
}

static void check_bytes(const char *what, const unsigned char *bytes, size_t len_bytes,
                        uint64_t key)
{
    for (size_t i = 0; i < len_bytes; i++) {
        unsigned char got = bytes[i], want = pattern_byte(key, i);
        if (got != want)
            report_bytes(what, bytes, i, want, got);
    }
}

static void check_zero(const char *what, const unsigned char *bytes, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        unsigned char got = bytes[i];
        if (got != 0)
            report_bytes(what, bytes, i, 0, got);
    }
}

static void *map_pages(size_t count)
{
    void *bytes = mmap(NULL, count * PAGE_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (bytes == MAP_FAILED)
        fail("mmap");
    return bytes;
}

/* Discards a piece of the worker's part, or maps fresh memory over it: it must read as zero. */
static void churn_part(struct worker *worker)
{
    size_t page = worker->first_page + draw_below(worker, worker->npages);
    size_t end = page + 1 + draw_below(worker, 256);
    size_t chunk_end = (page / chunk_pages + 1) * chunk_pages;
    bool remap = draw_below(worker, 2) == 0;

    if (end > worker->first_page + worker->npages)
        end = worker->first_page + worker->npages;
    if (end > chunk_end)
        end = chunk_end;
    size_t len = (end - page) * PAGE_BYTES;
    /* Mapping over a part of malloc's memory is not ours to do: --small has that in odd chunks. */
    if (remap && page / chunk_pages % 2 == 0) {
        if (mmap(page_at(page), len, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
            fail("mmap");
    } else if (madvise(page_at(page), len, MADV_DONTNEED) != 0) {
        fail("madvise");
    }
    for (size_t i = page; i < end; i++) {
        expect(worker, i, (struct expected){.version = 0});
        check_page(worker, i);
    }
}

/* Pages of SCRATCH in a state nobody else has seen: grown by some, which must be zero. */
static void grow_scratch(struct scratch *scratch, size_t count)
{
    size_t old_bytes = scratch->npages * PAGE_BYTES, new_bytes = count * PAGE_BYTES;
    void *moved = mremap(scratch->bytes, old_bytes, new_bytes, MREMAP_MAYMOVE);

    if (moved == MAP_FAILED)
        fail("mremap");
    scratch->bytes = moved;
    scratch->npages = count;
    check_zero("a mapping that was grown", scratch->bytes, old_bytes, new_bytes);
    fill_bytes(scratch->bytes, old_bytes, new_bytes, scratch->key);
}

static void move_scratch(struct scratch *scratch)
{
    size_t len = scratch->npages * PAGE_BYTES;
    void *target = map_pages(scratch->npages);

    if (mremap(scratch->bytes, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
        fail("mremap");
    scratch->bytes = target;
}

/* Unmaps the upper half, and maps as much again, which is likely to come to the same addresses. */
static void halve_scratch(struct scratch *scratch)
{
    size_t keep = scratch->npages / 2, drop = scratch->npages - keep;

    if (munmap(scratch->bytes + keep * PAGE_BYTES, drop * PAGE_BYTES) != 0)
        fail("munmap");
    scratch->npages = keep;
    unsigned char *fresh = map_pages(drop);
    check_zero("a mapping in place of another", fresh, 0, drop * PAGE_BYTES);
    fresh[drop / 2 * PAGE_BYTES] = 1;
    if (munmap(fresh, drop * PAGE_BYTES) != 0)
        fail("munmap");
}

static void check_scratch(const struct scratch *scratch)
{
    check_bytes("a moving mapping", scratch->bytes, scratch->npages * PAGE_BYTES, scratch->key);
}

static void churn_scratch(struct worker *worker)
{
    struct scratch *scratch = &worker->scratch;

    if (scratch->bytes == NULL) {
        scratch->npages = SCRATCH_MIN_PAGES;
        scratch->bytes = map_pages(scratch->npages);
        scratch->key = draw(worker);
        fill_bytes(scratch->bytes, 0, scratch->npages * PAGE_BYTES, scratch->key);
        return;
    }
    switch (scratch->step++ % 3) {
    case 0:
        grow_scratch(scratch, scratch->npages + scratch->npages / 2);
        break;
    case 1:
        move_scratch(scratch);
        break;
    default:
        if (scratch->npages > SCRATCH_MAX_PAGES)
            halve_scratch(scratch);
        check_scratch(scratch);
        break;
    }
}

static void check_block(const struct block *block)
{
    check_bytes("a malloc block", block->bytes, block->len_bytes, block->key);
}

static void churn_block(struct worker *worker)
{
    struct block *block = &worker->blocks[draw_below(worker, NBLOCKS)];
    size_t len = 1 + draw_below(worker, (size_t)1 << (4 + draw_below(worker, BLOCK_MAX_BITS - 3)));

    if (block->bytes != NULL && draw_below(worker, 2) == 0) {
        check_block(block);
        free(block->bytes);
        *block = (struct block){.bytes = NULL};
    }
    size_t had = block->len_bytes;
    unsigned char *bytes = realloc(block->bytes, len);
    if (bytes == NULL)
        fail("realloc");
    if (block->bytes == NULL)
        block->key = draw(worker);
    block->bytes = bytes;
    block->len_bytes = len;
    check_bytes("a malloc block", bytes, had < len ? had : len, block->key);
    fill_bytes(bytes, had < len ? had : len, len, block->key);
}

static void churn_until(struct worker *worker, double end)
{
    do {
        churn_part(worker);
        for (int i = 0; i < 8; i++)
            churn_block(worker);
        churn_scratch(worker);
        worker->nchurned++;
    } while (now() < end);
}

static void check_churned(const struct worker *worker)
{
    for (size_t i = 0; i < NBLOCKS; i++)
        check_block(&worker->blocks[i]);
    if (worker->scratch.bytes != NULL)
        check_scratch(&worker->scratch);
}

/* ---- phases ---- */

/* OPERATION on pages of [FIRST, FIRST + COUNT), in order from a random one on or at random, until
 * END or for at most COUNT pages. */
static void each_page(struct worker *worker, size_t first, size_t count, bool in_order, double end,
                      void (*operation)(struct worker *, size_t))
{
    size_t at = draw_below(worker, count);

    for (size_t i = 0; i < count; i++) {
        operation(worker, first + (in_order ? (at + i) % count : draw_below(worker, count)));
        if (i % PAGES_PER_CLOCK == 0 && now() >= end)
            return;
    }
}

static void mixed_operation(struct worker *worker, size_t page)
{
    switch (draw_below(worker, 4)) {
    case 0:
        write_page(worker, page);
        break;
    case 1:
        write_piece(worker, page);
        break;
    default:
        check_page(worker, page);
        break;
    }
}

static const struct phase {
    const char *name;
    bool in_order;
    void (*operation)(struct worker *, size_t);
} phases[] = {
    {"reads in order", true, check_page},
    {"writes in order", true, write_page},
    {"reads at random", false, check_page},
    {"writes pieces in order", true, write_piece},
    {"writes at random", false, write_page},
    {"reads and writes at random", false, mixed_operation},
    {"writes pieces at random", false, write_piece},
};

enum { NPHASES = sizeof(phases) / sizeof(phases[0]) };

static void work(struct worker *worker, unsigned round, double slice)
{
    const struct phase *phase = &phases[(round + worker->index) % NPHASES];

    say(worker, phase->name);
    each_page(worker, worker->first_page, worker->npages, phase->in_order, now() + slice,
              phase->operation);
    if (options.churn) {
        say(worker, "churns");
        churn_until(worker, now() + slice / 2);
    }
}

/* Nobody writes meanwhile. */
static void read_others(struct worker *worker, unsigned round, double slice)
{
    if (options.nthreads == 1)
        return;
    unsigned step = 1 + round % (options.nthreads - 1);
    const struct worker *other = &workers[(worker->index + step) % options.nthreads];
    say(worker, "reads another's pages");
    each_page(worker, other->first_page, other->npages, round % 2 == 0, now() + slice, check_page);
}

static void read_all(struct worker *worker)
{
    say(worker, "reads everything again");
    for (size_t i = 0; i < worker->npages; i++)
        check_page(worker, worker->first_page + i);
    check_table(worker);
    check_churned(worker);
}

static size_t first_used(const struct worker *worker, bool used)
{
    size_t page = worker->first_page;

    while (is_unused(page) == used || (used && expected_of(page).version == 0))
        page++;
    return page;
}

/* For the self-test: makes one thing wrong that must be found. */
static void corrupt(struct worker *worker)
{
    size_t page = first_used(worker, options.corruption != CORRUPT_UNUSED);
    unsigned char *bytes = page_at(page);
    struct expected expected = table[page];

    switch (options.corruption) {
    case CORRUPT_BYTE:
    case CORRUPT_UNUSED:
        bytes[PAGE_BYTES - 1] ^= 1;
        break;
    case CORRUPT_ZEROED:
        memset(bytes, 0, PAGE_BYTES);
        break;
    case CORRUPT_STALE:
        write_page(worker, page);
        make_image((uint64_t *)(void *)bytes, page, worker->index, worker->last_version - 1);
        break;
    case CORRUPT_MISPLACED:
        memcpy(bytes, page_at(page + 1), PAGE_BYTES);
        break;
    case CORRUPT_HALF:
        write_page(worker, page);
        make_image(worker->image, page, worker->index, worker->last_version - 1);
        memcpy(bytes + PAGE_BYTES / 2, worker->image + PAGE_WORDS / 2, PAGE_BYTES / 2);
        break;
    case CORRUPT_TABLE:
        table[page].version++;
        break;
    case CORRUPT_STALE_TABLE:
        /* Page and table both go back to what they were: only the table's sum tells. */
        write_page(worker, page);
        table[page] = expected;
        make_image((uint64_t *)(void *)bytes, page, worker->index, expected.version);
        undo_piece(worker, page);
        break;
    case CORRUPT_SCRATCH:
        worker->scratch.bytes[PAGE_BYTES + 1] ^= 0x80;
        break;
    case CORRUPT_BLOCK:
        while (worker->blocks[0].bytes == NULL)
            churn_block(worker);
        worker->blocks[0].bytes[worker->blocks[0].len_bytes - 1] ^= 0x80;
        break;
    default:
        break;
    }
}

static void meet(struct worker *worker)
{
    pthread_barrier_wait(&barrier);
    if (worker->index == 0)
        stopping = now() >= deadline;
    pthread_barrier_wait(&barrier);
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    double slice = options.seconds / 30;

    if (slice > 1)
        slice = 1;
    say(worker, "writes everything");
    for (size_t i = 0; i < worker->npages; i++)
        write_page(worker, worker->first_page + i);
    meet(worker);
    for (unsigned round = 0; !stopping; round++) {
        work(worker, round, slice);
        meet(worker);
        read_others(worker, round, slice / 2);
        meet(worker);
    }
    if (worker->index == 0)
        corrupt(worker);
    read_all(worker);
    return NULL;
}

/* ---- the run ---- */

static void make_chunks(void)
{
    chunk_pages = options.small ? SMALL_CHUNK_PAGES : npages;
    size_t nchunks = (npages + chunk_pages - 1) / chunk_pages;
    chunks = calloc(nchunks, sizeof(*chunks));
    if (chunks == NULL)
        fail("calloc");
    for (size_t i = 0; i < nchunks; i++) {
        if (i % 2 == 0) {
            /* One page more, that is taken away again: neighbours stay mappings of their own. */
            chunks[i] = map_pages(chunk_pages + 1);
            if (munmap(chunks[i] + chunk_pages * PAGE_BYTES, PAGE_BYTES) != 0)
                fail("munmap");
            continue;
        }
        void *block = NULL;
        if (posix_memalign(&block, PAGE_BYTES, chunk_pages * PAGE_BYTES) != 0)
            fail("posix_memalign");
        chunks[i] = memset(block, 0, chunk_pages * PAGE_BYTES);
    }
}

static void make_table(void)
{
    table = map_pages((npages * sizeof(*table) + PAGE_BYTES - 1) / PAGE_BYTES);
    for (size_t i = 0; i < options.nthreads; i++) {
        struct worker *worker = &workers[i];
        worker->index = (unsigned)i;
        worker->random = mix(options.seed + i * 7919);
        worker->first_page = npages * i / options.nthreads;
        worker->npages = npages * (i + 1) / options.nthreads - worker->first_page;
        for (size_t j = 0; j < worker->npages; j++) {
            struct expected *expected = &table[worker->first_page + j];
            expected->checksum = checksum_of(worker->first_page + j, expected);
            worker->table_sum ^= expected->checksum;
        }
    }
}

static int run(void)
{
    npages = options.size_bytes / PAGE_BYTES;
    begun = now();
    deadline = begun + options.seconds;
    workers = calloc(options.nthreads, sizeof(*workers));
    if (workers == NULL)
        fail("calloc");
    make_chunks();
    make_table();
    if (pthread_barrier_init(&barrier, NULL, options.nthreads) != 0)
        fail("pthread_barrier_init");
    for (unsigned i = 0; i < options.nthreads; i++) {
        errno = pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]);
        if (errno != 0)
            fail("pthread_create");
    }
    uint64_t nwritten = 0, nread = 0, nchurned = 0;
    for (unsigned i = 0; i < options.nthreads; i++) {
        pthread_join(workers[i].thread, NULL);
        nwritten += workers[i].npages_written;
        nread += workers[i].npages_read;
        nchurned += workers[i].nchurned;
    }
    if (options.verbose && options.churn)
        fprintf(stderr, "verify: %" PRIu64 " rounds of churn\n", nchurned);
    printf("verify: ok pages=%zu writes=%" PRIu64 " reads=%" PRIu64 " seconds=%.2f MB=%.0f\n",
           npages, nwritten, nread, now() - begun, (double)(nwritten + nread) * PAGE_BYTES / 1e6);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_USAGE;
}

/* ---- self-test ---- */

/* Runs with CORRUPTION in a child of its own; returns its exit status, and its error line in LINE.
 */
static int run_corrupted(enum corruption corruption, char *line, size_t cap)
{
    int pipe_fds[2];

    fflush(stdout);
    if (pipe(pipe_fds) != 0)
        fail("pipe");
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        options.corruption = corruption;
        dup2(pipe_fds[1], STDERR_FILENO);
        if (freopen("/dev/null", "w", stdout) == NULL)
            fail("/dev/null");
        close(pipe_fds[0]);
        _exit(run());
    }
    close(pipe_fds[1]);
    size_t len = 0;
    ssize_t got;
    while ((got = read(pipe_fds[0], line + len, cap - 1 - len)) > 0)
        len += (size_t)got;
    line[len] = '\0';
    close(pipe_fds[0]);
    int status = -1;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

static int self_test(void)
{
    int failures = 0;

    options.size_bytes = SELF_TEST_BYTES;
    options.nthreads = 2;
    options.seconds = 0.3;
    options.churn = true;
    for (int i = 0; i < 2 * NCORRUPTIONS; i++) {
        char line[1024];
        enum corruption corruption = (enum corruption)(i / 2);
        options.small = i % 2 == 1;
        int status = run_corrupted(corruption, line, sizeof(line));
        bool right = corruption == CORRUPT_NOTHING
                         ? status == EXIT_SUCCESS && line[0] == '\0'
                         : status == EXIT_WRONG && strstr(line, "expected") != NULL &&
                               strstr(line, "got") != NULL;
        printf("%s: %s%s: exit %d: %s%s", right ? "right" : "WRONG", corruption_names[corruption],
               options.small ? " (small)" : "", status, line, line[0] == '\0' ? "\n" : "");
        failures += !right;
    }
    return failures == 0 ? EXIT_SUCCESS : EXIT_WRONG;
}

/* ---- command line ---- */

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: verify [--size=SIZE] [--threads=N] [--seconds=S] [--seed=N] [--small] "
                    "[--churn] [--verbose] | --self-test\n");
    exit(EXIT_USAGE);
}

static double parse_number(const char *text, bool with_unit)
{
    char *end;
    double number = strtod(text, &end);
    static const char units[] = "KMGT";

    if (end == text || number < 0)
        usage();
    const char *unit = *end == '\0' || !with_unit ? NULL : strchr(units, *end);
    if (unit != NULL) {
        end++;
        for (const char *at = units; at <= unit; at++)
            number *= 1024;
    }
    if (*end != '\0')
        usage();
    return number;
}

static bool parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"size", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"seconds", required_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 'r'},
        {"small", no_argument, NULL, 'm'},
        {"churn", no_argument, NULL, 'c'},
        {"verbose", no_argument, NULL, 'v'},
        {"self-test", no_argument, NULL, 'x'},
        {NULL, 0, NULL, 0},
    };
    bool testing = false;
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 's':
            options.size_bytes = (size_t)parse_number(optarg, true);
            break;
        case 't':
            options.nthreads = (unsigned)parse_number(optarg, false);
            break;
        case 'd':
            options.seconds = parse_number(optarg, false);
            break;
        case 'r':
            options.seed = (uint64_t)parse_number(optarg, false);
            break;
        case 'm':
            options.small = true;
            break;
        case 'c':
            options.churn = true;
            break;
        case 'v':
            options.verbose = true;
            break;
        case 'x':
            testing = true;
            break;
        default:
            usage();
        }
    }
    /* Each part must have pages of both kinds, used and unused. */
    if (optind != argc || options.nthreads < 1 || options.nthreads > MAX_THREADS ||
        options.size_bytes / PAGE_BYTES < (size_t)options.nthreads * UNUSED_GROUP_PAGES * UNUSED_OF)
        usage();
    return testing;
}

int main(int argc, char **argv)
{
    return parse(argc, argv) ? self_test() : run();
}
