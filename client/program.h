/*
 * program: finds the program to run, says beforehand what cannot work, and starts it.
 *
 * Thread: main.
 */
#ifndef EDM_CLIENT_PROGRAM_H
#define EDM_CLIENT_PROGRAM_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Looks for NAME as the shell does (in $PATH unless it has a slash) and reads its first bytes (for
 * a script, its interpreter's). Returns 0 and the path in PATH, or 127 (not found) or 126 (cannot
 * be run: no permission, a directory, not for this machine) with a line in WHY. *IS_STATIC: what
 * will be run in the end loads nothing, and no agent by itself. */
int program_find(const char *name, char path[PATH_MAX], bool *is_static, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Whether the file is a program for this machine that loads nothing when it starts: 1 or 0, or
 * -errno when it cannot be read. Thread: any. */
int program_is_static(const char *path);

/* Whether PID's image comes up without the agent: it loads nothing, or was started without AGENT
 * (the preloaded file's path) in its environment and has not inherited it from its parent's memory
 * either. 1 or 0, or -errno when it cannot be read. Thread: any. */
int program_loads_no_agent(pid_t pid, const char *agent);

/* Whether PID, for which PIDFD stands (-1: none), has ended with a core dump: also while its last
 * threads are ending, and after it was waited for where the kernel remembers that (Linux 6.15).
 * Thread: any. */
bool program_has_dumped(pid_t pid, int pidfd);

/* Whether PID is a descendant of ANCESTOR. Thread: any. */
bool program_is_below(pid_t pid, pid_t ancestor);

/* Calls EACH with the descendants of PID; where it returns false, not with those below that one.
 * Thread: any. */
void program_each_below(pid_t pid, bool (*each)(void *arg, pid_t pid), void *arg);

/* What a thread calls itself: the last of its numbers, which it has in its own pid namespace.
 * STATUS_FD: its file in /proc, closed here; may be negative. *IN: in how many it has one, from
 * ours on. 0: it has ended. Thread: any. */
pid_t program_own_number(int status_fd, int *in);

/* The child of PARENT that calls itself NUMBER; 0: there is none (any more), or more than one, in
 * namespaces of their own. Thread: any. */
pid_t program_child_called(pid_t parent, pid_t number);

/* Whether the file can take the agent: 0; 126 with a line in WHY when it cannot. *IS_STATIC: see
 * program_find(). */
int program_check(const char *path, bool *is_static, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* Raises our limit of descriptors: every process takes some. Before the first program_start(),
 * which gives the program the limit that was there before. */
void program_raise_limits(void);

/* Starts PATH with ARGV, the agent preloaded, the signal mask empty. GO_FD: the child waits until a
 * byte can be read from it. The child is killed when the calling thread ends. Returns the child's
 * pid or -errno. When exec fails, its errno (an int) is written to *ERROR_FD; else that reads as
 * end of file. */
pid_t program_start(const char *path, char *const *argv, const char *agent, const char *socket,
                    int go_fd, int *error_fd) __attribute__((warn_unused_result));

/* PID, which the calling thread traces, has ended, or its first thread has. Its parent learns of
 * that only when its tracer has waited for it, which this does; unless that parent is this process,
 * whose main thread waits itself. False: some of its threads are still ending. Thread: any. */
bool program_pass_on_end(pid_t pid) __attribute__((warn_unused_result));

/* Whether the process that PIDFD stands for has ended; it need not have been waited for. Thread:
 * any.
 */
bool program_has_ended(int pidfd);

#endif
