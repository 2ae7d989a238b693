/*
 * lookup: the addresses of a host, without waiting for them.
 *
 * The C library has no call for it that does not block, so a thread of its own asks and is left
 * alone should nobody want the answer any more.
 *
 * Thread: whoever started it.
 */
#ifndef EDM_CLIENT_LOOKUP_H
#define EDM_CLIENT_LOOKUP_H

#include <netdb.h>

struct lookup;

/* Starts to look HOST up, for TCP connections to PORT (decimal). 0 or -errno. */
int lookup_new(struct lookup **out, const char *host, const char *port)
    __attribute__((warn_unused_result));

/* Does not block, even while the thread is still asking. */
void lookup_destroy(struct lookup **lookup);

/* -EAGAIN: not yet. 0: *OUT is what was found, which lookup_destroy() frees. -ENOENT: nothing was,
 * for the reason in *WHY (a constant text). */
int lookup_result(struct lookup *lookup, const struct addrinfo **out, const char **why)
    __attribute__((warn_unused_result));

#endif
