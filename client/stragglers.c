#include "stragglers.h"

#include "ticks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    READ_BYTES = 16384,
    PATH_BYTES = 64,
    HUNT_MS = 20000,
    UNCLEAR_MS = 2000, /* nobody takes longer to exec */
    SOONEST_MS = 1,
    LATEST_MS = 64,
    QUIET_LOOKS = 2, /* so often nobody must be found */
};

/* Calls TAKE with the parts of /proc/PID/NAME that END ends, until it returns true: that is the
 * result. A part that does not fit is cut. *EMPTY: it can be read, and there is nothing. */
static bool any_part(pid_t pid, const char *name, char end,
                     bool (*take)(const char *part, const struct stragglers_marks *marks),
                     const struct stragglers_marks *marks, bool *empty)
{
    char path[PATH_BYTES], bytes[READ_BYTES];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    *empty = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t kept = 0;
    bool found = false, any = false;
    ssize_t got = 0;
    while (!found && (got = read(fd, bytes + kept, sizeof bytes - 1 - kept)) > 0) {
        any = true;
        size_t len = kept + (size_t)got;
        char *at = bytes;
        for (char *stop; !found && (stop = memchr(at, end, (size_t)(bytes + len - at)));
             at = stop + 1) {
            *stop = 0;
            found = take(at, marks);
        }
        kept = (size_t)(bytes + len - at);
        if (kept == sizeof bytes - 1)
            kept = 0; /* longer than any that is looked for */
        memmove(bytes, at, kept);
    }
    close(fd);
    *empty = !any && got == 0;
    return found;
}

static bool is_its_variable(const char *part, const struct stragglers_marks *marks)
{
    static const char name[] = "EDM_AGENT=";
    size_t len = sizeof name - 1;
    return strncmp(part, name, len) == 0 && strcmp(part + len, marks->socket) == 0;
}

/* "7f00-7f01 r-xp 00001000 08:01 1234   /path", with " (deleted)" after it or not. A debugger that
 * reads the file does not map it as code. */
static bool is_its_code(const char *part, const struct stragglers_marks *marks)
{
    const char *allowed = strchr(part, ' ');
    const char *path = strchr(part, '/');
    size_t len = strlen(marks->agent);
    return allowed && strnlen(allowed, 4) == 4 && allowed[3] == 'x' && path &&
           strncmp(path, marks->agent, len) == 0 && (path[len] == 0 || path[len] == ' ');
}

static bool never(const char *part, const struct stragglers_marks *marks)
{
    (void)part;
    (void)marks;
    return false;
}

static bool has_memory(pid_t pid)
{
    char path[PATH_BYTES], target[1];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    return readlink(path, target, sizeof target) > 0;
}

/* 1, 0, or -EAGAIN: it is being exec'd at this moment, and cannot be told from others. */
static int is_one(const struct stragglers_marks *marks, pid_t pid)
{
    bool no_environment, no_maps, no_words;
    if (any_part(pid, "environ", 0, is_its_variable, marks, &no_environment) ||
        any_part(pid, "maps", '\n', is_its_code, marks, &no_maps))
        return 1;
    if (!no_environment)
        return 0;
    /* An emptied one. In the middle of exec() there is none yet; but nor are there its words. */
    any_part(pid, "cmdline", 0, never, marks, &no_words);
    return no_words && has_memory(pid) ? -EAGAIN : 0;
}

/* Whether PID was one and has been killed. */
static bool end_one(const struct stragglers_marks *marks, pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return false;
    /* Once more: the number may have been another's when the process was looked at. */
    bool found = is_one(marks, pid) > 0;
    if (found)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    close(pidfd);
    return found;
}

struct look {
    uint32_t met;     /* and killed */
    uint32_t unclear; /* in the middle of an exec */
};

static struct look look_at_all(const struct stragglers_marks *marks)
{
    struct look look = {0};
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        int found = pid > 0 ? is_one(marks, pid) : 0;
        look.met += found > 0 && end_one(marks, pid);
        look.unclear += found == -EAGAIN;
    }
    if (proc)
        closedir(proc);
    return look;
}

void stragglers_end(const struct stragglers_marks *marks)
{
    uint64_t begun_us = ticks_us(), took_ms = 0;
    int wait_ms = SOONEST_MS;
    for (int quiet = 0; quiet < QUIET_LOOKS && took_ms < HUNT_MS;
         took_ms = (ticks_us() - begun_us) / 1000) {
        struct look look = look_at_all(marks);
        if (look.met > 0 || (look.unclear > 0 && took_ms < UNCLEAR_MS))
            quiet = 0;
        else
            quiet++;
        poll(NULL, 0, wait_ms);
        wait_ms = 2 * wait_ms < LATEST_MS ? 2 * wait_ms : LATEST_MS;
    }
}
