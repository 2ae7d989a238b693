/*
 * kernel_abi: what EDM uses of the kernel's interface that the headers of older systems (Debian 12
 * ships those of Linux 6.1) do not define yet. Values from the kernel's include/uapi/linux/
 * userfaultfd.h and fs.h; documents: Documentation/admin-guide/mm/userfaultfd.rst, pagemap.rst.
 *
 * Everything here is defined under a name of our own, so that newer headers do no harm.
 */
#ifndef EDM_CLIENT_KERNEL_ABI_H
#define EDM_CLIENT_KERNEL_ABI_H

#include <linux/ioctl.h>
#include <stdint.h>

/* Features (UFFDIO_API). */
#define KUFFD_FEATURE_EVENT_FORK (1u << 1)
#define KUFFD_FEATURE_EVENT_REMAP (1u << 2)
#define KUFFD_FEATURE_EVENT_REMOVE (1u << 3)
#define KUFFD_FEATURE_EVENT_UNMAP (1u << 6)
#define KUFFD_FEATURE_THREAD_ID (1u << 8)
#define KUFFD_FEATURE_WP_ASYNC (1u << 15) /* Linux 6.7 */
#define KUFFD_FEATURE_MOVE (1u << 16)     /* Linux 6.8 */

/* UFFDIO_MOVE (Linux 6.8): moves pages inside one address space, atomically for its threads. */
struct kuffd_move {
    uint64_t dst;
    uint64_t src;
    uint64_t len; /* bytes */
    uint64_t mode;
    int64_t move; /* out: bytes moved, or -errno */
};
#define KUFFD_IOCTL_MOVE _IOWR(0xAA, 0x05, struct kuffd_move)

/* /dev/userfaultfd (Linux 6.1): ioctl(fd, .., flags of userfaultfd(2)) returns a new descriptor. */
#define KUFFD_IOCTL_NEW _IO(0xAA, 0x00)

/* PAGEMAP_SCAN (Linux 6.7) on /proc/PID/pagemap. */
struct kpage_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};
struct kpm_scan_arg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end; /* out: where the walk stopped */
    uint64_t vec;      /* struct kpage_region * */
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask; /* all of these must hold */
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};
#define KPAGEMAP_SCAN _IOWR('f', 16, struct kpm_scan_arg)
#define KPAGE_IS_WPALLOWED (1u << 0) /* mapping registered for asynchronous write-protection */
#define KPAGE_IS_WRITTEN (1u << 1)
#define KPAGE_IS_FILE (1u << 2)
#define KPAGE_IS_PRESENT (1u << 3)
#define KPAGE_IS_SWAPPED (1u << 4)
#define KPAGE_IS_PFNZERO (1u << 5)

/* PROCMAP_QUERY (Linux 6.11) on /proc/PID/maps: one mapping. */
struct kprocmap_query {
    uint64_t size;
    uint64_t query_flags;
    uint64_t query_addr;
    uint64_t vma_start; /* out, from here on but for the sizes and addresses of names */
    uint64_t vma_end;
    uint64_t vma_flags;
    uint64_t vma_page_size;
    uint64_t vma_offset;
    uint64_t inode;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint32_t vma_name_size; /* in: room at vma_name_addr; out: bytes with the final 0, or 0 */
    uint32_t build_id_size;
    uint64_t vma_name_addr;
    uint64_t build_id_addr;
};
#define KPROCMAP_QUERY _IOWR('f', 17, struct kprocmap_query)
#define KPROCMAP_READABLE (1u << 0)
#define KPROCMAP_WRITABLE (1u << 1)
#define KPROCMAP_EXECUTABLE (1u << 2)
#define KPROCMAP_SHARED (1u << 3)
#define KPROCMAP_COVERING_OR_NEXT (1u << 4)

/* PIDFD_GET_INFO (Linux 6.13) on a pidfd; with PIDFD_INFO_EXIT (6.15) of one that was waited for.
 */
struct kpidfd_info {
    uint64_t mask; /* in: what is asked for; out: what was answered */
    uint64_t cgroup;
    uint32_t pid, tgid, ppid;
    uint32_t ids[8];
    int32_t exit_code; /* as wait() says it */
};
#define KPIDFD_GET_INFO _IOWR(0xFF, 11, struct kpidfd_info)
#define KPIDFD_INFO_EXIT (1u << 3)

#endif
