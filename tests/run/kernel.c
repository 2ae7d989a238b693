/*
 * kernel: system calls that read and write memory which is in the store at that moment.
 *
 *     kernel [--ballast=MIB] [NAME]
 *
 * Prints a line for each case; run under edm and natively, the lines have to be the same. A case
 * the kernel does not allow says so in its line.
 */
#include "pages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

enum { NPAGES = 64, BYTES = NPAGES * PAGE_BYTES, ID = 7, OTHER = 8, RW = PROT_READ | PROT_WRITE };

static int file; /* BYTES long, filled as OTHER */

static char *filled(uint64_t id)
{
    char *at = pages_map(NPAGES);
    pages_fill(at, id, 0, NPAGES);
    return at;
}

static void out(char *at)
{
    pages_press(at, NPAGES);
}

static bool case_read(char *at)
{
    pages_must(pread(file, at, BYTES, 0) == BYTES, "pread");
    pages_check(at, OTHER, 0, NPAGES);
    return true;
}

static bool case_write(char *at)
{
    char path[] = "kernel-XXXXXX";
    int fd = mkstemp(path);
    pages_must(fd >= 0 && unlink(path) == 0, "mkstemp");
    pages_must(write(fd, at, BYTES) == BYTES, "write");
    char *back = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
    pages_must(back != MAP_FAILED, "mmap");
    pages_check(back, ID, 0, NPAGES);
    munmap(back, BYTES);
    close(fd);
    return true;
}

/* The vectors themselves are in the store too. */
static bool case_readv(char *at)
{
    char *more = filled(ID);
    struct iovec *vectors = (struct iovec *)at;
    for (int i = 0; i < NPAGES; i++)
        vectors[i] = (struct iovec){more + (NPAGES - 1 - i) * PAGE_BYTES, PAGE_BYTES};
    out(at);
    out(more);
    pages_must(preadv(file, vectors, NPAGES, 0) == BYTES, "preadv");
    for (size_t i = 0; i < NPAGES; i++)
        pages_check(more + (NPAGES - 1 - i) * PAGE_BYTES, OTHER, i, 1);
    munmap(more, BYTES);
    return true;
}

static bool case_sockets(char *at)
{
    char *to = filled(OTHER);
    int ends[2];
    pages_must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
    out(at);
    out(to);
    for (size_t i = 0; i < NPAGES; i++) {
        struct iovec vectors[2] = {{at + i * PAGE_BYTES, 100},
                                   {at + i * PAGE_BYTES + 100, PAGE_BYTES - 100}};
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = 2};
        pages_must(sendmsg(ends[0], &message, 0) == PAGE_BYTES, "sendmsg");
        pages_must(recv(ends[1], to + i * PAGE_BYTES, PAGE_BYTES, MSG_WAITALL) == PAGE_BYTES,
                   "recv");
    }
    pages_check(to, ID, 0, NPAGES);
    close(ends[0]);
    close(ends[1]);
    munmap(to, BYTES);
    return true;
}

static void *wake(void *arg)
{
    _Atomic int *word = arg;
    *word = 1;
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    return NULL;
}

static bool case_futex(char *at)
{
    _Atomic int *word = (_Atomic int *)at;
    *word = 0;
    out(at);
    pthread_t thread;
    pages_must(pthread_create(&thread, NULL, wake, (void *)word) == 0, "pthread_create");
    while (*word == 0)
        (void)syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
    pthread_join(thread, NULL);
    out(at);
    pages_must(syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0) == -1 && errno == EAGAIN,
               "FUTEX_WAIT on another value");
    pages_check(at + PAGE_BYTES, ID, 1, NPAGES - 1);
    return true;
}

static bool case_getdents(char *at)
{
    int fd = open("/proc/self", O_RDONLY | O_DIRECTORY);
    pages_must(fd >= 0, "open");
    long got = syscall(SYS_getdents64, fd, at, BYTES);
    pages_must(got > 0, "getdents64");
    close(fd);
    bool found = false;
    for (long i = 0; i < got;) {
        unsigned short length;
        memcpy(&length, at + i + 16, sizeof length);
        found = found || strcmp(at + i + 19, "pagemap") == 0;
        i += length;
    }
    if (!found)
        pages_fail("no pagemap in /proc/self");
    return true;
}

static bool case_ioctl(char *at)
{
    int ends[2];
    pages_must(pipe(ends) == 0 && write(ends[1], "12345", 5) == 5, "pipe");
    pages_must(ioctl(ends[0], FIONREAD, at) == 0, "FIONREAD");
    int there;
    memcpy(&there, at, sizeof there);
    if (there != 5)
        pages_fail("FIONREAD: %d", there);
    out(at);
    struct stat *status = (struct stat *)(at + PAGE_BYTES);
    pages_must(fstat(file, status) == 0 && status->st_size == BYTES, "fstat");
    close(ends[0]);
    close(ends[1]);
    pages_check(at + 2 * PAGE_BYTES, ID, 2, NPAGES - 2);
    return true;
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    char used[3 * PAGE_BYTES];
    memset(used, number, sizeof used);
    signals += used[PAGE_BYTES] == number;
}

/* The kernel writes the frame to a stack that is in the store. */
static bool case_signal_frame(char *at)
{
    stack_t stack = {.ss_sp = at, .ss_size = BYTES}, old;
    pages_must(sigaltstack(&stack, &old) == 0, "sigaltstack");
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    pages_must(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    for (int i = 0; i < 5; i++) {
        out(at);
        signals = 0;
        raise(SIGUSR1);
        if (signals != 1)
            pages_fail("%d signals", (int)signals);
    }
    pages_must(sigaltstack(&old, NULL) == 0, "sigaltstack");
    pages_check(at, ID, 0, NPAGES / 2); /* a stack grows down */
    return true;
}

static void *take_and_end(void *mutex)
{
    pthread_mutex_lock(mutex);
    return NULL;
}

static pthread_barrier_t taken, may_end;

static void *take_and_wait(void *mutex)
{
    pthread_mutex_lock(mutex);
    pthread_barrier_wait(&taken);
    pthread_barrier_wait(&may_end);
    return NULL;
}

/* The holder of a robust mutex ends after all around it has gone to the store. */
static bool case_robust_alone(char *at)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t *mutex = (pthread_mutex_t *)(at + PAGE_BYTES - 24); /* in two pages */
    memset(at, 0, 2 * PAGE_BYTES);
    pages_must(pthread_mutex_init(mutex, &attr) == 0, "pthread_mutex_init");
    pthread_barrier_init(&taken, NULL, 2);
    pthread_barrier_init(&may_end, NULL, 2);
    pthread_t thread;
    pages_must(pthread_create(&thread, NULL, take_and_wait, mutex) == 0, "pthread_create");
    pthread_barrier_wait(&taken);
    pages_press(at + 2 * PAGE_BYTES, NPAGES - 2);
    pages_press_some(at, 2);
    pthread_barrier_wait(&may_end);
    pthread_join(thread, NULL);
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_sec += 10;
    if (pthread_mutex_timedlock(mutex, &soon) != EOWNERDEAD)
        pages_fail("the owner's death was not told");
    pages_must(pthread_mutex_consistent(mutex) == 0 && pthread_mutex_unlock(mutex) == 0, "mutex");
    pages_must(pthread_mutex_destroy(mutex) == 0, "pthread_mutex_destroy");
    pages_check(at + 2 * PAGE_BYTES, ID, 2, NPAGES - 2);
    return true;
}

/* The holder of a robust mutex has ended, and all around goes to the store. */
static bool case_robust(char *at)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t *mutex = (pthread_mutex_t *)at;
    memset(at, 0, PAGE_BYTES);
    pthread_mutex_init(mutex, &attr);
    pthread_t thread;
    pages_must(pthread_create(&thread, NULL, take_and_end, mutex) == 0, "pthread_create");
    pthread_join(thread, NULL);
    pages_press(at + PAGE_BYTES, NPAGES - 1);
    if (pthread_mutex_lock(mutex) != EOWNERDEAD)
        pages_fail("the owner's death was not told");
    pages_must(pthread_mutex_consistent(mutex) == 0 && pthread_mutex_unlock(mutex) == 0, "mutex");
    /* What is no mutex any more may leave. */
    pages_must(pthread_mutex_destroy(mutex) == 0, "pthread_mutex_destroy");
    out(at);
    pages_check(at + PAGE_BYTES, ID, 1, NPAGES - 1);
    return true;
}

static bool case_direct(char *at)
{
    char path[] = "direct-XXXXXX";
    int fd = mkstemp(path);
    pages_must(fd >= 0, "mkstemp");
    close(fd);
    fd = open(path, O_RDWR | O_DIRECT);
    unlink(path);
    if (fd < 0)
        return false;
    pages_must(pwrite(fd, at, BYTES, 0) == BYTES, "pwrite");
    memset(at, 0, BYTES);
    out(at);
    pages_must(pread(fd, at, BYTES, 0) == BYTES, "pread");
    pages_check(at, ID, 0, NPAGES);
    close(fd);
    return true;
}

/* ---- io_uring, by its system calls ---- */

struct ring {
    int fd;
    struct io_uring_params params;
    char *queue;
    struct io_uring_sqe *entries;
    size_t queue_bytes, entries_bytes;
};

static bool ring_open(struct ring *ring)
{
    *ring = (struct ring){0};
    ring->fd = (int)syscall(SYS_io_uring_setup, 8, &ring->params);
    if (ring->fd < 0)
        return false;
    pages_must(ring->params.features & IORING_FEAT_SINGLE_MMAP, "one map");
    size_t sq = ring->params.sq_off.array + ring->params.sq_entries * sizeof(uint32_t);
    size_t cq = ring->params.cq_off.cqes + ring->params.cq_entries * sizeof(struct io_uring_cqe);
    ring->queue_bytes = sq > cq ? sq : cq;
    ring->entries_bytes = ring->params.sq_entries * sizeof *ring->entries;
    ring->queue =
        mmap(NULL, ring->queue_bytes, RW, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
    ring->entries =
        mmap(NULL, ring->entries_bytes, RW, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
    pages_must(ring->queue != MAP_FAILED && (void *)ring->entries != MAP_FAILED,
               "mmap of the ring");
    return true;
}

static void ring_close(struct ring *ring)
{
    munmap(ring->queue, ring->queue_bytes);
    munmap(ring->entries, ring->entries_bytes);
    close(ring->fd);
}

static uint32_t *ring_word(struct ring *ring, uint32_t offset)
{
    return (uint32_t *)(ring->queue + offset);
}

/* One request, waited for. */
static int ring_do(struct ring *ring, uint8_t op, int fd, void *at, unsigned bytes, bool async)
{
    uint32_t *tail = ring_word(ring, ring->params.sq_off.tail);
    uint32_t index = *tail & *ring_word(ring, ring->params.sq_off.ring_mask);
    struct io_uring_sqe *entry = &ring->entries[index];
    memset(entry, 0, sizeof *entry);
    entry->opcode = op;
    entry->fd = fd;
    entry->addr = (uint64_t)at;
    entry->len = bytes;
    entry->flags = async ? IOSQE_ASYNC : 0;
    ring_word(ring, ring->params.sq_off.array)[index] = index;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    pages_must(syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1,
               "io_uring_enter");
    uint32_t *head = ring_word(ring, ring->params.cq_off.head);
    struct io_uring_cqe *done = (struct io_uring_cqe *)(ring->queue + ring->params.cq_off.cqes);
    int result = done[*head & *ring_word(ring, ring->params.cq_off.ring_mask)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static bool case_uring(char *at)
{
    struct ring ring;
    if (!ring_open(&ring))
        return false;
    for (int async = 0; async < 2; async++) {
        pages_fill(at, ID, 0, NPAGES);
        out(at);
        pages_must(ring_do(&ring, IORING_OP_READ, file, at, BYTES, async) == BYTES,
                   "IORING_OP_READ");
        pages_check(at, OTHER, 0, NPAGES);
        out(at);
        pages_check(at, OTHER, 0, NPAGES);
    }
    ring_close(&ring);
    return true;
}

/* Registered buffers are pinned: what the kernel writes there later must be seen, though memory is
 * short all the while. */
static bool case_uring_pinned(char *at)
{
    struct ring ring;
    if (!ring_open(&ring))
        return false;
    struct iovec buffer = {at, BYTES};
    if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1)) {
        ring_close(&ring);
        return false;
    }
    pages_check(at, ID, 0, NPAGES);
    pages_press_some(at, NPAGES);
    pages_must(ring_do(&ring, IORING_OP_READ_FIXED, file, at, BYTES, false) == BYTES, "READ_FIXED");
    pages_check(at, OTHER, 0, NPAGES);
    pages_press_some(at, NPAGES);
    pages_check(at, OTHER, 0, NPAGES);
    ring_close(&ring);
    return true;
}

static const struct {
    const char *name;
    bool (*run)(char *at);
} cases[] = {
    {"read", case_read},
    {"write", case_write},
    {"readv", case_readv},
    {"sendmsg and recv", case_sockets},
    {"futex", case_futex},
    {"getdents", case_getdents},
    {"ioctl and fstat", case_ioctl},
    {"signal frames", case_signal_frame},
    {"robust mutex", case_robust},
    {"robust mutex, alone", case_robust_alone},
    {"O_DIRECT", case_direct},
    {"io_uring", case_uring},
    {"io_uring, pinned", case_uring_pinned},
};

static void make_file(void)
{
    char path[] = "kernel-XXXXXX";
    file = mkstemp(path);
    pages_must(file >= 0 && unlink(path) == 0, "mkstemp");
    char *at = filled(OTHER);
    pages_must(write(file, at, BYTES) == BYTES, "write");
    munmap(at, BYTES);
}

int main(int argc, char **argv)
{
    size_t ballast_mib = 32;
    const char *only = NULL;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--ballast=", 10) == 0)
            ballast_mib = strtoul(argv[i] + 10, NULL, 10);
        else
            only = argv[i];
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_file();
    pages_start(ballast_mib << 20);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        if (only && strcmp(only, cases[c].name) != 0)
            continue;
        pages_name(cases[c].name);
        char *at = filled(ID);
        out(at);
        bool allowed = cases[c].run(at);
        munmap(at, BYTES);
        printf("%s %s\n", allowed ? "ok" : "not allowed here:", cases[c].name);
    }
    return 0;
}
