#include "brake.h"

#include "program.h"
#include "ticks.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { WATCH_US = 1000 };

static bool is_known(const struct brake *brake, pid_t tid)
{
    for (size_t i = 0; i < brake->count; i++)
        if (brake->threads[i] == tid)
            return true;
    return false;
}

static int make_room(struct brake *brake)
{
    if (brake->count < brake->capacity)
        return 0;
    size_t capacity = brake->capacity ? 2 * brake->capacity : 64;
    pid_t *threads = realloc(brake->threads, capacity * sizeof *threads);
    if (!threads)
        return -ENOMEM;
    brake->threads = threads;
    brake->capacity = capacity;
    return 0;
}

static int stop_thread(struct brake *brake, pid_t tid)
{
    int err = make_room(brake);
    if (err)
        return err;
    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL))
        return -errno;
    brake->threads[brake->count++] = tid;
    /* Fails only when the thread has ended meanwhile; it is found out when it is to be let go. */
    (void)ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
    return 0;
}

/* Of a program that is ending the first thread may wait for the others for a while. A stop that
 * came just now is reported here too, though it was not asked for (wait(2), "Linux notes"). */
static bool is_zombie(pid_t tid)
{
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)tid, &info, WEXITED | WNOWAIT | WNOHANG | __WALL))
        return true;
    return info.si_pid == tid &&
           (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED);
}

/* Stops those that are awake and that we do not have yet. 0, or -errno of the last that could not
 * be stopped; one that has ended is no failure. */
static int stop_awake(struct brake *brake, const struct proc_map *proc)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)brake->leader);
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? -ESRCH : -errno;
    int err = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (tid <= 0 || tid == brake->spared || is_known(brake, tid) ||
            proc_map_thread_is_still(proc, tid))
            continue;
        int result = stop_thread(brake, tid);
        if (result && result != -ESRCH)
            err = result;
    }
    closedir(dir);
    return err;
}

int brake_stop(struct brake *brake, const struct proc_map *proc, pid_t pid, pid_t spared)
{
    brake->leader = pid;
    brake->spared = spared;
    int err = 0;
    /* Twice: a thread may have been started while the others were asked to stop. */
    for (int round = 0; round < 2; round++) {
        int result = stop_awake(brake, proc);
        err = result ? result : err;
    }
    brake->watch_us = ticks_us() + WATCH_US;
    brake->on = brake->count > 0 || !err;
    return brake->on ? 0 : err;
}

int brake_watch(struct brake *brake, const struct proc_map *proc, uint64_t now_us)
{
    if (now_us < brake->watch_us)
        return 0;
    uint64_t begun_us = ticks_us();
    int err = stop_awake(brake, proc);
    uint64_t done_us = ticks_us();
    uint64_t pause_us = 4 * (done_us - begun_us);
    brake->watch_us = done_us + (pause_us > WATCH_US ? pause_us : WATCH_US);
    return brake->count > 0 ? 0 : err;
}

/* Returns whether TID is off our hands. */
static bool let_go(pid_t tid, pid_t leader)
{
    /* A thread that has ended has to be waited for, or the process cannot end. Its first thread is
     * another matter: that end is the process's, and not always for us to see. */
    int kinds = tid == leader ? WSTOPPED : WSTOPPED | WEXITED;
    siginfo_t info = {0};
    /* A zombie has no stops: of a first thread that has ended this says that there is no such. */
    if (waitid(P_PID, (id_t)tid, &info, kinds | WNOHANG | __WALL | __WNOTHREAD))
        return tid != leader || program_pass_on_end(tid);
    if (info.si_pid == 0) {
        if (tid == leader && is_zombie(tid))
            return program_pass_on_end(tid);
        /* exec() forgets that its thread was asked to stop: ask again. */
        (void)ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
        return false;
    }
    if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED)
        return true;
    /* It may have stopped for a signal that was just coming: that has to go on its way. Stops of
     * ptrace's own carry an event number above the signal's. */
    int signal = info.si_status >> 8 ? 0 : info.si_status;
    /* Killed just now it cannot be let go: its end is what comes next. */
    return ptrace(PTRACE_DETACH, tid, NULL, signal) == 0;
}

void brake_poll(struct brake *brake)
{
    if (brake->on)
        return;
    size_t kept = 0;
    for (size_t i = 0; i < brake->count; i++)
        if (!let_go(brake->threads[i], brake->leader))
            brake->threads[kept++] = brake->threads[i];
    brake->count = kept;
}

void brake_release(struct brake *brake)
{
    brake->on = false;
    brake_poll(brake);
}

bool brake_is_busy(const struct brake *brake)
{
    return !brake->on && brake->count > 0;
}

void brake_clear(struct brake *brake)
{
    free(brake->threads);
    *brake = (struct brake){0};
}
