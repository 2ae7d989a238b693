/*
 * calls: every call that changes memory, one by one, on pages that are in memory, on their way to
 * the store, in the store, and being fetched.
 *
 *     calls [--ballast=MIB] [--some] [NAME]
 *
 * --some: each case in one of the places only, by turns. Prints a line for each case and place; run
 * under edm and natively, the lines have to be the same.
 */
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

enum {
    NPAGES = 96,
    THIRD = NPAGES / 3,
    BYTES = NPAGES * PAGE_BYTES,
    THIRD_BYTES = THIRD * PAGE_BYTES,
    MANY_MAPPINGS = 6000,
    RW = PROT_READ | PROT_WRITE,
    ANON = MAP_PRIVATE | MAP_ANONYMOUS,
};

/* The memory of a case: filled, and where it shall be. */
struct place {
    char *at;
    uint64_t id;
    enum pages_where where;
};

static void must(int result, const char *call)
{
    if (result)
        pages_fail("%s: %s", call, strerror(errno));
}

static char *must_map(void *at, size_t bytes, int prot, int flags)
{
    char *got = mmap(at, bytes, prot, flags, -1, 0);
    if (got == MAP_FAILED)
        pages_fail("mmap: %s", strerror(errno));
    return got;
}

static char *must_remap(void *at, size_t from_bytes, size_t to_bytes, int flags, void *to)
{
    char *got = mremap(at, from_bytes, to_bytes, flags, to);
    if (got == MAP_FAILED)
        pages_fail("mremap: %s", strerror(errno));
    return got;
}

/* Checks, sends the pages away again and checks what comes back: what was wrong only for the store
 * shows too. */
static void check_twice(char *at, uint64_t id, size_t first, size_t npages)
{
    pages_check(at, id, first, npages);
    pages_press_some(at, npages);
    pages_check(at, id, first, npages);
}

static void check_zero_twice(char *at, size_t npages)
{
    pages_check_zero(at, npages);
    pages_press_some(at, npages);
    pages_check_zero(at, npages);
}

static void unmap_all(struct place *place)
{
    must(munmap(place->at, BYTES), "munmap");
}

/* ---- mmap and munmap ---- */

static void case_nothing(struct place *p)
{
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_map_fixed(struct place *p)
{
    must_map(p->at + THIRD_BYTES, THIRD_BYTES, RW, ANON | MAP_FIXED);
    pages_check_zero(p->at + THIRD_BYTES, THIRD);
    pages_fill(p->at + THIRD_BYTES, p->id + 1, 0, THIRD);
    check_twice(p->at, p->id, 0, THIRD);
    check_twice(p->at + THIRD_BYTES, p->id + 1, 0, THIRD);
    check_twice(p->at + 2 * THIRD_BYTES, p->id, 2 * THIRD, THIRD);
    unmap_all(p);
}

static void case_map_fixed_shared(struct place *p)
{
    must_map(p->at, THIRD_BYTES, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED);
    pages_check_zero(p->at, THIRD);
    pages_fill(p->at, p->id + 1, 0, THIRD);
    check_twice(p->at + THIRD_BYTES, p->id, THIRD, 2 * THIRD);
    pages_check(p->at, p->id + 1, 0, THIRD);
    unmap_all(p);
}

static void case_map_noreserve(struct place *p)
{
    must_map(p->at, BYTES, RW, ANON | MAP_FIXED | MAP_NORESERVE);
    check_zero_twice(p->at, NPAGES);
    pages_fill(p->at, p->id + 2, 0, NPAGES);
    check_twice(p->at, p->id + 2, 0, NPAGES);
    unmap_all(p);
}

static void case_reservation(struct place *p)
{
    char *at = must_map(NULL, 4 * BYTES, PROT_NONE, ANON | MAP_NORESERVE);
    for (int i = 0; i < 4; i++) {
        must(mprotect(at + i * BYTES, BYTES / 2, RW), "mprotect");
        pages_fill(at + i * BYTES, p->id + 3, (size_t)i * NPAGES, NPAGES / 2);
    }
    for (int i = 0; i < 4; i++)
        check_twice(at + i * BYTES, p->id + 3, (size_t)i * NPAGES, NPAGES / 2);
    /* Back to being only reserved, and open again. */
    must_map(at, BYTES, PROT_NONE, ANON | MAP_NORESERVE | MAP_FIXED);
    must(mprotect(at, BYTES, RW), "mprotect");
    check_zero_twice(at, NPAGES);
    check_twice(at + BYTES, p->id + 3, NPAGES, NPAGES / 2);
    must(munmap(at, 4 * BYTES), "munmap");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_tebibyte(struct place *p)
{
    size_t bytes = (size_t)1 << 40;
    char *at = must_map(NULL, bytes, RW, ANON | MAP_NORESERVE);
    for (size_t i = 0; i < NPAGES; i++)
        pages_fill(at + i * (bytes / NPAGES / PAGE_BYTES * PAGE_BYTES), p->id + 4, i, 1);
    check_twice(p->at, p->id, 0, NPAGES);
    for (size_t i = 0; i < NPAGES; i++)
        check_twice(at + i * (bytes / NPAGES / PAGE_BYTES * PAGE_BYTES), p->id + 4, i, 1);
    must(madvise(at, bytes, MADV_DONTNEED), "madvise of 1 TiB");
    pages_check_zero(at, NPAGES);
    must(munmap(at, bytes), "munmap");
    unmap_all(p);
}

static void case_unmap_parts(struct place *p)
{
    must(munmap(p->at + THIRD_BYTES, THIRD_BYTES), "munmap");
    check_twice(p->at, p->id, 0, THIRD);
    check_twice(p->at + 2 * THIRD_BYTES, p->id, 2 * THIRD, THIRD);
    char *again = must_map(p->at + THIRD_BYTES, THIRD_BYTES, RW, ANON | MAP_FIXED_NOREPLACE);
    check_zero_twice(again, THIRD);
    must(munmap(p->at, PAGE_BYTES), "munmap");
    must(munmap(p->at + BYTES - PAGE_BYTES, PAGE_BYTES), "munmap");
    check_twice(p->at + PAGE_BYTES, p->id, 1, THIRD - 1);
    check_twice(p->at + 2 * THIRD_BYTES, p->id, 2 * THIRD, THIRD - 1);
    unmap_all(p);
}

static void case_many_mappings(struct place *p)
{
    /* Every second page reserved only: as many mappings as pages. */
    char *at = must_map(NULL, (size_t)MANY_MAPPINGS * PAGE_BYTES, RW, ANON);
    for (size_t i = 1; i < MANY_MAPPINGS; i += 2)
        must(mprotect(at + i * PAGE_BYTES, PAGE_BYTES, PROT_NONE), "mprotect");
    for (size_t i = 0; i < MANY_MAPPINGS; i += 2)
        pages_fill(at + i * PAGE_BYTES, p->id + 5, i, 1);
    check_twice(p->at, p->id, 0, NPAGES);
    for (size_t i = 0; i < MANY_MAPPINGS; i += 2)
        pages_check(at + i * PAGE_BYTES, p->id + 5, i, 1);
    must(munmap(at, (size_t)MANY_MAPPINGS * PAGE_BYTES), "munmap");
    unmap_all(p);
}

/* ---- mremap ---- */

static void case_remap_grow(struct place *p)
{
    char *at = must_remap(p->at, BYTES, 2 * BYTES, MREMAP_MAYMOVE, NULL);
    check_twice(at, p->id, 0, NPAGES);
    check_zero_twice(at + BYTES, NPAGES);
    pages_fill(at + BYTES, p->id, NPAGES, NPAGES);
    check_twice(at, p->id, 0, 2 * NPAGES);
    must(munmap(at, 2 * BYTES), "munmap");
}

static void case_remap_grow_in_place(struct place *p)
{
    char *room = must_map(NULL, 2 * BYTES, PROT_NONE, ANON);
    char *at = must_remap(p->at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    must(munmap(at + BYTES, BYTES), "munmap");
    must_remap(at, BYTES, 2 * BYTES, 0, NULL);
    pages_check_zero(at + BYTES, NPAGES);
    pages_fill(at + BYTES, p->id, NPAGES, NPAGES);
    check_twice(at, p->id, 0, 2 * NPAGES);
    must(munmap(at, 2 * BYTES), "munmap");
}

/* The kernel fills what a locked mapping grows by, in the midst of moving it. */
static void case_remap_locked(struct place *p)
{
    must(mlock(p->at, THIRD_BYTES), "mlock");
    char *target = pages_map(NPAGES);
    pages_fill(target, p->id + 18, 0, NPAGES);
    pages_put(target, NPAGES, p->where == PAGES_FLIGHT ? PAGES_REMOTE : p->where);
    char *at =
        must_remap(p->at, THIRD_BYTES, 2 * THIRD_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    pages_check(at, p->id, 0, THIRD);
    pages_check_zero(at + THIRD_BYTES, THIRD);
    must(munlock(at, BYTES), "munlock");
    pages_fill(at + THIRD_BYTES, p->id, THIRD, THIRD);
    check_twice(at, p->id, 0, 2 * THIRD);
    check_twice(at + 2 * THIRD_BYTES, p->id + 18, 2 * THIRD, THIRD);
    check_twice(p->at + THIRD_BYTES, p->id, THIRD, 2 * THIRD);
    must(munmap(target, BYTES), "munmap");
    unmap_all(p);
}

static void case_remap_shrink(struct place *p)
{
    must_remap(p->at, BYTES, THIRD_BYTES, 0, NULL);
    check_twice(p->at, p->id, 0, THIRD);
    must(munmap(p->at, THIRD_BYTES), "munmap");
}

static void case_remap_fixed(struct place *p)
{
    char *target = pages_map(NPAGES);
    pages_fill(target, p->id + 6, 0, NPAGES);
    pages_put(target, NPAGES, p->where == PAGES_FLIGHT ? PAGES_REMOTE : p->where);
    char *at = must_remap(p->at + THIRD_BYTES, THIRD_BYTES, THIRD_BYTES,
                          MREMAP_MAYMOVE | MREMAP_FIXED, target + THIRD_BYTES);
    check_twice(target, p->id + 6, 0, THIRD);
    check_twice(at, p->id, THIRD, THIRD);
    check_twice(target + 2 * THIRD_BYTES, p->id + 6, 2 * THIRD, THIRD);
    check_twice(p->at, p->id, 0, THIRD);
    must(munmap(target, BYTES), "munmap");
    unmap_all(p);
}

static void case_remap_back_and_forth(struct place *p)
{
    char *other = must_map(NULL, BYTES, PROT_NONE, ANON);
    for (int i = 0; i < 20; i++) {
        must_remap(p->at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, other);
        pages_check(other, p->id, 0, 1);
        must_map(p->at, BYTES, RW, ANON | MAP_FIXED_NOREPLACE);
        pages_fill(p->at, p->id + 7, 0, NPAGES);
        must_remap(other, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, p->at);
    }
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_remap_dontunmap(struct place *p)
{
    char *at = must_remap(p->at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    pages_land(); /* the old place is empty now, and may be used */
    pages_check_zero(p->at, NPAGES);
    pages_fill(p->at, p->id + 8, 0, NPAGES);
    check_twice(at, p->id, 0, NPAGES);
    check_twice(p->at, p->id + 8, 0, NPAGES);
    must(munmap(at, BYTES), "munmap");
    unmap_all(p);
}

/* ---- mprotect and brk ---- */

static void case_protect(struct place *p)
{
    static const int prots[] = {PROT_READ, RW, PROT_NONE, RW, PROT_READ, PROT_NONE, PROT_READ, RW};
    for (size_t i = 0; i < sizeof prots / sizeof *prots; i++) {
        must(mprotect(p->at + THIRD_BYTES, THIRD_BYTES, prots[i]), "mprotect");
        if (prots[i] & PROT_READ)
            pages_check(p->at + THIRD_BYTES, p->id, THIRD, THIRD);
        if (prots[i] & PROT_WRITE)
            pages_fill(p->at + THIRD_BYTES, p->id, THIRD, THIRD);
    }
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_protect_read(struct place *p)
{
    must(mprotect(p->at, BYTES, PROT_READ), "mprotect");
    pages_check(p->at, p->id, 0, NPAGES);
    must(mprotect(p->at, BYTES, PROT_READ | PROT_EXEC), "mprotect");
    pages_check(p->at, p->id, 0, NPAGES);
    must(mprotect(p->at, BYTES, RW), "mprotect");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

/* Writes a function that returns VALUE, at AT. */
static void write_function(char *at, uint32_t value)
{
    unsigned char code[6] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $VALUE, %eax; ret */
    memcpy(code + 1, &value, sizeof value);
    memcpy(at, code, sizeof code);
}

static void call_function(char *at, uint32_t value)
{
    uint32_t (*function)(void);
    memcpy(&function, &at, sizeof function);
    uint32_t got = function();
    if (got != value)
        pages_fail("the function returned %u, not %u", got, value);
}

/* Between memory that allows the same only can pages be moved: they leave from either kind. */
static void case_executable(struct place *p)
{
    must(mprotect(p->at + THIRD_BYTES, THIRD_BYTES, RW | PROT_EXEC), "mprotect");
    pages_check(p->at, p->id, 0, NPAGES);
    pages_press(p->at, NPAGES);
    check_twice(p->at, p->id, 0, NPAGES);
    must(mprotect(p->at, BYTES, RW | PROT_EXEC), "mprotect");
    for (uint32_t i = 0; i < NPAGES; i++)
        write_function(p->at + i * PAGE_BYTES, i);
    pages_press(p->at, NPAGES);
    for (uint32_t i = 0; i < NPAGES; i++)
        call_function(p->at + i * PAGE_BYTES, i);
    pages_fill(p->at, p->id, 0, NPAGES);
    must(mprotect(p->at, BYTES, RW), "mprotect");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_brk(struct place *p)
{
    char *end = sbrk(0);
    char *at = (char *)(((uintptr_t)end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    for (int i = 0; i < 3; i++) {
        must(brk(at + BYTES), "brk");
        pages_check_zero(at, NPAGES);
        pages_fill(at, p->id + 9, 0, NPAGES);
        check_twice(at, p->id + 9, 0, NPAGES);
        if (p->where != PAGES_RESIDENT)
            pages_press_some(at, NPAGES);
        must(brk(at + THIRD_BYTES), "brk");
        check_twice(at, p->id + 9, 0, THIRD);
        must(brk(at + BYTES), "brk");
        check_zero_twice(at + THIRD_BYTES, 2 * THIRD);
        must(brk(end), "brk");
    }
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

/* ---- madvise ---- */

static void discard(struct place *p, int advice)
{
    must(madvise(p->at + THIRD_BYTES, THIRD_BYTES, advice), "madvise");
    pages_check_zero(p->at + THIRD_BYTES, THIRD);
    check_twice(p->at, p->id, 0, THIRD);
    check_zero_twice(p->at + THIRD_BYTES, THIRD);
    pages_fill(p->at + THIRD_BYTES, p->id + 10, 0, THIRD);
    check_twice(p->at + THIRD_BYTES, p->id + 10, 0, THIRD);
    check_twice(p->at + 2 * THIRD_BYTES, p->id, 2 * THIRD, THIRD);
    unmap_all(p);
}

static void case_dontneed(struct place *p)
{
    discard(p, MADV_DONTNEED);
}

static void case_dontneed_locked(struct place *p)
{
    discard(p, MADV_DONTNEED_LOCKED);
}

/* Each page is as it was or zero; once written again it stays. */
static void case_free(struct place *p)
{
    must(madvise(p->at, BYTES, MADV_FREE), "madvise");
    pages_press_some(p->at, NPAGES);
    for (size_t i = 0; i < NPAGES; i++) {
        char *page = p->at + i * PAGE_BYTES;
        if (page[0] || page[PAGE_BYTES - 1])
            pages_check(page, p->id, i, 1);
        else
            pages_check_zero(page, 1);
    }
    pages_fill(p->at, p->id + 11, 0, NPAGES);
    pages_check(p->at, p->id + 11, 0, NPAGES);
    check_twice(p->at, p->id + 11, 0, NPAGES);
    unmap_all(p);
}

/* Only for shared memory: private memory is left as it is. */
static void case_remove(struct place *p)
{
    if (madvise(p->at, BYTES, MADV_REMOVE) == 0)
        pages_fail("MADV_REMOVE of private memory went well");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void advise(struct place *p, int advice, bool may_fail)
{
    int result = madvise(p->at + THIRD_BYTES, THIRD_BYTES, advice);
    if (result && !may_fail)
        pages_fail("madvise(%d): %s", advice, strerror(errno));
    check_twice(p->at, p->id, 0, NPAGES);
    pages_fill(p->at, p->id + 12, 0, NPAGES);
    check_twice(p->at, p->id + 12, 0, NPAGES);
    unmap_all(p);
}

static void case_willneed(struct place *p)
{
    advise(p, MADV_WILLNEED, true); /* EBADF where there is no swap support */
}

static void case_cold(struct place *p)
{
    advise(p, MADV_COLD, false);
}

static void case_pageout(struct place *p)
{
    advise(p, MADV_PAGEOUT, false);
}

static void case_nohugepage(struct place *p)
{
    advise(p, MADV_NOHUGEPAGE, true);
}

static void case_dontfork(struct place *p)
{
    advise(p, MADV_DONTFORK, false);
}

static void case_wipeonfork(struct place *p)
{
    advise(p, MADV_WIPEONFORK, false);
}

static void case_dontdump(struct place *p)
{
    advise(p, MADV_DONTDUMP, false);
}

static void case_populate_read(struct place *p)
{
    advise(p, MADV_POPULATE_READ, false);
}

static void case_populate_write(struct place *p)
{
    advise(p, MADV_POPULATE_WRITE, false);
}

/* Whether NPAGES pages are guards, each: even the kernel may not read them for us. */
static void check_guards(const char *at, size_t npages)
{
    int pipes[2];
    must(pipe(pipes), "pipe");
    for (size_t i = 0; i < npages; i++)
        if (write(pipes[1], at + i * PAGE_BYTES, 1) != -1 || errno != EFAULT)
            pages_fail("guard page %zu can be read", i);
    close(pipes[0]);
    close(pipes[1]);
}

static int by_system_call(void *at, size_t bytes, int advice)
{
    return (int)syscall(SYS_madvise, at, bytes, advice);
}

/* Linux 6.13 and newer. Reading the pages before and behind asks for what lies between, too. */
static void try_guards(struct place *p, int (*call)(void *at, size_t bytes, int advice))
{
    if (call(p->at + THIRD_BYTES, THIRD_BYTES, MADV_GUARD_INSTALL) == 0) {
        for (int i = 0; i < 2; i++) {
            check_twice(p->at, p->id, 0, THIRD);
            check_twice(p->at + 2 * THIRD_BYTES, p->id, 2 * THIRD, THIRD);
            check_guards(p->at + THIRD_BYTES, THIRD);
        }
        must(call(p->at + THIRD_BYTES, THIRD_BYTES, MADV_GUARD_REMOVE), "madvise");
        check_zero_twice(p->at + THIRD_BYTES, THIRD);
        pages_fill(p->at + THIRD_BYTES, p->id, THIRD, THIRD);
    } else if (errno != EINVAL) {
        pages_fail("madvise(MADV_GUARD_INSTALL): %s", strerror(errno));
    }
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_guard(struct place *p)
{
    try_guards(p, madvise);
}

/* Of which nobody hears. */
static void case_guard_by_call(struct place *p)
{
    try_guards(p, by_system_call);
}

/* Of which nobody hears, either. */
static void case_shmat(struct place *p)
{
    int id = shmget(IPC_PRIVATE, THIRD_BYTES, IPC_CREAT | 0600);
    if (id < 0)
        pages_fail("shmget: %s", strerror(errno));
    char *at = shmat(id, p->at + THIRD_BYTES, SHM_REMAP);
    must(shmctl(id, IPC_RMID, NULL), "shmctl");
    if (at != p->at + THIRD_BYTES)
        pages_fail("shmat: %s", strerror(errno));
    pages_check_zero(at, THIRD);
    pages_fill(at, p->id + 1, 0, THIRD);
    check_twice(p->at, p->id, 0, THIRD);
    pages_check(at, p->id + 1, 0, THIRD);
    must(shmdt(at), "shmdt");
    must_map(at, THIRD_BYTES, RW, ANON | MAP_FIXED);
    check_zero_twice(at, THIRD);
    pages_fill(at, p->id, THIRD, THIRD);
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_hugepage(struct place *p)
{
    enum { HUGE = 2 << 20 };
    char *map = must_map(NULL, 3 * HUGE, RW, ANON);
    char *at = (char *)(((uintptr_t)map + HUGE - 1) / HUGE * HUGE);
    (void)madvise(at, 2 * HUGE, MADV_HUGEPAGE);
    pages_fill(at, p->id + 13, 0, 2 * HUGE / PAGE_BYTES);
    check_twice(at, p->id + 13, 0, 2 * HUGE / PAGE_BYTES);
    must(munmap(map, 3 * HUGE), "munmap");
    (void)madvise(p->at, BYTES, MADV_HUGEPAGE);
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

/* ---- locking and looking ---- */

static void case_lock(struct place *p)
{
    must(mlock(p->at + THIRD_BYTES, THIRD_BYTES), "mlock");
    if (pages_present(p->at + THIRD_BYTES, THIRD) != THIRD)
        pages_fail("locked pages are not in memory");
    pages_check(p->at + THIRD_BYTES, p->id, THIRD, THIRD);
    check_twice(p->at, p->id, 0, THIRD);
    if (pages_present(p->at + THIRD_BYTES, THIRD) != THIRD)
        pages_fail("locked pages have left memory");
    must(munlock(p->at, BYTES), "munlock");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

/* What is mapped from now on is locked; then all is let go, and can leave again. */
static void case_lock_future(struct place *p)
{
    must(mlockall(MCL_FUTURE), "mlockall");
    char *at = pages_map(NPAGES);
    pages_fill(at, p->id + 14, 0, NPAGES);
    check_twice(p->at, p->id, 0, NPAGES);
    pages_check(at, p->id + 14, 0, NPAGES);
    must(munlockall(), "munlockall");
    check_twice(at, p->id + 14, 0, NPAGES);
    must(munmap(at, BYTES), "munmap");
    unmap_all(p);
}

/* All of the program is brought in and locked, over the budget; afterwards it fits again. */
static void case_lock_all(struct place *p)
{
    must(mlockall(MCL_CURRENT), "mlockall");
    pages_check(p->at, p->id, 0, NPAGES);
    must(munlockall(), "munlockall");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

static void case_incore(struct place *p)
{
    unsigned char in[NPAGES];
    must(mincore(p->at, BYTES, in), "mincore");
    pages_check(p->at, p->id, 0, 1);
    must(mincore(p->at, BYTES, in), "mincore");
    if (!in[0])
        pages_fail("mincore: the page that was just read is not there");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
    if (mincore(p->at, BYTES, in) == 0 || errno != ENOMEM)
        pages_fail("mincore of unmapped memory");
}

static void case_sync(struct place *p)
{
    must(msync(p->at, BYTES, MS_SYNC), "msync");
    must(msync(p->at, BYTES, MS_ASYNC | MS_INVALIDATE), "msync");
    check_twice(p->at, p->id, 0, NPAGES);
    unmap_all(p);
}

/* ---- memory that is not ours to manage ---- */

static void case_shared(struct place *p)
{
    char *shared = must_map(NULL, BYTES, RW, MAP_SHARED | MAP_ANONYMOUS);
    char path[] = "calls-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || unlink(path) || ftruncate(fd, BYTES))
        pages_fail("file: %s", strerror(errno));
    char *file = mmap(NULL, BYTES, RW, MAP_SHARED, fd, 0);
    char *own = mmap(NULL, BYTES, RW, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED || own == MAP_FAILED)
        pages_fail("mmap of a file: %s", strerror(errno));
    pages_fill(shared, p->id + 15, 0, NPAGES);
    pages_fill(file, p->id + 16, 0, NPAGES);
    pages_fill(own, p->id + 17, 0, THIRD);
    check_twice(p->at, p->id, 0, NPAGES);
    pages_check(shared, p->id + 15, 0, NPAGES);
    pages_check(file, p->id + 16, 0, NPAGES);
    pages_check(own, p->id + 17, 0, THIRD);
    pages_check(own + THIRD_BYTES, p->id + 16, THIRD, 2 * THIRD);
    if (pages_managed() && pages_present(shared, NPAGES) != NPAGES)
        pages_fail("shared memory was taken out");
    must(madvise(shared, THIRD_BYTES, MADV_REMOVE), "madvise");
    pages_check_zero(shared, THIRD);
    must(munmap(shared, BYTES), "munmap");
    must(munmap(file, BYTES), "munmap");
    must(munmap(own, BYTES), "munmap");
    close(fd);
    unmap_all(p);
}

static const struct {
    const char *name;
    void (*run)(struct place *place);
} cases[] = {
    {"nothing", case_nothing},
    {"mmap MAP_FIXED", case_map_fixed},
    {"mmap MAP_FIXED MAP_SHARED", case_map_fixed_shared},
    {"mmap MAP_NORESERVE", case_map_noreserve},
    {"mmap PROT_NONE, opened later", case_reservation},
    {"mmap of 1 TiB", case_tebibyte},
    {"munmap of parts", case_unmap_parts},
    {"thousands of mappings", case_many_mappings},
    {"mremap, grown", case_remap_grow},
    {"mremap, grown in place", case_remap_grow_in_place},
    {"mremap, locked and grown", case_remap_locked},
    {"mremap, shrunk", case_remap_shrink},
    {"mremap MREMAP_FIXED", case_remap_fixed},
    {"mremap back and forth", case_remap_back_and_forth},
    {"mremap MREMAP_DONTUNMAP", case_remap_dontunmap},
    {"mprotect", case_protect},
    {"mprotect of all", case_protect_read},
    {"mprotect, executable", case_executable},
    {"brk", case_brk},
    {"madvise MADV_DONTNEED", case_dontneed},
    {"madvise MADV_DONTNEED_LOCKED", case_dontneed_locked},
    {"madvise MADV_FREE", case_free},
    {"madvise MADV_REMOVE", case_remove},
    {"madvise MADV_WILLNEED", case_willneed},
    {"madvise MADV_COLD", case_cold},
    {"madvise MADV_PAGEOUT", case_pageout},
    {"madvise MADV_HUGEPAGE", case_hugepage},
    {"madvise MADV_NOHUGEPAGE", case_nohugepage},
    {"madvise MADV_DONTFORK", case_dontfork},
    {"madvise MADV_WIPEONFORK", case_wipeonfork},
    {"madvise MADV_DONTDUMP", case_dontdump},
    {"madvise MADV_POPULATE_READ", case_populate_read},
    {"madvise MADV_POPULATE_WRITE", case_populate_write},
    {"madvise MADV_GUARD_INSTALL", case_guard},
    {"madvise MADV_GUARD_INSTALL, the call alone", case_guard_by_call},
    {"shmat SHM_REMAP", case_shmat},
    {"mlock", case_lock},
    {"mlockall MCL_FUTURE", case_lock_future},
    {"mlockall MCL_CURRENT", case_lock_all},
    {"mincore", case_incore},
    {"msync", case_sync},
    {"shared memory and files", case_shared},
};

int main(int argc, char **argv)
{
    size_t ballast_mib = 32;
    const char *only = NULL;
    bool some = false;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--ballast=", 10) == 0)
            ballast_mib = strtoul(argv[i] + 10, NULL, 10);
        else if (strcmp(argv[i], "--some") == 0)
            some = true;
        else
            only = argv[i];
    setvbuf(stdout, NULL, _IOLBF, 0);
    pages_start(ballast_mib << 20);
    uint64_t id = 0;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        if (only && strcmp(only, cases[c].name) != 0)
            continue;
        for (enum pages_where where = 0; where < PAGES_NWHERE; where++) {
            if (some && c % PAGES_NWHERE != where)
                continue;
            char title[100];
            snprintf(title, sizeof title, "%s, %s", cases[c].name, pages_where_names[where]);
            pages_name(title);
            id += 100;
            struct place place = {pages_map(NPAGES), id, where};
            pages_fill(place.at, id, 0, NPAGES);
            pages_put(place.at, NPAGES, where);
            cases[c].run(&place);
            pages_land();
            printf("ok %s\n", title);
        }
    }
    pages_end();
    return 0;
}
