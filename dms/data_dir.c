#include "data_dir.h"

#include "file_write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char STORE_FILE[] = "edm-store";
static const char LOCK_FILE[] = "lock";

enum { DATA_DIR_MAX_SHARDS = 64 };

struct data_dir {
    const struct disk *disk;
    char path[PATH_MAX / 2];
    char shard_path[PATH_MAX];
    uint32_t nshards;
    int lock_fd;
    char *why;
    size_t why_cap;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct data_dir *dir, int err,
                                                      const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(dir->why, dir->why_cap, format, arguments);
    va_end(arguments);
    return err;
}

/* Says why the directory cannot be worked in. */
static int fail_io(const struct data_dir *dir, int err)
{
    const char *path = dir->path;

    switch (err) {
    case -EACCES:
    case -EPERM:
        return fail(dir, err,
                    "no permission to use %s: let user %u write there, or name another directory "
                    "with --data",
                    path, (unsigned)geteuid());
    case -EROFS:
        return fail(dir, err,
                    "%s is on a read-only file system: name another directory with --data", path);
    case -ENOSPC:
    case -EDQUOT:
        return fail(dir, err,
                    "the file system of %s is full: make room, or name another directory with "
                    "--data",
                    path);
    case -ENOENT:
        return fail(dir, err, "there is no directory to make %s in: make it first", path);
    case -ENOTDIR:
        return fail(dir, err, "%s is not a directory: name one with --data", path);
    default:
        return fail(dir, err, "cannot use %s: %s", path, strerror(-err));
    }
}

static int path_in(const struct data_dir *dir, const char *name, char *path, size_t cap)
{
    int len = snprintf(path, cap, "%s/%s", dir->path, name);

    return len < 0 || (size_t)len >= cap ? -ENAMETOOLONG : 0;
}

/* Whether NAME may be there before the store file is. */
static bool is_known_name(const char *name)
{
    static const char *const known[] = {".", "..", LOCK_FILE, "edm-store.new", "lost+found"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i]) == 0)
            return true;
    }
    return false;
}

/* Refuses a directory that is not empty and not ours, before anything is written to it. */
static int check_owner(const struct data_dir *dir)
{
    struct dirent *entry;
    bool ours = false, strange = false;
    DIR *listing = opendir(dir->path);

    if (listing == NULL)
        return fail_io(dir, -errno);
    while ((entry = readdir(listing)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        ours = ours || strcmp(entry->d_name, STORE_FILE) == 0;
        strange = strange || !is_known_name(entry->d_name);
    }
    closedir(listing);
    if (strange && !ours)
        return fail(dir, -EEXIST,
                    "%s holds files that are not EDM's: name an empty directory with --data",
                    dir->path);
    return 0;
}

static int take_lock(struct data_dir *dir)
{
    char path[PATH_MAX];
    char text[32] = "";
    int err = path_in(dir, LOCK_FILE, path, sizeof(path));

    if (err != 0)
        return fail_io(dir, err);
    dir->lock_fd = disk_open(dir->disk, path, O_RDWR | O_CREAT, 0600);
    if (dir->lock_fd < 0)
        return fail_io(dir, dir->lock_fd);
    if (flock(dir->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return fail_io(dir, -errno);
        ssize_t got = disk_read(dir->disk, dir->lock_fd, text, sizeof(text) - 1, 0);
        text[got > 0 ? strcspn(text, "\n") : 0] = '\0';
        return fail(dir, -EBUSY,
                    "%s is in use by another DMS (process %s): stop it, or name another directory "
                    "with --data",
                    dir->path, text[0] == '\0' ? "unknown" : text);
    }
    /* The number is a help to people only. */
    snprintf(text, sizeof(text), "%d\n", (int)getpid());
    err = disk_truncate(dir->disk, dir->lock_fd, 0);
    if (err == 0)
        err = disk_write_all(dir->disk, dir->lock_fd, text, strlen(text), 0);
    return err == 0 ? 0 : fail_io(dir, err);
}

static int make_store_file(const struct data_dir *dir)
{
    char text[128], path[PATH_MAX];
    int len = snprintf(text, sizeof(text), "edm-store\nformat = %d\nshards = %" PRIu32 "\n",
                       DATA_DIR_FORMAT, dir->nshards);
    int err = path_in(dir, STORE_FILE, path, sizeof(path));

    if (err == 0)
        err = file_write_whole(dir->disk, path, text, (size_t)len);
    return err == 0 ? 0 : fail_io(dir, err);
}

/* Nothing but what make_store_file() writes is the file. */
static int read_store_text(const struct data_dir *dir, const char *text, unsigned *shards)
{
    unsigned format;
    int end = 0;

    if (sscanf(text, "edm-store\nformat = %9u\n", &format) != 1)
        return fail(dir, -EBADMSG,
                    "%s/%s is damaged: restore it from a backup (it says format and number of "
                    "shards), or have it made anew with edm --mode=check --data=%s --repair",
                    dir->path, STORE_FILE, dir->path);
    if (format != DATA_DIR_FORMAT)
        return fail(dir, -EPROTONOSUPPORT,
                    "%s has format %u and this EDM knows format %d: use the version of EDM that "
                    "made it, or name another directory with --data",
                    dir->path, format, DATA_DIR_FORMAT);
    if (sscanf(text, "edm-store\nformat = %*u\nshards = %9u\n%n", shards, &end) != 1 || end == 0 ||
        *shards == 0 || *shards > DATA_DIR_MAX_SHARDS)
        return fail(dir, -EBADMSG,
                    "%s/%s is damaged: restore it from a backup, or have it made anew with edm "
                    "--mode=check --data=%s --repair",
                    dir->path, STORE_FILE, dir->path);
    return 0;
}

static int check_store_text(const struct data_dir *dir, const char *text)
{
    unsigned shards;
    int err = read_store_text(dir, text, &shards);

    if (err != 0)
        return err;
    if (shards != dir->nshards)
        return fail(dir, -EINVAL,
                    "%s was made with --shards=%u and cannot be used with --shards=%" PRIu32,
                    dir->path, shards, dir->nshards);
    return 0;
}

/* Reads the store file. Returns 0 or -errno: -ENOENT. */
static int load_store_file(const struct data_dir *dir, char *text, size_t cap)
{
    char path[PATH_MAX];
    int err = path_in(dir, STORE_FILE, path, sizeof(path));
    int fd = err != 0 ? err : disk_open(dir->disk, path, O_RDONLY, 0);

    if (fd < 0)
        return fd;
    ssize_t got = disk_read(dir->disk, fd, text, cap - 1, 0);
    disk_close(dir->disk, fd);
    text[got > 0 ? got : 0] = '\0';
    return got < 0 ? (int)got : 0;
}

static int check_store_file(const struct data_dir *dir)
{
    char text[256];
    int err = load_store_file(dir, text, sizeof(text));

    if (err == -ENOENT)
        return make_store_file(dir);
    return err != 0 ? fail_io(dir, err) : check_store_text(dir, text);
}

/* Whether NAME is in the directory of shard I. */
static bool has_file(struct data_dir *dir, uint32_t i, const char *name)
{
    char path[PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/%s", data_dir_shard(dir, i), name);
    return access(path, F_OK) == 0;
}

/* All directories are made before the first shard is used. */
static int check_shards(struct data_dir *dir)
{
    uint32_t missing = dir->nshards;
    bool used = false;

    for (uint32_t i = 0; i < dir->nshards; i++) {
        if (!has_file(dir, i, "."))
            missing = i;
        used = used || has_file(dir, i, "shard");
    }
    if (missing == dir->nshards || !used)
        return 0;
    return fail(dir, -ENOENT,
                "%s is missing: restore it from a backup, or go on without its pages after edm "
                "--mode=check --data=%s --repair",
                data_dir_shard(dir, missing), dir->path);
}

/* Makes the directory PATH if it is not there. */
static int make_dir(const struct data_dir *dir, const char *path)
{
    int err = disk_make_dir(dir->disk, path, 0700);

    if (err == 0)
        err = disk_sync_parent(dir->disk, path);
    return err == 0 || err == -EEXIST ? 0 : fail_io(dir, err);
}

static int prepare(struct data_dir *dir)
{
    int err = make_dir(dir, dir->path);

    if (err == 0)
        err = check_owner(dir);
    if (err == 0)
        err = take_lock(dir);
    if (err == 0)
        err = check_store_file(dir);
    if (err == 0)
        err = check_shards(dir);
    for (uint32_t i = 0; err == 0 && i < dir->nshards; i++)
        err = make_dir(dir, data_dir_shard(dir, i));
    return err;
}

static struct data_dir *make(const struct disk *disk, const char *path, uint32_t nshards, char *why,
                             size_t why_cap, int *err)
{
    struct data_dir *dir = calloc(1, sizeof(*dir));

    if (dir == NULL) {
        snprintf(why, why_cap, "out of memory");
        *err = -ENOMEM;
        return NULL;
    }
    dir->disk = disk;
    dir->nshards = nshards;
    dir->lock_fd = -1;
    dir->why = why;
    dir->why_cap = why_cap;
    int len = snprintf(dir->path, sizeof(dir->path), "%s", path);
    *err = (size_t)len < sizeof(dir->path) ? 0 : fail_io(dir, -ENAMETOOLONG);
    return dir;
}

int data_dir_open(struct data_dir **out, const struct disk *disk, const char *path,
                  uint32_t nshards, char *why, size_t why_cap)
{
    int err;
    struct data_dir *dir = make(disk, path, nshards, why, why_cap, &err);

    if (err == 0)
        err = prepare(dir);
    if (err != 0)
        data_dir_close(&dir);
    else
        *out = dir;
    return err;
}

/* How many shards the directory has: one more than the highest number there is. */
static int count_shards(struct data_dir *dir)
{
    dir->nshards = 0;
    for (uint32_t i = 0; i < DATA_DIR_MAX_SHARDS; i++) {
        if (has_file(dir, i, "."))
            dir->nshards = i + 1;
    }
    if (dir->nshards > 0)
        return 0;
    return fail(dir, -ENOENT, "there is no store in %s: name a DMS's directory with --data",
                dir->path);
}

static int find_shards(struct data_dir *dir, bool *damaged)
{
    char text[256];
    unsigned shards;
    int err = load_store_file(dir, text, sizeof(text));

    if (err != 0 && err != -ENOENT)
        return fail_io(dir, err);
    if (err == 0)
        err = read_store_text(dir, text, &shards);
    *damaged = err == -EBADMSG || err == -ENOENT;
    if (*damaged)
        return count_shards(dir);
    if (err == 0)
        dir->nshards = shards;
    return err;
}

int data_dir_examine(struct data_dir **out, const struct disk *disk, const char *path,
                     bool *damaged, char *why, size_t why_cap)
{
    int err;
    struct data_dir *dir = make(disk, path, 0, why, why_cap, &err);

    *damaged = false;
    if (err == 0 && access(path, F_OK) != 0)
        err = fail(dir, -errno, "cannot read %s: %s", path, strerror(errno));
    if (err == 0)
        err = find_shards(dir, damaged);
    if (err == 0)
        err = take_lock(dir);
    if (err != 0)
        data_dir_close(&dir);
    else
        *out = dir;
    return err;
}

int data_dir_mend(struct data_dir *dir, bool damaged, char *why, size_t why_cap)
{
    int err = 0;

    dir->why = why;
    dir->why_cap = why_cap;
    for (uint32_t i = 0; err == 0 && i < dir->nshards; i++)
        err = make_dir(dir, data_dir_shard(dir, i));
    return err == 0 && damaged ? make_store_file(dir) : err;
}

uint32_t data_dir_shards(const struct data_dir *dir)
{
    return dir->nshards;
}

void data_dir_close(struct data_dir **dir)
{
    if (*dir == NULL)
        return;
    if ((*dir)->lock_fd >= 0)
        disk_close((*dir)->disk, (*dir)->lock_fd);
    free(*dir);
    *dir = NULL;
}

const char *data_dir_shard(struct data_dir *dir, uint32_t shard)
{
    snprintf(dir->shard_path, sizeof(dir->shard_path), "%s/shard-%" PRIu32, dir->path, shard);
    return dir->shard_path;
}

/* Adds what the files in the directory of a shard take. */
static int add_files(const char *path, uint64_t *bytes)
{
    struct dirent *entry;
    struct stat st;
    DIR *listing = opendir(path);

    if (listing == NULL)
        return -errno;
    while ((entry = readdir(listing)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        if (fstatat(dirfd(listing), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
            *bytes += (uint64_t)st.st_blocks * 512;
    }
    closedir(listing);
    return 0;
}

int data_dir_room(const struct data_dir *dir, uint64_t *bytes)
{
    struct data_dir copy = *dir;
    struct statvfs fs;
    int err = 0;

    if (statvfs(dir->path, &fs) != 0)
        return -errno;
    *bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    for (uint32_t i = 0; err == 0 && i < dir->nshards; i++)
        err = add_files(data_dir_shard(&copy, i), bytes);
    return err;
}
