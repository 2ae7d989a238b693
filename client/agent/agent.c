/*
 * agent: the part of EDM inside the program.
 *
 * Preloaded; its constructor runs before the program's own code, hands a userfaultfd to the pager
 * and starts one thread, which from then on runs memory system calls on the pager's command: the
 * kernel allows UFFDIO_MOVE and madvise(MADV_DONTNEED) only from inside. Into a program that loads
 * nothing it is put by the pager (implant.h), which sends a thread of the program through its
 * entry.
 *
 * Rules of this file:
 *  - No libc: not malloc, not stdio, not errno, not even memcpy. The thread has no thread-local
 *    storage of its own (it sees the main thread's, which may be managed memory), so nothing here
 *    may touch it; the object is built freestanding, without stack protector.
 *  - The thread touches only its stack (shared mapping), the gate, the hold and the pool: none of
 *    these is managed, so it never waits for a page of its own program.
 *  - The thread has a descriptor table of its own (clone without CLONE_FILES). The program's
 *    descriptors are untouched: nothing to close by mistake, and nothing of the program's is kept
 *    open by us.
 */
#include "agent_proto.h"
#include "calls.h"
#include "forks.h"
#include "hash.h"
#include "libc.h"
#include "../kernel_abi.h"

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PAGE = AGENT_PAGE_BYTES,
    STACK_BYTES = 64 * 1024,
    AREA_BYTES = AGENT_BATCH_PAGES * PAGE,
    OPEN_CLOEXEC = 02000000,
    SOCKET_UNIX = 1,
    SOCKET_SEQPACKET_CLOEXEC = 5 | OPEN_CLOEXEC,
    MESSAGE_NOSIGNAL = 0x4000,
    MESSAGE_CMSG_CLOEXEC = 0x40000000,
    LEVEL_SOCKET = 1,
    CONTROL_RIGHTS = 1,
    SIGNAL_KILL = 9,
    TRIES = 3,
};

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

/* ---- system calls ---- */

/* Starts FN(ARG) on the stack that ends at STACK_TOP. Returns the thread id or -errno. */
static long spawn(unsigned long flags, void *stack_top, void (*fn)(void *), void *arg)
{
    void **top = stack_top;
    *--top = (void *)fn;
    *--top = arg;
    long ret;
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "popq %%rdi\n\t"
                     "popq %%rax\n\t"
                     "callq *%%rax\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(ret)
                     : "a"(__NR_clone), "D"(flags), "S"(top), "d"(0), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return ret;
}

static long map(long len_bytes, long flags, long fd)
{
    return sys6(__NR_mmap, 0, len_bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
}

static void clear(void *at, unsigned long len_bytes)
{
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(len_bytes) : "a"(0) : "memory");
}

static void copy(void *to, const void *from, unsigned long len_bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len_bytes) : : "memory");
}

/* A word that is 0 until somebody sets it. */
static void set_word(int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
    sys3(__NR_futex, (long)word, FUTEX_WAKE, 1);
}

static int wait_word(int *word)
{
    int value;
    while ((value = __atomic_load_n(word, __ATOMIC_ACQUIRE)) == 0)
        sys6(__NR_futex, (long)word, FUTEX_WAIT, 0, 0, 0, 0);
    return value;
}

/* ---- messages ---- */

struct io_vector {
    void *base;
    unsigned long len_bytes;
};

struct message_header { /* struct msghdr of the kernel */
    void *name;
    int name_len;
    struct io_vector *vectors;
    unsigned long nvectors;
    void *control;
    unsigned long control_len;
    unsigned int flags;
};

struct control_fds { /* struct cmsghdr with room for two descriptors */
    unsigned long len;
    int level;
    int type;
    int fds[2];
};

enum { CONTROL_HEADER_BYTES = 16 };

/* A message of any length up to CAP_BYTES, and the descriptors that came with it, -1 where none
 * did. Returns its length or -errno. */
static long receive_message(int sock, void *to, unsigned long cap_bytes, int fds[2])
{
    struct io_vector vector = {to, cap_bytes};
    struct control_fds control;
    clear(&control, sizeof control);
    struct message_header header;
    clear(&header, sizeof header);
    header.vectors = &vector;
    header.nvectors = 1;
    header.control = &control;
    header.control_len = sizeof control;
    fds[0] = fds[1] = -1;
    long got;
    do {
        got = sys3(__NR_recvmsg, sock, (long)&header, MESSAGE_CMSG_CLOEXEC);
    } while (got == -EINTR);
    if (got < 0)
        return got;
    if (header.control_len >= CONTROL_HEADER_BYTES && control.type == CONTROL_RIGHTS) {
        unsigned long nfds = (control.len - CONTROL_HEADER_BYTES) / sizeof(int);
        for (unsigned long i = 0; i < nfds && i < 2; i++)
            fds[i] = control.fds[i];
    }
    return got;
}

static int receive_fds(int sock, void *to, unsigned long len_bytes, int fds[2])
{
    long got = receive_message(sock, to, len_bytes, fds);
    return got == (long)len_bytes ? 0 : got < 0 ? (int)got : -EPROTO;
}

static int send_fds(int sock, void *from, unsigned long len_bytes, const int *fds, int nfds)
{
    struct io_vector vector = {from, len_bytes};
    struct control_fds control;
    clear(&control, sizeof control);
    struct message_header header;
    clear(&header, sizeof header);
    header.vectors = &vector;
    header.nvectors = 1;
    if (nfds > 0) {
        control.len = CONTROL_HEADER_BYTES + (unsigned long)nfds * sizeof(int);
        control.level = LEVEL_SOCKET;
        control.type = CONTROL_RIGHTS;
        for (int i = 0; i < nfds; i++)
            control.fds[i] = fds[i];
        header.control = &control;
        header.control_len = sizeof control;
    }
    long sent;
    do {
        sent = sys3(__NR_sendmsg, sock, (long)&header, MESSAGE_NOSIGNAL);
    } while (sent == -EINTR);
    return sent == (long)len_bytes ? 0 : sent < 0 ? (int)sent : -EPROTO;
}

/* ---- the thread ---- */

/* Lives on the thread's stack mapping, below its top. */
struct agent {
    int sock, uffd, hold_uffd;
    int saved;   /* futex: the thread has its own descriptors in place */
    int verdict; /* futex: enum agent_verdict, once the pager has given it */
    char *gate, *hold, *pool;
    int executable; /* gate and hold are, just now */
    int nswitched;  /* how often they were made so, or not so, for this command */
    struct agent_command command;
    struct agent_result result;
};

static void end_program(void)
{
    long pid = sys3(__NR_getpid, 0, 0, 0);
    sys3(__NR_kill, pid, SIGNAL_KILL, 0);
    for (;;)
        sys3(__NR_exit_group, 137, 0, 0);
}

/* A page can be moved between mappings only that allow the same. What the program has is nearly
 * always as executable as what it had before. Returns whether to try again. */
static int switch_areas(struct agent *agent)
{
    enum { SWITCHES_MOST = 16 };
    int access = PROT_READ | PROT_WRITE | (agent->executable ? 0 : PROT_EXEC);
    if (agent->nswitched++ >= SWITCHES_MOST ||
        sys3(__NR_mprotect, (long)agent->gate, 2 * AREA_BYTES, access) != 0)
        return 0;
    agent->executable = !agent->executable;
    return 1;
}

/* Moves NPAGES pages and says in STATUS what became of each. A page that cannot be moved is passed
 * over; EAGAIN (the program's mappings are changing) ends the attempt for all that follow. */
static void move_run(struct agent *agent, char *to, uint64_t from, uint64_t npages, uint8_t *status)
{
    uint64_t done = 0;
    uint64_t switched = npages; /* for which page */
    while (done < npages) {
        struct kuffd_move move = {
            .dst = (uint64_t)to + done * PAGE,
            .src = from + done * PAGE,
            .len = (npages - done) * PAGE,
        };
        long err = sys3(__NR_ioctl, agent->uffd, (long)KUFFD_IOCTL_MOVE, (long)&move);
        /* The count can be short, zero or a negative errno: trust only what is positive. */
        uint64_t moved = move.move > 0 ? (uint64_t)move.move / PAGE : 0;
        if (err == 0)
            moved = npages - done;
        for (uint64_t i = 0; i < moved; i++)
            status[done + i] = 0;
        done += moved;
        if (done == npages)
            break;
        if (err == -EAGAIN && moved > 0)
            continue;
        uint8_t why = err < 0 ? (uint8_t)-err : EIO;
        if (why == EINVAL && switched != done && switch_areas(agent)) {
            switched = done;
            continue;
        }
        if (why == EAGAIN) {
            for (; done < npages; done++)
                status[done] = EAGAIN;
            break;
        }
        status[done++] = why;
    }
}

/* Of NPAGES pages from FROM on, of which the first is page FIRST of the batch: those that have been
 * moved get a seal in their place. Where the kernel refuses (EAGAIN: a fork, say, is under way)
 * they have none. */
static void seal_run(struct agent *agent, uint64_t from, uint32_t first, uint32_t npages)
{
    struct agent_result *result = &agent->result;
    for (uint32_t i = 0, end; i < npages; i = end) {
        end = i + 1;
        if (result->status[first + i] != 0)
            continue;
        while (end < npages && result->status[first + end] == 0)
            end++;
        struct uffdio_writeprotect seal = {
            .range = {from + (uint64_t)i * PAGE, (uint64_t)(end - i) * PAGE},
            .mode = UFFDIO_WRITEPROTECT_MODE_WP,
        };
        if (sys3(__NR_ioctl, agent->uffd, (long)UFFDIO_WRITEPROTECT, (long)&seal) != 0)
            continue;
        for (uint32_t j = first + i; j < first + end; j++)
            result->sealed[j / 64] |= 1ull << j % 64;
    }
}

/* From the gate into the hold. Nobody but us knows these pages, so EAGAIN (the kernel has a page
 * locked for the moment) is waited out. Returns whether something is left in the gate. Until COPIED
 * nothing may raise an event, nor fault there: the pager reads none while a fork is under way. */
static int move_to_hold(struct agent *agent, uint32_t first, uint32_t npages)
{
    int left = 0;
    uint32_t done = 0;
    while (done < npages) {
        struct kuffd_move move = {
            .dst = (uint64_t)agent->hold + (uint64_t)(first + done) * PAGE,
            .src = (uint64_t)agent->gate + (uint64_t)(first + done) * PAGE,
            .len = (uint64_t)(npages - done) * PAGE,
        };
        long err = sys3(__NR_ioctl, agent->hold_uffd, (long)KUFFD_IOCTL_MOVE, (long)&move);
        if (err == 0)
            break;
        if (move.move > 0) {
            done += (uint32_t)(move.move / PAGE);
        } else if (err == -EAGAIN) {
            sys3(__NR_sched_yield, 0, 0, 0);
        } else if (err == -ENOENT) {
            done++; /* dropped by the kernel (MADV_FREE): it is zero, and so is the hold's */
        } else {
            /* Cannot be moved: read it where it is. */
            copy(agent->hold + (uint64_t)(first + done) * PAGE,
                 agent->gate + (uint64_t)(first + done) * PAGE, PAGE);
            left = 1;
            done++;
        }
    }
    return left;
}

/* A system call that cannot fail has failed, other than by the pager's death: the program has set a
 * seccomp filter on all of its threads. Most of those allow a write(). The pager is the one to end
 * the program, so that it can say why first. */
static void end_refused(struct agent *agent, long err)
{
    const struct {
        long s, ns;
    } long_enough = {5, 0};
    int word = 0;
    agent->result.op = AGENT_REFUSED;
    agent->result.batch = (uint32_t)-err;
    if (sys3(__NR_write, agent->sock, (long)&agent->result, sizeof agent->result) > 0)
        sys6(__NR_futex, (long)&word, FUTEX_WAIT, 0, (long)&long_enough, 0, 0);
    end_program();
}

static void reply(struct agent *agent, uint32_t op)
{
    agent->result.op = op;
    agent->result.batch = agent->command.batch;
    int err = send_fds(agent->sock, &agent->result, sizeof agent->result, NULL, 0);
    if (err)
        end_refused(agent, err);
}

/* mlockall() locks and fills our areas with all the others: then nothing can be moved into the
 * gate, and what lies in the hold cannot be given back. Only after COPIED, for it raises an event,
 * and that may be read only when a fork has been answered, which waits for COPIED. */
static void empty_areas(struct agent *agent)
{
    sys3(__NR_munlock, (long)agent->gate, 2 * AREA_BYTES, 0);
    sys3(__NR_madvise, (long)agent->gate, 2 * AREA_BYTES, MADV_DONTNEED);
}

/* The pages [first, end) of the hold: what the store has already is left out, the rest copied. */
static void copy_changed(struct agent *agent, uint32_t first, uint32_t end)
{
    const struct agent_command *command = &agent->command;
    char *pool = agent->pool + (uint64_t)command->batch * AREA_BYTES;
    for (uint32_t i = first; i < end; i++) {
        const char *page = agent->hold + (uint64_t)i * PAGE;
        if (command->had[i]) {
            struct agent_hash hash = hash_page(page);
            if (hash.low == command->stored[i].low && hash.high == command->stored[i].high) {
                agent->result.status[i] = AGENT_CLEAN;
                continue;
            }
        }
        copy(pool + (uint64_t)i * PAGE, page, PAGE);
    }
}

static void evict(struct agent *agent)
{
    const struct agent_command *command = &agent->command;
    uint8_t *status = agent->result.status;
    uint32_t total = 0;
    int again = 0, refused = 0;
    agent->nswitched = 0;
    clear(agent->result.sealed, sizeof agent->result.sealed);
    for (uint32_t r = 0; r < command->nruns; r++) {
        uint32_t npages = (uint32_t)command->runs[r].npages;
        if (total + npages > AGENT_BATCH_PAGES)
            end_program();
        if (again) {
            for (uint32_t i = 0; i < npages; i++)
                status[total + i] = EAGAIN;
        } else {
            move_run(agent, agent->gate + (uint64_t)total * PAGE, command->runs[r].addr, npages,
                     status + total);
            seal_run(agent, command->runs[r].addr, total, npages);
            again = status[total + npages - 1] == EAGAIN;
        }
        total += npages;
    }
    reply(agent, AGENT_MOVED);

    for (uint32_t i = 0; i < total;) {
        if (status[i] != 0) {
            refused |= status[i] == EEXIST || status[i] == EINVAL;
            i++;
            continue;
        }
        uint32_t end = i + 1;
        while (end < total && status[end] == 0)
            end++;
        refused |= move_to_hold(agent, i, end - i);
        copy_changed(agent, i, end);
        i = end;
    }
    if (!refused)
        sys3(__NR_madvise, (long)agent->hold, (long)total * PAGE, MADV_DONTNEED);
    agent->result.empties = (uint32_t)refused;
    reply(agent, AGENT_COPIED);
    if (refused) {
        empty_areas(agent);
        reply(agent, AGENT_EMPTIED);
    }
}

/* After a fork the pages are shared with the child and cannot be moved. Writing to them, which is
 * what this amounts to, makes them the program's own again. */
static void populate(struct agent *agent)
{
    const struct agent_command *command = &agent->command;
    for (uint32_t r = 0; r < command->nruns; r++)
        sys3(__NR_madvise, (long)command->runs[r].addr, (long)command->runs[r].npages * PAGE,
             MADV_POPULATE_WRITE);
    reply(agent, AGENT_POPULATED);
}

/* Stays open under the number it has always had. */
static void adopt(struct agent *agent, int fd)
{
    sys3(__NR_dup3, fd, agent->uffd, OPEN_CLOEXEC);
    sys3(__NR_close, fd, 0, 0);
}

static void serve(void *arg)
{
    struct agent *agent = arg;
    /* This thread's own table: keep three descriptors, drop everything of the program's. They go to
     * the top first, so that none of the low numbers is overwritten before it was copied. */
    int high[3];
    const int wanted[3] = {agent->sock, agent->uffd, agent->hold_uffd};
    for (int i = 0; i < 3; i++)
        high[i] = (int)sys3(__NR_fcntl, wanted[i], 1030 /* F_DUPFD_CLOEXEC */, 3);
    for (int i = 0; i < 3; i++)
        sys3(__NR_dup3, high[i], i, OPEN_CLOEXEC);
    sys3(__NR_close_range, 3, ~0U, 0);
    agent->sock = 0;
    agent->uffd = 1;
    agent->hold_uffd = 2;
    set_word(&agent->saved, 1);
    if (wait_word(&agent->verdict) != AGENT_MANAGE)
        sys3(__NR_exit, 0, 0, 0);
    for (;;) {
        int fds[2];
        long got = receive_message(agent->sock, &agent->command, sizeof agent->command, fds);
        if (got < 0)
            end_refused(agent, got);
        if (got < (long)offsetof(struct agent_command, runs))
            end_program();
        if (agent->command.op == AGENT_EVICT)
            evict(agent);
        else if (agent->command.op == AGENT_POPULATE)
            populate(agent);
        else if (agent->command.op == AGENT_ADOPT && fds[0] >= 0)
            adopt(agent, fds[0]);
        else
            end_program();
    }
}

/* ---- start ---- */

static const char *find_env(char **envp, const char *name)
{
    for (; envp && *envp; envp++) {
        const char *at = *envp;
        const char *want = name;
        while (*want && *at == *want) {
            at++;
            want++;
        }
        if (!*want && *at == '=')
            return at + 1;
    }
    return NULL;
}

static int connect_pager(const char *path)
{
    struct {
        unsigned short family;
        char path[108];
    } address;
    clear(&address, sizeof address);
    address.family = SOCKET_UNIX;
    for (unsigned i = 0; path[i]; i++) {
        if (i >= sizeof address.path - 1)
            return -ENAMETOOLONG;
        address.path[i] = path[i];
    }
    long sock = sys3(__NR_socket, SOCKET_UNIX, SOCKET_SEQPACKET_CLOEXEC, 0);
    if (sock < 0)
        return (int)sock;
    long err;
    do {
        err = sys3(__NR_connect, sock, (long)&address, sizeof address);
    } while (err == -EINTR);
    if (err < 0) {
        sys3(__NR_close, sock, 0, 0);
        return (int)err;
    }
    return (int)sock;
}

static int open_uffd(int device)
{
    long fd = -EPERM;
    if (device >= 0)
        fd = sys3(__NR_ioctl, device, KUFFD_IOCTL_NEW, OPEN_CLOEXEC);
    if (fd < 0)
        fd = sys3(__NR_userfaultfd, OPEN_CLOEXEC, 0, 0);
    return (int)fd;
}

static int is_map_error(long address)
{
    return address < 0 && address > -4096;
}

static void name_step(struct agent_ready *ready, const char *step, long err)
{
    ready->error = (int32_t)-err;
    for (int i = 0; i < (int)sizeof ready->step - 1 && step[i]; i++)
        ready->step[i] = step[i];
}

/* Where a child is known by: whoever forks hands it on, and every child finds it empty. */
static char *mark;

static long make_mark(void)
{
    if (mark)
        return 0; /* the parent's */
    long page = map(PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (is_map_error(page))
        return page;
    mark = (char *)page;
    return sys3(__NR_madvise, page, PAGE, MADV_WIPEONFORK);
}

/* Makes the mappings the thread works with. NULL when one fails; READY then says which. */
static struct agent *make_areas(uint64_t pool_bytes, int pool_fd, struct agent_ready *ready)
{
    /* Shared mappings are left alone by the pager whatever else happens. */
    long stack = map(STACK_BYTES, MAP_SHARED | MAP_ANONYMOUS, -1);
    long areas = map(2 * AREA_BYTES, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    long pool = map((long)pool_bytes, MAP_SHARED, pool_fd);
    if (is_map_error(stack) || is_map_error(areas) || is_map_error(pool)) {
        long err = is_map_error(stack) ? stack : is_map_error(areas) ? areas : pool;
        name_step(ready, is_map_error(pool) ? "mmap of the pool" : "mmap", err);
        return NULL;
    }
    long err = make_mark();
    if (err) {
        name_step(ready, "making the mark", err);
        return NULL;
    }
    sys3(__NR_madvise, areas, 2 * AREA_BYTES, MADV_NOHUGEPAGE);
    sys3(__NR_madvise, stack, STACK_BYTES, MADV_DONTFORK);
    sys3(__NR_madvise, areas, 2 * AREA_BYTES, MADV_DONTFORK);
    sys3(__NR_madvise, pool, (long)pool_bytes, MADV_DONTFORK);
    struct agent *agent = (struct agent *)stack; /* fresh, hence zero; the stack grows down to it */
    agent->gate = (char *)areas;
    agent->hold = (char *)areas + AREA_BYTES;
    agent->pool = (char *)pool;
    ready->gate = (uint64_t)agent->gate;
    ready->hold = (uint64_t)agent->hold;
    uint64_t end = ((uint64_t)_end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
    ready->own[0] = (struct agent_range){(uint64_t)__ehdr_start, end};
    ready->own[1] = (struct agent_range){(uint64_t)stack, (uint64_t)stack + STACK_BYTES};
    ready->own[2] = (struct agent_range){(uint64_t)areas, (uint64_t)areas + 2 * AREA_BYTES};
    ready->mark = (uint64_t)mark;
    ready->own[4] = (struct agent_range){(uint64_t)mark, (uint64_t)mark + PAGE};
    ready->own[3] = (struct agent_range){(uint64_t)pool, (uint64_t)pool + pool_bytes};
    return agent;
}

/* ---- forks ---- */

/* glibc's way and musl's to run something around fork(); in the program's own thread. */
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *)
    __attribute__((weak, visibility("default")));
extern int pthread_atfork(void (*)(void), void (*)(void), void (*)(void))
    __attribute__((weak, visibility("default")));

static char pager_path[108];
static int is_loaded; /* by the dynamic linker, and not put in */
static uint64_t tid_address;

static void report(uint32_t kind);

int watch_forks;
static volatile uint64_t events_queued; /* the pager writes it, */
static struct agent_mutexes mutexes;    /* and reads these */

/* In one of the program's own threads. Where the kernel does not say (CONFIG_CHECKPOINT_RESTORE),
 * 0. */
static void find_tid_address(void)
{
    sys3(__NR_prctl, 40 /* PR_GET_TID_ADDRESS */, (long)&tid_address, 0);
}

static struct agent_hello make_hello(uint32_t kind)
{
    return (struct agent_hello){AGENT_MAGIC, sizeof(struct agent_command), kind, own_tid()};
}

/* Threads that are forking, where the kernel does not tell the pager of it, and their connections.
 */
enum { FORKS_AT_ONCE = 64 };
static struct {
    int tid, connection;
} forks[FORKS_AT_ONCE];

static void note_fork(int tid, int connection)
{
    for (int i = 0;; i = (i + 1) % FORKS_AT_ONCE) {
        int none = 0;
        if (__atomic_compare_exchange_n(&forks[i].tid, &none, -1, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED)) {
            forks[i].connection = connection;
            __atomic_store_n(&forks[i].tid, tid, __ATOMIC_RELEASE);
            return;
        }
    }
}

void ask_to_fork(void)
{
    int sock = connect_pager(pager_path);
    struct agent_hello hello = make_hello(AGENT_FORKING);
    struct agent_go go;
    int none[2];
    if (sock < 0 || send_fds(sock, &hello, sizeof hello, NULL, 0) != 0 ||
        receive_fds(sock, &go, sizeof go, none) != 0)
        end_program(); /* a child would read zeros */
    note_fork(hello.tid, sock);
}

/* Threads that do one of two things which are not to be done together. */
struct apart {
    int count;
    int in_vain; /* so often in a row one has waited for the other side to no end */
};

/* Between fork()'s handlers; moving memory to a place of their choice. */
static struct apart forking, placing;

/* Those of the OTHER side go on first, or, where they have just come as well, one side gives way.
 * Whoever has waited for half a second (a whole one, with the timers' usual slack) goes on all the
 * same: it may be waiting for itself (in a handler of a signal, or of fork()), or for threads that
 * its process has only the count of (the child of a clone() system call). Where that happens again
 * and again the wait is short. What is done together then is only less certain to be told apart. */
static void begin_apart(struct apart *side, const struct apart *other, int gives_way)
{
    enum { NAP_NS = 50000, NAPS = 10000, FEW_NAPS = 20, PATIENCE = 3 };
    const long nap[2] = {0, NAP_NS};
    int naps = 0;
    int most = __atomic_load_n(&side->in_vain, __ATOMIC_RELAXED) < PATIENCE ? NAPS : FEW_NAPS;
    __atomic_add_fetch(&side->count, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&other->count, __ATOMIC_SEQ_CST) > 0) {
        if (naps++ == most) {
            if (most == NAPS)
                __atomic_add_fetch(&side->in_vain, 1, __ATOMIC_RELAXED);
            return;
        }
        __atomic_sub_fetch(&side->count, gives_way, __ATOMIC_SEQ_CST);
        sys3(__NR_nanosleep, (long)nap, 0, 0);
        __atomic_add_fetch(&side->count, gives_way, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&side->in_vain, 0, __ATOMIC_RELAXED);
}

static void end_apart(struct apart *side)
{
    __atomic_sub_fetch(&side->count, 1, __ATOMIC_SEQ_CST);
}

static void before_fork(void)
{
    if (watch_forks)
        ask_to_fork(); /* nothing is out then */
    else
        begin_apart(&forking, &placing, 0);
}

/* Says that it is done: a child may have a copy of the connection, and does not know. */
void say_it_has_forked(int tid, int keeps_connection)
{
    for (int i = 0; i < FORKS_AT_ONCE; i++)
        if (__atomic_load_n(&forks[i].tid, __ATOMIC_ACQUIRE) == tid) {
            char done = 0;
            send_fds(forks[i].connection, &done, 1, NULL, 0);
            if (keeps_connection)
                return;
            sys3(__NR_close, forks[i].connection, 0, 0);
            __atomic_store_n(&forks[i].tid, 0, __ATOMIC_RELEASE);
            return;
        }
}

static void after_fork(void)
{
    if (watch_forks)
        say_it_has_forked(own_tid(), 0);
    else
        end_apart(&forking);
}

void forget_forks(int shares_files)
{
    for (int i = 0; i < FORKS_AT_ONCE; i++)
        if (forks[i].tid) {
            if (forks[i].tid > 0 && !shares_files)
                sys3(__NR_close, forks[i].connection, 0, 0);
            forks[i].tid = 0;
        }
}

/* The agent's thread has stayed with the parent. */
static void in_child(void)
{
    forget_forks(0);
    forking.count = placing.count = 0; /* in the parent */
    find_tid_address();
    watch_forks = 0; /* until the pager has taken it on */
    report(AGENT_CHILD);
}

static long start_thread(struct agent *agent)
{
    uint64_t all_signals = ~0ULL;
    uint64_t old_signals = 0;
    /* The thread must never run a signal handler of the program's. */
    sys6(__NR_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&all_signals, (long)&old_signals, 8, 0, 0);
    long tid = spawn(CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
                     (char *)agent + STACK_BYTES, serve, agent);
    sys6(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&old_signals, 0, 8, 0, 0);
    if (tid > 0)
        wait_word(&agent->saved);
    return tid;
}

static unsigned long length(const char *words)
{
    unsigned long len = 0;
    while (words[len])
        len++;
    return len;
}

static int may_outlive(const char *path)
{
    const char *end = AGENT_MAY_OUTLIVE;
    unsigned long len = length(path), end_len = length(end);
    if (len < end_len)
        return 0;
    for (unsigned long i = 0; i < end_len; i++)
        if (path[len - end_len + i] != end[i])
            return 0;
    return 1;
}

/* The pager has died, and was not killed together with this process because it did not know it. In
 * a child the standard streams may be anything. */
static void outlive(uint32_t kind)
{
    static const char words[] =
        "edm: edm has died: a program that was just started under it is ended\n";
    if (may_outlive(pager_path))
        return;
    if (kind == AGENT_IMAGE)
        sys3(__NR_write, 2, (long)words, sizeof words - 1);
    end_program();
}

/* Everything between welcome and go. The thread got a copy of the descriptors: all of them here
 * are closed again, whatever comes of it. */
static void join_pager(int sock, uint32_t kind, const struct agent_welcome *welcome,
                       const int given[2])
{
    struct agent_ready ready;
    clear(&ready, sizeof ready);
    struct agent *agent = NULL;
    ready.tid_address = tid_address;
    ready.events_queued = (uint64_t)&events_queued;
    ready.mutexes = (uint64_t)&mutexes;
    if (kind == AGENT_CHILD && mark)
        (void)*(volatile char *)mark;
    int device = welcome->has_device ? given[1] : -1;
    int uffds[2] = {open_uffd(device), -1};
    if (uffds[0] >= 0)
        uffds[1] = open_uffd(device);
    if (uffds[0] < 0 || uffds[1] < 0)
        name_step(&ready, "userfaultfd", uffds[0] < 0 ? uffds[0] : uffds[1]);
    else
        agent = make_areas(welcome->pool_bytes, given[0], &ready);
    if (agent) {
        agent->sock = sock;
        agent->uffd = uffds[0];
        agent->hold_uffd = uffds[1];
        long tid = start_thread(agent);
        ready.tid = (int32_t)tid;
        if (tid < 0)
            name_step(&ready, "clone", tid);
    }
    struct agent_go go = {AGENT_LEAVE_ALONE, 0};
    int none[2];
    if (send_fds(sock, &ready, sizeof ready, uffds, ready.error == 0 ? 2 : 0) != 0 ||
        receive_fds(sock, &go, sizeof go, none) != 0)
        end_program();
    watch_forks = go.verdict == AGENT_MANAGE && go.watch_forks;
    if (agent && ready.error == 0) {
        events_queued = 0; /* a child has its parent's until now */
        set_word(&agent->verdict, (int)go.verdict);
        /* The agent needs this thread no more, and will begin when it gets a processor. */
        struct agent_result serving;
        clear(&serving, sizeof serving);
        serving.op = AGENT_SERVING;
        if (go.verdict == AGENT_MANAGE && send_fds(sock, &serving, sizeof serving, NULL, 0) != 0)
            end_program();
    }
    if (kind == AGENT_IMAGE) {
        if (__register_atfork)
            __register_atfork(before_fork, after_fork, in_child, NULL);
        else if (pthread_atfork)
            pthread_atfork(before_fork, after_fork, in_child);
    }
    for (int i = 0; i < 2; i++)
        if (uffds[i] >= 0)
            sys3(__NR_close, uffds[i], 0, 0);
}

/* Says hello, and does what the pager says. False: it has hung up without a word. */
static int greet(int sock, uint32_t kind)
{
    struct agent_hello hello = make_hello(kind);
    struct agent_welcome welcome;
    int given[2] = {-1, -1};
    int answered = send_fds(sock, &hello, sizeof hello, NULL, 0) == 0 &&
                   receive_fds(sock, &welcome, sizeof welcome, given) == 0;
    if (answered && welcome.verdict == AGENT_MANAGE)
        join_pager(sock, kind, &welcome, given);
    for (int i = 0; i < 2; i++)
        if (given[i] >= 0)
            sys3(__NR_close, given[i], 0, 0);
    sys3(__NR_close, sock, 0, 0);
    return answered;
}

/* Whether that is what connecting ends in when the pager has died. Its directory is removed then;
 * but only who has just loaded this from there must be able to see it: others may have changed
 * their root. */
static int is_death(int err, uint32_t kind)
{
    return err == -ECONNREFUSED || (err == -ENOENT && kind == AGENT_IMAGE && is_loaded);
}

/* A pager that is about to be dead takes connections until it is. One that lives and hangs up does
 * not want us: the process is none of the program's. */
static void report(uint32_t kind)
{
    for (int i = 0; i < TRIES; i++) {
        int sock = connect_pager(pager_path);
        if (sock < 0 && is_death(sock, kind))
            outlive(kind);
        if (sock < 0 || greet(sock, kind))
            return; /* no descriptor is free: the pager notices that nobody came, and says so */
    }
}

/* musl hands constructors nothing, but has this set by then. glibc does hand it on, and runs us
 * before it has set up anything of its own. */
extern char **environ __attribute__((weak, visibility("default")));
extern const char *gnu_get_libc_version(void) __attribute__((weak, visibility("default")));

__attribute__((constructor)) static void agent_start(int argc, char **argv, char **envp)
{
    (void)argc;
    (void)argv;
    if (!gnu_get_libc_version)
        envp = &environ ? environ : NULL;
    const char *path = find_env(envp, "EDM_AGENT");
    if (!path)
        return;
    for (unsigned i = 0; path[i] && i < sizeof pager_path - 1; i++)
        pager_path[i] = path[i];
    is_loaded = 1;
    find_tid_address();
    report(AGENT_IMAGE);
}

/* ---- what the kernel does not tell of ---- */

enum { ADVICE_GUARD_INSTALL = 102, MAX_ERRNO = 4095 };

__attribute__((visibility("default"))) int madvise(void *at, unsigned long len_bytes, int advice);

/* In place of libc's, for one advice. MADV_GUARD_INSTALL empties pages without an event: what is
 * elsewhere would come back after MADV_GUARD_REMOVE; and UFFDIO_COPY takes a guard for an empty
 * place, so that read-ahead would fill it. MADV_DONTNEED tells of the range, and leaves guards
 * where they are: only what was on its way in until then needs to be a guard once more. */
int madvise(void *at, unsigned long len_bytes, int advice)
{
    long err = sys3(__NR_madvise, (long)at, (long)len_bytes, advice);
    if (err == 0 && advice == ADVICE_GUARD_INSTALL) {
        sys3(__NR_madvise, (long)at, (long)len_bytes, MADV_DONTNEED);
        err = sys3(__NR_madvise, (long)at, (long)len_bytes, advice);
    }
    if (err >= 0)
        return 0;
    set_errno(err);
    return -1;
}

__attribute__((visibility("default"))) void *mremap(void *old, unsigned long old_bytes,
                                                    unsigned long new_bytes, int flags, void *new);

/* In place of libc's (which takes NEW only where FLAGS say so), for moves to a place that may have
 * been memory before. Of such a move and a fork at the same time a child's mappings do not show
 * which came first: so they are not made at the same time. */
void *mremap(void *old, unsigned long old_bytes, unsigned long new_bytes, int flags, void *new)
{
    int placed = !watch_forks && (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP));
    if (placed)
        begin_apart(&placing, &forking, 1);
    long at = sys6(__NR_mremap, (long)old, (long)old_bytes, (long)new_bytes, flags, (long)new, 0);
    if (placed)
        end_apart(&placing);
    if (at < 0 && at >= -MAX_ERRNO) {
        set_errno(at);
        return (void *)-1;
    }
    return (void *)at;
}

/* ---- robust mutexes ---- */

/* When a thread ends that holds a robust mutex the kernel writes to it, and cannot wait for a page
 * then. So the pager has a list of them, which is here; what does not fit in may leave. One that is
 * shared between processes is in shared memory, which is left alone. */

/* What the C library gives, so far as there is one. The types are its own affair. */
extern int __pthread_mutex_init(void *mutex, const void *attr)
    __attribute__((weak, visibility("default")));
extern int __pthread_mutex_destroy(void *mutex) __attribute__((weak, visibility("default")));
extern int pthread_mutexattr_getrobust(const void *attr, int *robust)
    __attribute__((weak, visibility("default")));
extern int pthread_mutexattr_getpshared(const void *attr, int *shared)
    __attribute__((weak, visibility("default")));

static int libc_init(void *mutex, const void *attr)
{
    static int (*next)(void *mutex, const void *attr);
    if (__pthread_mutex_init)
        return __pthread_mutex_init(mutex, attr);
    if (!next)
        *(void **)&next = next_called("pthread_mutex_init");
    if (next)
        return next(mutex, attr);
    clear(mutex, AGENT_MUTEX_BYTES); /* as a libc does that is without threads */
    return 0;
}

static int libc_destroy(void *mutex)
{
    static int (*next)(void *mutex);
    if (__pthread_mutex_destroy)
        return __pthread_mutex_destroy(mutex);
    if (!next)
        *(void **)&next = next_called("pthread_mutex_destroy");
    return next ? next(mutex) : 0;
}

/* Puts NOW in the place of BEFORE, where there is one. */
static int exchange_mutex(uint64_t before, uint64_t now)
{
    for (int i = 0; i < AGENT_MUTEXES; i++) {
        uint64_t expected = before;
        if (__atomic_load_n(&mutexes.at[i], __ATOMIC_RELAXED) == before &&
            __atomic_compare_exchange_n(&mutexes.at[i], &expected, now, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
            __atomic_add_fetch(&mutexes.changes, 1, __ATOMIC_SEQ_CST);
            return 1;
        }
    }
    return 0;
}

static int is_robust(const void *attr)
{
    int robust = 0, shared = 0;
    return attr && pthread_mutexattr_getrobust && pthread_mutexattr_getpshared &&
           pthread_mutexattr_getrobust(attr, &robust) == 0 && robust != 0 &&
           pthread_mutexattr_getpshared(attr, &shared) == 0 && shared == 0;
}

__attribute__((visibility("default"))) int pthread_mutex_init(void *mutex, const void *attr);
__attribute__((visibility("default"))) int pthread_mutex_destroy(void *mutex);

/* In place of the C library's, to make a note of what is robust. */
int pthread_mutex_init(void *mutex, const void *attr)
{
    uint64_t at = (uint64_t)mutex;
    int err = libc_init(mutex, attr);
    /* It may be there, from a mutex that was given up with its memory. */
    if (err == 0 && is_robust(attr) && !exchange_mutex(at, at))
        exchange_mutex(0, at);
    return err;
}

int pthread_mutex_destroy(void *mutex)
{
    if (__atomic_load_n(&mutexes.changes, __ATOMIC_RELAXED) > 0)
        exchange_mutex((uint64_t)mutex, 0);
    return libc_destroy(mutex);
}

/* ---- where nothing is preloaded ---- */

enum { CALL_STACK_BYTES = 16 * 1024 };

__attribute__((used)) static char call_stack[CALL_STACK_BYTES] __attribute__((aligned(16)));
static char report_stack[CALL_STACK_BYTES] __attribute__((aligned(16)));
static int reported; /* futex */

static void report_apart(void *kind)
{
    report((uint32_t)(uint64_t)kind);
    set_word(&reported, 1);
    sys3(__NR_exit, 0, 0, 0);
}

/* ITS_MARK: of the process that has forked this one, or NULL: an image of its own. The program may
 * have threads already, which use their descriptors: a thread with a table of its own reports. */
__attribute__((used)) static void enter(const char *path, char *its_mark)
{
    for (unsigned i = 0; path[i] && i < sizeof pager_path - 1; i++)
        pager_path[i] = path[i];
    mark = its_mark;
    find_tid_address();
    uint64_t kind = its_mark ? AGENT_CHILD : AGENT_IMAGE;
    if (spawn(CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
              report_stack + CALL_STACK_BYTES, report_apart, (void *)kind) > 0)
        wait_word(&reported);
}

/* The stack of whoever is sent here may be small (a goroutine's), and is not ours to write on. The
 * trap gives it back to the tracer. */
__asm__(".text\n"
        ".globl agent_entry\n"
        ".hidden agent_entry\n"
        ".type agent_entry, @function\n"
        "agent_entry:\n"
        "    leaq call_stack+16384(%rip), %rsp\n"
        "    xorl %ebp, %ebp\n"
        "    call enter\n"
        "    int3\n"
        "    hlt\n"
        ".size agent_entry, . - agent_entry\n"
        ".previous\n");
_Static_assert(CALL_STACK_BYTES == 16384, "agent_entry knows it by number");
