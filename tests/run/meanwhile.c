/*
 * meanwhile: one thread forks while two others unmap and move memory that is outside.
 *
 *     meanwhile [--rounds=100] [--corrupt] [--forking] [--clone] [--onto]
 *
 * A child has what was there before such a call, or what was there after it: each area is where it
 * was or where it was moved to, whole, or, unmapped, nowhere. --clone: children are made, and
 * memory is moved, by the system calls alone. --onto: areas are moved onto others, and leave zeros
 * behind. And a thread that has unmapped memory and grown other memory into its place finds zeros
 * there, so does the child that it forks then, while another thread sleeps (--forking: while
 * another forks). The first wrong one ends the program: one line on standard error, exit 1.
 * --corrupt moves one byte of an area, too.
 */
#include "pages.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AREAS = 48, CHANGERS = 2, AREA_PAGES = 3, BALLAST_BYTES = 40 << 20, COVERED = 1 << 30 };

static struct area {
    char *from, *to; /* to: where it is moved; NULL: it is unmapped */
    uint64_t id;
} areas[AREAS];

static bool onto, by_call;
static atomic_int begun;
static uint64_t forks, before, after;

/* Neither beside another mapping, nor to be merged with one. */
static char *map_apart(void)
{
    char *at =
        mmap(NULL, (AREA_PAGES + 2) * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pages_must(at != MAP_FAILED, "mmap");
    return at + PAGE_BYTES;
}

static pid_t fork_it(void)
{
    pid_t pid = by_call ? (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) : fork();
    pages_must(pid >= 0, "fork");
    return pid;
}

static char *move_it(char *from, size_t bytes, int flags, char *to)
{
    return by_call ? (char *)syscall(SYS_mremap, from, bytes, bytes, flags, to)
                   : mremap(from, bytes, bytes, flags, to);
}

/* What is where an area is moved onto. */
static uint64_t id_of_covered(const struct area *area)
{
    return area->id + COVERED;
}

static void fill(char *at, uint64_t id)
{
    pages_must(mprotect(at, AREA_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE) == 0, "mprotect");
    pages_fill(at, id, 0, AREA_PAGES);
}

static void set_up(uint64_t round)
{
    for (size_t i = 0; i < AREAS; i++) {
        areas[i].id = round * AREAS + i;
        areas[i].from = map_apart();
        areas[i].to = i % 2 ? map_apart() : NULL;
        fill(areas[i].from, areas[i].id);
        if (areas[i].to && onto)
            fill(areas[i].to, id_of_covered(&areas[i]));
    }
    for (size_t i = 0; i < AREAS; i++) {
        pages_press_some(areas[i].from, AREA_PAGES);
        if (areas[i].to && onto)
            pages_press_some(areas[i].to, AREA_PAGES);
    }
}

static void tidy_up(void)
{
    for (size_t i = 0; i < AREAS; i++) {
        munmap(areas[i].from - PAGE_BYTES, (AREA_PAGES + 2) * PAGE_BYTES);
        if (areas[i].to)
            munmap(areas[i].to - PAGE_BYTES, (AREA_PAGES + 2) * PAGE_BYTES);
    }
}

/* ARG: which of the CHANGERS. Each has areas of both kinds. */
static void *change(void *arg)
{
    for (int i = 0; i < AREAS; i++) {
        if (i / 2 % CHANGERS != (int)(intptr_t)arg)
            continue;
        const struct area *area = &areas[i];
        size_t bytes = AREA_PAGES * PAGE_BYTES;
        int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (onto ? MREMAP_DONTUNMAP : 0);
        begun++;
        if (area->to)
            pages_must(move_it(area->from, bytes, flags, area->to) == area->to, "mremap");
        else
            pages_must(munmap(area->from, bytes) == 0, "munmap");
    }
    return NULL;
}

/* Whether there is memory at AT; then it is the area's. The kernel looks, which faults as the
 * program does but says so when there is nothing. */
static bool is_there(const char *at, uint64_t id)
{
    static _Alignas(4096) char copy[AREA_PAGES * PAGE_BYTES];
    int fds[2];
    pages_must(pipe(fds) == 0, "pipe");
    ssize_t got = write(fds[1], at, sizeof copy);
    pages_must(got == sizeof copy || (got < 0 && errno == EFAULT), "write");
    bool there = got > 0;
    if (there) {
        pages_must(read(fds[0], copy, sizeof copy) == sizeof copy, "read");
        pages_check(copy, id, 0, AREA_PAGES);
    }
    close(fds[0]);
    close(fds[1]);
    return there;
}

/* Whether an area has been moved onto other memory. */
static bool is_moved_onto(const struct area *area)
{
    uint64_t word;
    memcpy(&word, area->from, sizeof word);
    if (word == 0) {
        pages_check_zero(area->from, AREA_PAGES);
        pages_check(area->to, area->id, 0, AREA_PAGES);
        return true;
    }
    pages_check(area->from, area->id, 0, AREA_PAGES);
    pages_check(area->to, id_of_covered(area), 0, AREA_PAGES);
    return false;
}

/* In the child; how many areas it has as they were before, in its exit status. */
static int look(void)
{
    int nbefore = 0;
    for (size_t i = 0; i < AREAS && onto; i++)
        nbefore += areas[i].to ? !is_moved_onto(&areas[i]) : is_there(areas[i].from, areas[i].id);
    if (onto)
        return nbefore;
    for (size_t i = 0; i < AREAS; i++) {
        const struct area *area = &areas[i];
        bool was = is_there(area->from, area->id);
        bool is = area->to && is_there(area->to, area->id);
        if (was && is)
            pages_fail("area %zu is there twice", i);
        if (!was && !is && area->to)
            pages_fail("area %zu is nowhere", i);
        nbefore += was;
    }
    return nbefore;
}

static void fork_meanwhile(uint64_t round, bool corrupt)
{
    pthread_t others[CHANGERS];
    set_up(round);
    begun = 0;
    for (intptr_t i = 0; i < CHANGERS; i++)
        pages_must(pthread_create(&others[i], NULL, change, (void *)i) == 0, "pthread_create");
    while (begun <= (int)(round % AREAS))
        ;
    if (corrupt)
        areas[AREAS - 1].id++;
    pid_t pid = fork_it();
    if (pid == 0)
        _exit(100 + look());
    int status;
    pages_must(waitpid(pid, &status, 0) == pid, "waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) < 100)
        pages_fail("the child of round %llu ended with %#x", (unsigned long long)round,
                   (unsigned)status);
    forks++;
    before += (uint64_t)WEXITSTATUS(status) - 100;
    after += (uint64_t)(AREAS - (WEXITSTATUS(status) - 100));
    for (int i = 0; i < CHANGERS; i++)
        pages_must(pthread_join(others[i], NULL) == 0, "pthread_join");
    tidy_up();
}

/* ---- what takes the place of what was unmapped ---- */

enum { SPOT_PAGES = 4 * AREA_PAGES };

static atomic_bool stop;
static uint64_t grown;

static void *fork_often(void *arg)
{
    (void)arg;
    while (!stop) {
        pid_t pid = fork_it();
        if (pid == 0)
            _exit(0);
        pages_must(waitpid(pid, NULL, 0) == pid, "waitpid");
        usleep(1000);
    }
    return NULL;
}

static void *sleep_on(void *arg)
{
    while (!stop)
        usleep(10000);
    return arg;
}

static void must_map_at(char *at, int advice)
{
    size_t bytes = AREA_PAGES * PAGE_BYTES;
    pages_must(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                    0) == at,
               "mmap");
    pages_must(madvise(at, bytes, advice) == 0, "madvise");
}

/* Memory that was filled under ID, and is outside as far as may be, lies behind other memory or is
 * moved there; then it is unmapped, and the other grows over its place. */
static void grow_over(uint64_t id, bool moved)
{
    size_t bytes = AREA_PAGES * PAGE_BYTES;
    char *from = moved ? map_apart() : NULL;
    char *spot = mmap(NULL, SPOT_PAGES * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pages_must(spot != MAP_FAILED && munmap(spot, SPOT_PAGES * PAGE_BYTES) == 0, "mmap");
    char *other = spot + bytes, *behind = other + bytes;
    if (!moved)
        from = behind;
    must_map_at(other, MADV_DODUMP);
    must_map_at(from, MADV_DONTDUMP); /* not one mapping with the other */
    pages_fill(other, id + 1, 0, AREA_PAGES);
    pages_fill(from, id, 0, AREA_PAGES);
    pages_press_some(from, AREA_PAGES);
    if (moved)
        pages_must(mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, behind) == behind,
                   "mremap");
    pages_must(munmap(behind, bytes) == 0, "munmap");
    /* Another thread's new mapping may have come there. */
    if (mremap(other, bytes, 2 * bytes, 0) == other) {
        grown++;
        pid_t pid = fork_it();
        pages_check_zero(behind, AREA_PAGES);
        pages_check(other, id + 1, 0, AREA_PAGES);
        if (pid == 0)
            _exit(0);
        int status;
        pages_must(waitpid(pid, &status, 0) == pid, "waitpid");
        if (status != 0)
            pages_fail("the child of %llu ended with %#x", (unsigned long long)id,
                       (unsigned)status);
        bytes *= 2;
    }
    munmap(other, bytes);
    if (moved)
        munmap(from - PAGE_BYTES, (AREA_PAGES + 2) * PAGE_BYTES);
}

static void grow_beside(void *(*beside)(void *arg), uint64_t rounds)
{
    pthread_t other;
    stop = false;
    pages_must(pthread_create(&other, NULL, beside, NULL) == 0, "pthread_create");
    for (uint64_t round = 0; round < rounds; round++)
        grow_over(1000000 + 2 * round, round % 2);
    stop = true;
    pages_must(pthread_join(other, NULL) == 0, "pthread_join");
}

int main(int argc, char **argv)
{
    uint64_t rounds = 100;
    bool corrupt = false, forking = false;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--rounds=", 9) == 0)
            rounds = strtoull(argv[i] + 9, NULL, 10);
        else if (strcmp(argv[i], "--corrupt") == 0)
            corrupt = true;
        else if (strcmp(argv[i], "--forking") == 0)
            forking = true;
        else if (strcmp(argv[i], "--clone") == 0)
            by_call = true;
        else if (strcmp(argv[i], "--onto") == 0)
            onto = true;
        else
            return 2;
    pages_name("fork, memory being changed");
    pages_start(BALLAST_BYTES);
    for (uint64_t round = 0; round < rounds; round++)
        fork_meanwhile(round, corrupt);
    pages_name("grown over what was unmapped");
    grow_beside(forking ? fork_often : sleep_on, rounds);
    printf("meanwhile: ok, %llu forks, %llu areas before, %llu after, %llu times grown\n",
           (unsigned long long)forks, (unsigned long long)before, (unsigned long long)after,
           (unsigned long long)grown);
    return 0;
}
