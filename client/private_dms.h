/*
 * private_dms: a DMS for one run, on this machine, for when none is given.
 *
 * Thread: main. The guard ends it if we cannot.
 */
#ifndef EDM_CLIENT_PRIVATE_DMS_H
#define EDM_CLIENT_PRIVATE_DMS_H

#include <stddef.h>
#include <sys/types.h>

struct private_dms {
    const char *self; /* the edm binary; not owned */
    char endpoint[120];
    char data[100];
    char log[100];
    pid_t pid; /* 0: not running */
    unsigned starts;
};

/* Starts it on DIRECTORY (ipc://DIRECTORY/dms.sock, pages in DIRECTORY/pages). It may be called
 * again when the process has ended: what was stored is still there. GUARD_FD: see guard.h. 0 or
 * -errno. */
int private_dms_start(struct private_dms *dms, const char *self, const char *directory,
                      int guard_fd) __attribute__((warn_unused_result));

/* The last line it logged, for people. */
void private_dms_last_words(const struct private_dms *dms, char *line, size_t cap);

#endif
