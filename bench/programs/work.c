// work WHAT [key=value...]: does one thing with memory, checks every page of it that it reads, and
// prints what it measured as a JSON line. The same program natively, under EDM and under the floor.
//
//   random     mib, threads, seconds, warm: each access to a page that is out, chosen at random
//   seqread    mib, passes: reads all of it from start to end
//   seqwrite   mib, skip: writes new memory; the first skip MiB, which fit the budget, do not count
//   rewrite    mib, passes: writes all of it anew, reading what was there
//   touch      mib, skip: the same with one word a page
//   hot        mib, hot, ops, warm: random pages of a part, one access in eight writes; warming up
//   takes
//              as long as said, and 20 accesses a page
//   hold       mib, skip: fills memory, up to skip MiB and then the rest, with a mark after each
//   stream     mib: raw TCP, one connection
//   roundtrip  seconds: raw TCP, 32 bytes there, a page back
//
// period=WORDS makes pages that repeat themselves after so many words (pages.h). floor=MIB puts the
// least pager (floor.h) with that budget below it. marks=1 prints "mark begin" and "mark end"
// around what is measured and waits each time for a line. Exit status 3: a page was wrong.
#include <err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "clock.h"
#include "floor.h"
#include "pages.h"
#include "tcp.h"

#define MIB ((size_t)1 << 20)
#define MAX_THREADS 64
#define MAX_SAMPLES ((size_t)1 << 20)
#define LEAST_SAMPLES 100u // as good as always; on a machine that is stalled it takes longer

static struct {
    size_t mib, threads, passes, skip, hot, ops, floor, marks;
    double seconds, warm;
} want = {.mib = 256,
          .threads = 1,
          .passes = 2,
          .skip = 64,
          .hot = 64,
          .ops = 2000000,
          .seconds = 2,
          .warm = 0.3};

static uint64_t *pages;
static size_t npages;

// Our own notes lie in shared memory, which EDM does not manage.
static void *note_memory(size_t len_bytes)
{
    void *notes = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (notes == MAP_FAILED)
        err(1, "mmap");
    return notes;
}

static uint64_t *page_at(size_t page)
{
    return pages + page * PAGE_WORDS;
}

static void check(size_t page, uint32_t version)
{
    if (page_is(page_at(page), page, version))
        return;
    fprintf(stderr, "work: page %zu is not as it was written (version %u): first word %016llx\n",
            page, version, (unsigned long long)*page_at(page));
    _exit(3);
}

static bool is_out(size_t page)
{
    unsigned char resident;
    if (mincore(page_at(page), PAGE_BYTES, &resident) != 0)
        err(1, "mincore");
    return (resident & 1) == 0;
}

static size_t count_out(void)
{
    static unsigned char resident[4096];
    size_t out = 0;
    for (size_t page = 0; page < npages; page += sizeof(resident)) {
        size_t some = npages - page < sizeof(resident) ? npages - page : sizeof(resident);
        if (mincore(page_at(page), some * PAGE_BYTES, resident) != 0)
            err(1, "mincore");
        for (size_t i = 0; i < some; i++)
            out += (resident[i] & 1) == 0;
    }
    return out;
}

static void mark(const char *name)
{
    if (!want.marks)
        return;
    printf("mark %s\n", name);
    fflush(stdout);
    // Not stdio: its buffer would be managed memory.
    char c;
    while (read(0, &c, 1) == 1 && c != '\n')
        ;
}

static void map_pages(void)
{
    npages = want.mib * MIB / PAGE_BYTES;
    pages =
        mmap(NULL, npages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        err(1, "mmap");
}

static void fill(size_t from, size_t to, uint32_t version)
{
    for (size_t page = from; page < to; page++)
        page_fill(page_at(page), page, version);
}

static void fill_pages(void)
{
    map_pages();
    if (want.floor) {
        // The floor has one place for a page, as EDM has: small ones only.
        madvise(pages, npages * PAGE_BYTES, MADV_NOHUGEPAGE);
        floor_start(pages, npages, want.floor * MIB / PAGE_BYTES);
    } else {
        fill(0, npages, 0);
    }
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

// ---- figures ----

static int compare(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

// "p50_us":..., and every percentile, for a plot.
static void print_times(unsigned *samples, size_t count)
{
    if (count == 0)
        errx(1, "nothing was measured: no page was out");
    qsort(samples, count, sizeof(*samples), compare);
    const double also[] = {50, 90, 99, 99.9};
    for (size_t i = 0; i < sizeof(also) / sizeof(*also); i++)
        printf(",\"p%g_us\":%.2f", also[i],
               samples[(size_t)((double)(count - 1) * also[i] / 100)] / 1e3);
    printf(",\"max_us\":%.2f,\"percentiles_us\":[", samples[count - 1] / 1e3);
    for (size_t i = 0; i <= 100; i++)
        printf("%s%.2f", i ? "," : "", samples[(count - 1) * i / 100] / 1e3);
    printf("]");
}

static double used_s(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static size_t faults_so_far(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (size_t)(used.ru_minflt + used.ru_majflt);
}

// Everything that moves bytes prints these.
static void print_rate(size_t count, size_t out, uint64_t ns, double cpu_s)
{
    printf(",\"pages\":%zu,\"pages_out\":%zu,\"seconds\":%.6f,\"mb_per_s\":%.3f,"
           "\"out_mb_per_s\":%.3f,\"us_a_page\":%.4f,\"program_cpu_s\":%.6f",
           count, out, (double)ns / 1e9, (double)count * PAGE_BYTES * 1e3 / (double)ns,
           (double)out * PAGE_BYTES * 1e3 / (double)ns, (double)ns / 1e3 / (double)count, cpu_s);
}

// ---- random ----

struct reader {
    pthread_t thread;
    size_t number, naccesses;
    atomic_size_t nsamples;
    unsigned *samples;
};

static atomic_bool counting, ended;

static void *read_random(void *arg)
{
    struct reader *reader = arg;
    uint64_t random = reader->number * 1000003 + 1;
    while (!ended) {
        size_t page = next_random(&random) % npages;
        bool count = counting;
        reader->naccesses += count;
        if (is_out(page)) {
            uint64_t begun = clock_ns();
            (void)*(volatile uint64_t *)page_at(page);
            uint64_t took = clock_ns() - begun;
            if (count && reader->nsamples < MAX_SAMPLES)
                reader->samples[reader->nsamples++] = (unsigned)took;
        }
        check(page, 0);
    }
    return NULL;
}

static size_t count_samples(struct reader *readers)
{
    size_t nsamples = 0;
    for (size_t i = 0; i < want.threads; i++)
        nsamples += readers[i].nsamples;
    return nsamples;
}

static void sleep_s(double seconds)
{
    usleep((useconds_t)(seconds * 1e6));
}

static void work_random(void)
{
    fill_pages();
    struct reader *readers = note_memory(MAX_THREADS * sizeof(*readers));
    for (size_t i = 0; i < want.threads; i++) {
        readers[i].number = i;
        readers[i].samples = note_memory(MAX_SAMPLES * sizeof(unsigned));
        if (pthread_create(&readers[i].thread, NULL, read_random, &readers[i]) != 0)
            errx(1, "no thread");
    }
    sleep_s(want.warm);
    mark("begin");
    uint64_t begun = clock_ns();
    counting = true;
    sleep_s(want.seconds);
    for (int more = 0; count_samples(readers) < LEAST_SAMPLES && more < 100; more++)
        sleep_s(0.1);
    counting = false;
    double seconds = (double)(clock_ns() - begun) / 1e9;
    ended = true;
    mark("end");
    size_t nsamples = 0, naccesses = 0;
    unsigned *all = note_memory(want.threads * MAX_SAMPLES * sizeof(unsigned));
    for (size_t i = 0; i < want.threads; i++) {
        pthread_join(readers[i].thread, NULL);
        memcpy(all + nsamples, readers[i].samples, readers[i].nsamples * sizeof(unsigned));
        nsamples += readers[i].nsamples;
        naccesses += readers[i].naccesses;
    }
    printf("{\"what\":\"random\",\"faults\":%zu,\"accesses\":%zu,\"seconds\":%.6f,"
           "\"faults_per_s\":%.1f,\"accesses_per_s\":%.1f",
           nsamples, naccesses, seconds, (double)nsamples / seconds, (double)naccesses / seconds);
    print_times(all, nsamples);
    printf("}\n");
}

// ---- one after the other ----

static void work_seqread(void)
{
    fill_pages();
    // The first pass puts the last of what was written out; it is not measured.
    size_t out = 0;
    uint64_t begun = 0;
    double used = 0;
    for (size_t pass = 0; pass < want.passes + 1; pass++) {
        if (pass == 1) {
            mark("begin");
            used = used_s();
            begun = clock_ns();
        }
        if (pass >= 1)
            out += count_out();
        for (size_t page = 0; page < npages; page++)
            check(page, 0);
    }
    uint64_t took = clock_ns() - begun;
    used = used_s() - used;
    mark("end");
    printf("{\"what\":\"seqread\"");
    print_rate(npages * want.passes, out, took, used);
    printf("}\n");
}

static size_t skipped_pages(void)
{
    size_t skip = want.skip * MIB / PAGE_BYTES;
    if (skip >= npages)
        errx(2, "all would be skipped");
    return skip;
}

static void work_seqwrite(void)
{
    map_pages();
    size_t skip = skipped_pages();
    fill(0, skip, 0);
    mark("begin");
    double used = used_s();
    uint64_t begun = clock_ns();
    fill(skip, npages, 0);
    uint64_t took = clock_ns() - begun;
    used = used_s() - used;
    mark("end");
    size_t out = count_out();
    for (size_t page = 0; page < npages; page++)
        check(page, 0);
    printf("{\"what\":\"seqwrite\"");
    print_rate(npages - skip, out, took, used);
    printf("}\n");
}

static void work_rewrite(void)
{
    fill_pages();
    uint64_t begun = 0;
    double used = 0;
    size_t out = 0;
    for (uint32_t pass = 0; pass < want.passes + 1; pass++) {
        if (pass == 1) {
            mark("begin");
            used = used_s();
            begun = clock_ns();
        }
        if (pass >= 1)
            out += count_out();
        for (size_t page = 0; page < npages; page++) {
            check(page, pass);
            page_fill(page_at(page), page, pass + 1);
        }
    }
    uint64_t took = clock_ns() - begun;
    used = used_s() - used;
    mark("end");
    printf("{\"what\":\"rewrite\"");
    print_rate(npages * want.passes, out, took, used);
    printf("}\n");
}

static void touch(size_t from, size_t to)
{
    for (size_t page = from; page < to; page++)
        *page_at(page) = page_first_word(page, 0);
}

static void work_touch(void)
{
    map_pages();
    madvise(pages, npages * PAGE_BYTES, MADV_NOHUGEPAGE);
    size_t skip = skipped_pages();
    touch(0, skip);
    mark("begin");
    double used = used_s();
    uint64_t begun = clock_ns();
    touch(skip, npages);
    uint64_t took = clock_ns() - begun;
    used = used_s() - used;
    mark("end");
    size_t out = count_out();
    for (size_t page = 0; page < npages; page++) {
        const uint64_t *words = page_at(page);
        uint64_t others = 0;
        for (size_t i = 1; i < PAGE_WORDS; i++)
            others |= words[i];
        if (words[0] != page_first_word(page, 0) || others != 0) {
            fprintf(stderr, "work: page %zu is not as it was touched\n", page);
            _exit(3);
        }
    }
    printf("{\"what\":\"touch\"");
    print_rate(npages - skip, out, took, used);
    printf("}\n");
}

// ---- a hot set ----

static void use_hot(size_t nhot, size_t ops, uint32_t *versions, uint64_t *random)
{
    for (size_t op = 0; op < ops; op++) {
        uint64_t value = next_random(random);
        size_t page = (value >> 8) % nhot;
        check(page, versions[page]);
        if (value % 8 == 0)
            page_fill(page_at(page), page, ++versions[page]);
    }
}

static void work_hot(void)
{
    fill_pages();
    size_t nhot = want.hot * MIB / PAGE_BYTES;
    if (nhot > npages)
        errx(2, "more is hot than there is");
    uint32_t *versions = note_memory(nhot * sizeof(*versions));
    uint64_t random = 1;
    use_hot(nhot, 20 * nhot, versions, &random);
    for (uint64_t end = clock_ns() + (uint64_t)(want.warm * 1e9); clock_ns() < end;)
        use_hot(nhot, 1000, versions, &random);
    mark("begin");
    size_t faults = faults_so_far();
    double used = used_s();
    uint64_t begun = clock_ns();
    use_hot(nhot, want.ops, versions, &random);
    uint64_t took = clock_ns() - begun;
    used = used_s() - used;
    faults = faults_so_far() - faults;
    mark("end");
    printf("{\"what\":\"hot\",\"faults\":%zu", faults);
    print_rate(want.ops, 0, took, used);
    printf("}\n");
}

static void work_hold(void)
{
    map_pages();
    size_t skip = skipped_pages();
    want.marks = 1;
    fill(0, skip, 0);
    mark("begin");
    fill(skip, npages, 0);
    mark("end");
    for (size_t page = 0; page < npages; page++)
        check(page, 0);
    printf("{\"what\":\"hold\",\"pages\":%zu}\n", npages);
}

static void work_stream(void)
{
    printf("{\"what\":\"stream\",\"mb_per_s\":%.3f}\n", tcp_stream(want.mib * MIB));
}

static void work_roundtrip(void)
{
    unsigned *samples = note_memory(MAX_SAMPLES * sizeof(*samples));
    size_t count = tcp_round_trips(want.seconds, samples, MAX_SAMPLES);
    printf("{\"what\":\"roundtrip\",\"count\":%zu", count);
    print_times(samples, count);
    printf("}\n");
}

// ---- what is wanted ----

static void read_setting(const char *setting)
{
    struct {
        const char *name;
        size_t *number;
        double *seconds;
    } settings[] = {
        {"mib", &want.mib, NULL},       {"threads", &want.threads, NULL},
        {"passes", &want.passes, NULL}, {"skip", &want.skip, NULL},
        {"hot", &want.hot, NULL},       {"ops", &want.ops, NULL},
        {"floor", &want.floor, NULL},   {"marks", &want.marks, NULL},
        {"period", &page_period, NULL}, {"seconds", NULL, &want.seconds},
        {"warm", NULL, &want.warm},
    };
    const char *value = strchr(setting, '=');
    for (size_t i = 0; value && i < sizeof(settings) / sizeof(*settings); i++) {
        if (strncmp(settings[i].name, setting, (size_t)(value - setting)) != 0 ||
            settings[i].name[value - setting] != '\0')
            continue;
        if (settings[i].number)
            *settings[i].number = strtoul(value + 1, NULL, 10);
        else
            *settings[i].seconds = strtod(value + 1, NULL);
        return;
    }
    errx(2, "no such setting: %s", setting);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } works[] = {
        {"random", work_random},   {"seqread", work_seqread}, {"seqwrite", work_seqwrite},
        {"rewrite", work_rewrite}, {"touch", work_touch},     {"hot", work_hot},
        {"hold", work_hold},       {"stream", work_stream},   {"roundtrip", work_roundtrip},
    };
    for (int i = 2; i < argc; i++)
        read_setting(argv[i]);
    if (want.threads < 1 || want.threads > MAX_THREADS || want.mib < 1 || want.passes < 1 ||
        want.hot < 1 || page_period < 1 || page_period > PAGE_WORDS ||
        (page_period & (page_period - 1)) != 0)
        errx(2, "out of range");
    for (size_t i = 0; argc > 1 && i < sizeof(works) / sizeof(*works); i++)
        if (strcmp(argv[1], works[i].name) == 0) {
            works[i].run();
            if (fflush(stdout) != 0)
                err(1, "standard output");
            return 0;
        }
    errx(2, "usage: work random|seqread|seqwrite|rewrite|touch|hot|hold|stream|roundtrip "
            "[key=value...]");
}
