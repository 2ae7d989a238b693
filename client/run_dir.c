#include "run_dir.h"

#include "agent_image.h"
#include "agent/agent_proto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS_WAITING = 64 };

#define NAME RUN_DIR_PREFIX "XXXXXX"

void run_dir_bases(const char *bases[RUN_DIR_BASES])
{
    const char *named = getenv("TMPDIR");
    bases[0] = named ? named : "";
    bases[1] = "/tmp";
    bases[2] = "/var/tmp";
    bases[3] = "/dev/shm";
}

bool run_dir_is_name(const char *name)
{
    return strncmp(name, RUN_DIR_PREFIX, strlen(RUN_DIR_PREFIX)) == 0 &&
           strlen(name) == strlen(NAME);
}

/* Whether code can be mapped from a file in PATH: not so where it is mounted noexec. */
static int try_exec(const char *path)
{
    char name[120];
    snprintf(name, sizeof name, "%s/try", path);
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    if (fd < 0)
        return -errno;
    int err = 0;
    if (ftruncate(fd, 4096)) {
        err = -errno;
    } else {
        void *at = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED)
            err = -errno;
        else
            munmap(at, 4096);
    }
    close(fd);
    unlink(name);
    return err;
}

static int try_base(struct run_dir *dir, const char *base)
{
    if (base[0] != '/' || strlen(base) > sizeof dir->path - sizeof "/" NAME)
        return -ENAMETOOLONG;
    snprintf(dir->path, sizeof dir->path, "%s/" NAME, base);
    if (!mkdtemp(dir->path))
        return -errno;
    int err = try_exec(dir->path);
    if (err)
        rmdir(dir->path);
    return err;
}

/* gcc's AddressSanitizer insists on being the first object that is loaded, which it tells by the
 * name in LD_PRELOAD; and clang's on there being no other one, which it tells by the files that are
 * mapped. This is a link to a file that is called otherwise. */
#define PRELOAD_END "-before-libasan.so"

int run_dir_make(struct run_dir *dir, char *why, size_t why_cap)
{
    *dir = (struct run_dir){.listen_fd = -1};
    const char *bases[RUN_DIR_BASES];
    run_dir_bases(bases);
    int err = -ENOENT;
    for (size_t i = 0; i < RUN_DIR_BASES; i++) {
        err = try_base(dir, bases[i]);
        if (!err)
            break;
    }
    if (err) {
        snprintf(
            why, why_cap,
            "no temporary directory from which code may be mapped ($TMPDIR, /tmp, "
            "/var/tmp, /dev/shm): %s; set TMPDIR to one that is writable and not mounted noexec",
            strerror(-err));
        return err;
    }
    snprintf(dir->agent, sizeof dir->agent, "%s/agent.so", dir->path);
    snprintf(dir->preload, sizeof dir->preload, "%s" PRELOAD_END, dir->agent);
    snprintf(dir->socket, sizeof dir->socket, "%s/socket", dir->path);
    snprintf(dir->store, sizeof dir->store, "%s/dms", dir->path);
    return 0;
}

void run_dir_may_be_outlived(struct run_dir *dir)
{
    snprintf(dir->socket, sizeof dir->socket, "%s/socket" AGENT_MAY_OUTLIVE, dir->path);
}

static int write_agent(const char *path, const char *image, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    if (fd < 0)
        return -errno;
    size_t done = 0;
    int err = 0;
    while (done < bytes && !err) {
        ssize_t written = write(fd, image + done, bytes - done);
        if (written < 0 && errno != EINTR)
            err = -errno;
        else if (written > 0)
            done += (size_t)written;
    }
    if (close(fd) && !err)
        err = -errno;
    return err;
}

static int listen_at(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    /* Nobody can connect before it listens, and then only its owner. */
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(path, 0600) ||
        listen(fd, CONNECTIONS_WAITING)) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* What root starts may go on as somebody else (su, setpriv, a server that drops its rights): what
 * it execs then has to find its agent. The pager looks at who connects. */
static int open_to_others(const struct run_dir *dir)
{
    if (geteuid() != 0)
        return 0;
    return chmod(dir->path, 0711) || chmod(dir->agent, 0755) || chmod(dir->socket, 0666) ? -errno
                                                                                         : 0;
}

int run_dir_fill(struct run_dir *dir, bool asks, char *why, size_t why_cap)
{
    int err = asks ? write_agent(dir->agent, agent_asking_image, agent_asking_image_bytes())
                   : write_agent(dir->agent, agent_image, agent_image_bytes());
    if (!err && symlink(strrchr(dir->agent, '/') + 1, dir->preload))
        err = -errno;
    if (!err) {
        dir->listen_fd = listen_at(dir->socket);
        err = dir->listen_fd < 0 ? dir->listen_fd : open_to_others(dir);
    }
    if (!err && mkdir(dir->store, 0700))
        err = -errno;
    if (err)
        snprintf(why, why_cap, "cannot fill %s: %s", dir->path, strerror(-err));
    return err;
}

int run_dir_listen(const struct run_dir *dir, char *why, size_t why_cap)
{
    char path[sizeof dir->socket];
    snprintf(path, sizeof path, "%s/" RUN_DIR_CONTROL, dir->path);
    int fd = listen_at(path);
    if (fd < 0)
        snprintf(why, why_cap, "cannot make %s: %s", path, strerror(-fd));
    return fd;
}
