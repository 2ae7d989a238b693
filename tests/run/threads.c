/*
 * threads: threads and memory that is in the store.
 *
 *     threads [--ballast=MIB] [--threads=200] [NAME]
 *
 * Prints a line for each case; run under edm and natively, the lines have to be the same. A case
 * the kernel does not allow says so in its line.
 */
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    NPAGES = 1024,
    BYTES = NPAGES * PAGE_BYTES,
    ID = 3,
    STACK_BYTES = 256 * 1024,
    USED_STACK_PAGES = 8,
    GENERATIONS = 20,
    MOST_THREADS = 1000,
    SIGNALS = 300,
    STOPS = 20,
};

static char *memory;
static unsigned nthreads = 200;
static pthread_barrier_t barrier;

static pthread_t begin(void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_t thread;
    int err = pthread_create(&thread, &attr, run, arg);
    if (err)
        pages_fail("pthread_create: %s", strerror(err));
    return thread;
}

/* ---- all at once, each on the same pages in another order; stacks and thread-local storage ----
 */

static _Thread_local uint64_t local[512];

static void *fault(void *arg)
{
    uintptr_t number = (uintptr_t)arg;
    char stack[USED_STACK_PAGES * PAGE_BYTES];
    pages_fill(stack, number + 1000, 0, USED_STACK_PAGES);
    for (size_t i = 0; i < 512; i++)
        local[i] = number * 512 + i;
    pthread_barrier_wait(&barrier); /* all stacks are there */
    pthread_barrier_wait(&barrier); /* and in the store, with the memory */
    for (size_t i = 0; i < NPAGES; i += 16) {
        size_t page = (i + number * 37) % NPAGES;
        pages_check(memory + page * PAGE_BYTES, ID, page, 1);
    }
    pages_check(stack, number + 1000, 0, USED_STACK_PAGES);
    for (size_t i = 0; i < 512; i++)
        if (local[i] != number * 512 + i)
            pages_fail("thread-local storage of thread %zu", (size_t)number);
    return NULL;
}

static bool case_at_once(void)
{
    static pthread_t threads[MOST_THREADS];
    pthread_barrier_init(&barrier, NULL, nthreads + 1);
    for (unsigned i = 0; i < nthreads; i++)
        threads[i] = begin(fault, (void *)(uintptr_t)i);
    pthread_barrier_wait(&barrier);
    pages_press(memory, NPAGES);
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < nthreads; i++)
        pthread_join(threads[i], NULL);
    return true;
}

/* ---- created and ended under pressure ---- */

static void *work(void *arg)
{
    size_t first = (uintptr_t)arg * 13 % (NPAGES - 8);
    char *own = malloc(20000);
    memset(own, 1, 20000);
    pages_check(memory + first * PAGE_BYTES, ID, first, 8);
    for (size_t i = 0; i < 20000; i++)
        if (own[i] != 1)
            pages_fail("malloc");
    free(own);
    return arg;
}

static bool case_come_and_go(void)
{
    pthread_t threads[16];
    for (int g = 0; g < GENERATIONS; g++) {
        for (uintptr_t i = 0; i < 16; i++)
            threads[i] = begin(work, (void *)(i + (uintptr_t)g));
        pages_press(memory, 64);
        for (uintptr_t i = 0; i < 16; i++) {
            void *result;
            pthread_join(threads[i], &result);
            if (result != (void *)(i + (uintptr_t)g))
                pages_fail("a thread's result");
        }
    }
    return true;
}

/* ---- cancelled and signalled while they wait for pages ---- */

static _Atomic unsigned cleaned, handled;

static void clean(void *arg)
{
    (void)arg;
    cleaned++;
}

static void *read_for_ever(void *arg)
{
    pthread_cleanup_push(clean, NULL);
    for (size_t page = (uintptr_t)arg % NPAGES;; page = (page + 41) % NPAGES) {
        pages_check(memory + page * PAGE_BYTES, ID, page, 1);
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static bool case_cancel(void)
{
    pthread_t threads[16];
    for (uintptr_t i = 0; i < 16; i++)
        threads[i] = begin(read_for_ever, (void *)(i * 64));
    pages_press_some(memory + NPAGES / 2 * PAGE_BYTES, 64);
    for (int i = 0; i < 16; i++)
        pthread_cancel(threads[i]);
    for (int i = 0; i < 16; i++) {
        void *result;
        pthread_join(threads[i], &result);
        if (result != PTHREAD_CANCELED)
            pages_fail("not cancelled");
    }
    if (cleaned != 16)
        pages_fail("%u of 16 cleaned up", cleaned);
    return true;
}

static void on_signal(int number)
{
    (void)number;
    char stack[2 * PAGE_BYTES];
    memset(stack, 5, sizeof stack);
    handled += stack[PAGE_BYTES] == 5;
}

static bool case_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    pages_must(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    pthread_t thread = begin(read_for_ever, NULL);
    for (unsigned i = 0; i < SIGNALS; i++) {
        unsigned before = handled;
        if (i % 32 == 0)
            pages_press_some(memory, 64);
        pages_must(pthread_kill(thread, SIGUSR1) == 0, "pthread_kill");
        while (handled == before)
            sched_yield();
    }
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    return handled == SIGNALS;
}

/* Something outside stops this process and lets it go on. */
static bool case_stop(void)
{
    char command[200];
    snprintf(command, sizeof command,
             "i=0; while [ $i -lt %d ]; do kill -STOP %d; sleep 0.02; kill -CONT %d; sleep 0.02; "
             "i=$((i + 1)); done; kill -USR2 %d",
             STOPS, getpid(), getpid(), getpid());
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    const char *helper = getenv("THREADS_HELPER"); /* a fifo: who reads it runs it */
    if (!helper)
        return false;
    FILE *to = fopen(helper, "w");
    pages_must(to != NULL && fprintf(to, "%s\n", command) > 0 && fclose(to) == 0, helper);
    do {
        pages_press_some(memory, 64);
        pages_check(memory, ID, 0, NPAGES);
        sigpending(&pending);
    } while (!sigismember(&pending, SIGUSR2));
    int number;
    return sigwait(&set, &number) == 0;
}

/* ---- limits and descriptors ---- */

static bool case_limits(void)
{
    static const int which[] = {RLIMIT_NOFILE, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_DATA};
    for (size_t i = 0; i < sizeof which / sizeof *which; i++) {
        struct rlimit old, limit;
        pages_must(getrlimit((unsigned)which[i], &old) == 0, "getrlimit");
        limit = old;
        limit.rlim_cur = which[i] == RLIMIT_NOFILE ? 8 : 8 << 20;
        pages_must(setrlimit((unsigned)which[i], &limit) == 0, "setrlimit");
        pages_check(memory, ID, 0, NPAGES);
        pages_must(setrlimit((unsigned)which[i], &old) == 0, "setrlimit");
    }
    pages_press(memory, NPAGES);
    pages_check(memory, ID, 0, NPAGES);
    return true;
}

/* A program with a userfaultfd of its own: its memory is left to it. */
static bool case_own_userfaultfd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0)
        return false;
    struct uffdio_api api = {.api = UFFD_API};
    pages_must(ioctl(fd, UFFDIO_API, &api) == 0, "UFFDIO_API");
    char *own = pages_map(64);
    struct uffdio_register range = {.range = {(uintptr_t)own, 64 * PAGE_BYTES},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    bool free = ioctl(fd, UFFDIO_REGISTER, &range) == 0;
    if (free) {
        for (size_t i = 0; i < 64; i++) {
            char page[PAGE_BYTES];
            pages_fill(page, ID + 1, i, 1);
            struct uffdio_copy copy = {
                .dst = (uintptr_t)own + i * PAGE_BYTES, .src = (uintptr_t)page, .len = PAGE_BYTES};
            pages_must(ioctl(fd, UFFDIO_COPY, &copy) == 0, "UFFDIO_COPY");
        }
        pages_press_some(own, 64);
        pages_check(own, ID + 1, 0, 64);
        if (pages_present(own, 64) != 64)
            pages_fail("memory under the program's own userfaultfd has left");
    } else if (errno != EBUSY) {
        pages_fail("UFFDIO_REGISTER: %s", strerror(errno));
    }
    pages_check(memory, ID, 0, NPAGES);
    munmap(own, 64 * PAGE_BYTES);
    close(fd);
    return true;
}

static const struct {
    const char *name;
    bool (*run)(void);
} cases[] = {
    {"hundreds at once", case_at_once},
    {"created and ended", case_come_and_go},
    {"cancelled", case_cancel},
    {"signals", case_signals},
    {"stopped and continued", case_stop},
    {"limits", case_limits},
    {"a userfaultfd of its own", case_own_userfaultfd},
};

/* Last: messages still have to get out. */
static void close_all(void)
{
    pages_name("all descriptors closed");
    pages_press(memory, NPAGES);
    pages_must(syscall(SYS_close_range, 3, ~0U, 0) == 0, "close_range");
    pages_check(memory, ID, 0, NPAGES);
    char *more = pages_map(8 * NPAGES); /* pushes and is pushed without looking */
    pages_fill(more, ID + 2, 0, 8 * NPAGES);
    pages_check(memory, ID, 0, NPAGES);
    pages_check(more, ID + 2, 0, 8 * NPAGES);
    printf("ok all descriptors closed\n");
}

int main(int argc, char **argv)
{
    size_t ballast_mib = 32;
    const char *only = NULL;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--ballast=", 10) == 0)
            ballast_mib = strtoul(argv[i] + 10, NULL, 10);
        else if (strncmp(argv[i], "--threads=", 10) == 0)
            nthreads = (unsigned)strtoul(argv[i] + 10, NULL, 10);
        else
            only = argv[i];
    if (nthreads > MOST_THREADS)
        pages_fail("at most %d threads", MOST_THREADS);
    setvbuf(stdout, NULL, _IOLBF, 0);
    pages_start(ballast_mib << 20);
    memory = pages_map(NPAGES);
    pages_fill(memory, ID, 0, NPAGES);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        if (only && strcmp(only, cases[c].name) != 0)
            continue;
        pages_name(cases[c].name);
        pages_press(memory, NPAGES);
        bool allowed = cases[c].run();
        printf("%s %s\n", allowed ? "ok" : "not allowed here:", cases[c].name);
    }
    close_all();
    return 0;
}
