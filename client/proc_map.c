#include "proc_map.h"

#include "program.h"

#include "kernel_abi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    /* glibc's struct pthread is 2304 bytes; the robust list's head lies in the middle of it, and
     * the thread's static TLS right below it. */
    BLOCK_BELOW_BYTES = 4096,
    BLOCK_ABOVE_BYTES = 4096,
    STACK_GAP_BYTES = 1 << 20, /* nothing is mapped so near below the stack, which may grow */
    STACK_LEAST_BYTES = 2 << 20,
    NAME_BYTES = 128, /* [anon:...] has at most 87 */
    STAT_BYTES = 1024,
};

struct thread {
    pid_t tid;
    bool seen;
    uint64_t first_page, last_page; /* 0, 0: none known */
    uint64_t passed;                /* see proc_map_passed() */
};

struct proc_map {
    pid_t pid;
    int dir, statm, maps, pagemap, mem; /* mem: -1 where we may not trace */
    char *text;                         /* of the maps */
    size_t text_cap;
    struct thread *threads;
    size_t nthreads, threads_cap;
    uint64_t pinned_page; /* 0: none */
    /* The program's arguments and environment, which others read (ps): for them the kernel does
     * not wait. 0, 0: not known. */
    uint64_t first_word_page, last_word_page;
};

/* Where the kernel has put them. It does not say where we may not trace. */
static void find_words(struct proc_map *map)
{
    enum { FIELD_STATE = 3, FIELD_STACK = 28, FIELD_ENVIRONMENT_END = 51 };
    char text[STAT_BYTES];
    int fd = openat(map->dir, "stat", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    char *at = strrchr(text, ')');
    uint64_t first = 0, last = 0;
    char *rest = NULL;
    char *word = at ? strtok_r(at + 1, " ", &rest) : NULL;
    for (int field = FIELD_STATE; word && field <= FIELD_ENVIRONMENT_END; field++) {
        if (field == FIELD_STACK)
            first = strtoull(word, NULL, 10);
        if (field == FIELD_ENVIRONMENT_END)
            last = strtoull(word, NULL, 10);
        word = strtok_r(NULL, " ", &rest);
    }
    if (first > 0 && first <= last) {
        map->first_word_page = first / PAGE;
        map->last_word_page = last / PAGE;
    }
}

bool proc_map_read(const struct proc_map *map, uint64_t address, void *bytes, size_t nbytes)
{
    return pread(map->mem, bytes, nbytes, (off_t)address) == (ssize_t)nbytes;
}

bool proc_map_write(const struct proc_map *map, uint64_t address, const void *bytes, size_t nbytes)
{
    return pwrite(map->mem, bytes, nbytes, (off_t)address) == (ssize_t)nbytes;
}

uint64_t proc_map_count_threads(const struct proc_map *map)
{
    struct stat task;
    if (fstatat(map->dir, "task", &task, 0) || task.st_nlink < 2)
        return 0;
    return task.st_nlink - 2;
}

int proc_map_open(struct proc_map **out, pid_t pid)
{
    struct proc_map *map = calloc(1, sizeof *map);
    if (!map)
        return -ENOMEM;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", pid);
    map->pid = pid;
    map->statm = map->maps = map->pagemap = map->mem = -1;
    map->dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (map->dir >= 0) {
        map->statm = openat(map->dir, "statm", O_RDONLY | O_CLOEXEC);
        map->maps = openat(map->dir, "maps", O_RDONLY | O_CLOEXEC);
        map->pagemap = openat(map->dir, "pagemap", O_RDONLY | O_CLOEXEC);
    }
    if (map->dir < 0 || map->statm < 0 || map->maps < 0 || map->pagemap < 0) {
        int err = errno == ENOENT ? -ESRCH : -errno;
        proc_map_close(&map);
        return err;
    }
    map->mem = openat(map->dir, "mem", O_RDWR | O_CLOEXEC);
    find_words(map);
    *out = map;
    return 0;
}

static void shut(int fd)
{
    if (fd >= 0)
        close(fd);
}

void proc_map_close(struct proc_map **map)
{
    if (!*map)
        return;
    shut((*map)->dir);
    shut((*map)->statm);
    shut((*map)->maps);
    shut((*map)->pagemap);
    shut((*map)->mem);
    free((*map)->text);
    free((*map)->threads);
    free(*map);
    *map = NULL;
}

void proc_map_name(const struct proc_map *map, char *name, size_t cap)
{
    int fd = openat(map->dir, "comm", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, name, cap - 1);
    shut(fd);
    name[got > 0 ? got : 0] = 0;
    name[strcspn(name, "\n")] = 0;
}

int proc_map_pagemap(const struct proc_map *map)
{
    return map->pagemap;
}

int proc_map_size(struct proc_map *map, struct proc_size *out)
{
    char text[256];
    ssize_t got = pread(map->statm, text, sizeof text - 1, 0);
    if (got <= 0)
        return got < 0 ? -errno : -ESRCH;
    text[got] = 0;
    uint64_t size, resident, shared;
    if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &size, &resident, &shared) != 3)
        return -EPROTO;
    if (size == 0)
        return -ESRCH; /* exiting: its memory is gone already */
    out->virtual_pages = size;
    out->resident_pages = resident;
    out->anonymous_pages = resident > shared ? resident - shared : 0;
    return 0;
}

static const char *parse_hex(const char *at, uint64_t *out)
{
    uint64_t value = 0;
    const char *begin = at;
    for (;; at++) {
        unsigned digit;
        if (*at >= '0' && *at <= '9')
            digit = (unsigned)(*at - '0');
        else if (*at >= 'a' && *at <= 'f')
            digit = (unsigned)(*at - 'a') + 10;
        else
            break;
        value = value << 4 | digit;
    }
    *out = value;
    return at == begin ? NULL : at;
}

/* By its name: none, or one that the heap or the program itself has given it; or the first thread's
 * stack, when it has grown large. */
static bool is_ordinary(const char *name, const struct proc_range *range)
{
    return *name == '\0' || *name == '\n' || strncmp(name, "[heap]", 6) == 0 ||
           strncmp(name, "[anon:", 6) == 0 ||
           (strncmp(name, "[stack]", 7) == 0 && range->end - range->start >= STACK_LEAST_BYTES);
}

bool proc_map_parse(const char *line, struct proc_range *out)
{
    /* 7f00-7f01 rw-p 00000000 00:00 0    [heap] */
    const char *at = parse_hex(line, &out->start);
    if (!at || *at != '-')
        return false;
    at = parse_hex(at + 1, &out->end);
    /* Memory that is only reserved may be opened later (malloc's arenas grow like that): if it is
     * registered now, it is registered then. */
    if (!at || (strncmp(at, " rw-p ", 6) != 0 && strncmp(at, " rwxp ", 6) != 0 &&
                strncmp(at, " ---p ", 6) != 0))
        return false;
    at = strchr(at + 6, ' '); /* past the offset */
    if (!at || strncmp(at, " 00:00 0", 8) != 0)
        return false;
    at += 8;
    while (*at == ' ')
        at++;
    return is_ordinary(at, out);
}

/* But for the name. */
static bool has_right_kind(const struct kprocmap_query *query)
{
    uint64_t both = KPROCMAP_READABLE | KPROCMAP_WRITABLE;
    uint64_t access = query->vma_flags & (both | KPROCMAP_EXECUTABLE);
    return !(query->vma_flags & KPROCMAP_SHARED) && (access == 0 || (access & both) == both) &&
           query->inode == 0 && query->dev_major == 0 && query->dev_minor == 0;
}

int proc_map_at(const struct proc_map *map, uint64_t address, struct proc_range *out)
{
    char name[NAME_BYTES] = "";
    struct kprocmap_query query = {.size = sizeof query,
                                   .query_addr = address,
                                   .vma_name_size = sizeof name,
                                   .vma_name_addr = (uint64_t)name};
    if (ioctl(map->maps, KPROCMAP_QUERY, &query))
        /* A file's name is longer than that. */
        return errno == ENAMETOOLONG ? -ENOENT : -errno;
    *out = (struct proc_range){query.vma_start, query.vma_end};
    return has_right_kind(&query) && is_ordinary(name, out) ? 0 : -ENOENT;
}

int proc_map_room_after(const struct proc_map *map, uint64_t address, uint64_t *out)
{
    char name[NAME_BYTES] = "";
    struct kprocmap_query query = {.size = sizeof query,
                                   .query_flags = KPROCMAP_COVERING_OR_NEXT,
                                   .query_addr = address,
                                   .vma_name_size = sizeof name,
                                   .vma_name_addr = (uint64_t)name};
    if (ioctl(map->maps, KPROCMAP_QUERY, &query)) {
        if (errno != ENAMETOOLONG)
            return -errno;
        query.vma_name_size = 0; /* a file's, then: not the stack */
        query.vma_name_addr = 0;
        if (ioctl(map->maps, KPROCMAP_QUERY, &query))
            return -errno;
    }
    if (query.vma_start < address)
        return -EAGAIN;
    uint64_t gap = strcmp(name, "[stack]") == 0 ? STACK_GAP_BYTES : 0;
    *out = query.vma_start > address + gap ? query.vma_start - gap : address;
    return 0;
}

/* The whole file in one buffer. It comes in pieces of at most a page; mappings that change between
 * two pieces may be missed or seen twice, which the next look puts right. */
static int read_maps(struct proc_map *map, size_t *len)
{
    if (lseek(map->maps, 0, SEEK_SET) < 0)
        return -errno;
    *len = 0;
    for (;;) {
        if (map->text_cap - *len < 2 * PAGE) {
            size_t cap = map->text_cap ? 2 * map->text_cap : 64 * 1024;
            char *text = realloc(map->text, cap);
            if (!text)
                return -ENOMEM;
            map->text = text;
            map->text_cap = cap;
        }
        ssize_t got = read(map->maps, map->text + *len, map->text_cap - *len - 1);
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        *len += (size_t)got;
    }
    map->text[*len] = 0;
    return *len == 0 ? -ESRCH : 0;
}

int proc_map_walk_text(struct proc_map *map, void (*each)(void *arg, struct proc_range range),
                       void *arg)
{
    size_t len = 0;
    int err = read_maps(map, &len);
    if (err)
        return err;
    for (char *line = map->text; line < map->text + len;) {
        char *end = strchr(line, '\n');
        if (!end)
            break;
        *end = 0;
        struct proc_range range;
        if (proc_map_parse(line, &range) && range.start < range.end)
            each(arg, range);
        line = end + 1;
    }
    return 0;
}

/* One mapping after the other. Most of what the text costs is the names of files: here they are not
 * made. */
int proc_map_walk(struct proc_map *map, uint64_t (*past)(void *arg, uint64_t address),
                  void (*each)(void *arg, struct proc_range range), void *arg)
{
    uint64_t at = 0;
    for (;;) {
        at = past ? past(arg, at) : at;
        struct kprocmap_query query = {
            .size = sizeof query, .query_flags = KPROCMAP_COVERING_OR_NEXT, .query_addr = at};
        if (ioctl(map->maps, KPROCMAP_QUERY, &query)) {
            if (errno == ENOTTY && at == 0)
                return proc_map_walk_text(map, each, arg);
            return errno == ENOENT ? 0 : -errno;
        }
        at = query.vma_end;
        struct proc_range range;
        int err = has_right_kind(&query) ? proc_map_at(map, query.vma_start, &range) : -ENOENT;
        if (err && err != -ENOENT)
            return err;
        if (!err) {
            each(arg, range);
            /* It may have become another one meanwhile, with another behind it. */
            at = range.end > query.vma_start ? range.end : at;
        }
    }
}

int proc_map_walk_wiped(pid_t pid, void (*each)(void *arg, struct proc_range range), void *arg)
{
    char path[64], line[PAGE];
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return errno == ENOENT ? -ESRCH : -errno;
    struct proc_range range = {0, 0};
    errno = 0;
    while (fgets(line, sizeof line, file)) {
        uint64_t start, end;
        const char *at = parse_hex(line, &start);
        if (at && *at == '-' && (at = parse_hex(at + 1, &end)) && *at == ' ')
            range = (struct proc_range){start, end};
        else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " wf"))
            each(arg, range);
    }
    int err = ferror(file) ? -errno : 0;
    fclose(file);
    return err;
}

static struct thread *find_thread(struct proc_map *map, pid_t tid)
{
    for (size_t i = 0; i < map->nthreads; i++)
        if (map->threads[i].tid == tid)
            return &map->threads[i];
    if (map->nthreads == map->threads_cap) {
        size_t cap = map->threads_cap ? 2 * map->threads_cap : 32;
        struct thread *threads = realloc(map->threads, cap * sizeof *threads);
        if (!threads)
            return NULL;
        map->threads = threads;
        map->threads_cap = cap;
    }
    struct thread *thread = &map->threads[map->nthreads++];
    *thread = (struct thread){.tid = tid};
    return thread;
}

/* The list of its threads. NULL: errno says why. */
static DIR *open_threads(const struct proc_map *map)
{
    int fd = openat(map->dir, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int err = errno;
    if (!dir)
        shut(fd);
    errno = err;
    return dir;
}

int proc_map_look_at_threads(struct proc_map *map)
{
    DIR *dir = open_threads(map);
    if (!dir)
        return errno == ENOENT ? -ESRCH : -errno;
    for (size_t i = 0; i < map->nthreads; i++)
        map->threads[i].seen = false;
    int err = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (tid <= 0)
            continue;
        struct thread *thread = find_thread(map, tid);
        if (!thread) {
            err = -ENOMEM;
            break;
        }
        thread->seen = true;
        if (thread->last_page)
            continue;
        struct robust_list_head *head = NULL;
        size_t len = 0;
        if (syscall(SYS_get_robust_list, tid, &head, &len) == 0 && head) {
            thread->first_page = ((uint64_t)head - BLOCK_BELOW_BYTES) / PAGE;
            thread->last_page = ((uint64_t)head + BLOCK_ABOVE_BYTES) / PAGE;
        }
    }
    closedir(dir);
    size_t kept = 0;
    for (size_t i = 0; i < map->nthreads; i++)
        if (map->threads[i].seen)
            map->threads[kept++] = map->threads[i];
    map->nthreads = kept;
    return err;
}

void proc_map_pin(struct proc_map *map, uint64_t address)
{
    map->pinned_page = address / PAGE;
}

bool proc_map_pinned(const struct proc_map *map, uint64_t page)
{
    if (page == map->pinned_page || (page >= map->first_word_page && page <= map->last_word_page))
        return true;
    for (size_t i = 0; i < map->nthreads; i++)
        if (page >= map->threads[i].first_page && page <= map->threads[i].last_page)
            return true;
    return false;
}

/* A file of one of its threads, as text. Returns its length, 0 when there is none. */
static size_t read_of_thread(const struct proc_map *map, pid_t tid, const char *name, char *text,
                             size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "task/%d/%s", (int)tid, name);
    int fd = openat(map->dir, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, cap - 1);
    shut(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

static pid_t own_number(const struct proc_map *map, pid_t tid, int *in)
{
    char path[64];
    snprintf(path, sizeof path, "task/%d/status", (int)tid);
    return program_own_number(openat(map->dir, path, O_RDONLY | O_CLOEXEC), in);
}

pid_t proc_map_thread_called(const struct proc_map *map, pid_t number)
{
    int in;
    (void)own_number(map, map->pid, &in);
    DIR *dir = in > 1 ? open_threads(map) : NULL;
    pid_t found = number;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (tid > 0 && own_number(map, tid, &in) == number)
            found = tid;
    }
    if (dir)
        closedir(dir);
    return found;
}

uint64_t proc_map_thread_cpu_us(const struct proc_map *map, pid_t tid)
{
    char text[128];
    if (!read_of_thread(map, tid, "schedstat", text, sizeof text))
        return 0;
    return strtoull(text, NULL, 10) / 1000; /* nanoseconds on a processor */
}

/* The letter that /proc has for what a thread does; 'X' when there is none. */
static char state_of_thread(const struct proc_map *map, pid_t tid)
{
    char text[256];
    if (!read_of_thread(map, tid, "stat", text, sizeof text))
        return 'X';
    const char *state = strrchr(text, ')');
    return state && state[1] == ' ' ? state[2] : '?';
}

bool proc_map_thread_stopped(const struct proc_map *map, pid_t tid)
{
    char state = state_of_thread(map, tid);
    return state == 'T' || state == 't';
}

/* Neither running nor waiting for something that will surely come (a lock, say: 'D'). */
static bool is_idle(char state)
{
    return state == 'S' || state == 'T' || state == 't' || state == 'Z' || state == 'X';
}

uint64_t proc_map_passed(struct proc_map *map, uint64_t now, pid_t spared)
{
    if (proc_map_look_at_threads(map))
        return 0;
    uint64_t passed = now;
    for (size_t i = 0; i < map->nthreads; i++) {
        struct thread *thread = &map->threads[i];
        if (thread->tid == spared)
            continue;
        if (thread->passed < now && is_idle(state_of_thread(map, thread->tid)))
            thread->passed = now;
        if (thread->passed < passed)
            passed = thread->passed;
    }
    return passed;
}

int proc_map_thread_call(const struct proc_map *map, pid_t tid, struct proc_call *out)
{
    char path[64];
    char text[256];
    snprintf(path, sizeof path, "task/%d/syscall", tid);
    int fd = openat(map->dir, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -EACCES;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return got < 0 && errno == ESRCH ? -ESRCH : -EACCES;
    text[got] = 0;
    if (strncmp(text, "running", 7) == 0)
        return -EAGAIN;
    *out = (struct proc_call){.number = -1};
    uint64_t *args = out->args;
    sscanf(text, "%d %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64,
           &out->number, &args[0], &args[1], &args[2], &args[3], &args[4], &args[5]);
    return 0;
}

bool proc_map_thread_is_still(const struct proc_map *map, pid_t tid)
{
    /* The state first: it costs less, and a thread that runs need not be asked for its call. */
    char state = state_of_thread(map, tid);
    struct proc_call call;
    return state == 'Z' || state == 'X' ||
           (state == 'S' && !proc_map_thread_call(map, tid, &call) && call.number >= 0);
}
