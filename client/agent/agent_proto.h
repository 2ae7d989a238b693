/*
 * agent_proto: what the agent inside the program and the pager outside say to each other.
 *
 * A SOCK_SEQPACKET Unix socket, one structure a message, both ends from the same binary (so the
 * layout is the compiler's). The pager listens on the path in the environment variable EDM_AGENT.
 *
 *   agent                                   pager
 *   hello                          ->
 *                                  <-       welcome (+ pool memfd [, /dev/userfaultfd])
 *   ready (+ uffd, hold uffd)      ->
 *                                  <-       go
 *   serving                        ->
 *   then, the pager asking:        <-       command EVICT
 *   moved, copied [, emptied]      ->
 *                                  <-       command POPULATE
 *   populated                      ->
 *
 * A thread about to fork, if watch_forks was set, connects anew, says hello as FORKING and waits
 * for go; the connection is closed when the fork is done. The child begins as an image does. If its
 * parent had pages elsewhere it has a userfaultfd of its own from birth, which is the pager's. To
 * show whose that is, the child touches its mark between welcome and ready: a page, registered like
 * others, that every child finds empty. Then the pager's first command is ADOPT, with that
 * descriptor in place of the one the agent opened.
 *
 * When either end hangs up the other is gone: the pager takes a hang-up as exec or exit, the agent
 * takes it as the death of the pager and ends the program (which must not run on without it). So it
 * does when nobody listens at the path any more, unless that ends in AGENT_MAY_OUTLIVE. A pager
 * that hangs up on hello without a word is asked again: one that is dying will listen no more, one
 * that lives does not want the process.
 */
#ifndef EDM_CLIENT_AGENT_AGENT_PROTO_H
#define EDM_CLIENT_AGENT_AGENT_PROTO_H

#include <stdint.h>

/* With --follow=no children may live longer than the pager. They go on natively then. */
#define AGENT_MAY_OUTLIVE "-may-be-gone"

enum {
    AGENT_MAGIC = 0x45444d31, /* "EDM1" */
    AGENT_BATCH_PAGES = 128,  /* pages in one EVICT, and in one batch of the pool */
    AGENT_PAGE_BYTES = 4096,
    AGENT_CLEAN = 255, /* in COPIED: no errno is as large */
};

enum agent_verdict {
    AGENT_MANAGE = 1,      /* this process is to be managed */
    AGENT_LEAVE_ALONE = 2, /* go on natively */
};

enum agent_op {
    AGENT_EVICT = 1,    /* pages -> pool; answered by MOVED, then COPIED, then perhaps EMPTIED */
    AGENT_POPULATE = 2, /* make pages exclusive again; answered by POPULATED */
    AGENT_MOVED = 3,
    AGENT_COPIED = 4,
    AGENT_POPULATED = 5,
    AGENT_SERVING = 6, /* said once, unasked: commands are carried out, whoever is stopped now */
    AGENT_ADOPT = 7,   /* use the userfaultfd that comes with this; not answered */
    AGENT_EMPTIED = 8, /* after COPIED, where that has said so */
    AGENT_REFUSED =
        9, /* said unasked: the kernel refuses its calls, the pager has to end the program */
};

enum agent_kind {
    AGENT_IMAGE = 0,   /* a new image, just executed */
    AGENT_FORKING = 1, /* a thread that asks whether it may fork */
    AGENT_CHILD = 2,   /* the child of a fork, in its parent's image */
};

struct agent_hello {
    uint32_t magic;
    uint32_t bytes; /* sizeof(struct agent_command), as a check on the layout */
    uint32_t kind;  /* enum agent_kind */
    int32_t tid;    /* who says this */
};

struct agent_welcome {
    uint32_t verdict;
    uint32_t has_device; /* the second descriptor is /dev/userfaultfd */
    uint64_t pool_bytes;
};

struct agent_range {
    uint64_t start, end; /* addresses */
};

enum { AGENT_OWN_RANGES = 5 };

enum {
    AGENT_MUTEXES = 1000,
    AGENT_MUTEX_BYTES = 40, /* of a pthread_mutex_t, here */
};

/* Robust mutexes of the program that are not shared with other processes. */
struct agent_mutexes {
    uint64_t changes;           /* so far */
    uint64_t at[AGENT_MUTEXES]; /* addresses; 0: a free place */
};

struct agent_ready {
    int32_t error; /* 0, or the errno of the step that failed */
    int32_t tid;   /* of the agent's thread */
    char step[32]; /* which one, for the log */
    uint64_t gate; /* AGENT_BATCH_PAGES pages, to be registered on the uffd */
    uint64_t hold; /* AGENT_BATCH_PAGES pages, to be registered on the hold uffd */
    uint64_t mark; /* one page, to be registered on the uffd when the first pages are */
    /* What the kernel clears when the thread that begins ends; 0: nothing. All of musl's threads
     * have the same. */
    uint64_t tid_address;
    /* A uint64_t, which a child has a copy of: how many events had been queued for certain. */
    uint64_t events_queued;
    uint64_t mutexes; /* a struct agent_mutexes, which a child has a copy of, too */
    struct agent_range own[AGENT_OWN_RANGES]; /* never to be managed */
};

struct agent_go {
    uint32_t verdict;
    uint32_t watch_forks; /* the kernel does not report forks: ask before each */
};

struct agent_run {
    uint64_t addr;
    uint64_t npages;
};

struct agent_hash {
    uint64_t low, high;
};

struct agent_command {
    uint32_t op;
    uint32_t batch; /* EVICT: which batch of the pool the bytes go to */
    uint32_t nruns;
    uint32_t unused;
    /* EVICT: of each page, in the order of the runs, what the store has of it, if had[]. */
    struct agent_hash stored[AGENT_BATCH_PAGES];
    uint8_t had[AGENT_BATCH_PAGES];
    struct agent_run runs[AGENT_BATCH_PAGES]; /* together at most AGENT_BATCH_PAGES pages */
};

/* One byte for each page, in the order of the runs. MOVED: 0, or the errno that kept it where it
 * was. COPIED: the same, but AGENT_CLEAN for a page that hashes as the store has it: it is not in
 * the pool. */
struct agent_result {
    uint32_t op;
    uint32_t batch; /* REFUSED: the errno */
    /* COPIED: something lies in the gate. The agent empties it now, which raises an event that has
     * to be read, and says EMPTIED then. */
    uint32_t empties;
    uint32_t unused;
    /* MOVED: bit by bit, which of the pages have a seal in their place (uffd.h). */
    uint64_t sealed[AGENT_BATCH_PAGES / 64];
    uint8_t status[AGENT_BATCH_PAGES];
};

#endif
