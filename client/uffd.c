#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { PAGE = 4096, LOW_ADDRESS = 16 << 20 /* above every mmap_min_addr */ };

static const struct {
    uint64_t bit;
    const char *name;
    const char *since;
} needed[] = {
    {KUFFD_FEATURE_EVENT_REMAP, "EVENT_REMAP", "4.11"},
    {KUFFD_FEATURE_EVENT_REMOVE, "EVENT_REMOVE", "4.11"},
    {KUFFD_FEATURE_EVENT_UNMAP, "EVENT_UNMAP", "4.11"},
    {KUFFD_FEATURE_THREAD_ID, "THREAD_ID", "4.14"},
    {KUFFD_FEATURE_WP_ASYNC, "WP_ASYNC", "6.7"},
    {KUFFD_FEATURE_MOVE, "MOVE", "6.8"},
};

bool uffd_explain_features(uint64_t features, const char *release, char *why, size_t why_cap)
{
    for (size_t i = sizeof needed / sizeof *needed; i-- > 0;)
        if (!(features & needed[i].bit)) {
            snprintf(why, why_cap,
                     "this kernel (Linux %s) has no userfaultfd feature %s, which came with Linux "
                     "%s: EDM needs Linux 6.8 or newer",
                     release, needed[i].name, needed[i].since);
            return true;
        }
    return false;
}

static int explain_open(int err, char *why, size_t why_cap)
{
    if (err == -ENOSYS)
        snprintf(why, why_cap,
                 "this kernel has no userfaultfd: EDM needs Linux 6.8 or newer, built with "
                 "CONFIG_USERFAULTFD");
    else if (err == -EPERM || err == -EACCES)
        snprintf(
            why, why_cap,
            "no permission to use userfaultfd: give this user access to /dev/userfaultfd, or set "
            "vm.unprivileged_userfaultfd=1, or give CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH "
            "to the edm binary (setcap cap_sys_ptrace,cap_dac_read_search+ep)");
    else
        snprintf(why, why_cap, "cannot make a userfaultfd: %s", strerror(-err));
    return err;
}

static int open_own(int device)
{
    int fd = -1;
    if (device >= 0)
        fd = ioctl(device, KUFFD_IOCTL_NEW, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int uffd_check_machine(int device, char *why, size_t why_cap)
{
    int fd = open_own(device);
    if (fd < 0)
        return explain_open(fd, why, why_cap);
    struct uffdio_api api = {.api = UFFD_API};
    int err = ioctl(fd, UFFDIO_API, &api) ? -errno : 0;
    close(fd);
    if (err)
        return explain_open(err, why, why_cap);
    struct utsname name;
    uname(&name);
    return uffd_explain_features(api.features, name.release, why, why_cap) ? -ENOTSUP : 0;
}

static int begin(int fd, uint64_t features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (ioctl(fd, UFFDIO_API, &api))
        return -errno;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
        return -errno;
    return 0;
}

int uffd_begin(int fd, bool *has_fork_event)
{
    uint64_t features = 0;
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        features |= needed[i].bit;
    int err = begin(fd, features | KUFFD_FEATURE_EVENT_FORK);
    *has_fork_event = err == 0;
    if (err == -EPERM || err == -EINVAL)
        err = begin(fd, features);
    return err;
}

bool uffd_tells_of_forks(int device)
{
    int fd = open_own(device);
    bool tells = fd >= 0 && begin(fd, KUFFD_FEATURE_EVENT_FORK) == 0;
    if (fd >= 0)
        close(fd);
    return tells;
}

int uffd_begin_plain(int fd)
{
    return begin(fd, KUFFD_FEATURE_MOVE);
}

/* Whether the memory behind FD has ended. PAGE: an address a mapping may be at. CONTINUE is for
 * shared memory: of what a program has there it changes nothing. */
static bool is_gone(int fd, uint64_t page)
{
    struct uffdio_continue nothing = {.range = {page, PAGE}};
    return ioctl(fd, UFFDIO_CONTINUE, &nothing) != 0 && errno == ESRCH;
}

static int register_range(int fd, uint64_t start, uint64_t end, uint64_t mode)
{
    struct uffdio_register range = {.range = {start, end - start}, .mode = mode};
    if (ioctl(fd, UFFDIO_REGISTER, &range) == 0)
        return 0;
    int err = -errno;
    /* The kernel says ENOMEM of memory that has ended, too. */
    return err == -ENOMEM && is_gone(fd, start) ? -ESRCH : err;
}

int uffd_register(int fd, uint64_t start, uint64_t end)
{
    return register_range(fd, start, end, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
}

int uffd_register_plain(int fd, uint64_t start, uint64_t end)
{
    return register_range(fd, start, end, UFFDIO_REGISTER_MODE_MISSING);
}

int uffd_unregister(int fd, uint64_t start, uint64_t end)
{
    struct uffdio_range range = {start, end - start};
    return ioctl(fd, UFFDIO_UNREGISTER, &range) ? -errno : 0;
}

/* The count comes back short, zero, or as a negative errno in the result field itself. */
static long outcome(int fd, int failed, int err, int64_t done, uint64_t start, uint64_t npages)
{
    if (!failed)
        return (long)npages;
    if (done > 0)
        return (long)(done / PAGE);
    if (err == EEXIST)
        uffd_wake(fd, start, 1);
    return -err;
}

long uffd_copy(int fd, uint64_t to, const void *from, uint64_t npages)
{
    struct uffdio_copy copy = {.dst = to, .src = (uint64_t)from, .len = npages * PAGE};
    int failed = ioctl(fd, UFFDIO_COPY, &copy);
    if (failed && errno == ENOENT && npages > 1)
        /* The range has to lie in one mapping; neighbours may be two. */
        return uffd_copy(fd, to, from, 1);
    return outcome(fd, failed, errno, copy.copy, to, npages);
}

long uffd_zero(int fd, uint64_t start, uint64_t npages)
{
    struct uffdio_zeropage zero = {.range = {start, npages * PAGE}};
    int failed = ioctl(fd, UFFDIO_ZEROPAGE, &zero);
    if (failed && errno == ENOENT && npages > 1)
        return uffd_zero(fd, start, 1);
    return outcome(fd, failed, errno, zero.zeropage, start, npages);
}

int uffd_unseal(int fd, uint64_t start, uint64_t npages)
{
    struct uffdio_writeprotect none = {.range = {start, npages * PAGE},
                                       .mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE};
    return ioctl(fd, UFFDIO_WRITEPROTECT, &none) ? -errno : 0;
}

/* Documentation/admin-guide/mm/pagemap.rst. */
bool uffd_find_empty(int pagemap, uint64_t first, uint64_t npages, uint64_t *empty)
{
    const uint64_t present = 1ull << 63, write_protected = 1ull << 57; /* a seal is the latter */
    uint64_t entries[UFFD_AT_ONCE];
    size_t nbytes = npages * sizeof entries[0];
    off_t at = (off_t)(first * sizeof entries[0]);
    if (npages > UFFD_AT_ONCE || pread(pagemap, entries, nbytes, at) != (ssize_t)nbytes)
        return false;
    *empty = 0;
    for (uint64_t i = 0; i < npages; i++)
        if (!(entries[i] & (present | write_protected)))
            *empty |= 1ull << i;
    return true;
}

void uffd_wake(int fd, uint64_t start, uint64_t npages)
{
    struct uffdio_range range = {start, npages * PAGE};
    /* Fails only when the mapping is gone, and with it whoever waited. */
    (void)ioctl(fd, UFFDIO_WAKE, &range);
}

bool uffd_is_quiet(int fd)
{
    /* The kernel looks for pending changes before it looks at the (invalid) range. */
    struct uffdio_zeropage nothing = {.range = {0, 0}};
    return ioctl(fd, UFFDIO_ZEROPAGE, &nothing) == 0 || errno != EAGAIN;
}

bool uffd_is_readable(int fd)
{
    struct pollfd readable = {fd, POLLIN, 0};
    return poll(&readable, 1, 0) == 1 && readable.revents == POLLIN;
}

int uffd_open_info(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    int info = open(path, O_RDONLY | O_CLOEXEC);
    return info < 0 ? -errno : info;
}

/* userfaultfd_show_fdinfo() in fs/userfaultfd.c. */
uint64_t uffd_count_faults(int info)
{
    char text[512];
    ssize_t got = pread(info, text, sizeof text - 1, 0);
    if (got <= 0)
        return UINT64_MAX;
    text[got] = '\0';
    static const char name[] = "\npending:";
    const char *pending = strstr(text, name);
    return pending ? strtoull(pending + sizeof name - 1, NULL, 10) : UINT64_MAX;
}

bool uffd_is_gone(int fd)
{
    errno = 0;
    return is_gone(fd, LOW_ADDRESS) || errno == ENOTTY;
}

int uffd_scan(int pagemap, uint64_t start, uint64_t end, uint64_t mask, uint64_t not,
              struct kpage_region *regions, size_t cap, uint64_t *next)
{
    struct kpm_scan_arg arg = {
        .size = sizeof arg,
        .start = start,
        .end = end,
        .vec = (uint64_t)regions,
        .vec_len = cap,
        .category_inverted = not,
        .category_mask = mask | not,
        .return_mask = mask,
    };
    int got = ioctl(pagemap, KPAGEMAP_SCAN, &arg);
    if (got < 0)
        return -errno;
    *next = arg.walk_end ? arg.walk_end : end;
    return got;
}

int uffd_page_is(int pagemap, uint64_t start, uint64_t mask, uint64_t not )
{
    struct kpage_region region;
    uint64_t next;
    return uffd_scan(pagemap, start, start + PAGE, mask, not, &region, 1, &next);
}

int uffd_open_pagemap(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    int pagemap = open(path, O_RDONLY | O_CLOEXEC);
    return pagemap < 0 ? -errno : pagemap;
}
