/*
 * stragglers: finds processes of a run that nobody has told of: started, and not reported yet, when
 * edm died.
 *
 * A process is the run's if its environment has the run's EDM_AGENT, or if the run's agent is
 * mapped into it as code (one that has written over its environment). Who is below a process that
 * is known is not looked for here: program_each_below().
 *
 * Thread: any (in edm, the guard's only one).
 */
#ifndef EDM_CLIENT_STRAGGLERS_H
#define EDM_CLIENT_STRAGGLERS_H

/* What the run's processes have, both at most 127 characters. */
struct stragglers_marks {
    const char *agent;  /* path of the file that is preloaded */
    const char *socket; /* path that EDM_AGENT names */
};

/* Kills all that are left on this machine. Looks until it has found nobody twice, for some seconds
 * at most: whoever starts another is found, or the other is. Blocks. */
void stragglers_end(const struct stragglers_marks *marks);

#endif
