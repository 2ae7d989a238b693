#include "floor.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pages.h"
#include "tcp.h"

struct floor {
    char *addr;
    int uffd;
    int server;
    uint32_t *fifo; // which pages are resident, a ring
    size_t budget_npages, nresident, oldest;
};

static void serve_pages(int fd, void *arg)
{
    size_t npages = *(size_t *)arg;
    uint64_t *pages =
        mmap(NULL, npages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        err(1, "mmap");
    for (size_t page = 0; page < npages; page++)
        page_fill(pages + page * PAGE_WORDS, page, 0);
    char ready = 1;
    tcp_write(fd, &ready, 1);
    uint64_t page;
    while (tcp_read(fd, &page, sizeof(page)))
        tcp_write(fd, pages + page % npages * PAGE_WORDS, PAGE_BYTES);
}

static void drop_oldest(struct floor *floor)
{
    if (madvise(floor->addr + (size_t)floor->fifo[floor->oldest] * PAGE_BYTES, PAGE_BYTES,
                MADV_DONTNEED) != 0)
        err(1, "MADV_DONTNEED");
    floor->oldest = (floor->oldest + 1) % floor->budget_npages;
    floor->nresident--;
}

static void *answer(void *arg)
{
    struct floor *floor = arg;
    static uint64_t content[PAGE_WORDS] __attribute__((aligned(PAGE_BYTES)));
    for (;;) {
        struct uffd_msg message;
        if (read(floor->uffd, &message, sizeof(message)) != sizeof(message))
            err(1, "userfaultfd");
        uint64_t addr = message.arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1);
        uint64_t page = (addr - (uintptr_t)floor->addr) / PAGE_BYTES;
        tcp_write(floor->server, &page, sizeof(page));
        if (!tcp_read(floor->server, content, sizeof(content)))
            errx(1, "the page server is gone");
        struct uffdio_copy copy = {.dst = addr, .src = (uintptr_t)content, .len = PAGE_BYTES};
        if (ioctl(floor->uffd, UFFDIO_COPY, &copy) != 0) {
            if (errno != EEXIST)
                err(1, "UFFDIO_COPY");
            // Two threads wanted it: both messages were there before the first was answered.
            struct uffdio_range range = {.start = addr, .len = PAGE_BYTES};
            if (ioctl(floor->uffd, UFFDIO_WAKE, &range) != 0)
                err(1, "UFFDIO_WAKE");
            continue;
        }
        if (floor->nresident == floor->budget_npages)
            drop_oldest(floor);
        floor->fifo[(floor->oldest + floor->nresident++) % floor->budget_npages] = (uint32_t)page;
    }
    return NULL;
}

void floor_start(void *addr, size_t npages, size_t budget_npages)
{
    struct floor *floor = calloc(1, sizeof(*floor));
    if (floor == NULL || (floor->fifo = calloc(budget_npages, sizeof(uint32_t))) == NULL)
        err(1, "calloc");
    floor->addr = addr;
    floor->budget_npages = budget_npages;
    floor->server = tcp_serve(serve_pages, &npages);
    char ready;
    if (!tcp_read(floor->server, &ready, 1))
        errx(1, "the page server did not start");
    floor->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register whole = {.range = {.start = (uintptr_t)addr, .len = npages * PAGE_BYTES},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (floor->uffd < 0 || ioctl(floor->uffd, UFFDIO_API, &api) != 0 ||
        ioctl(floor->uffd, UFFDIO_REGISTER, &whole) != 0)
        err(1, "userfaultfd");
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, floor) != 0)
        errx(1, "no thread");
}
