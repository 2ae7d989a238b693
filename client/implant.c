#include "implant.h"

#include "agent_load.h"
#include "program.h"
#include "uffd.h"
#include "agent/agent_proto.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/rseq.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SIGNAL_SET_BYTES = 8,
    CODE_64_BIT = 0x33, /* the code segment's selector */
    SYSCALL_BYTES = 2,
    PLAIN_FLAGS = 0x202, /* interrupts on, as always; direction up */
    SOCKET_BYTES = 128,
    VDSO_MOST_BYTES = 1 << 20,
    FIRST_CALLS = 5,
    CALL_STOP = SIGTRAP | 0x80, /* by PTRACE_O_TRACESYSGOOD */
};

enum step {
    STEP_TO_EXEC,  /* not stopped, and not asked to */
    STEP_TO_STOP,  /* asked to stop */
    STEP_BEGINS,   /* stops at each system call: see begins() */
    STEP_STOPPED,  /* is, and as it was */
    STEP_MAP,      /* in mmap */
    STEP_PROTECT,  /* in mprotect */
    STEP_CALL,     /* in the agent's entry */
    STEP_LEAVING,  /* asked to stop, to be let go of then */
    STEP_FINISHED, /* not traced any more */
};

struct implant {
    pid_t pid;
    enum step step;
    enum implant_state outcome; /* once FINISHED */
    int error;
    struct user_regs_struct regs; /* as they were */
    uint64_t signal_mask;         /* the same */
    uint64_t syscall_at;          /* an instruction in its vdso */
    uint64_t base;                /* of the agent's image */
    struct agent_load load;
    char socket[SOCKET_BYTES];
    uint64_t mark;
    bool at_exec;
    uint32_t nstops; /* at system calls */
};

int implant_new(struct implant **out, pid_t pid, bool at_exec)
{
    struct implant *implant = calloc(1, sizeof *implant);
    if (!implant)
        return -ENOMEM;
    implant->pid = pid;
    implant->step = at_exec ? STEP_TO_EXEC : STEP_TO_STOP;
    implant->at_exec = at_exec;
    if (ptrace(PTRACE_SEIZE, pid, NULL,
               (void *)(long)(at_exec ? PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD : 0))) {
        int err = -errno;
        free(implant);
        return err;
    }
    if (!at_exec)
        (void)ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
    *out = implant;
    return 0;
}

void implant_destroy(struct implant **implant)
{
    free(*implant);
    *implant = NULL;
}

bool implant_waits_for_exec(const struct implant *implant)
{
    return implant->step == STEP_TO_EXEC;
}

int implant_error(const struct implant *implant)
{
    return implant->error;
}

/* ---- the end ---- */

/* Lets it go on, with SIGNAL. If it has been killed meanwhile its end is still to come, and for us
 * to wait for. */
static enum implant_state finish(struct implant *implant, enum implant_state outcome, int signal)
{
    if (ptrace(PTRACE_DETACH, implant->pid, NULL, (void *)(long)signal)) {
        implant->step = STEP_LEAVING;
        return IMPLANT_LEAVING;
    }
    implant->step = STEP_FINISHED;
    implant->outcome = outcome;
    return outcome;
}

/* As it was: the kernel goes on to restart a system call that the stop has interrupted. */
static enum implant_state restore(struct implant *implant, enum implant_state outcome)
{
    (void)ptrace(PTRACE_SETREGS, implant->pid, NULL, &implant->regs);
    (void)ptrace(PTRACE_SETSIGMASK, implant->pid, (void *)SIGNAL_SET_BYTES, &implant->signal_mask);
    return finish(implant, outcome, 0);
}

static enum implant_state give_up(struct implant *implant, int err)
{
    implant->error = err < 0 ? -err : err;
    return restore(implant, IMPLANT_FAILED);
}

enum implant_state implant_leave(struct implant *implant)
{
    if (implant->step == STEP_STOPPED)
        return finish(implant, IMPLANT_LEFT, 0);
    if (implant->step < STEP_STOPPED) {
        (void)ptrace(PTRACE_INTERRUPT, implant->pid, NULL, NULL);
        implant->step = STEP_LEAVING;
    }
    return IMPLANT_LEAVING;
}

/* ---- what the process is made to do ---- */

/* The same kernel has given us the same vdso: the instruction lies in the process's where it lies
 * in ours. */
static int64_t syscall_in_vdso(void)
{
    const unsigned char *vdso = (const unsigned char *)getauxval(AT_SYSINFO_EHDR);
    if (!vdso)
        return -ENOTSUP;
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)vdso;
    const Elf64_Phdr *part = (const Elf64_Phdr *)(vdso + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++) {
        if (part[i].p_type != PT_LOAD || part[i].p_memsz > VDSO_MOST_BYTES)
            continue;
        for (uint64_t at = 0; at + SYSCALL_BYTES <= part[i].p_memsz; at++)
            if (vdso[at] == 0x0f && vdso[at + 1] == 0x05)
                return (int64_t)at;
    }
    return -ENOTSUP;
}

static int64_t find_vdso(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    uint64_t start = 0;
    while (fgets(line, sizeof line, file) && !start)
        if (strstr(line, " [vdso]\n") && sscanf(line, "%" SCNx64, &start) != 1)
            start = 0;
    fclose(file);
    return start ? (int64_t)start : -ENOTSUP;
}

static int call_kernel(struct implant *implant, long number, uint64_t a, uint64_t b, uint64_t c,
                       uint64_t d)
{
    struct user_regs_struct regs = implant->regs;
    regs.rip = implant->syscall_at;
    regs.eflags = PLAIN_FLAGS;
    regs.rax = (unsigned long)number;
    regs.orig_rax = ~0ul; /* in no system call that would have to be restarted */
    regs.rdi = a;
    regs.rsi = b;
    regs.rdx = c;
    regs.r10 = d;
    regs.r8 = ~0ul; /* mmap: no file */
    regs.r9 = 0;
    if (ptrace(PTRACE_SETREGS, implant->pid, NULL, &regs) ||
        ptrace(PTRACE_SINGLESTEP, implant->pid, NULL, NULL))
        return -errno;
    return 0;
}

static int call_agent(struct implant *implant)
{
    struct user_regs_struct regs = implant->regs;
    regs.rip = implant->base + implant->load.entry;
    regs.eflags = PLAIN_FLAGS;
    regs.orig_rax = ~0ul;
    regs.rdi = implant->base + implant->load.bytes; /* the socket's path */
    regs.rsi = implant->mark;
    if (ptrace(PTRACE_SETREGS, implant->pid, NULL, &regs) ||
        ptrace(PTRACE_CONT, implant->pid, NULL, NULL))
        return -errno;
    return 0;
}

/* The image, and after it a page with the socket's path. */
static uint64_t mapped_bytes(const struct implant *implant)
{
    return implant->load.bytes + AGENT_PAGE_BYTES;
}

static int write_image(const struct implant *implant)
{
    size_t bytes = mapped_bytes(implant);
    char *image = calloc(1, bytes);
    if (!image)
        return -ENOMEM;
    int err = agent_load_at(image, implant->base);
    memcpy(image + implant->load.bytes, implant->socket, sizeof implant->socket);
    struct iovec from = {image, bytes};
    struct iovec to = {(void *)implant->base, bytes}; /* fresh: nothing there can be waited for */
    if (!err) {
        ssize_t written = process_vm_writev(implant->pid, &from, 1, &to, 1, 0);
        err = written < 0 ? -errno : written == (ssize_t)bytes ? 0 : -EFAULT;
    }
    free(image);
    return err;
}

static bool is_present(pid_t pid, uint64_t address)
{
    int pagemap = uffd_open_pagemap(pid);
    if (pagemap < 0)
        return false;
    int there =
        uffd_page_is(pagemap, address & ~(uint64_t)(AGENT_PAGE_BYTES - 1), KPAGE_IS_PRESENT, 0);
    close(pagemap);
    return there == 1;
}

/* A restartable sequence that a thread is in must be begun again when it was interrupted; sent
 * elsewhere meanwhile, it would not be. In a system call there can be none. */
static bool in_restartable_sequence(const struct implant *implant)
{
    if ((long)implant->regs.orig_rax >= 0)
        return false;
    struct {
        uint64_t address;
        uint32_t size, signature, flags, pad;
    } area = {0};
    if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, implant->pid, (void *)sizeof area, &area) <= 0 ||
        !area.address)
        return false;
    /* What is missing there may be ours to bring: reading it we would wait for ourselves. */
    if (!is_present(implant->pid, area.address))
        return true;
    uint64_t sequence = 0;
    struct iovec to = {&sequence, sizeof sequence};
    struct iovec from = {(void *)(area.address + offsetof(struct rseq, rseq_cs)), sizeof sequence};
    if (process_vm_readv(implant->pid, &to, 1, &from, 1, 0) != (ssize_t)sizeof sequence)
        return true;
    if (!sequence)
        return false;
    struct rseq_cs found;
    to = (struct iovec){&found, sizeof found};
    from = (struct iovec){(void *)sequence, sizeof found};
    if (process_vm_readv(implant->pid, &to, 1, &from, 1, 0) != (ssize_t)sizeof found)
        return true;
    return implant->regs.rip - found.start_ip < found.post_commit_offset;
}

int implant_go(struct implant *implant, const char *socket, uint64_t mark)
{
    if (ptrace(PTRACE_GETREGS, implant->pid, NULL, &implant->regs) ||
        ptrace(PTRACE_GETSIGMASK, implant->pid, (void *)SIGNAL_SET_BYTES, &implant->signal_mask))
        return -errno;
    if (implant->regs.cs != CODE_64_BIT)
        return -ENOEXEC;
    if (in_restartable_sequence(implant))
        return -EAGAIN;
    if (strlen(socket) >= sizeof implant->socket)
        return -ENAMETOOLONG;
    int err = agent_load_size(&implant->load);
    int64_t at = syscall_in_vdso();
    int64_t vdso = find_vdso(implant->pid);
    if (err || at < 0 || vdso < 0)
        return err ? err : at < 0 ? (int)at : (int)vdso;
    strcpy(implant->socket, socket);
    implant->mark = mark;
    implant->syscall_at = (uint64_t)vdso + (uint64_t)at;
    uint64_t all_signals = ~0ull;
    /* Should edm die now: it must not run on with registers that are not its own. */
    if (ptrace(PTRACE_SETOPTIONS, implant->pid, NULL, (void *)(long)PTRACE_O_EXITKILL) ||
        ptrace(PTRACE_SETSIGMASK, implant->pid, (void *)SIGNAL_SET_BYTES, &all_signals))
        return -errno;
    err = call_kernel(implant, SYS_mmap, 0, mapped_bytes(implant), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS);
    if (err)
        (void)ptrace(PTRACE_SETSIGMASK, implant->pid, (void *)SIGNAL_SET_BYTES,
                     &implant->signal_mask);
    else
        implant->step = STEP_MAP;
    return err;
}

/* ---- its stops ---- */

/* The result of the system call in *RESULT. -EAGAIN: it has not been made yet. */
static int take_result(struct implant *implant, int64_t *result)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, implant->pid, NULL, &regs))
        return -errno;
    if (regs.rip == implant->syscall_at) {
        /* Stopped on its way out of the system call that it was in before. */
        return ptrace(PTRACE_SINGLESTEP, implant->pid, NULL, NULL) ? -errno : -EAGAIN;
    }
    if (regs.rip != implant->syscall_at + SYSCALL_BYTES)
        return -EFAULT;
    *result = (int64_t)regs.rax;
    return 0;
}

static int after_map(struct implant *implant, int64_t result)
{
    if (result < 0 && result > -4096)
        return (int)result;
    implant->base = (uint64_t)result;
    int err = write_image(implant);
    if (!err)
        err = call_kernel(implant, SYS_mprotect, implant->base, implant->load.code_bytes,
                          PROT_READ | PROT_EXEC, 0);
    implant->step = STEP_PROTECT;
    return err;
}

static enum implant_state after_call(struct implant *implant)
{
    struct user_regs_struct regs;
    bool back = ptrace(PTRACE_GETREGS, implant->pid, NULL, &regs) == 0 &&
                regs.rip - implant->base < implant->load.code_bytes;
    return back ? restore(implant, IMPLANT_DONE) : give_up(implant, EFAULT);
}

static enum implant_state at_work(struct implant *implant)
{
    int64_t result = 0;
    if (implant->step == STEP_CALL)
        return after_call(implant);
    int err = take_result(implant, &result);
    if (err == -EAGAIN)
        return IMPLANT_AT_WORK;
    if (!err && implant->step == STEP_MAP) {
        err = after_map(implant, result);
    } else if (!err) {
        err = result ? (int)result : call_agent(implant);
        implant->step = STEP_CALL;
    }
    return err ? give_up(implant, err) : IMPLANT_AT_WORK;
}

static void go_on(const struct implant *implant, int signal)
{
    bool by_step = implant->step == STEP_MAP || implant->step == STEP_PROTECT;
    (void)ptrace(by_step ? PTRACE_SINGLESTEP : PTRACE_CONT, implant->pid, NULL,
                 (void *)(long)signal);
}

/* A C library's first calls say where the kernel is to write when the thread ends. The agent asks
 * for that: so it comes in after that call, or after the first few, whichever they are (Go's has
 * none). The stops come in pairs, before and after each call. Returns whether it is stopped there.
 */
static bool begins(struct implant *implant)
{
    struct user_regs_struct regs;
    bool after = implant->nstops++ % 2 == 1;
    if (after && (ptrace(PTRACE_GETREGS, implant->pid, NULL, &regs) ||
                  regs.orig_rax == SYS_set_tid_address || implant->nstops >= 2 * FIRST_CALLS))
        return true;
    return ptrace(PTRACE_SYSCALL, implant->pid, NULL, NULL) != 0;
}

/* STATUS as of waitid(): the signal, and above it the number of ptrace's own event. */
static enum implant_state on_stop(struct implant *implant, int status)
{
    int signal = status & 0xff;
    int event = status >> 8;
    switch (implant->step) {
    case STEP_TO_EXEC:
        if (event == PTRACE_EVENT_EXEC) {
            /* Still in execve(), whose result is yet to be written over a register: the next stop
             * is on the way out of it, and before the first instruction. */
            (void)ptrace(PTRACE_INTERRUPT, implant->pid, NULL, NULL);
            implant->step = STEP_TO_STOP;
        }
        go_on(implant, event ? 0 : signal);
        return IMPLANT_STOPPING;
    case STEP_TO_STOP:
        if (event == PTRACE_EVENT_STOP && signal == SIGTRAP) {
            implant->step = implant->at_exec ? STEP_BEGINS : STEP_STOPPED;
            if (implant->at_exec && ptrace(PTRACE_SYSCALL, implant->pid, NULL, NULL) == 0)
                return IMPLANT_STOPPING;
            implant->step = STEP_STOPPED;
            return IMPLANT_STOPPED;
        }
        if (event == PTRACE_EVENT_STOP)
            break; /* stopped by a signal, and has to stay so: another time */
        go_on(implant, event ? 0 : signal);
        (void)ptrace(PTRACE_INTERRUPT, implant->pid, NULL, NULL);
        return IMPLANT_STOPPING;
    case STEP_BEGINS:
        if (event == PTRACE_EVENT_STOP)
            break;
        if (event == 0 && signal == CALL_STOP) {
            if (!begins(implant))
                return IMPLANT_STOPPING;
            implant->step = STEP_STOPPED;
            return IMPLANT_STOPPED;
        }
        (void)ptrace(PTRACE_SYSCALL, implant->pid, NULL, (void *)(long)(event ? 0 : signal));
        return IMPLANT_STOPPING;
    case STEP_LEAVING:
        return finish(implant, IMPLANT_LEFT, event ? 0 : signal);
    default:
        if (event == 0 && signal == SIGTRAP)
            return at_work(implant);
        if (event == 0 && signal != SIGSTOP)
            return give_up(implant, EFAULT); /* all others are held back, but for our mistakes */
        /* SIGSTOP stops all its threads; this one goes on, and stops when it is let go. */
        go_on(implant, event ? 0 : signal);
        return IMPLANT_AT_WORK;
    }
    return finish(implant, IMPLANT_LEFT, 0);
}

enum implant_state implant_step(struct implant *implant)
{
    static const enum implant_state states[] = {
        IMPLANT_STOPPING, IMPLANT_STOPPING, IMPLANT_STOPPING, IMPLANT_STOPPED,
        IMPLANT_AT_WORK,  IMPLANT_AT_WORK,  IMPLANT_AT_WORK,  IMPLANT_LEAVING};
    if (implant->step == STEP_FINISHED)
        return implant->outcome;
    if (implant->step == STEP_STOPPED)
        return IMPLANT_STOPPED;
    for (;;) {
        siginfo_t info = {0};
        /* A zombie has no stops: then this says that there is no such process. */
        if (waitid(P_PID, (id_t)implant->pid, &info, WSTOPPED | WNOHANG | __WALL | __WNOTHREAD)) {
            if (!program_pass_on_end(implant->pid))
                return IMPLANT_LEAVING;
            implant->step = STEP_FINISHED;
            implant->outcome = IMPLANT_ENDED;
            return IMPLANT_ENDED;
        }
        if (info.si_pid == 0)
            break;
        enum implant_state state = on_stop(implant, info.si_status);
        if (state == IMPLANT_STOPPED || implant->step == STEP_FINISHED)
            return state;
    }
    /* exec() forgets that its thread was asked to stop: ask again. */
    if (implant->step == STEP_TO_STOP || implant->step == STEP_LEAVING)
        (void)ptrace(PTRACE_INTERRUPT, implant->pid, NULL, NULL);
    return states[implant->step];
}
