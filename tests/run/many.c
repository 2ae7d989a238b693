/*
 * many: many processes at once, each with memory of its own that it touches at random, again and
 * again, and checks.
 *
 *     many [--processes=100] [--pages=1280] [--seconds=8] [--file] [--beside=PAGES]
 *
 * Every page says whose it is and how often it was written; that count is kept in shared memory,
 * which EDM leaves alone. --file: the memory is a file's, mapped privately, of which nothing
 * can leave, and they sleep in between. --beside: so much of that, touched once, beside the other
 * memory. The first wrong word ends its process: one line on standard
 * error, exit 1.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, AT_ONCE = 64 };

static struct {
    unsigned processes;
    size_t npages;
    double seconds;
    bool file;
    size_t beside;
} options = {100, 1280, 8, false, 0};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* FILE -1: of none. */
static void *map(size_t bytes, int kind, int file)
{
    int flags = kind | (file < 0 ? MAP_ANONYMOUS : 0);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
    if (at == MAP_FAILED) {
        perror("many: mmap");
        _exit(2);
    }
    return at;
}

static void touch(char *memory, uint32_t *written, size_t page, uint64_t owner)
{
    uint64_t words[2], want[2] = {written[page], written[page] ? owner << 32 | page : 0};
    char *at = memory + page * PAGE_BYTES + (page * 16) % PAGE_BYTES;
    memcpy(words, at, sizeof words);
    if (memcmp(words, want, sizeof words) != 0) {
        fprintf(stderr, "many: process %llu, page %zu: %#llx %#llx, not %#llx %#llx\n",
                (unsigned long long)owner, page, (unsigned long long)words[0],
                (unsigned long long)words[1], (unsigned long long)want[0],
                (unsigned long long)want[1]);
        _exit(1);
    }
    words[0] = ++written[page];
    words[1] = owner << 32 | page;
    memcpy(at, words, sizeof words);
}

/* Of a file of its own. */
static void *map_file(size_t bytes)
{
    int file = memfd_create("many", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)bytes)) {
        perror("many: memfd_create");
        _exit(2);
    }
    return map(bytes, MAP_PRIVATE, file);
}

static void run(uint64_t owner, double end, _Atomic uint64_t *touches)
{
    size_t bytes = options.npages * PAGE_BYTES;
    char *memory = options.file ? map_file(bytes) : map(bytes, MAP_PRIVATE, -1);
    if (options.beside)
        memset(map_file(options.beside * PAGE_BYTES), 1, options.beside * PAGE_BYTES);
    uint32_t *written = map(options.npages * sizeof *written, MAP_SHARED, -1);
    uint64_t random = owner * 0x9E3779B97F4A7C15u;
    while (now_s() < end) {
        for (int i = 0; i < AT_ONCE; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            touch(memory, written, (random >> 33) % options.npages, owner);
        }
        atomic_fetch_add(touches, AT_ONCE);
        if (options.file)
            usleep(10000);
    }
}

static void read_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        value = value ? value + 1 : "";
        if (strncmp(argv[i], "--processes=", 12) == 0)
            options.processes = (unsigned)strtoul(value, NULL, 10);
        else if (strncmp(argv[i], "--pages=", 8) == 0)
            options.npages = strtoul(value, NULL, 10);
        else if (strncmp(argv[i], "--seconds=", 10) == 0)
            options.seconds = strtod(value, NULL);
        else if (strncmp(argv[i], "--beside=", 9) == 0)
            options.beside = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--file") == 0)
            options.file = true;
        else
            exit(2);
    }
    if (options.npages == 0)
        exit(2);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    _Atomic uint64_t *touches = map(PAGE_BYTES, MAP_SHARED, -1);
    double end = now_s() + options.seconds;
    for (unsigned i = 1; i <= options.processes; i++) {
        pid_t pid = fork();
        if (pid < 0) {
            perror("many: fork");
            return 2;
        }
        if (pid == 0) {
            run(i, end, touches);
            _exit(0);
        }
    }
    unsigned failed = 0;
    int status;
    while (wait(&status) > 0)
        failed += status != 0;
    if (failed == 0)
        printf("many: ok touches=%llu\n", (unsigned long long)*touches);
    return failed ? 1 : 0;
}
