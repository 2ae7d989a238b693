/*
 * forks: what is done before and after a child is made, where the kernel does not tell the pager
 * of it (no EVENT_FORK): a child would find zeros where pages are outside.
 *
 * Thread: the one that makes it.
 */
#ifndef EDM_CLIENT_AGENT_FORKS_H
#define EDM_CLIENT_AGENT_FORKS_H

#define AGENT_OWN __attribute__((visibility("hidden")))

extern AGENT_OWN int watch_forks; /* the pager wants to be asked before each */

/* Returns when nothing is outside and nothing leaves any more. Where that cannot be, or nobody
 * answers, the program is ended. */
AGENT_OWN void ask_to_fork(void);

/* TID, which has asked, has forked or has failed to. KEEPS_CONNECTION: it will say so once more. */
AGENT_OWN void say_it_has_forked(int tid, int keeps_connection);

/* In a child: the connections of its parent's threads are closed. SHARES_FILES: they are not, being
 * the same ones. */
AGENT_OWN void forget_forks(int shares_files);

#endif
