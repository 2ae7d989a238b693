/*
 * storm: random calls on memory from several threads, against a model that knows what must come of
 * them.
 *
 *     storm [--seconds=10] [--ops=N] [--threads=4] [--pages=2048] [--seed=N] [--corrupt]
 *
 * Each thread has an arena of address space, reserved and cut into slots; the slots are mapped,
 * unmapped, moved within and between the thread's own slots, protected, locked, discarded, written
 * and read. The model is one record a page in shared memory, which EDM leaves alone. Threads read
 * each other's pages through the kernel all the while, only to have them fetched while they change.
 * The first wrong byte ends the process: one line with the seed on standard error, exit 1.
 * --corrupt writes one byte behind the model's back, which has to be found.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    PAGE_WORDS = PAGE_BYTES / 8,
    MOST_THREADS = 32,
    MOST_RUN = 96, /* pages in one operation */
    CHECK_EVERY = 64,
    RW = PROT_READ | PROT_WRITE,
};

/* What a page must be. */
enum kind { KIND_UNMAPPED, KIND_NONE, KIND_READ, KIND_WRITE };

struct record {
    uint32_t version; /* 0: zero */
    uint8_t kind;
    bool free; /* given up: what it was, or zero, until it is written */
};

struct worker {
    pthread_t thread;
    unsigned index;
    uint64_t random;
    char *arena;
    char *scratch; /* room for MOST_RUN pages, outside of all arenas */
    struct record *model;
    uint32_t version;
    uint64_t nops;
};

static struct {
    double seconds;
    uint64_t ops, seed;
    unsigned nthreads;
    size_t npages;
    bool corrupt;
} options = {10, 0, 0, 4, 2048, false};

static struct worker workers[MOST_THREADS];
static _Atomic bool stop;
/* Nobody maps memory where the kernel likes (a thread's stack) once there are holes in the arenas.
 */
static pthread_barrier_t begin;

#define DIE(...)                                                                 \
    do {                                                                         \
        fprintf(stderr, "storm: seed %llu: ", (unsigned long long)options.seed); \
        fprintf(stderr, __VA_ARGS__);                                            \
        fputc('\n', stderr);                                                     \
        _exit(1);                                                                \
    } while (0)

static uint64_t draw(struct worker *w, uint64_t below)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (w->random >> 11) % below;
}

static uint64_t word_of(unsigned owner, uint32_t version, size_t word)
{
    uint64_t x = ((uint64_t)version << 24 | owner << 16 | word) * 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

static void write_page(struct worker *w, size_t page)
{
    struct record *record = &w->model[page];
    uint32_t version = ++w->version;
    for (size_t i = 0; i < PAGE_WORDS; i++) {
        uint64_t word = word_of(w->index, version, i);
        memcpy(w->arena + page * PAGE_BYTES + i * 8, &word, 8);
    }
    record->version = version;
    record->free = false;
}

static void check_page(struct worker *w, size_t page, const char *after)
{
    const struct record *record = &w->model[page];
    const char *at = w->arena + page * PAGE_BYTES;
    uint64_t first;
    memcpy(&first, at, 8);
    uint32_t version = record->free && first == 0 ? 0 : record->version;
    for (size_t i = 0; i < PAGE_WORDS; i++) {
        uint64_t word;
        memcpy(&word, at + i * 8, 8);
        uint64_t want = version ? word_of(w->index, version, i) : 0;
        if (word == want)
            continue;
        if (record->free && word == 0 && i > 0) /* dropped between two reads */
            return;
        DIE("after %s (operation %llu of thread %u): page %zu at %p, word %zu: %#llx, not %#llx "
            "(version %u)",
            after, (unsigned long long)w->nops, w->index, page, (const void *)at, i,
            (unsigned long long)word, (unsigned long long)want, version);
    }
}

static bool readable(const struct record *record)
{
    return record->kind >= KIND_READ;
}

struct run {
    size_t first, npages;
    char *at;
    size_t bytes;
};

static struct run draw_run(struct worker *w)
{
    size_t npages = 1 + draw(w, draw(w, 4) ? MOST_RUN / 8 : MOST_RUN);
    size_t first = draw(w, options.npages - npages + 1);
    return (struct run){first, npages, w->arena + first * PAGE_BYTES, npages * PAGE_BYTES};
}

static bool all_mapped(const struct worker *w, struct run run)
{
    for (size_t i = 0; i < run.npages; i++)
        if (w->model[run.first + i].kind == KIND_UNMAPPED)
            return false;
    return true;
}

static void set_kind(struct worker *w, struct run run, enum kind kind)
{
    for (size_t i = 0; i < run.npages; i++)
        w->model[run.first + i].kind = (uint8_t)kind;
}

static void set_zero(struct worker *w, struct run run)
{
    for (size_t i = 0; i < run.npages; i++) {
        w->model[run.first + i].version = 0;
        w->model[run.first + i].free = false;
    }
}

/* ---- operations: each changes the memory and the model alike ---- */

static void op_write(struct worker *w, struct run run)
{
    for (size_t i = run.first; i < run.first + run.npages; i++)
        if (w->model[i].kind == KIND_WRITE)
            write_page(w, i);
}

static void op_read(struct worker *w, struct run run)
{
    for (size_t i = run.first; i < run.first + run.npages; i++)
        if (readable(&w->model[i]))
            check_page(w, i, "reading");
}

static void map_at(struct worker *w, struct run run, int prot, enum kind kind)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (draw(w, 2) ? MAP_NORESERVE : 0);
    if (mmap(run.at, run.bytes, prot, flags, -1, 0) == MAP_FAILED)
        DIE("mmap: %s", strerror(errno));
    set_kind(w, run, kind);
    set_zero(w, run);
}

static void op_map(struct worker *w, struct run run)
{
    map_at(w, run, RW, KIND_WRITE);
}

static void op_reserve(struct worker *w, struct run run)
{
    map_at(w, run, PROT_NONE, KIND_NONE);
}

static void op_unmap(struct worker *w, struct run run)
{
    if (munmap(run.at, run.bytes))
        DIE("munmap: %s", strerror(errno));
    set_kind(w, run, KIND_UNMAPPED);
    set_zero(w, run);
}

static void op_protect(struct worker *w, struct run run)
{
    static const int prots[] = {PROT_NONE, PROT_READ, RW, RW};
    static const enum kind kinds[] = {KIND_NONE, KIND_READ, KIND_WRITE, KIND_WRITE};
    size_t choice = draw(w, 4);
    if (!all_mapped(w, run))
        return;
    if (mprotect(run.at, run.bytes, prots[choice]))
        DIE("mprotect: %s", strerror(errno));
    set_kind(w, run, kinds[choice]);
}

static void op_dontneed(struct worker *w, struct run run)
{
    if (!all_mapped(w, run))
        return;
    if (madvise(run.at, run.bytes, MADV_DONTNEED)) {
        if (errno != EINVAL) /* locked */
            DIE("MADV_DONTNEED: %s", strerror(errno));
        if (munlock(run.at, run.bytes) || madvise(run.at, run.bytes, MADV_DONTNEED))
            DIE("MADV_DONTNEED: %s", strerror(errno));
    }
    set_zero(w, run);
}

static void op_free(struct worker *w, struct run run)
{
    if (!all_mapped(w, run) || munlock(run.at, run.bytes))
        return;
    if (madvise(run.at, run.bytes, MADV_FREE))
        DIE("MADV_FREE: %s", strerror(errno));
    for (size_t i = 0; i < run.npages; i++)
        w->model[run.first + i].free = true;
}

/* Advice that changes no byte. */
static void op_advise(struct worker *w, struct run run)
{
    static const int advices[] = {
        MADV_WILLNEED,   MADV_COLD,          MADV_PAGEOUT,       MADV_HUGEPAGE, MADV_NOHUGEPAGE,
        MADV_DONTDUMP,   MADV_DODUMP,        MADV_DONTFORK,      MADV_DOFORK,   MADV_WIPEONFORK,
        MADV_KEEPONFORK, MADV_POPULATE_READ, MADV_POPULATE_WRITE};
    (void)madvise(run.at, run.bytes, advices[draw(w, sizeof advices / sizeof *advices)]);
}

static void op_lock(struct worker *w, struct run run)
{
    if (draw(w, 8) == 0)
        (void)mlock(run.at, run.bytes);
    else
        (void)munlock(run.at, run.bytes);
}

static void op_look(struct worker *w, struct run run)
{
    (void)w;
    unsigned char in[MOST_RUN];
    (void)mincore(run.at, run.bytes, in);
    (void)msync(run.at, run.bytes, MS_ASYNC);
}

/* A part of the arena becomes another part; what was there is gone, where it was nothing is left.
 */
static void op_move(struct worker *w, struct run run)
{
    size_t to = draw(w, options.npages - run.npages + 1);
    bool keep = draw(w, 3) == 0;
    if (!all_mapped(w, run) || (to < run.first + run.npages && run.first < to + run.npages))
        return;
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? MREMAP_DONTUNMAP : 0);
    void *got = mremap(run.at, run.bytes, run.bytes, flags, w->arena + to * PAGE_BYTES);
    if (got == MAP_FAILED) {
        /* Over the seam of two mappings: newer kernels move them both, but not managed ones. How
         * far it got is not told. */
        if (errno != EFAULT && errno != EINVAL)
            DIE("mremap: %s", strerror(errno));
        op_map(w, run);
        op_map(w, (struct run){to, run.npages, w->arena + to * PAGE_BYTES, run.bytes});
        return;
    }
    memcpy(&w->model[to], &w->model[run.first], run.npages * sizeof *w->model);
    set_zero(w, run);
    if (!keep)
        set_kind(w, run, KIND_UNMAPPED);
}

/* Grows or shrinks, in place or by way of another, and comes back. */
static void op_resize(struct worker *w, struct run run)
{
    size_t npages = 1 + draw(w, MOST_RUN);
    if (!all_mapped(w, run) || run.first + npages > options.npages)
        return;
    bool away = draw(w, 2);
    size_t bytes = npages * PAGE_BYTES;
    char *got =
        mremap(run.at, run.bytes, bytes, away ? MREMAP_MAYMOVE | MREMAP_FIXED : 0, w->scratch);
    if (got == MAP_FAILED) {
        if (!away)
            return;
        op_map(w, run);
        op_unmap(w, (struct run){0, 0, w->scratch, MOST_RUN * PAGE_BYTES});
        return;
    }
    struct record grown = {0, w->model[run.first].kind, false};
    for (size_t i = run.npages; i < npages; i++)
        w->model[run.first + i] = grown;
    for (size_t i = npages; i < run.npages; i++)
        w->model[run.first + i] = (struct record){0, KIND_UNMAPPED, false};
    if (away && mremap(got, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, run.at) != run.at)
        DIE("mremap back: %s", strerror(errno));
}

static void op_peek(struct worker *w, struct run run)
{
    const struct worker *other = &workers[draw(w, options.nthreads)];
    char bytes[16];
    for (size_t i = 0; i < run.npages; i++) {
        struct iovec to = {bytes, sizeof bytes};
        struct iovec from = {other->arena + (run.first + i) * PAGE_BYTES, sizeof bytes};
        (void)!process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    }
}

static const struct {
    const char *name;
    unsigned weight;
    void (*run)(struct worker *w, struct run run);
} ops[] = {
    {"write", 30, op_write},      {"read", 20, op_read},   {"mmap", 12, op_map},
    {"reserve", 2, op_reserve},   {"munmap", 3, op_unmap}, {"mprotect", 8, op_protect},
    {"dontneed", 4, op_dontneed}, {"free", 3, op_free},    {"advise", 5, op_advise},
    {"lock", 3, op_lock},         {"look", 2, op_look},    {"move", 5, op_move},
    {"resize", 3, op_resize},     {"peek", 6, op_peek},
};

static void check_all(struct worker *w, const char *after)
{
    for (size_t i = 0; i < options.npages; i++)
        if (readable(&w->model[i]))
            check_page(w, i, after);
}

static void *storm(void *arg)
{
    struct worker *w = arg;
    pthread_barrier_wait(&begin);
    unsigned weights = 0;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        weights += ops[i].weight;
    while (!stop && (options.ops == 0 || w->nops < options.ops)) {
        unsigned choice = (unsigned)draw(w, weights);
        size_t op = 0;
        while (choice >= ops[op].weight)
            choice -= ops[op++].weight;
        struct run run = draw_run(w);
        ops[op].run(w, run);
        w->nops++;
        for (size_t i = run.first; i < run.first + run.npages; i++)
            if (readable(&w->model[i]) && draw(w, 4) == 0)
                check_page(w, i, ops[op].name);
        if (w->nops % (CHECK_EVERY * 64) == 0)
            check_all(w, "all of these");
        if (options.corrupt && w->index == 0 && w->nops == CHECK_EVERY * 8) {
            op_map(w, (struct run){0, 1, w->arena, PAGE_BYTES});
            w->arena[PAGE_BYTES / 2] = 1;
            check_all(w, "a change of one byte");
        }
    }
    check_all(w, "the end");
    return NULL;
}

static void start_worker(unsigned index)
{
    struct worker *w = &workers[index];
    w->index = index;
    w->random = (options.seed + 1) * 0x9E3779B97F4A7C15u + (uint64_t)index * 0xBF58476D1CE4E5B9u;
    w->random |= 1;
    /* A guard between arenas, so that no mapping spans two. */
    char *at = mmap(NULL, (options.npages + MOST_RUN + 3) * PAGE_BYTES, PROT_NONE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    w->model = mmap(NULL, options.npages * sizeof *w->model, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || w->model == MAP_FAILED)
        DIE("mmap: %s", strerror(errno));
    w->arena = at + PAGE_BYTES;
    w->scratch = w->arena + (options.npages + 1) * PAGE_BYTES;
    op_map(w, (struct run){0, options.npages, w->arena, options.npages * PAGE_BYTES});
}

static void read_options(int argc, char **argv)
{
    options.seed = (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        value = value ? value + 1 : "";
        if (strncmp(argv[i], "--seconds=", 10) == 0)
            options.seconds = strtod(value, NULL);
        else if (strncmp(argv[i], "--ops=", 6) == 0)
            options.ops = strtoull(value, NULL, 10);
        else if (strncmp(argv[i], "--threads=", 10) == 0)
            options.nthreads = (unsigned)strtoul(value, NULL, 10);
        else if (strncmp(argv[i], "--pages=", 8) == 0)
            options.npages = strtoul(value, NULL, 10);
        else if (strncmp(argv[i], "--seed=", 7) == 0)
            options.seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--corrupt") == 0)
            options.corrupt = true;
        else
            DIE("unknown option %s", argv[i]);
    }
    if (options.nthreads < 1 || options.nthreads > MOST_THREADS || options.npages < MOST_RUN)
        DIE("1 to %d threads, at least %d pages", MOST_THREADS, MOST_RUN);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    pthread_barrier_init(&begin, NULL, options.nthreads);
    for (unsigned i = 0; i < options.nthreads; i++)
        start_worker(i);
    for (unsigned i = 0; i < options.nthreads; i++)
        if (pthread_create(&workers[i].thread, NULL, storm, &workers[i]))
            DIE("no thread");
    if (options.ops == 0) {
        double whole = (double)(time_t)options.seconds;
        nanosleep(
            &(struct timespec){(time_t)options.seconds, (long)((options.seconds - whole) * 1e9)},
            NULL);
        stop = true;
    }
    uint64_t nops = 0;
    for (unsigned i = 0; i < options.nthreads; i++) {
        pthread_join(workers[i].thread, NULL);
        nops += workers[i].nops;
    }
    printf("storm: ok ops=%llu seed=%llu\n", (unsigned long long)nops,
           (unsigned long long)options.seed);
    return 0;
}
