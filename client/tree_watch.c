#include "tree_watch.h"

#include "program.h"
#include "ticks.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
    /* What a program can fill within is not much; and looking at a process costs some 30 us. */
    SOONEST_US = 10000,
    LATEST_US = 500000,
    COST_SHARE = 200, /* looking takes at most so small a share of the time */
    YOUNG_US = 1000000,
    AGAIN_US = 500000,
    AGAIN_MOST_US = 8000000,
    FIRST_CAPACITY = 16,
};

/* A process, in the image it had when it was looked at last. */
struct seen {
    pid_t pid;
    dev_t device;
    ino_t file;
    bool needs_agent, present;
    uint64_t since_us, told_us, again_us;
};

struct tree_watch {
    const char *agent;
    struct stat own; /* edm's file: that of the program too, until its exec */
    struct seen *all;
    size_t count, capacity;
    uint64_t due_us;
    uint64_t begun_us; /* processor time */
    uint64_t now_us;
    void (*found)(void *arg, pid_t pid);
    void *arg;
};

void tree_watch_destroy(struct tree_watch **watch)
{
    if (*watch)
        free((*watch)->all);
    free(*watch);
    *watch = NULL;
}

int tree_watch_new(struct tree_watch **out, const char *agent)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return -ENOMEM;
    (*out)->agent = agent;
    if (stat("/proc/self/exe", &(*out)->own)) {
        int err = -errno;
        tree_watch_destroy(out);
        return err;
    }
    return 0;
}

uint64_t tree_watch_due_us(const struct tree_watch *watch)
{
    return watch->due_us;
}

/* NULL: no memory to remember it by. */
static struct seen *seen_of(struct tree_watch *watch, pid_t pid)
{
    for (size_t i = 0; i < watch->count; i++)
        if (watch->all[i].pid == pid)
            return &watch->all[i];
    if (watch->count == watch->capacity) {
        size_t capacity = watch->capacity ? 2 * watch->capacity : FIRST_CAPACITY;
        struct seen *all = realloc(watch->all, capacity * sizeof *all);
        if (!all)
            return NULL;
        watch->all = all;
        watch->capacity = capacity;
    }
    watch->all[watch->count] = (struct seen){.pid = pid};
    return &watch->all[watch->count++];
}

static void look_at(struct tree_watch *watch, pid_t pid)
{
    char path[64];
    struct stat info;
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    if (stat(path, &info) || (info.st_dev == watch->own.st_dev && info.st_ino == watch->own.st_ino))
        return; /* ended, or about to be exec'd */
    struct seen *seen = seen_of(watch, pid);
    if (!seen)
        return;
    seen->present = true;
    if (seen->device != info.st_dev || seen->file != info.st_ino) {
        *seen = (struct seen){.pid = pid,
                              .device = info.st_dev,
                              .file = info.st_ino,
                              .since_us = watch->now_us,
                              .present = true};
    }
    /* The same file may be exec'd again, soon after a vfork(). */
    if (!seen->needs_agent && watch->now_us - seen->since_us <= YOUNG_US)
        seen->needs_agent = program_loads_no_agent(pid, watch->agent) > 0;
    if (!seen->needs_agent || watch->now_us - seen->told_us < seen->again_us)
        return;
    seen->told_us = watch->now_us;
    seen->again_us = seen->again_us ? 2 * seen->again_us : AGAIN_US;
    if (seen->again_us > AGAIN_MOST_US)
        seen->again_us = AGAIN_MOST_US;
    watch->found(watch->arg, pid);
}

static bool look_at_one(void *watch, pid_t pid)
{
    look_at(watch, pid);
    return true;
}

void tree_watch_begin(struct tree_watch *watch, uint64_t now_us,
                      void (*found)(void *arg, pid_t pid), void *arg)
{
    watch->begun_us = ticks_thread_ns() / 1000;
    watch->now_us = now_us;
    watch->found = found;
    watch->arg = arg;
    for (size_t i = 0; i < watch->count; i++)
        watch->all[i].present = false;
}

void tree_watch_look(struct tree_watch *watch, pid_t pid)
{
    look_at(watch, pid);
    program_each_below(pid, look_at_one, watch);
}

void tree_watch_end(struct tree_watch *watch)
{
    size_t kept = 0;
    for (size_t i = 0; i < watch->count; i++)
        if (watch->all[i].present)
            watch->all[kept++] = watch->all[i];
    watch->count = kept;
    uint64_t wait_us = COST_SHARE * (ticks_thread_ns() / 1000 - watch->begun_us);
    wait_us = wait_us < SOONEST_US ? SOONEST_US : wait_us > LATEST_US ? LATEST_US : wait_us;
    watch->due_us = watch->now_us + wait_us;
}
