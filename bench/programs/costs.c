// costs WHAT [pages]: what the kernel's calls cost that a page needs on its way, in microseconds of
// this thread's processor time.
//
//   zero    UFFDIO_ZEROPAGE, so many pages at once, and a write to each
//   copy    UFFDIO_COPY of zeros, and a write to each
//   hold    UFFDIO_MOVE into the gate and on into the hold, a copy, MADV_DONTNEED
//   gate    UFFDIO_MOVE into the gate, which is unregistered, copied, emptied and registered again
#include <err.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BATCH = 128, PAGES = 48 << 10, POOL_BATCHES = 16, FEATURE_MOVE = 1 << 16 };

// Older headers do not know it.
struct move {
    uint64_t dst, src, len, mode;
    int64_t moved;
};
#define IOCTL_MOVE _IOWR(0xAA, 0x05, struct move)

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static char *map(size_t npages, int protection)
{
    char *at = mmap(NULL, npages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || madvise(at, npages * PAGE, MADV_NOHUGEPAGE) != 0)
        err(1, "mmap");
    return at;
}

static void call(int uffd, unsigned long what, void *arg)
{
    if (ioctl(uffd, what, arg) != 0)
        err(1, "userfaultfd");
}

static void registered(int uffd, char *at, size_t npages)
{
    struct uffdio_register range = {.range = {(uintptr_t)at, npages * PAGE},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    call(uffd, UFFDIO_REGISTER, &range);
}

static int open_uffd(uint64_t features)
{
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (uffd < 0)
        err(1, "userfaultfd");
    call(uffd, UFFDIO_API, &api);
    return uffd;
}

static void fill(int copies, size_t at_once)
{
    int uffd = open_uffd(0);
    char *pages = map(PAGES, PROT_READ | PROT_WRITE), *zeros = map(at_once, PROT_READ);
    registered(uffd, pages, PAGES);
    double calls = 0, writes = 0;
    size_t done = 0;
    for (; done + at_once <= PAGES; done += at_once) {
        char *at = pages + done * PAGE;
        struct uffdio_range range = {(uintptr_t)at, at_once * PAGE};
        struct uffdio_zeropage zero = {.range = range};
        struct uffdio_copy copy = {.dst = range.start, .src = (uintptr_t)zeros, .len = range.len};
        double begun = now_us();
        call(uffd, copies ? UFFDIO_COPY : UFFDIO_ZEROPAGE, copies ? (void *)&copy : (void *)&zero);
        double called = now_us();
        for (size_t i = 0; i < at_once; i++)
            at[i * PAGE] = 1;
        calls += called - begun;
        writes += now_us() - called;
    }
    printf("%zu pages at once: call %.3f, writes %.3f us a page\n", at_once, calls / (double)done,
           writes / (double)done);
}

static void move(int uffd, char *to, char *from)
{
    struct move move = {(uintptr_t)to, (uintptr_t)from, BATCH * PAGE, 0, 0};
    call(uffd, IOCTL_MOVE, &move);
}

static void evict(int with_hold)
{
    int uffd = open_uffd(FEATURE_MOVE | UFFD_FEATURE_EVENT_REMOVE), plain = open_uffd(FEATURE_MOVE);
    char *pages = map(PAGES, PROT_READ | PROT_WRITE);
    char *gate = map(BATCH, PROT_READ | PROT_WRITE), *hold = map(BATCH, PROT_READ | PROT_WRITE);
    char *pool = map(POOL_BATCHES * BATCH, PROT_READ | PROT_WRITE);
    memset(pages, 1, (size_t)PAGES * PAGE);
    memset(pool, 1, (size_t)POOL_BATCHES * BATCH * PAGE);
    registered(uffd, pages, PAGES);
    registered(uffd, gate, BATCH);
    registered(plain, hold, BATCH);
    double us[5] = {0};
    struct uffdio_range range = {(uintptr_t)gate, BATCH * PAGE};
    char *from = with_hold ? hold : gate;
    for (size_t i = 0; i < PAGES / BATCH; i++) {
        double at[6] = {now_us()};
        move(uffd, gate, pages + i * BATCH * PAGE);
        at[1] = now_us();
        if (with_hold)
            move(plain, hold, gate);
        else
            call(uffd, UFFDIO_UNREGISTER, &range);
        at[2] = now_us();
        memcpy(pool + i % POOL_BATCHES * BATCH * PAGE, from, BATCH * PAGE);
        at[3] = now_us();
        if (madvise(from, BATCH * PAGE, MADV_DONTNEED) != 0)
            err(1, "madvise");
        at[4] = now_us();
        if (!with_hold)
            registered(uffd, gate, BATCH);
        at[5] = now_us();
        for (int step = 0; step < 5; step++)
            us[step] += (at[step + 1] - at[step]) / PAGES;
    }
    printf("move %.3f, %s %.3f, copy %.3f, drop %.3f, register %.3f us a page\n", us[0],
           with_hold ? "move" : "unregister", us[1], us[2], us[3], us[4]);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    size_t at_once = argc > 2 ? strtoul(argv[2], NULL, 10) : 512;
    if (at_once < 1 || at_once > PAGES)
        errx(2, "out of range");
    if (strcmp(what, "zero") == 0 || strcmp(what, "copy") == 0)
        fill(*what == 'c', at_once);
    else if (strcmp(what, "hold") == 0 || strcmp(what, "gate") == 0)
        evict(*what == 'h');
    else
        errx(2, "usage: costs zero|copy|hold|gate [pages]");
    return 0;
}
