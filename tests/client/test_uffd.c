/* uffd: what the kernel says of memory that is there, that is somebody else's, and that has ended.
 */
#include "../../client/uffd.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../client/fd_message.h"

enum { PAGE = 4096, PAGES = 8, SIZE = PAGES * PAGE };

struct advice {
    int32_t page, advice;
};

struct child {
    pid_t pid;
    int connection;
    int uffd;
    uint64_t start; /* of SIZE bytes */
};

static int new_uffd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    int device = fd < 0 ? open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) : -1;
    if (device >= 0) {
        fd = ioctl(device, KUFFD_IOCTL_NEW, O_CLOEXEC | O_NONBLOCK);
        close(device);
    }
    return fd;
}

/* A program with memory and a userfaultfd for it, which it hands to us. It gives up the pages that
 * it is told of, by the advice that comes with each. */
static void be_program(int connection)
{
    char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = new_uffd();
    uint64_t start = (uint64_t)at;
    if (fd < 0 || at == MAP_FAILED || fd_message_send(connection, &start, sizeof start, &fd, 1, 0))
        _exit(1);
    for (struct advice advice;;) {
        int none[FD_MESSAGE_FDS];
        if (fd_message_receive(connection, &advice, sizeof advice, none, 0))
            pause();
        int32_t err = madvise(at + advice.page * PAGE, PAGE, advice.advice) ? errno : 0;
        if (fd_message_send(connection, &err, sizeof err, NULL, 0, 0))
            pause();
    }
}

/* Skips the test where userfaultfd is not allowed. */
static struct child begin(void)
{
    int pair[2], fds[FD_MESSAGE_FDS];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    struct child child = {.pid = fork()};
    assert_true(child.pid >= 0);
    if (child.pid == 0)
        be_program(pair[1]);
    close(pair[1]);
    int err = fd_message_receive(pair[0], &child.start, sizeof child.start, fds, 0);
    child.connection = pair[0];
    if (err) {
        close(pair[0]);
        assert_int_equal(waitpid(child.pid, NULL, 0), child.pid);
        skip();
    }
    child.uffd = fds[0];
    bool has_fork_event;
    assert_int_equal(uffd_begin(child.uffd, &has_fork_event), 0);
    return child;
}

static void end(const struct child *child)
{
    close(child->connection);
    kill(child->pid, SIGKILL);
    assert_int_equal(waitpid(child->pid, NULL, 0), child->pid);
}

static void test_there(void **state)
{
    (void)state;
    static const char page[PAGE] = "a page";
    struct child child = begin();
    assert_int_equal(uffd_copy(child.uffd, child.start, page, 1), -ENOENT); /* not registered */
    assert_int_equal(uffd_register(child.uffd, child.start, child.start + SIZE), 0);
    assert_int_equal(uffd_copy(child.uffd, child.start, page, 1), 1);
    assert_int_equal(uffd_copy(child.uffd, child.start, page, 1), -EEXIST);
    assert_int_equal(uffd_zero(child.uffd, child.start + PAGE, PAGES - 1), PAGES - 1);
    assert_true(uffd_is_quiet(child.uffd));
    assert_int_equal(uffd_register(child.uffd, child.start, child.start + PAGE / 2), -EINVAL);
    end(&child);
    close(child.uffd);
}

static void test_gone(void **state)
{
    (void)state;
    static const char page[PAGE];
    struct child child = begin();
    assert_int_equal(uffd_register(child.uffd, child.start, child.start + PAGE), 0);
    end(&child);
    assert_int_equal(uffd_register(child.uffd, child.start, child.start + SIZE), -ESRCH);
    assert_int_equal(uffd_register_plain(child.uffd, child.start, child.start + SIZE), -ESRCH);
    assert_int_equal(uffd_copy(child.uffd, child.start, page, 1), -ESRCH);
    assert_int_equal(uffd_zero(child.uffd, child.start, 1), -ESRCH);
    close(child.uffd);
}

static uint64_t find_empty(const struct child *child)
{
    char path[64];
    uint64_t empty = 0;
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)child->pid);
    int pagemap = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(pagemap >= 0);
    assert_true(uffd_find_empty(pagemap, child->start / PAGE, PAGES, &empty));
    close(pagemap);
    return empty;
}

/* False: the kernel does not know the advice. */
static bool give_up(const struct child *child, int page, int advice)
{
    struct advice words = {page, advice};
    int32_t err;
    int none[FD_MESSAGE_FDS];
    assert_int_equal(fd_message_send(child->connection, &words, sizeof words, NULL, 0, 0), 0);
    assert_int_equal(fd_message_receive(child->connection, &err, sizeof err, none, 0), 0);
    assert_true(err == 0 || err == EINVAL);
    return err == 0;
}

/* What the kernel does with what is in the place of a page that is outside. */
static void test_seals(void **state)
{
    (void)state;
    enum { GUARD_INSTALL = 102, GUARD_REMOVE = 103, ALL = (1 << PAGES) - 1 };
    static const char bytes[PAGE];
    struct child child = begin();
    assert_int_equal(uffd_register(child.uffd, child.start, child.start + SIZE), 0);
    assert_int_equal(find_empty(&child), ALL);
    struct uffdio_writeprotect seal = {.range = {child.start, SIZE - PAGE},
                                       .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    assert_int_equal(ioctl(child.uffd, UFFDIO_WRITEPROTECT, &seal), 0);
    assert_int_equal(find_empty(&child), 1 << (PAGES - 1));
    /* What is put in there is not write-protected; zeros are not put there. */
    assert_int_equal(uffd_copy(child.uffd, child.start, bytes, 1), 1);
    assert_int_equal(uffd_zero(child.uffd, child.start + PAGE, 1), -EEXIST);
    assert_int_equal(uffd_unseal(child.uffd, child.start + PAGE, 1), 0);
    assert_int_equal(find_empty(&child), 1 << (PAGES - 1) | 1 << 1);
    assert_int_equal(uffd_zero(child.uffd, child.start + PAGE, 1), 1);
    if (give_up(&child, 2, GUARD_INSTALL)) {
        assert_int_equal(find_empty(&child), 1 << (PAGES - 1) | 1 << 2);
        assert_true(give_up(&child, 2, GUARD_REMOVE));
        assert_int_equal(find_empty(&child), 1 << (PAGES - 1) | 1 << 2);
    }
    end(&child);
    close(child.uffd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_seals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
