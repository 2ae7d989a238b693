/*
 * client: runs a program on paged memory and returns when it has ended.
 *
 * Thread: the main thread, once. It starts the pager and the write-back threads and ends them.
 */
#ifndef EDM_CLIENT_CLIENT_H
#define EDM_CLIENT_CLIENT_H

#include "../ini/config.h"

/* Runs CONFIG->argv. SELF is the path by which this binary can be started again (for the private
 * DMS). Returns the exit code for edm: the program's own status, 128+n when signal n ended it, 125
 * when EDM failed, 126 or 127 when the program could not be run (both already logged). */
int client_run(const struct client_config *config, const char *self);

#endif
