/*
 * run_dir: the directory of one run: the agent's file, its socket, the control socket, the private
 * DMS's data. It is the user's alone (mode 0700).
 *
 * Thread: main. The guard removes it (guard.h).
 */
#ifndef EDM_CLIENT_RUN_DIR_H
#define EDM_CLIENT_RUN_DIR_H

#include <stdbool.h>
#include <stddef.h>

struct run_dir {
    char path[80];
    char agent[100];   /* the preloaded object */
    char preload[120]; /* what LD_PRELOAD is to say: AGENT and more, a link to it */
    char socket[100];  /* where agents connect */
    char store[100];   /* a directory for the private DMS */
    int listen_fd;
};

/* What directories of runs are called: this, and six letters or digits. */
#define RUN_DIR_PREFIX "edm-"
#define RUN_DIR_CONTROL "control.sock"

/* Where they may be, in the order in which they are tried. The first is $TMPDIR's value, or
 * "". */
enum { RUN_DIR_BASES = 4 };
void run_dir_bases(const char *bases[RUN_DIR_BASES]);
bool run_dir_is_name(const char *name);

/* Makes it in $TMPDIR, /tmp, /var/tmp or /dev/shm, the first from which code may be mapped. Returns
 * 0, or -errno with a line for people in WHY; nothing is left behind then. */
int run_dir_make(struct run_dir *dir, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Between the two: processes may live longer than the run, and are to go on then. The socket's name
 * tells them so (agent_proto.h). */
void run_dir_may_be_outlived(struct run_dir *dir);

/* Puts the agent's file and socket into it. ASKS: the agent is the one that asks before each child,
 * of which the kernel does not tell. 0 or -errno, with a line in WHY. */
int run_dir_fill(struct run_dir *dir, bool asks, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Makes the socket at which others ask about the run (control.h). Returns its descriptor, which
 * does not block, or -errno, with a line in WHY. */
int run_dir_listen(const struct run_dir *dir, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

#endif
