#include "stragglers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 16384, PATH_BYTES = 64, DEPTH_MOST = 64 };

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

int stragglers_is_one(const struct stragglers_marks *marks, pid_t pid)
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

uint32_t stragglers_find(const struct stragglers_marks *marks, void (*each)(void *arg, pid_t pid),
                         void *arg)
{
    DIR *proc = opendir("/proc");
    uint32_t unclear = 0;
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        int is_one = pid > 0 ? stragglers_is_one(marks, pid) : 0;
        if (is_one > 0)
            each(arg, pid);
        unclear += is_one == -EAGAIN;
    }
    if (proc)
        closedir(proc);
    return unclear;
}

/* ---- below ---- */

static void look_below(pid_t pid, int depth, bool (*each)(void *arg, pid_t pid), void *arg);

static void look_at_children(int task, const char *tid, int depth,
                             bool (*each)(void *arg, pid_t pid), void *arg)
{
    char path[320];
    snprintf(path, sizeof path, "%s/children", tid);
    int fd = openat(task, path, O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file) {
        if (fd >= 0)
            close(fd);
        return;
    }
    int child;
    while (fscanf(file, "%d", &child) == 1) {
        if (each(arg, child))
            look_below(child, depth, each, arg);
    }
    fclose(file);
}

static void look_below(pid_t pid, int depth, bool (*each)(void *arg, pid_t pid), void *arg)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = depth < DEPTH_MOST ? opendir(path) : NULL;
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            look_at_children(dirfd(dir), entry->d_name, depth + 1, each, arg);
    closedir(dir);
}

void stragglers_below(pid_t pid, bool (*each)(void *arg, pid_t pid), void *arg)
{
    look_below(pid, 0, each, arg);
}
