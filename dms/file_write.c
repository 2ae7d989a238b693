#include "file_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

int file_write_whole(const struct disk *disk, const char *path, const void *bytes, size_t len)
{
    char fresh[PATH_MAX];
    int chars = snprintf(fresh, sizeof(fresh), "%s.new", path);

    if (chars < 0 || (size_t)chars >= sizeof(fresh))
        return -ENAMETOOLONG;
    int fd = disk_open(disk, fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    int err = disk_write_all(disk, fd, bytes, len, 0);
    if (err == 0)
        err = disk_sync(disk, fd);
    if (err == 0)
        err = disk_rename(disk, fresh, path);
    disk_close(disk, fd);
    if (err == 0)
        return disk_sync_parent(disk, path);
    int left = disk_unlink(disk, fresh);
    (void)left; /* the next one writes over it */
    return err;
}
