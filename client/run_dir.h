/*
 * run_dir: the directory of one run: the agent's file, its socket, the private DMS's data.
 *
 * Thread: main. The guard removes it (guard.h).
 */
#ifndef EDM_CLIENT_RUN_DIR_H
#define EDM_CLIENT_RUN_DIR_H

#include <stddef.h>

struct run_dir {
    char path[80];
    char agent[100];  /* the preloaded object */
    char socket[100]; /* where agents connect */
    char store[100];  /* a directory for the private DMS */
    int listen_fd;
};

/* Makes it in $TMPDIR, /tmp, /var/tmp or /dev/shm, the first from which code may be mapped. Returns
 * 0, or -errno with a line for people in WHY; nothing is left behind then. */
int run_dir_make(struct run_dir *dir, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Puts the agent's file and socket into it. 0 or -errno, with a line in WHY. */
int run_dir_fill(struct run_dir *dir, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

#endif
