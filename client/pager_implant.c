/* Programs that load no agent, being statically linked or started without it in LD_PRELOAD: who
 * they are, and the agent's way into them. The program itself is met at its exec; what comes by
 * other ways (a shell that execs it, a child of somebody's) is met wherever it is when it is found.
 */
#include "space.h"

#include "implant.h"
#include "program.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    EXEC_US = 100000,      /* an image that is being exec'd has its name by then */
    FOUND_US = 1000000,    /* who cannot be met by then will be found again */
    RETRY_US = 500,        /* between two tries, at first */
    RETRY_SHARE = 8,       /* and later this part of the time it has taken so far */
    STEPS_AT_ONCE = 200,   /* then something keeps it: it was stopped by a signal, say */
    AT_WORK_RETRY_US = 50, /* a wake-up, about */
    SECCOMP_LINE_BYTES = 256,
};

/* A process that may need an agent. */
struct stranger {
    struct stranger *next;
    pid_t pid;
    bool at_exec; /* it is the program, which waits for a byte from GO_FD's other end to exec */
    bool may_exec;
    uint64_t since_us, try_us;
    uint32_t nsteps;
    struct implant *implant; /* NULL: not touched yet */
    uint64_t mark;           /* handed to it */
};

static struct stranger *stranger_of(const struct pager *pager, pid_t pid)
{
    struct stranger *stranger = pager->strangers;
    while (stranger && stranger->pid != pid)
        stranger = stranger->next;
    return stranger;
}

bool implant_is_under_way(const struct pager *pager, pid_t pid)
{
    const struct stranger *stranger = stranger_of(pager, pid);
    return stranger && stranger->implant;
}

uint64_t implants_wait_us(const struct pager *pager)
{
    uint64_t us = UINT64_MAX;
    for (const struct stranger *stranger = pager->strangers; stranger; stranger = stranger->next)
        if (stranger->implant && !implant_waits_for_exec(stranger->implant) &&
            stranger->nsteps < STEPS_AT_ONCE)
            us = AT_WORK_RETRY_US;
        else if (us > RETRY_US)
            us = RETRY_US;
    return us;
}

static struct stranger *add(struct pager *pager, pid_t pid)
{
    if (stranger_of(pager, pid))
        return NULL;
    struct stranger *stranger = calloc(1, sizeof *stranger);
    if (!stranger)
        return NULL; /* it will be found again */
    stranger->pid = pid;
    stranger->since_us = ticks_us();
    stranger->next = pager->strangers;
    pager->strangers = stranger;
    return stranger;
}

void implant_watch(struct pager *pager, pid_t pid)
{
    bool ours = pid == pager->program || pager->config.follow;
    struct stranger *stranger = pid > 0 && ours ? add(pager, pid) : NULL;
    if (stranger)
        stranger->may_exec = true;
}

/* ---- who it is ---- */

enum verdict { TAKE, LATER, NEVER, REFUSED };

static int loads_no_agent(const struct pager *pager, pid_t pid)
{
    return program_loads_no_agent(pid, pager->config.agent);
}

/* A number from /proc/PID/status, or -1. */
static long status_number(pid_t pid, const char *key)
{
    char path[64], line[SECCOMP_LINE_BYTES];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    long value = -1;
    size_t len = strlen(key);
    while (value < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, key, len) == 0 && line[len] == ':')
            value = strtol(line + len + 1, NULL, 10);
    fclose(file);
    return value;
}

static bool is_registered(struct proc_map *proc, uint64_t start)
{
    return uffd_page_is(proc_map_pagemap(proc), start, KPAGE_IS_WPALLOWED, 0) == 1;
}

static bool is_same_memory(pid_t one, pid_t other)
{
    return syscall(SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0;
}

/* A child between vfork() and exec() lives in its parent's memory, which gets an agent of its own,
 * or has one: the gate (own range 2) is registered and no fork hands it on. */
static bool lives_with_another(const struct pager *pager, struct proc_map *proc, pid_t pid)
{
    for (const struct space *space = pager->spaces; space; space = space->next)
        if (space->proc && is_registered(proc, space->own[2].start))
            return true;
    for (const struct stranger *other = pager->strangers; other; other = other->next)
        if (other->pid != pid && is_same_memory(pid, other->pid))
            return true;
    long parent = status_number(pid, "PPid");
    return parent > 0 && is_same_memory(pid, (pid_t)parent);
}

/* Whether it is the child of a fork and has its userfaultfd from birth: then what it is known by,
 * in *MARK. LATER while its parent's fork is still being answered. */
static enum verdict find_mark(const struct pager *pager, struct proc_map *proc, uint64_t *mark)
{
    const struct space *lists[] = {pager->spaces, pager->dying};
    bool forked = false;
    *mark = 0;
    for (int i = 0; i < 2; i++)
        for (const struct space *space = lists[i]; space; space = space->next) {
            if (!space->mark || !is_registered(proc, space->mark * PAGE_BYTES))
                continue;
            forked = true;
            if (i == 0 && !space->proc)
                *mark = space->mark * PAGE_BYTES;
        }
    return forked && !*mark ? LATER : TAKE;
}

static enum verdict look(const struct pager *pager, struct stranger *stranger)
{
    pid_t pid = stranger->pid;
    if (space_of(pager, pid) || greet_is_with(pager, pid))
        return NEVER; /* it has an agent */
    int without = loads_no_agent(pager, pid);
    if (without <= 0)
        return without == 0 && stranger->may_exec ? LATER : NEVER;
    if (status_number(pid, "Seccomp") > 0)
        return REFUSED;
    struct proc_map *proc;
    if (proc_map_open(&proc, pid))
        return NEVER;
    enum verdict verdict =
        lives_with_another(pager, proc, pid) ? LATER : find_mark(pager, proc, &stranger->mark);
    proc_map_close(&proc);
    /* What the tables say of a child is made sure of while it does nothing. */
    if (verdict == TAKE && stranger->mark && status_number(pid, "Threads") != 1)
        verdict = NEVER;
    return verdict;
}

/* ---- what becomes of it ---- */

static void fail(struct pager *pager, const struct stranger *stranger, const char *why)
{
    if (stranger->pid == pager->program) {
        log_fatal(
            "Pager",
            "the program loads nothing when it starts, and EDM's agent cannot be put into it: "
            "%s",
            why);
        pager_fail(pager);
    } else {
        log_warn("Pager",
                 "%d loads no agent (statically linked, or LD_PRELOAD was changed) and none can be "
                 "put into it: %s. It is not managed",
                 (int)stranger->pid, why);
    }
}

static void refuse(struct pager *pager, const struct stranger *stranger)
{
    fail(pager, stranger, "it has a seccomp filter, which could end it for a system call of EDM's");
}

/* Returns whether we are done with it. */
static bool on_stopped(struct pager *pager, struct stranger *stranger)
{
    enum verdict verdict = look(pager, stranger);
    int err = -EAGAIN;
    stranger->at_exec = false;
    if (verdict == TAKE)
        err = implant_go(stranger->implant, pager->config.socket, stranger->mark);
    if (err == 0)
        return false;
    if (implant_leave(stranger->implant) == IMPLANT_LEAVING)
        return false;
    implant_destroy(&stranger->implant);
    if (verdict == REFUSED)
        refuse(pager, stranger);
    if (verdict == TAKE && err != -EAGAIN)
        fail(pager, stranger, strerror(-err));
    return verdict == NEVER || verdict == REFUSED || (verdict == TAKE && err != -EAGAIN);
}

/* The agent has been called. */
static void on_done(struct pager *pager, const struct stranger *stranger)
{
    log_debug("Pager", "%d: the agent was put in", (int)stranger->pid);
    if (!space_of(pager, stranger->pid) && !greet_is_with(pager, stranger->pid) && !pager->failed)
        fail(pager, stranger, "it did not get through to EDM");
}

static bool step_implant(struct pager *pager, struct stranger *stranger)
{
    enum implant_state state = implant_step(stranger->implant);
    stranger->nsteps++;
    switch (state) {
    case IMPLANT_STOPPED:
        return on_stopped(pager, stranger);
    case IMPLANT_STOPPING:
    case IMPLANT_AT_WORK:
    case IMPLANT_LEAVING:
        return false;
    case IMPLANT_FAILED:
        fail(pager, stranger, strerror(implant_error(stranger->implant)));
        break;
    case IMPLANT_DONE:
        on_done(pager, stranger);
        break;
    case IMPLANT_LEFT:
    case IMPLANT_ENDED:
        break;
    }
    implant_destroy(&stranger->implant);
    stranger->at_exec = false;
    return state != IMPLANT_LEFT; /* stopped by a signal: later */
}

static bool begin(struct pager *pager, struct stranger *stranger, uint64_t now_us)
{
    enum verdict verdict = look(pager, stranger);
    /* It may have been noted later than this round began. */
    uint64_t age_us = now_us > stranger->since_us ? now_us - stranger->since_us : 0;
    stranger->try_us = now_us + RETRY_US + age_us / RETRY_SHARE;
    if (verdict == REFUSED)
        refuse(pager, stranger);
    if (verdict == NEVER || verdict == REFUSED || kill(stranger->pid, 0))
        return true;
    if (verdict == LATER)
        return age_us > (loads_no_agent(pager, stranger->pid) > 0 ? FOUND_US : EXEC_US);
    int err = implant_new(&stranger->implant, stranger->pid, false);
    /* The brake of the image before, or of a process that is being let go, is ours. */
    if (err == -EPERM && age_us < FOUND_US)
        return false;
    if (err && err != -ESRCH)
        fail(pager, stranger, strerror(-err));
    return err != 0;
}

/* ---- from the main thread ---- */

static void take_found(struct pager *pager)
{
    for (void *item; (item = handoff_take(pager->found));)
        add(pager, (pid_t)(intptr_t)item);
}

/* The program, which waits to be let go: to be met at its exec. */
static void take_program(struct pager *pager)
{
    int go_fd = atomic_exchange(&pager->go_fd, -1);
    if (go_fd < 0)
        return;
    struct stranger *stranger = add(pager, pager->program);
    int err = stranger ? implant_new(&stranger->implant, pager->program, true) : -ENOMEM;
    if (stranger)
        stranger->at_exec = true;
    if (err) {
        struct stranger program = {.pid = pager->program};
        fail(pager, &program, strerror(-err));
    } else if (write(go_fd, "g", 1) != 1) {
        log_warn("Pager", "cannot let the program go: %s", strerror(errno));
    }
    close(go_fd);
}

void implants_step(struct pager *pager, uint64_t now_us)
{
    handoff_calm(pager->found);
    take_program(pager);
    take_found(pager);
    for (struct stranger **at = &pager->strangers; *at;) {
        struct stranger *stranger = *at;
        bool done = stranger->implant           ? step_implant(pager, stranger)
                    : stranger->at_exec         ? true
                    : now_us < stranger->try_us ? false
                                                : begin(pager, stranger, now_us);
        if (!done) {
            at = &stranger->next;
            continue;
        }
        *at = stranger->next;
        free(stranger);
    }
}

/* The tracer is about to end, and with it the tracing. */
void implants_end(struct pager *pager)
{
    while (pager->strangers) {
        struct stranger *stranger = pager->strangers;
        pager->strangers = stranger->next;
        if (stranger->implant)
            implant_destroy(&stranger->implant);
        free(stranger);
    }
}
