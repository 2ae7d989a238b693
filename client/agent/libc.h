/*
 * libc: what the agent takes of the program's C library, where there is one and it has that.
 *
 * Thread: the program's own only.
 */
#ifndef EDM_CLIENT_AGENT_LIBC_H
#define EDM_CLIENT_AGENT_LIBC_H

#include <stddef.h>

extern int *__errno_location(void) __attribute__((weak, visibility("default")));
extern void *dlsym(void *object, const char *name) __attribute__((weak, visibility("default")));

/* ERR: -errno. */
static inline void set_errno(long err)
{
    if (__errno_location)
        *__errno_location() = (int)-err;
}

/* The function NAME that would be called without the agent's, or NULL. */
static inline void *next_called(const char *name)
{
    return dlsym ? dlsym((void *)-1L /* RTLD_NEXT */, name) : NULL;
}

#endif
