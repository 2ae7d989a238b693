#include "fuzz_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char path[64];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

void fuzz_dir_clear(void)
{
    DIR *listing = opendir(path);
    struct dirent *entry;

    if (listing == NULL)
        fail(path);
    while ((entry = readdir(listing)) != NULL) {
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(listing), entry->d_name, 0);
    }
    closedir(listing);
}

/* A process that waits for the end of this one and tidies up: a fuzzer may end at any place. */
static void start_keeper(void)
{
    char byte;
    int fds[2];

    if (pipe(fds) != 0)
        fail("pipe");
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid > 0) {
        /* The other end closes with the process. */
        fcntl(fds[1], F_SETFD, FD_CLOEXEC);
        close(fds[0]);
        return;
    }
    setsid();
    signal(SIGTERM, SIG_IGN);
    /* Whoever reads what the fuzzer prints must not wait for us. */
    dup2(fds[0], 0);
    syscall(SYS_close_range, 1U, ~0U, 0U);
    while (read(0, &byte, 1) > 0)
        ;
    fuzz_dir_clear();
    rmdir(path);
    _exit(0);
}

const char *fuzz_dir(void)
{
    if (path[0] != '\0')
        return path;
    snprintf(path, sizeof(path), "%s/edm-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(path) == NULL)
        fail(path);
    start_keeper();
    return path;
}

const char *fuzz_dir_path(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *out = paths[next++ % 4];

    snprintf(out, sizeof(paths[0]), "%s/%s", fuzz_dir(), name);
    return out;
}
