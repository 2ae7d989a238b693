/*
 * pager: keeps a program's resident memory within its budget.
 *
 * It watches the program's size and does nothing else until that nears the budget. Then it
 * registers the program's memory with userfaultfd, takes out what was used least lately, and brings
 * back what the program touches. See DESIGN.md for the order of things and the races behind it.
 *
 * Thread: pager_new() starts the pager's thread, which owns everything the pager has. The functions
 * here are for the main thread.
 */
#ifndef EDM_CLIENT_PAGER_H
#define EDM_CLIENT_PAGER_H

#include "histogram.h"
#include "shard_set.h"
#include "write_back.h"

#include <stdbool.h>
#include <sys/types.h>

struct pager;

struct pager_config {
    uint64_t local_bytes;
    uint32_t low_threshold, high_threshold; /* percent of local_bytes */
    uint64_t start_addr, end_addr;
    int listen_fd;      /* where agents connect; not owned */
    const char *socket; /* its path; not owned */
    const char *agent;  /* the preloaded file's path; not owned */
    int device_fd;      /* /dev/userfaultfd or -1; not owned */
    int guard_fd;       /* where to send the userfaultfds for safe keeping; not owned */
    bool follow;        /* manage the program's children too */
    enum config_compress compress;
    const char *region; /* its name; not owned */
    /* How long to wait in the end until children's regions are removed. 0: the store goes as well.
     */
    uint32_t remove_ms;
};

/* One image of one process. */
struct image_figures {
    int32_t pid; /* 0: none */
    bool ended;
    char name[16];
    uint64_t faults, pages_evicted, peak_resident_pages, peak_managed_pages;
};

enum { PAGER_IMAGES = 64 }; /* told apart: those there are, and those that ended last */

struct pager_counters {
    struct image_figures by_image[PAGER_IMAGES];
    uint64_t faults_remote, faults_zero, faults_staged, faults_write;
    uint64_t pages_got, pages_clean_dropped, pages_zero_dropped, pages_evicted;
    uint64_t pages_given_up_unseen;
    uint64_t readahead_issued, readahead_used, readahead_wasted;
    uint64_t peak_resident_pages, peak_managed_pages, resident_pages, managed_pages;
    uint64_t spins_found, spins_in_vain; /* see spin.h */
    uint64_t looks, looks_us;            /* at mappings, and how long they took */
    uint64_t brakes; /* times the program had to be stopped to let reclaim catch up */
    uint64_t forks, images, bad_pages, table_bytes;
    struct rpc_counters rpc;
    struct histogram fault_us;
    uint64_t cpu_us, agent_cpu_us;
};

enum pager_event {
    PAGER_NOTHING,
    PAGER_MANAGED, /* an agent has reported and the program is in our hands */
    PAGER_FAILED,  /* the program must not go on; logged already */
};

/* SET must outlive the pager. 0 or -errno. */
int pager_new(struct pager **out, const struct pager_config *config, const struct shard_set *set)
    __attribute__((warn_unused_result));

/* Which process the program is: before it may connect. */
void pager_set_program(struct pager *pager, pid_t pid);

/* Instead of letting the program go by a byte into GO_FD, which is the pager's then: it does that
 * itself, once it has seen to it that it will meet the program at its exec. For a program that
 * loads no agent. After pager_set_program(). */
void pager_let_go(struct pager *pager, int go_fd);

/* PID, a descendant of the program or the program itself, loads no agent: it needs one, unless it
 * has one. */
void pager_found(struct pager *pager, pid_t pid);

/* Ends the pager's thread; counters can still be read. The program must have ended. */
void pager_stop(struct pager *pager);

/* Ends all threads and frees everything. */
void pager_destroy(struct pager **pager);

/* Sets another budget for all processes together. Takes effect soon, and some time later
 * is kept. Returns the change's number. */
uint32_t pager_set_limit(struct pager *pager, uint64_t bytes);

/* Whether what is resident has been within the budget of that change, or of a later one: then news
 * are told, see pager_event(). *RESIDENT_BYTES: what was resident at that time. */
bool pager_limit_kept(const struct pager *pager, uint32_t change, uint64_t *resident_bytes);

/* Readable when pager_event() has news. */
int pager_fd(const struct pager *pager);
enum pager_event pager_event(struct pager *pager);

/* How many images of the program (it may exec) have reported so far, and whether one is there now.
 */
uint64_t pager_images(struct pager *pager, bool *present);

/* How many processes the pager has in hand, the program among them. */
uint32_t pager_processes(struct pager *pager);

/* A little behind. */
void pager_counters(struct pager *pager, struct pager_counters *out);
struct write_back_counters pager_write_back_counters(struct pager *pager);

#endif
