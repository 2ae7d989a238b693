/* proc_map: the lines of real maps, of this process and of processes of other kinds. */
#include "../../client/proc_map.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

enum { PAGE = 4096, SIZE = 16 * PAGE };

static void test_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        uint64_t start, end; /* 0, 0: not to be managed */
    } lines[] = {
        {"55d0c8a2f000-55d0c8a50000 rw-p 00000000 00:00 0                          [heap]",
         0x55d0c8a2f000, 0x55d0c8a50000},
        {"01a3b000-01a5c000 rw-p 00000000 00:00 0                                  [heap]\n",
         0x1a3b000, 0x1a5c000},
        {"7f1ba4000000-7f1ba4021000 rw-p 00000000 00:00 0 ", 0x7f1ba4000000, 0x7f1ba4021000},
        {"7f1ba4000000-7f1ba4021000 rw-p 00000000 00:00 0 \n", 0x7f1ba4000000, 0x7f1ba4021000},
        {"7f1ba4021000-7f1ba8000000 ---p 00000000 00:00 0 ", 0x7f1ba4021000, 0x7f1ba8000000},
        {"7f1ba9000000-7f1ba9800000 rw-p 00000000 00:00 0                          "
         "[anon: glibc: malloc arena]",
         0x7f1ba9000000, 0x7f1ba9800000},
        {"7f1ba9000000-7f1ba9800000 rw-p 00000000 00:00 0      [anon:a [stack] b]\n",
         0x7f1ba9000000, 0x7f1ba9800000},
        /* Five levels of page tables: 57 bits, of which programs have 56. */
        {"ff8a2b3c4d5000-ff8a2b3c4f6000 rw-p 00000000 00:00 0 ", 0xff8a2b3c4d5000,
         0xff8a2b3c4f6000},
        {"ffffffffffe000-fffffffffff000 rw-p 00000000 00:00 0 \n", 0xffffffffffe000,
         0xfffffffffff000},

        {"7ffd2b8c5000-7ffd2b8e6000 rw-p 00000000 00:00 0                          [stack]", 0, 0},
        {"7ffd2b6e7000-7ffd2b8e6000 rw-p 00000000 00:00 0                          [stack]\n", 0,
         0},
        {"7ffd2b6e6000-7ffd2b8e6000 rw-p 00000000 00:00 0                          [stack]\n",
         0x7ffd2b6e6000, 0x7ffd2b8e6000},
        {"7ffd2b6e6000-7ffd2b8e6000 rwxp 00000000 00:00 0                          [stack]\n",
         0x7ffd2b6e6000, 0x7ffd2b8e6000},
        {"7f1baa000000-7f1baa001000 rwxp 00000000 00:00 0 ", 0x7f1baa000000, 0x7f1baa001000},
        {"7f1ba9000000-7f1ba9800000 rw-p 00000000 00:00 0                          [stack:12]", 0,
         0},
        {"7ffd2b9f4000-7ffd2b9f8000 r--p 00000000 00:00 0                          [vvar]", 0, 0},
        {"7ffd2b9f8000-7ffd2b9fa000 r-xp 00000000 00:00 0                          [vdso]\n", 0, 0},
        {"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]", 0,
         0},
        {"7f1baa000000-7f1baa001000 r--p 00000000 00:00 0 ", 0, 0},
        {"7f1baa000000-7f1baa001000 r-xp 00000000 00:00 0 ", 0, 0},
        {"7f1baa000000-7f1baa001000 rwxs 00000000 00:00 0 ", 0, 0},
        {"7f1baa000000-7f1baa001000 rwxp 00000000 08:01 77 /lib/x.so", 0, 0},
        {"7f1baa000000-7f1baa001000 -w-p 00000000 00:00 0 ", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-s 00000000 00:01 1033                       /dev/zero "
         "(deleted)",
         0, 0},
        {"7f1baa000000-7f1baa001000 rw-s 00000000 00:00 0 ", 0, 0},
        {"7f1baa000000-7f1baa001000 ---s 00000000 00:00 0 ", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-s 00000000 00:01 5                          "
         "[anon_shmem:name]",
         0, 0},
        {"7f1baa000000-7f1baa001000 rw-s 00000000 00:05 98310                      "
         "/SYSV00000000 (deleted)",
         0, 0},
        {"7f1baa000000-7f1baa001000 rw-p 0001b000 fe:01 1835020        /usr/lib/ld-linux.so.2", 0,
         0},
        {"7f1baa000000-7f1baa001000 ---p 0001b000 fe:01 1835020        /usr/lib/libc.so.6", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-p 00000000 00:2a 17             /tmp/gone (deleted)", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-p 00000000 00:05 4              /dev/zero", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-p 00000000 00:10 0              /some/file", 0, 0},
        {"7f1baa000000-7f1baa200000 rw-p 00000000 00:0f 61             /anon_hugepage (deleted)", 0,
         0},
        {"", 0, 0},
        {"\n", 0, 0},
        {"-", 0, 0},
        {"7f1baa000000", 0, 0},
        {"7f1baa000000-", 0, 0},
        {"7f1baa000000-7f1baa001000", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-p", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-p ", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-p 00000000", 0, 0},
        {"7f1baa000000-7f1baa001000 rw-p 00000000 00:00", 0, 0},
        {"7F1BAA000000-7F1BAA001000 rw-p 00000000 00:00 0 ", 0, 0},
        {"Rss:                   4 kB", 0, 0},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct proc_range range = {1, 1};
        bool is_managed = proc_map_parse(lines[i].line, &range);
        if (is_managed != (lines[i].end != 0))
            fail_msg("%s", lines[i].line);
        if (is_managed) {
            assert_true(range.start == lines[i].start);
            assert_true(range.end == lines[i].end);
        }
    }
}

/* Whether the mapping of this process that holds AT would be managed, by its line. */
static bool line_is_managed(const void *at)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    static char line[8192];
    bool found = false, is_managed = false;
    while (!found && fgets(line, sizeof line, maps)) {
        unsigned long long start, end;
        assert_int_equal(sscanf(line, "%llx-%llx", &start, &end), 2);
        found = (uint64_t)at >= start && (uint64_t)at < end;
        struct proc_range range;
        if (found && (is_managed = proc_map_parse(line, &range))) {
            assert_true(range.start == start);
            assert_true(range.end == end);
        }
    }
    fclose(maps);
    assert_true(found);
    return is_managed;
}

struct search {
    uint64_t at, last;
    bool found;
};

static void look_for(void *arg, struct proc_range range)
{
    struct search *search = arg;
    assert_true(range.start < range.end);
    assert_true(range.start >= search->last);
    assert_int_equal(range.start % PAGE, 0);
    assert_int_equal(range.end % PAGE, 0);
    search->last = range.end;
    search->found |= search->at >= range.start && search->at < range.end;
}

/* The line and the walk must agree. */
static bool is_managed(struct proc_map *map, const void *at)
{
    struct search search = {.at = (uint64_t)at};
    assert_int_equal(proc_map_walk(map, NULL, look_for, &search), 0);
    assert_int_equal(search.found, line_is_managed(at));
    struct search text = {.at = (uint64_t)at};
    assert_int_equal(proc_map_walk_text(map, look_for, &text), 0);
    assert_int_equal(search.found, text.found);
    return search.found;
}

static void *map_new(int protection, int flags, int fd)
{
    void *at = mmap(NULL, SIZE, protection, flags, fd, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    return at;
}

static void test_own_mappings(void **state)
{
    (void)state;
    enum { RW = PROT_READ | PROT_WRITE, ANON = MAP_PRIVATE | MAP_ANONYMOUS };
    struct proc_map *map;
    assert_int_equal(proc_map_open(&map, getpid()), 0);
    int memfd = memfd_create("edm test", MFD_CLOEXEC);
    assert_true(memfd >= 0);
    assert_int_equal(ftruncate(memfd, SIZE), 0);
    int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
    assert_true(zero >= 0);
    struct {
        void *at;
        bool is_managed;
    } mappings[] = {
        {map_new(RW, ANON, -1), true},
        {map_new(RW, ANON | MAP_NORESERVE, -1), true},
        {map_new(PROT_NONE, ANON, -1), true},
        {map_new(PROT_READ, ANON, -1), false},
        {map_new(RW, MAP_SHARED | MAP_ANONYMOUS, -1), false},
        {map_new(RW, MAP_SHARED, memfd), false},
        {map_new(RW, MAP_PRIVATE, memfd), false},
        {map_new(PROT_NONE, MAP_PRIVATE, memfd), false},
        {map_new(RW, MAP_SHARED, zero), false},
    };
    enum { COUNT = sizeof mappings / sizeof *mappings };
    for (int i = 0; i < COUNT; i++)
        if (is_managed(map, (char *)mappings[i].at + PAGE) != mappings[i].is_managed)
            fail_msg("mapping %d", i);
    /* The kernel may have no names for memory: then this one has none. */
    (void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, mappings[0].at, SIZE, "edm: test]");
    assert_true(is_managed(map, mappings[0].at));
    /* Taken apart: the middle is another mapping then. */
    assert_int_equal(mprotect((char *)mappings[1].at + PAGE, PAGE, PROT_READ), 0);
    assert_true(is_managed(map, mappings[1].at));
    assert_false(is_managed(map, (char *)mappings[1].at + PAGE));
    assert_true(is_managed(map, (char *)mappings[1].at + 2 * PAGE));
    assert_false(is_managed(map, (const void *)(uintptr_t)test_own_mappings));
    assert_false(is_managed(map, "text"));
    for (int i = 0; i < COUNT; i++)
        munmap(mappings[i].at, SIZE);
    close(memfd);
    close(zero);
    proc_map_close(&map);
    assert_null(map);
}

/* More mappings than fit into one read, or into the first buffer. */
static void test_many_mappings(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct proc_map *map;
    char *at = mmap(NULL, 2 * MANY * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(mprotect(at + 2 * i * PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
    assert_int_equal(proc_map_open(&map, getpid()), 0);
    for (int i = 0; i < MANY; i += 500) {
        struct search search = {.at = (uint64_t)(at + 2 * i * PAGE)};
        assert_int_equal(proc_map_walk(map, NULL, look_for, &search), 0);
        assert_true(search.found);
        search = (struct search){.at = search.at};
        assert_int_equal(proc_map_walk_text(map, look_for, &search), 0);
        assert_true(search.found);
    }
    proc_map_close(&map);
    munmap(at, 2 * MANY * PAGE);
}

struct known {
    uint64_t start, end, asked; /* what is known; how often it was asked for */
    uint64_t seen[4];
    int nseen;
};

static uint64_t past_known(void *arg, uint64_t address)
{
    struct known *known = arg;
    known->asked++;
    return address >= known->start && address < known->end ? known->end : address;
}

static void note_near(void *arg, struct proc_range range)
{
    struct known *known = arg;
    if (range.end > known->start - PAGE && range.start < known->end + SIZE && known->nseen < 4)
        known->seen[known->nseen++] = range.start;
}

/* What is known is passed over, but not what has only its beginning there. */
static void test_known_is_passed_over(void **state)
{
    (void)state;
    struct proc_map *map;
    char *at = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    for (int i = 1; i < 16; i += 3) /* pages 1 and 2, 4 and 5, 7 and 8, ... */
        assert_int_equal(mprotect(at + i * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
    assert_int_equal(proc_map_open(&map, getpid()), 0);
    struct known known = {.start = (uint64_t)at + PAGE, .end = (uint64_t)at + 8 * PAGE};
    assert_int_equal(proc_map_walk(map, past_known, note_near, &known), 0);
    struct proc_range range;
    if (proc_map_at(map, known.start, &range) != -ENOTTY) {
        assert_true(known.asked > 1);
        assert_true(known.nseen >= 3);
        assert_true(known.seen[0] == (uint64_t)at + 7 * PAGE);
        assert_true(known.seen[1] == (uint64_t)at + 10 * PAGE);
    }
    proc_map_close(&map);
    munmap(at, SIZE);
}

static void test_size(void **state)
{
    (void)state;
    enum { PAGES = 4096 };
    struct proc_map *map;
    struct proc_size before, after;
    assert_int_equal(proc_map_open(&map, getpid()), 0);
    assert_int_equal(proc_map_size(map, &before), 0);
    char *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    memset(at, 1, PAGES * PAGE);
    assert_int_equal(proc_map_size(map, &after), 0);
    assert_in_range(after.virtual_pages - before.virtual_pages, PAGES, PAGES + 512);
    /* The kernel adds up its counters per processor late; sanitizers use memory beside ours. */
    assert_true(after.resident_pages >= before.resident_pages + PAGES - 512);
    assert_true(after.anonymous_pages >= before.anonymous_pages + PAGES - 512);
    assert_true(after.anonymous_pages <= after.resident_pages);
    assert_true(after.resident_pages <= after.virtual_pages);
    munmap(at, PAGES * PAGE);
    proc_map_close(&map);
}

static sem_t thread_is_up, thread_may_end;
static pid_t thread_tid;
static uint64_t thread_block;

static void *be_thread(void *arg)
{
    thread_tid = gettid();
    thread_block = (uint64_t)pthread_self() / PAGE;
    sem_post(&thread_is_up);
    while (sem_wait(&thread_may_end))
        ;
    return arg;
}

static atomic_bool may_sleep;
static atomic_int spinner_tid;

static void *spin_then_sleep(void *arg)
{
    spinner_tid = gettid();
    while (!may_sleep)
        ;
    while (sem_wait(arg))
        ;
    return NULL;
}

/* What a thread began to do before it was seen asleep it has done; of one that never sleeps nobody
 * can say. */
static void test_passed(void **state)
{
    (void)state;
    struct proc_map *map;
    pthread_t thread;
    sem_t may_end;
    assert_int_equal(proc_map_open(&map, getpid()), 0);
    sem_init(&may_end, 0, 0);
    assert_int_equal(pthread_create(&thread, NULL, spin_then_sleep, &may_end), 0);
    while (!spinner_tid)
        usleep(100);
    assert_int_equal(proc_map_passed(map, 5, gettid()), 0);
    assert_int_equal(proc_map_passed(map, 6, gettid()), 0);
    may_sleep = true;
    for (int i = 0; proc_map_passed(map, 7, gettid()) != 7; i++) {
        assert_true(i < 10000);
        usleep(1000);
    }
    /* We are not spared now, and running. */
    assert_int_equal(proc_map_passed(map, 8, spinner_tid), 0);
    assert_int_equal(proc_map_passed(map, 8, gettid()), 8);
    sem_post(&may_end);
    assert_int_equal(pthread_join(thread, NULL), 0);
    proc_map_close(&map);
}

static void test_threads(void **state)
{
    (void)state;
    struct proc_map *map;
    pthread_t thread;
    sem_init(&thread_is_up, 0, 0);
    sem_init(&thread_may_end, 0, 0);
    /* On a stack of its own, in which its control block lies: the C library would put that close to
     * the first thread's. */
    enum { STACK_BYTES = 1 << 20 };
    char *stack =
        mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(stack, MAP_FAILED);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK_BYTES), 0);
    assert_int_equal(pthread_create(&thread, &attributes, be_thread, NULL), 0);
    pthread_attr_destroy(&attributes);
    while (sem_wait(&thread_is_up))
        ;
    assert_int_equal(proc_map_open(&map, getpid()), 0);
    assert_int_equal(proc_map_look_at_threads(map), 0);
    assert_true(proc_map_pinned(map, (uint64_t)pthread_self() / PAGE));
    assert_true(proc_map_pinned(map, thread_block));
    assert_false(proc_map_pinned(map, thread_block + 1000));
    assert_int_equal(proc_map_thread_cpu_us(map, 1 << 30), 0);
    proc_map_pin(map, (thread_block + 1000) * PAGE + 8);
    assert_true(proc_map_pinned(map, thread_block + 1000));
    assert_false(proc_map_pinned(map, thread_block + 1001));
    proc_map_pin(map, 0);
    assert_false(proc_map_pinned(map, thread_block + 1000));
    sem_post(&thread_may_end);
    assert_int_equal(pthread_join(thread, NULL), 0);
    /* The kernel takes a thread's entry away a moment after it was joined. */
    for (int i = 0; proc_map_pinned(map, thread_block); i++) {
        assert_true(i < 1000);
        usleep(1000);
        assert_int_equal(proc_map_look_at_threads(map), 0);
    }
    assert_true(proc_map_pinned(map, (uint64_t)pthread_self() / PAGE));
    proc_map_close(&map);
    munmap(stack, 2 * STACK_BYTES);
}

static void never(void *arg, struct proc_range range)
{
    (void)arg;
    (void)range;
    fail();
}

static void test_gone(void **state)
{
    (void)state;
    struct proc_map *map;
    struct proc_size size;
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    assert_true(child > 0);
    int opened = proc_map_open(&map, child);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(opened, 0);
    assert_int_equal(proc_map_size(map, &size), -ESRCH);
    assert_int_equal(proc_map_walk(map, NULL, never, NULL), -ESRCH);
    assert_int_equal(proc_map_walk_text(map, never, NULL), -ESRCH);
    assert_int_equal(proc_map_look_at_threads(map), -ESRCH);
    assert_int_equal(proc_map_thread_cpu_us(map, child), 0);
    proc_map_close(&map);
    /* To open what is gone is an error too, and leaves nothing behind. */
    assert_int_equal(proc_map_open(&map, child), -ESRCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_own_mappings),
        cmocka_unit_test(test_many_mappings), cmocka_unit_test(test_known_is_passed_over),
        cmocka_unit_test(test_size),          cmocka_unit_test(test_threads),
        cmocka_unit_test(test_passed),        cmocka_unit_test(test_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
