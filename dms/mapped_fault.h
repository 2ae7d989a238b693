/*
 * mapped_fault: pages of mapped files that cannot be read: the file was cut short by somebody else,
 * the disk failed, or the memory. The kernel says so with SIGBUS to whoever touches such a page,
 * and without a handler that is the end of the process. The handler here puts a page of zeros in
 * its place: to the file's owner that is damage like any other, which checksums find, and the rest
 * of the file goes on. What is written to such a page is in no file.
 *
 * Thread: any may touch the mappings; watching and forgetting is for the mapping's owner.
 */
#ifndef EDM_DMS_MAPPED_FAULT_H
#define EDM_DMS_MAPPED_FAULT_H

#include <stddef.h>
#include <stdint.h>

struct mapped_fault;

/* Installs the handler, for the whole process. A SIGBUS anywhere else ends the process as before.
 * Returns 0 or -errno. */
int mapped_fault_install(void) __attribute__((warn_unused_result));

/* BYTES bytes (whole pages) at START, a mapping that stays until mapped_fault_forget(). Returns 0
 * or -ENOMEM. */
int mapped_fault_watch(struct mapped_fault **out, void *start, size_t bytes)
    __attribute__((warn_unused_result));
void mapped_fault_forget(struct mapped_fault **fault);

/* Pages of the mapping, and of all mappings ever watched, that were replaced. */
uint32_t mapped_fault_count(const struct mapped_fault *fault);
uint32_t mapped_fault_total(void);

#endif
