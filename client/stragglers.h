/*
 * stragglers: finds processes of a run that nobody has told of: started, and not reported yet, when
 * edm died.
 *
 * A process is the run's if its environment has the run's EDM_AGENT, if the run's agent is mapped
 * into it as code (one that has written over its environment), or if it is below one that is.
 *
 * Thread: any (in edm, the guard's only one).
 */
#ifndef EDM_CLIENT_STRAGGLERS_H
#define EDM_CLIENT_STRAGGLERS_H

#include <stdbool.h>
#include <sys/types.h>

/* What the run's processes have, both at most 127 characters. */
struct stragglers_marks {
    const char *agent;  /* path of the file that is preloaded */
    const char *socket; /* path that EDM_AGENT names */
};

/* Kills all that are left on this machine. Looks until it has found nobody twice, for some seconds
 * at most: whoever starts another is found, or the other is. Blocks. */
void stragglers_end(const struct stragglers_marks *marks);

/* Calls EACH with the descendants of PID; where it returns false, not with those below that one. */
void stragglers_below(pid_t pid, bool (*each)(void *arg, pid_t pid), void *arg);

#endif
