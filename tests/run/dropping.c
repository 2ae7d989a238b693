/* dropping [--rounds=N] [--megabytes=N]: memory is given up (MADV_DONTNEED) by a thread that hardly
 * gets a processor while it does so, and others push memory out meanwhile. All of it must be zero
 * afterwards.
 *
 * The kernel tells of such a call before it drops the first page. Here the two are far apart: the
 * thread has the lowest priority, and its processor is kept busy until it is done. */
#include "pages.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OTHER_BYTES = 64 << 20, HOGS = 1 };

static size_t given_bytes = 220u << 20;
static atomic_bool dropping, done;
static uint64_t *other;

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        pages_fail("sched_setaffinity: %s", strerror(errno));
}

static int last_cpu(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        pages_fail("sched_getaffinity: %s", strerror(errno));
    int last = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set))
            last = cpu;
    return last;
}

/* Keeps the processor of the thread that drops busy, while it does. */
static void *hog(void *cpu)
{
    stay_on(*(int *)cpu);
    while (!done)
        if (!dropping)
            usleep(100);
    return NULL;
}

/* Keeps memory short. */
static void *push(void *unused)
{
    (void)unused;
    for (size_t i = 0; !done; i++) {
        other[i * PAGE_WORDS % (OTHER_BYTES / 8)] += 1;
        if (!dropping)
            usleep(100);
    }
    return NULL;
}

static void *drop(void *given)
{
    stay_on(last_cpu());
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 15))
        pages_fail("setpriority: %s", strerror(errno));
    dropping = true;
    if (madvise(given, given_bytes, MADV_DONTNEED))
        pages_fail("madvise: %s", strerror(errno));
    dropping = false;
    return NULL;
}

static void one_round(uint64_t *given, unsigned round)
{
    pthread_t dropper;
    for (size_t i = 0; i < given_bytes / 8; i += PAGE_WORDS)
        given[i] = i + 1;
    if (pthread_create(&dropper, NULL, drop, given) || pthread_join(dropper, NULL))
        pages_fail("no thread");
    size_t wrong = 0;
    for (size_t i = 0; i < given_bytes / 8; i += PAGE_WORDS)
        wrong += given[i] != 0;
    if (wrong) {
        fprintf(stderr, "dropping: round %u: %zu pages are not zero after MADV_DONTNEED\n", round,
                wrong);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    pages_name("dropping");
    unsigned rounds = 2;
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "--rounds=%u", &rounds) != 1 &&
            sscanf(argv[i], "--megabytes=%zu", &given_bytes) == 1)
            given_bytes <<= 20;
    int cpu = last_cpu();
    other = (uint64_t *)pages_map(OTHER_BYTES / PAGE_BYTES);
    pthread_t hogs[HOGS], pusher;
    for (int i = 0; i < HOGS; i++)
        if (pthread_create(&hogs[i], NULL, hog, &cpu))
            pages_fail("no thread");
    if (pthread_create(&pusher, NULL, push, NULL))
        pages_fail("no thread");
    uint64_t *given = (uint64_t *)pages_map(given_bytes / PAGE_BYTES);
    for (unsigned round = 0; round < rounds; round++)
        one_round(given, round);
    done = true;
    for (int i = 0; i < HOGS; i++)
        pthread_join(hogs[i], NULL);
    pthread_join(pusher, NULL);
    printf("dropping: ok %u rounds\n", rounds);
    return 0;
}
