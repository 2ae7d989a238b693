/*
 * calls: system calls without a C library: -errno where one fails.
 */
#ifndef EDM_CLIENT_AGENT_CALLS_H
#define EDM_CLIENT_AGENT_CALLS_H

#include <asm/unistd.h>

#ifndef __x86_64__
#error "the agent's system call stubs are written for x86_64 only"
#endif

static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

static inline long sys3(long n, long a, long b, long c)
{
    return sys6(n, a, b, c, 0, 0, 0);
}

static inline int own_tid(void)
{
    return (int)sys3(__NR_gettid, 0, 0, 0);
}

#endif
