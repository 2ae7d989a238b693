#include "mapped_fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096 };

/* The handler walks the list at any time, in any thread: nodes are never freed, only used again. */
struct mapped_fault {
    struct mapped_fault *next;
    _Atomic uintptr_t start; /* 0: the node is free */
    _Atomic uintptr_t end;
    _Atomic uint32_t count;
    atomic_bool taken;
};

static struct mapped_fault *_Atomic all;
static _Atomic uint32_t total;

static struct mapped_fault *find(uintptr_t address)
{
    for (struct mapped_fault *at = atomic_load(&all); at != NULL; at = at->next) {
        uintptr_t start = atomic_load(&at->start);
        if (start != 0 && address >= start && address < atomic_load(&at->end))
            return at;
    }
    return NULL;
}

static void handle(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE_BYTES - 1);
    struct mapped_fault *fault = info->si_code > 0 ? find(page) : NULL;

    (void)context;
    /* The system call itself: it is one of those that a handler may make. */
    long map = fault == NULL ? -1
                             : syscall(SYS_mmap, page, PAGE_BYTES, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (map == -1) {
        /* Touched again, it ends the process; or it was sent, and is sent again. */
        signal(number, SIG_DFL);
        if (info->si_code <= 0)
            raise(number);
    } else {
        atomic_fetch_add(&fault->count, 1);
        atomic_fetch_add(&total, 1);
    }
    errno = saved;
}

int mapped_fault_install(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_RESTART};

    action.sa_sigaction = handle;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) == 0 ? 0 : -errno;
}

/* A node that nobody uses, or a new one. */
static struct mapped_fault *take_node(void)
{
    for (struct mapped_fault *at = atomic_load(&all); at != NULL; at = at->next) {
        bool taken = false;
        if (atomic_compare_exchange_strong(&at->taken, &taken, true))
            return at;
    }
    struct mapped_fault *fault = calloc(1, sizeof(*fault));
    if (fault == NULL)
        return NULL;
    atomic_store(&fault->taken, true);
    fault->next = atomic_load(&all);
    while (!atomic_compare_exchange_weak(&all, &fault->next, fault))
        ;
    return fault;
}

int mapped_fault_watch(struct mapped_fault **out, void *start, size_t bytes)
{
    struct mapped_fault *fault = take_node();

    if (fault == NULL)
        return -ENOMEM;
    atomic_store(&fault->count, 0);
    atomic_store(&fault->end, (uintptr_t)start + bytes);
    atomic_store(&fault->start, (uintptr_t)start);
    *out = fault;
    return 0;
}

void mapped_fault_forget(struct mapped_fault **fault)
{
    if (*fault == NULL)
        return;
    atomic_store(&(*fault)->start, 0);
    atomic_store(&(*fault)->taken, false);
    *fault = NULL;
}

uint32_t mapped_fault_count(const struct mapped_fault *fault)
{
    return atomic_load(&fault->count);
}

uint32_t mapped_fault_total(void)
{
    return atomic_load(&total);
}
