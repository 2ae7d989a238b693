/*
 * proc_map: what /proc says of a program: its mappings, its size, its threads.
 *
 * Thread: the pager's. Reads files under /proc; never waits for the program. Every function gives
 * -ESRCH when the program is gone.
 */
#ifndef EDM_CLIENT_PROC_MAP_H
#define EDM_CLIENT_PROC_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_map;

/* Opens /proc/PID. 0 or -errno. */
int proc_map_open(struct proc_map **out, pid_t pid) __attribute__((warn_unused_result));
void proc_map_close(struct proc_map **map);

/* What the kernel calls the process; empty when it cannot be known. */
void proc_map_name(const struct proc_map *map, char *name, size_t cap);

/* Descriptor of /proc/PID/pagemap, for uffd_scan(); owned by MAP. */
int proc_map_pagemap(const struct proc_map *map);

struct proc_size {
    uint64_t virtual_pages;
    uint64_t resident_pages;  /* all kinds */
    uint64_t anonymous_pages; /* resident, not of a file or shared */
};

int proc_map_size(struct proc_map *map, struct proc_size *out) __attribute__((warn_unused_result));

/* A mapping that can be managed: private, anonymous, readable and writable or not accessible (yet),
 * and none of the kernel's own ([vdso]). The first thread's stack is one only when
 * it is 2 MiB or more: debuggers look at it, and programs that need none of it are left as they
 * are. Addresses in bytes. */
struct proc_range {
    uint64_t start, end;
};

/* True, and the range in *OUT, when LINE (of /proc/PID/maps) describes such a mapping. */
bool proc_map_parse(const char *line, struct proc_range *out);

/* The mapping that ADDRESS is in, as it is now, if it is such a one. 0, -ENOENT: there is none, or
 * of another kind; -ENOTTY: the kernel cannot say (before Linux 6.11); or another -errno. */
int proc_map_at(const struct proc_map *map, uint64_t address, struct proc_range *out)
    __attribute__((warn_unused_result));

/* Up to where a mapping that ends at ADDRESS could grow in place, in *OUT: to the next one, of
 * whatever kind. 0, -EAGAIN: it has grown beyond ADDRESS, -ENOENT: there is none, -ENOTTY as above,
 * or another -errno. */
int proc_map_room_after(const struct proc_map *map, uint64_t address, uint64_t *out)
    __attribute__((warn_unused_result));

/* Calls EACH for every such mapping, in order. PAST says up to where, from an address on, all is
 * known (the address itself: nothing is): mappings that end before that may be left out. NULL: none
 * are. 0 or -errno. */
int proc_map_walk(struct proc_map *map, uint64_t (*past)(void *arg, uint64_t address),
                  void (*each)(void *arg, struct proc_range range), void *arg)
    __attribute__((warn_unused_result));

/* The same from the text of the file, as before Linux 6.11. */
int proc_map_walk_text(struct proc_map *map, void (*each)(void *arg, struct proc_range range),
                       void *arg) __attribute__((warn_unused_result));

/* Calls EACH for every mapping of process PID that a child finds empty (MADV_WIPEONFORK); a child's
 * own are still called that. Costs the kernel a walk over all that is resident. 0 or -errno: -ESRCH
 * when the process has ended, which may also show as an early end. */
int proc_map_walk_wiped(pid_t pid, void (*each)(void *arg, struct proc_range range), void *arg)
    __attribute__((warn_unused_result));

/* Reads from the program's memory. False: that cannot be. */
bool proc_map_read(const struct proc_map *map, uint64_t address, void *bytes, size_t nbytes);

/* Writes to the program's memory, never to that of another image of its process. False: that cannot
 * be. */
bool proc_map_write(const struct proc_map *map, uint64_t address, const void *bytes, size_t nbytes);

/* How many threads the program has now; 0 when it cannot be known. */
uint64_t proc_map_count_threads(const struct proc_map *map);

/* Looks at the program's threads. The kernel writes to a thread's control block when the thread is
 * ending, at a point where it cannot wait for a page: those pages must stay. */
int proc_map_look_at_threads(struct proc_map *map) __attribute__((warn_unused_result));

/* The system call in which thread TID waits, and its arguments; number -1: in none. 0, -EAGAIN: it
 * is not waiting (or not yet), -EACCES or -ESRCH: it cannot be seen. */
struct proc_call {
    int number;
    uint64_t args[6];
};

int proc_map_thread_call(const struct proc_map *map, pid_t tid, struct proc_call *out)
    __attribute__((warn_unused_result));

/* The thread that calls itself NUMBER: in a pid namespace of its own that is another one than here.
 * NUMBER where there is none. */
pid_t proc_map_thread_called(const struct proc_map *map, pid_t number);

/* Processor time of one of the program's threads, in microseconds; 0 when it cannot be known. */
uint64_t proc_map_thread_cpu_us(const struct proc_map *map, pid_t tid);

/* Whether one of the program's threads has been stopped, by a signal or by who traces it. */
bool proc_map_thread_stopped(const struct proc_map *map, pid_t tid);

/* Whether one of the program's threads touches nothing now: it sleeps in a system call, where a
 * signal would wake it, or has ended. Not when it waits for a page that it touched outside of a
 * call. */
bool proc_map_thread_is_still(const struct proc_map *map, pid_t tid);

/* Looks at what the threads do, all but SPARED's. A thread that sleeps and can be interrupted, or
 * is stopped, is not in the part of a call that changes memory: what it had begun to do when stamp
 * NOW was the last, it has done. Returns the smallest stamp for which that is known of every
 * thread; 0 when nothing is. */
uint64_t proc_map_passed(struct proc_map *map, uint64_t now, pid_t spared);

/* The page of ADDRESS (0: of none) must stay, too. */
void proc_map_pin(struct proc_map *map, uint64_t address);

/* Whether PAGE (a page number) must stay, by the last look at the threads or proc_map_pin(), or
 * because the arguments or the environment that the program was started with lie in it. */
bool proc_map_pinned(const struct proc_map *map, uint64_t page);

#endif
