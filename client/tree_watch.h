/*
 * tree_watch: looks through our descendants for processes that load no agent: statically
 * linked ones, and those started without it in LD_PRELOAD.
 *
 * Who execs one is known to the pager where that had an agent. A child that vfork() made, and what
 * such a process forks before it is managed, nobody tells of.
 *
 * Thread: main.
 */
#ifndef EDM_CLIENT_TREE_WATCH_H
#define EDM_CLIENT_TREE_WATCH_H

#include <stdint.h>
#include <sys/types.h>

struct tree_watch;

/* AGENT: the preloaded file's path; not owned. 0 or -errno. */
int tree_watch_new(struct tree_watch **out, const char *agent) __attribute__((warn_unused_result));
void tree_watch_destroy(struct tree_watch **watch);

/* A look: begun, then at PID and all its descendants, for any number of PIDs, and ended. FOUND is
 * called for each process that loads no agent: when it is seen for the first time, and from
 * then on less and less often. */
void tree_watch_begin(struct tree_watch *watch, uint64_t now_us,
                      void (*found)(void *arg, pid_t pid), void *arg);
void tree_watch_look(struct tree_watch *watch, pid_t pid);
void tree_watch_end(struct tree_watch *watch);

/* When it is time for the next. */
uint64_t tree_watch_due_us(const struct tree_watch *watch);

#endif
