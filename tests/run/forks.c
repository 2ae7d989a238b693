/*
 * forks: a tree of processes writes to memory that each has from its parent, and each knows what
 * must be there.
 *
 *     forks --pages=N --rounds=N --depth=N --seed=N [--threads=N] [--corrupt]
 *
 * Every process has a model of its memory: a number for each page, from which the page's content
 * follows. Rounds of seeded random steps write pages, drop them, move, unmap and map areas, check
 * some, and fork; a child goes on with its copy of the model, at most DEPTH below the first. Some
 * children exit at once, some are killed, some exec this program anew. THREADS others
 * map, fill, check and unmap memory of their own all the time. In the end everybody checks all
 * pages and waits for its children. A wrong byte ends the process: one line on standard error,
 * exit 1, which every process above passes on. --corrupt changes one byte of a child's.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, WORDS = PAGE_BYTES / 8, AREAS = 8, CHILDREN = 64, STEP = 97 };

/* Memory, and what must be in it; 0: zeros. The model is shared with nobody and small. */
struct area {
    uint64_t *at;
    uint32_t *model;
};

static struct {
    size_t pages; /* of one area */
    int rounds, depth, threads;
    uint64_t seed;
    bool corrupt, quiet;
} options = {.pages = 2048, .rounds = 30, .depth = 2, .threads = 2, .seed = 1};

static struct area areas[AREAS];
static pid_t children[CHILDREN];
static int killed[CHILDREN];
static int nchildren, level;
static uint64_t state;
static uint32_t version;
static atomic_bool stop;
static char **own_argv;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545F4914F6CDD1Dull >> 16;
}

static uint64_t word(size_t area, size_t page, uint32_t value, size_t i)
{
    uint64_t x = ((uint64_t)value << 32 ^ area << 24 ^ page) * 0x9E3779B97F4A7C15ull;
    return value ? x + i : 0;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "forks: seed %llu, level %d: %s: %s\n", (unsigned long long)options.seed, level,
            what, strerror(errno));
    _exit(1);
}

static void check_page(size_t a, size_t p)
{
    const uint64_t *at = areas[a].at + p * WORDS;
    for (size_t i = 0; i < WORDS; i += STEP) {
        uint64_t want = word(a, p, areas[a].model[p], i);
        if (at[i] == want)
            continue;
        fprintf(stderr,
                "forks: seed %llu, level %d, pid %d: area %zu page %zu word %zu is %#llx, not "
                "%#llx\n",
                (unsigned long long)options.seed, level, (int)getpid(), a, p, i,
                (unsigned long long)at[i], (unsigned long long)want);
        _exit(1);
    }
}

static void check_all(void)
{
    for (size_t a = 0; a < AREAS; a++)
        for (size_t p = 0; p < options.pages; p++)
            check_page(a, p);
}

static void write_page(size_t a, size_t p)
{
    areas[a].model[p] = ++version | (uint32_t)level << 28;
    for (size_t i = 0; i < WORDS; i += STEP)
        areas[a].at[p * WORDS + i] = word(a, p, areas[a].model[p], i);
}

static void *map(void *at, size_t npages, int flags)
{
    void *got = mmap(at, npages * PAGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (got == MAP_FAILED)
        fail("mmap");
    return got;
}

static void drop(size_t a, size_t first, size_t npages)
{
    if (draw() % 2 == 0) {
        if (madvise(areas[a].at + first * WORDS, npages * PAGE_BYTES, MADV_DONTNEED))
            fail("madvise");
    } else {
        map(areas[a].at + first * WORDS, npages, MAP_FIXED);
    }
    memset(areas[a].model + first, 0, npages * sizeof *areas[a].model);
}

/* The whole area to a place that another mapping has had; where the kernel cannot (it is several
 * mappings by now) it stays. */
static void move(size_t a)
{
    size_t bytes = options.pages * PAGE_BYTES;
    void *to = map(NULL, options.pages, 0);
    memset(to, 0xee, bytes);
    void *got = mremap(areas[a].at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (got != MAP_FAILED)
        areas[a].at = got;
    else if (errno == EFAULT)
        munmap(to, bytes);
    else
        fail("mremap");
}

static void step(void)
{
    size_t a = draw() % AREAS;
    size_t first = draw() % options.pages;
    size_t npages = 1 + draw() % (options.pages - first);
    switch (draw() % 8) {
    case 0:
        drop(a, first, npages < 200 ? npages : 200);
        break;
    case 1:
        move(a);
        break;
    case 2:
    case 3:
    case 4:
        for (size_t i = 0; i < npages; i++)
            write_page(a, first + i);
        break;
    default:
        for (size_t i = 0; i < npages; i++)
            check_page(a, first + i);
    }
}

static void *churn(void *arg)
{
    uint64_t salt = (uint64_t)(uintptr_t)arg * 7919 + (uint64_t)getpid();
    while (!stop) {
        size_t npages = 1 + (salt = salt * 6364136223846793005ull + 1442695040888963407ull) % 300;
        uint64_t *at = map(NULL, npages, 0);
        for (size_t p = 0; p < npages; p++)
            at[p * WORDS] = salt + p;
        for (size_t p = 0; p < npages; p++)
            if (at[p * WORDS] != salt + p)
                fail("a thread's own memory is wrong");
        munmap(at, npages * PAGE_BYTES);
        usleep(500); /* others want the processors too */
    }
    return NULL;
}

/* Waits for the children; who was not killed has found all as it must be. */
static void wait_for_children(void)
{
    for (int i = 0; i < nchildren; i++) {
        int status;
        if (waitpid(children[i], &status, 0) != children[i])
            fail("waitpid");
        bool good = killed[i] ? WIFSIGNALED(status) || WIFEXITED(status)
                              : WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (!good) {
            fprintf(stderr, "forks: level %d: child %d ended with %#x\n", level, (int)children[i],
                    status);
            _exit(1);
        }
    }
    nchildren = 0;
}

static void run(void);

static _Noreturn void be_child(uint64_t kind)
{
    nchildren = 0;
    level++;
    state ^= (uint64_t)level * 0x9E3779B97F4A7C15ull;
    if (options.corrupt)
        ((char *)areas[3].at)[5 * PAGE_BYTES] ^= 1;
    if (kind == 0)
        _exit(0);
    if (kind == 1) {
        char seed[32], *argv[] = {own_argv[0], "--pages=200", "--depth=0", "--threads=0",
                                  "--quiet",   seed,          NULL};
        snprintf(seed, sizeof seed, "--seed=%llu", (unsigned long long)(draw() | 1));
        execv("/proc/self/exe", argv);
        fail("exec");
    }
    check_all();
    if (kind == 2)
        raise(SIGKILL);
    run();
    _exit(0);
}

static void fork_one(void)
{
    if (nchildren == CHILDREN)
        wait_for_children();
    uint64_t kind = options.corrupt ? 7 : draw() % 8;
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid == 0)
        be_child(kind);
    killed[nchildren] = kind == 2;
    children[nchildren++] = pid;
    if (draw() % 8 == 0) {
        kill(pid, SIGKILL);
        killed[nchildren - 1] = 1;
    }
    if (draw() % 2)
        wait_for_children();
}

static void run(void)
{
    pthread_t threads[16];
    int nthreads = options.threads < 16 ? options.threads : 16;
    stop = false;
    for (long i = 0; i < nthreads; i++)
        if (pthread_create(&threads[i], NULL, churn, (void *)(i + 1)))
            fail("pthread_create");
    int rounds = options.rounds >> (2 * level);
    for (int round = 0; round < rounds; round++) {
        for (uint64_t n = draw() % 6; n > 0; n--)
            step();
        if (level < options.depth)
            fork_one();
    }
    check_all();
    wait_for_children();
    check_all();
    stop = true;
    for (int i = 0; i < nthreads; i++)
        pthread_join(threads[i], NULL);
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"pages", required_argument, NULL, 'p'},   {"rounds", required_argument, NULL, 'r'},
        {"depth", required_argument, NULL, 'd'},   {"seed", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'}, {"corrupt", no_argument, NULL, 'c'},
        {"quiet", no_argument, NULL, 'q'},         {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'p':
            options.pages = strtoul(optarg, NULL, 10) / AREAS;
            break;
        case 'r':
            options.rounds = atoi(optarg);
            break;
        case 'd':
            options.depth = atoi(optarg);
            break;
        case 's':
            options.seed = strtoull(optarg, NULL, 10);
            break;
        case 't':
            options.threads = atoi(optarg);
            break;
        case 'c':
            options.corrupt = true;
            break;
        case 'q':
            options.quiet = true;
            break;
        default:
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    own_argv = argv;
    read_options(argc, argv);
    if (options.pages < 16)
        return 2;
    state = options.seed * 0x9E3779B97F4A7C15ull | 1;
    for (size_t a = 0; a < AREAS; a++) {
        areas[a].at = map(NULL, options.pages, 0);
        areas[a].model = calloc(options.pages, sizeof *areas[a].model);
        if (!areas[a].model)
            fail("calloc");
        for (size_t p = 0; p < options.pages; p++)
            write_page(a, p);
    }
    run();
    if (!options.quiet)
        printf("forks: ok\n");
    return 0;
}
