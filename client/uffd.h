/*
 * uffd: the kernel's calls the pager makes on a program's memory from outside, with their results
 * made plain.
 *
 * Sources: Linux Documentation/admin-guide/mm/userfaultfd.rst and pagemap.rst;
 * ioctl_userfaultfd(2). Addresses and lengths are in bytes and multiples of 4096 where they are not
 * called pages.
 *
 * Thread: the owner of the descriptors, the pager. Nothing here blocks.
 */
#ifndef EDM_CLIENT_UFFD_H
#define EDM_CLIENT_UFFD_H

#include "kernel_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Says whether this machine can run EDM: makes a userfaultfd of its own and asks for its features.
 * DEVICE is /dev/userfaultfd or -1. Returns 0, or -errno with one line for people in WHY (what is
 * missing and what would help). */
int uffd_check_machine(int device, char *why, size_t why_cap) __attribute__((warn_unused_result));

/* The line for a kernel that offers only FEATURES; false when nothing is missing. RELEASE: uname's.
 */
bool uffd_explain_features(uint64_t features, const char *release, char *why, size_t why_cap);

/* Shakes hands on a program's userfaultfd: events, thread ids, MOVE. *HAS_FORK_EVENT: whether
 * EVENT_FORK was granted (it needs CAP_SYS_PTRACE). 0 or -errno. */
int uffd_begin(int fd, bool *has_fork_event) __attribute__((warn_unused_result));

/* Whether uffd_begin() by this process would be granted that. DEVICE as above. */
bool uffd_tells_of_forks(int device);

/* The same for a hold area: no events. */
int uffd_begin_plain(int fd) __attribute__((warn_unused_result));

/* Missing faults (and asynchronous write-protection, by which registered memory can be told from
 * memory that is not) for [start, end). 0 or -errno: -EBUSY when another userfaultfd owns it,
 * -ESRCH when the program is gone. */
int uffd_register(int fd, uint64_t start, uint64_t end) __attribute__((warn_unused_result));
int uffd_unregister(int fd, uint64_t start, uint64_t end) __attribute__((warn_unused_result));
int uffd_register_plain(int fd, uint64_t start, uint64_t end) __attribute__((warn_unused_result));

/* Put pages in and wake who waits for them. Return the number of pages done, at least 1, or
 *   -EAGAIN  the mappings are changing: read events, then try again
 *   -EEXIST  the first page is there already (who waits for it has been woken)
 *   -ENOENT  no such mapping (any more), or not registered
 *   -ESRCH   the program is gone
 * When fewer than asked for are done, the next call says why. */
long uffd_copy(int fd, uint64_t to, const void *from, uint64_t npages)
    __attribute__((warn_unused_result));
long uffd_zero(int fd, uint64_t start, uint64_t npages) __attribute__((warn_unused_result));

/* A seal is what the kernel keeps in the place of a page that is not there (its pte marker for
 * UFFDIO_WRITEPROTECT). It goes along with mremap() and into the child of a fork. It is gone when
 * the program has given the page up, also where no event tells of it (MADV_GUARD_INSTALL), but for
 * MADV_FREE; and when uffd_copy() puts a page in. uffd_zero() gives -EEXIST there. */

/* Takes the seals away. 0 or -errno. */
int uffd_unseal(int fd, uint64_t start, uint64_t npages) __attribute__((warn_unused_result));

/* Which of NPAGES pages from page number FIRST on, at most UFFD_AT_ONCE, are neither in memory nor
 * have a seal, bit by bit: of one that was sealed, that it was given up, a guard too. PAGEMAP: an
 * open /proc/PID/pagemap. False: it cannot be known. */
enum { UFFD_AT_ONCE = 64 };
bool uffd_find_empty(int pagemap, uint64_t first, uint64_t npages, uint64_t *empty)
    __attribute__((warn_unused_result));

/* For uffd_scan(): categories that pages with a seal have, and have not. */
#define UFFD_SEAL_IS KPAGE_IS_SWAPPED
#define UFFD_SEAL_IS_NOT (KPAGE_IS_PRESENT | KPAGE_IS_WRITTEN)

void uffd_wake(int fd, uint64_t start, uint64_t npages);

/* True when no change of the program's mappings is under way of which the event has not been read.
 * An event that is pending stays pending until it is read: whatever was looked at before this
 * returned true was looked at while nothing was pending. */
bool uffd_is_quiet(int fd);

/* Whether there is something to be read. Reads give faults first, then events in the order in which
 * they came. */
bool uffd_is_readable(int fd);

/* What the kernel tells of the descriptor, as long as that is open: for uffd_count_faults(), which
 * asks anew each time. A descriptor, the caller's, or -errno. */
int uffd_open_info(int fd);

/* How many faults are to be read; UINT64_MAX: not known. */
uint64_t uffd_count_faults(int info);

/* Whether the memory the descriptor stands for is gone (exit or exec); true also of a descriptor
 * that is no userfaultfd. */
bool uffd_is_gone(int fd);

/* Ranges of pages in [start, end) that have all categories of MASK and none of NOT (KPAGE_IS_*).
 * PAGEMAP: an open /proc/PID/pagemap. Fills up to CAP regions, says in *NEXT where to go on (END
 * when done). Returns the number of regions or -errno. */
int uffd_scan(int pagemap, uint64_t start, uint64_t end, uint64_t mask, uint64_t not,
              struct kpage_region *regions, size_t cap, uint64_t *next)
    __attribute__((warn_unused_result));

/* Whether the page at START has them: 1 or 0, or -errno. */
int uffd_page_is(int pagemap, uint64_t start, uint64_t mask, uint64_t not )
    __attribute__((warn_unused_result));

/* /proc/PID/pagemap, the caller's, of a process that is not in hand; or -errno. */
int uffd_open_pagemap(pid_t pid) __attribute__((warn_unused_result));

#endif
