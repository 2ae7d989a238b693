#include "temp_dir.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];
static pid_t owner;

static int remove_entry(const char *entry, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    remove(entry);
    return 0;
}

static void remove_all(void)
{
    /* Not in a child that was forked meanwhile. */
    if (getpid() == owner)
        nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *temp_dir(void)
{
    if (!path[0]) {
        /* Short, whatever TMPDIR is: a socket's path has 108 bytes. */
        snprintf(path, sizeof path, "/tmp/edm-client-test-XXXXXX");
        if (!mkdtemp(path)) {
            perror(path);
            exit(1);
        }
        owner = getpid();
        atexit(remove_all);
    }
    return path;
}

const char *temp_path(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *out = paths[next++ % 8];
    snprintf(out, sizeof paths[0], "%s/%s", temp_dir(), name);
    return out;
}

const char *temp_file(const char *name, const void *bytes, unsigned long len, unsigned mode)
{
    const char *file = temp_path(name);
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || fchmod(fd, mode) || close(fd)) {
        perror(file);
        exit(1);
    }
    return file;
}
