/*
 * agent_load: lays the agent's shared object out as it has to lie in a process that has no dynamic
 * linker to do so.
 *
 * Thread: any; no state.
 */
#ifndef EDM_CLIENT_AGENT_LOAD_H
#define EDM_CLIENT_AGENT_LOAD_H

#include <stddef.h>
#include <stdint.h>

struct agent_load {
    size_t bytes;      /* of the whole, a multiple of the page size */
    size_t code_bytes; /* of the first part, to be executed and never written; the rest is data */
    uint64_t entry;    /* from the beginning */
};

/* 0, or -ENOEXEC: it is not an object that this can lay out. */
int agent_load_size(struct agent_load *out) __attribute__((warn_unused_result));

/* Fills TO, as many bytes as agent_load_size() says, with what belongs at address BASE. What the
 * object would take from others (it must do without) is null. 0 or -ENOEXEC. */
int agent_load_at(char *to, uint64_t base) __attribute__((warn_unused_result));

#endif
