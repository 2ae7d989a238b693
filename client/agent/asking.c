/*
 * asking: children that fork()'s handlers do not see.
 *
 * Part of the agent only in runs in which the kernel does not tell the pager of forks (no
 * EVENT_FORK). _Fork(), clone() and syscall() stand in place of the C library's, or of whose comes
 * next, and ask before they make a child with memory of its own. That child has all of it and no
 * agent, and nothing of it leaves. Left are ways past them: the instruction itself, __clone(), and
 * what was looked up in the C library by its name.
 *
 * The rules of agent.c hold here, too; but all of this runs in the program's own threads.
 */
#include "calls.h"
#include "forks.h"
#include "libc.h"

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/sched.h>
#include <stddef.h>
#include <stdint.h>

typedef long syscall_call(long number, long a, long b, long c, long d, long e, long f);
typedef int clone_call(int (*run)(void *), void *stack, int flags, void *arg, void *parent_tid,
                       void *tls, void *child_tid);

AGENT_OWN syscall_call plain_call;
/* glibc's clone(), and a sanitizer's that calls it. */
extern clone_call __clone __attribute__((weak, visibility("default")));
extern clone_call __interceptor_clone __attribute__((weak, visibility("default")));

/* Whose would be called without us. NULL: it is too early to know; others may be set up before. */
__attribute__((used)) static syscall_call *next_syscall;
__attribute__((used)) static clone_call *next_clone;
static int (*next_fork)(void);

/* Before the program's own code: later dlsym() might wait for a lock that a child has a copy of. */
__attribute__((constructor)) static void find_next(void)
{
    void *found_call = next_called("syscall");
    void *found_clone = next_called("clone");
    next_syscall = plain_call;
    if (found_call)
        *(void **)&next_syscall = found_call;
    next_clone = __clone;
    if (found_clone)
        *(void **)&next_clone = found_clone;
    *(void **)&next_fork = next_called("_Fork");
}

__attribute__((used)) static long failed_call(long err)
{
    set_errno(err);
    return -1;
}

__attribute__((used)) static long no_clone(void)
{
    return failed_call(-ENOSYS);
}

/* A child has all its memory, and no pager to ask. Where its parent waits for it (CLONE_VFORK) it
 * says itself that it is there. */
static void in_unseen_child(uint64_t flags, int its_parent)
{
    if (flags & CLONE_VFORK)
        say_it_has_forked(its_parent, 1);
    forget_forks((flags & CLONE_FILES) != 0);
    watch_forks = 0;
}

static void after_unseen_fork(long pid, uint64_t flags, int asked)
{
    if (pid == 0)
        in_unseen_child(flags, asked);
    else
        say_it_has_forked(asked, 0);
}

__attribute__((visibility("default"))) int _Fork(void);

int _Fork(void)
{
    int asked = watch_forks ? own_tid() : 0;
    if (asked)
        ask_to_fork();
    long pid = next_fork ? next_fork() : plain_call(__NR_fork, 0, 0, 0, 0, 0, 0);
    if (asked)
        after_unseen_fork(pid, 0, asked);
    return (int)pid;
}

/* ---- clone() ---- */

struct begin {
    int (*run)(void *);
    void *arg;
    uint64_t flags;
    int asked;
};

static int begin_unseen(void *begin)
{
    struct begin its = *(struct begin *)begin;
    in_unseen_child(its.flags, its.asked);
    return its.run(its.arg);
}

/* A library may have a function of this name which is another (of musl's that is not known). */
__attribute__((used)) static int must_ask_to_clone(uint32_t flags)
{
    int is_it = !__clone || next_clone == __clone ||
                (__interceptor_clone && next_clone == __interceptor_clone);
    return is_it && !(flags & CLONE_VM);
}

__attribute__((used)) static int watched_clone(int (*run)(void *), void *stack, int flags,
                                               void *arg, void *parent_tid, void *tls,
                                               void *child_tid)
{
    /* The child has a copy, at the same place. */
    struct begin begin = {run, arg, (uint64_t)flags, own_tid()};
    ask_to_fork();
    int pid =
        next_clone(run ? begin_unseen : NULL, stack, flags, &begin, parent_tid, tls, child_tid);
    say_it_has_forked(begin.asked, 0);
    return pid;
}

/* ---- syscall() ---- */

/* A child with memory of its own has no CLONE_VM among these; all other calls have. */
static uint64_t flags_of(long number, long first, long second)
{
    uint64_t flags = CLONE_VM;
    struct {
        const void *at;
        uint64_t len;
    } here = {&flags, sizeof flags}, there = {(void *)first, sizeof flags};
    if (number == __NR_fork)
        flags = 0;
    else if (number == __NR_clone)
        flags = (uint64_t)first;
    else if (number == __NR_clone3 && second >= (long)sizeof flags) {
        long got = sys6(__NR_process_vm_readv, sys3(__NR_getpid, 0, 0, 0), (long)&here, 1,
                        (long)&there, 1, 0);
        /* What is not there the kernel will say: flags stay as they are. Where the call is refused
         * it is taken to be there. */
        if (got != (long)sizeof flags && got != -EFAULT)
            flags = *(const volatile uint64_t *)first;
    }
    return flags;
}

__attribute__((used)) static int must_ask_to_call(long number, long first, long second)
{
    return !(flags_of(number, first, second) & CLONE_VM);
}

__attribute__((used)) static long watched_call(long number, long a, long b, long c, long d, long e,
                                               long f)
{
    uint64_t flags = flags_of(number, a, b);
    int asked = own_tid();
    ask_to_fork();
    /* A child that has been given another stack returns to what it finds there, and not here. */
    long result = next_syscall(number, a, b, c, d, e, f);
    after_unseen_fork(result, flags, asked);
    return result;
}

/* ---- entries ---- */

/* They go on to whose comes next with everything as it was, or to the one that asks. plain_call is
 * what the C library's syscall() is: it reads seven arguments, whatever the call is. */
#define ENTRY(name, must_ask, watched, next, too_early)                 \
    ".globl " name "\n"                                                 \
    ".type " name ", @function\n" name ":\n"                            \
    ".cfi_startproc\n"                                                  \
    "    cmpl $0, watch_forks(%rip)\n"                                  \
    "    je 1f\n"                                                       \
    "    pushq %rdi\n"                                                  \
    "    pushq %rsi\n"                                                  \
    "    pushq %rdx\n"                                                  \
    "    pushq %rcx\n"                                                  \
    "    pushq %r8\n"                                                   \
    "    pushq %r9\n"                                                   \
    "    pushq %rax\n"                                                  \
    "    .cfi_adjust_cfa_offset 56\n" must_ask "    movl %eax, %r11d\n" \
    "    popq %rax\n"                                                   \
    "    popq %r9\n"                                                    \
    "    popq %r8\n"                                                    \
    "    popq %rcx\n"                                                   \
    "    popq %rdx\n"                                                   \
    "    popq %rsi\n"                                                   \
    "    popq %rdi\n"                                                   \
    "    .cfi_adjust_cfa_offset -56\n"                                  \
    "    testl %r11d, %r11d\n"                                          \
    "    jnz " watched "\n"                                             \
    "1:  movq " next "(%rip), %r11\n"                                   \
    "    testq %r11, %r11\n"                                            \
    "    jz " too_early "\n"                                            \
    "    jmpq *%r11\n"                                                  \
    ".cfi_endproc\n"                                                    \
    ".size " name ", . - " name "\n"

__asm__(".text\n" ENTRY("syscall", "    call must_ask_to_call\n", "watched_call", "next_syscall",
                        "plain_call")
            ENTRY("clone",
                  "    movl %edx, %edi\n"
                  "    call must_ask_to_clone\n",
                  "watched_clone", "next_clone", "no_clone") ".previous\n");

__asm__(".text\n"
        ".globl plain_call\n"
        ".hidden plain_call\n"
        ".type plain_call, @function\n"
        "plain_call:\n"
        ".cfi_startproc\n"
        "    movq %rdi, %rax\n"
        "    movq %rsi, %rdi\n"
        "    movq %rdx, %rsi\n"
        "    movq %rcx, %rdx\n"
        "    movq %r8, %r10\n"
        "    movq %r9, %r8\n"
        "    movq 8(%rsp), %r9\n"
        "    syscall\n"
        "    cmpq $-4095, %rax\n"
        "    jae 1f\n"
        "    ret\n"
        "1:  movq %rax, %rdi\n"
        "    jmp failed_call\n"
        ".cfi_endproc\n"
        ".size plain_call, . - plain_call\n"
        ".previous\n");
