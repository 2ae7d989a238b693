#include "file_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

int file_write_whole(const char *path, const void *bytes, size_t len)
{
    char fresh[PATH_MAX];
    int chars = snprintf(fresh, sizeof(fresh), "%s.new", path);

    if (chars < 0 || (size_t)chars >= sizeof(fresh))
        return -ENAMETOOLONG;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t wrote = write(fd, bytes, len);
    int err = 0;
    if (wrote < 0 || (size_t)wrote != len)
        err = wrote < 0 ? -errno : -ENOSPC;
    else if (fsync(fd) != 0 || rename(fresh, path) != 0)
        err = -errno;
    close(fd);
    if (err != 0)
        unlink(fresh);
    return err;
}
