#include "cut_disk.h"

#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512, PAGE = 4096, WRITEBACK_ONE_IN = 8 };

static uint64_t below(struct cut_disk *cut, uint64_t bound)
{
    return test_random(&cut->random) % bound;
}

/* Reads the file as it is now into a new array. */
static uint8_t *read_now(const struct cut_file *file, size_t *len)
{
    struct stat st;

    assert_int_equal(fstat(file->fd, &st), 0);
    *len = (size_t)st.st_size;
    uint8_t *bytes = calloc(1, *len + 1);
    assert_non_null(bytes);
    assert_int_equal(pread(file->fd, bytes, *len, 0), (ssize_t)*len);
    return bytes;
}

/* Whether the block at AT of what the file holds NOW will not be written without being asked to
 * again: its page was given up and not written since. */
static bool is_given_up(const struct cut_file *file, const uint8_t *now, size_t len, size_t at)
{
    size_t page = at - at % PAGE;

    if (at >= file->given_up_len || !file->pages_given_up[page / PAGE])
        return false;
    size_t there = len - page < PAGE ? len - page : PAGE;
    size_t before = file->given_up_len - page < PAGE ? file->given_up_len - page : PAGE;
    return there == before && memcmp(now + page, file->given_up + page, there) == 0;
}

static void forget_given_up(struct cut_file *file)
{
    free(file->given_up);
    free(file->pages_given_up);
    file->given_up = NULL;
    file->pages_given_up = NULL;
    file->given_up_len = 0;
}

/* A sync fails: some pages that were to be written are given up. */
static void give_up(struct cut_disk *cut, struct cut_file *file)
{
    size_t len;
    uint8_t *now = read_now(file, &len);
    bool *pages = calloc(len / PAGE + 1, sizeof(*pages));

    assert_non_null(pages);
    for (size_t at = 0; at < len; at += BLOCK) {
        size_t size = len - at < BLOCK ? len - at : BLOCK;
        bool there = at + size <= file->synced_len;
        if (is_given_up(file, now, len, at))
            pages[at / PAGE] = true;
        else if ((!there || memcmp(now + at, file->synced + at, size) != 0) && below(cut, 4) != 0)
            pages[at / PAGE] = true;
    }
    forget_given_up(file);
    file->given_up = now;
    file->given_up_len = len;
    file->pages_given_up = pages;
}

static int add_file(struct cut_disk *cut, const char *path)
{
    assert_true(cut->nfiles < CUT_DISK_FILES);
    struct cut_file *file = &cut->files[cut->nfiles];
    *file = (struct cut_file){.fd = open(path, O_RDWR | O_CLOEXEC)};
    assert_true(file->fd >= 0);
    return (int)cut->nfiles++;
}

static struct cut_name *find_name(struct cut_disk *cut, const char *path)
{
    for (uint32_t i = 0; i < cut->nnames; i++) {
        if (strcmp(cut->names[i].path, path) == 0)
            return &cut->names[i];
    }
    assert_true(cut->nnames < CUT_DISK_FILES);
    struct cut_name *name = &cut->names[cut->nnames++];
    *name = (struct cut_name){.now = -1, .synced = -1};
    snprintf(name->path, sizeof(name->path), "%s", path);
    return name;
}

static void forget_files(struct cut_disk *cut)
{
    for (uint32_t i = 0; i < cut->nfiles; i++) {
        close(cut->files[i].fd);
        free(cut->files[i].synced);
        forget_given_up(&cut->files[i]);
        free(cut->files[i].left);
    }
    cut->nfiles = cut->nnames = 0;
}

static void sync_file(struct cut_file *file)
{
    size_t len;
    uint8_t *now = read_now(file, &len);

    for (size_t at = 0; at < len; at += BLOCK) {
        size_t size = len - at < BLOCK ? len - at : BLOCK;
        size_t there = at >= file->synced_len ? 0 : file->synced_len - at;
        if (!is_given_up(file, now, len, at))
            continue;
        memset(now + at, 0, size);
        if (there > 0)
            memcpy(now + at, file->synced + at, there < size ? there : size);
    }
    free(file->synced);
    file->synced = now;
    file->synced_len = len;
}

/* Calls VISIT with every regular file of the directory. */
static void for_files(struct cut_disk *cut, void (*visit)(struct cut_disk *cut, const char *path))
{
    char path[600];
    struct dirent *entry;
    struct stat st;
    DIR *listing = opendir(cut->dir);

    assert_non_null(listing);
    while ((entry = readdir(listing)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", cut->dir, entry->d_name);
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
            visit(cut, path);
    }
    closedir(listing);
}

static void take_in(struct cut_disk *cut, const char *path)
{
    struct cut_name *name = find_name(cut, path);

    name->now = name->synced = add_file(cut, path);
    sync_file(&cut->files[name->now]);
}

/* Some block or other reaches the disk without being asked to. */
static void write_back(struct cut_disk *cut)
{
    size_t len;

    if (cut->nfiles == 0)
        return;
    struct cut_file *file = &cut->files[below(cut, cut->nfiles)];
    uint8_t *now = read_now(file, &len);
    for (size_t at = 0; at < len; at += BLOCK) {
        size_t size = len - at < BLOCK ? len - at : BLOCK;
        bool there = at + size <= file->synced_len;
        if ((there && memcmp(now + at, file->synced + at, size) == 0) || below(cut, 4) != 0 ||
            is_given_up(file, now, len, at))
            continue;
        if (!there) {
            file->synced = realloc(file->synced, at + size);
            assert_non_null(file->synced);
            if (at > file->synced_len)
                memset(file->synced + file->synced_len, 0, at - file->synced_len);
            file->synced_len = at + size;
        }
        memcpy(file->synced + at, now + at, size);
    }
    free(now);
}

/* LIKELY of 16 unsynced blocks are on the disk. */
static void leave_some(struct cut_disk *cut, struct cut_file *file, uint64_t likely)
{
    size_t len;
    uint8_t *now = read_now(file, &len);
    size_t most = len > file->synced_len ? len : file->synced_len;

    file->left = calloc(1, most + 1);
    assert_non_null(file->left);
    file->left_len = below(cut, 16) < likely ? len : file->synced_len;
    for (size_t at = 0; at < most; at += BLOCK) {
        bool fresh = below(cut, 16) < likely &&
                     (cut->is_kill || at >= len || !is_given_up(file, now, len, at));
        const uint8_t *from = fresh ? now : file->synced;
        size_t there = fresh ? len : file->synced_len;
        if (at < there)
            memcpy(file->left + at, from + at, there - at < BLOCK ? there - at : BLOCK);
    }
    free(now);
}

void cut_disk_cut(struct cut_disk *cut)
{
    static const uint64_t likely[] = {0, 1, 8, 15, 16};
    uint64_t chance = cut->is_kill ? 16 : likely[below(cut, 5)];

    if (cut->dead)
        return;
    cut->dead = true;
    for (uint32_t i = 0; i < cut->nfiles; i++)
        leave_some(cut, &cut->files[i], chance);
    for (uint32_t i = 0; !cut->is_kill && i < cut->nnames; i++) {
        if (below(cut, 16) < chance)
            cut->names[i].synced = cut->names[i].now;
    }
}

/* Counts an operation. Returns 0, or -EIO once the power is gone. The one at which it goes may
 * still have been done: *AFTER says that the cut is to come after it. */
static int begin_operation(struct cut_disk *cut, bool *after)
{
    *after = false;
    if (cut->dead)
        return -EIO;
    if (below(cut, WRITEBACK_ONE_IN) == 0)
        write_back(cut);
    if (++cut->operations != cut->cut_at)
        return 0;
    *after = below(cut, 2) == 0;
    if (!*after)
        cut_disk_cut(cut);
    return *after ? 0 : -EIO;
}

static int end_operation(struct cut_disk *cut, bool after, int result)
{
    if (after)
        cut_disk_cut(cut);
    return after ? -EIO : result;
}

static int cut_open(void *context, const char *path, int flags, mode_t mode)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    if (err != 0)
        return err;
    int fd = disk_open(&disk_real, path, flags, mode);
    if (fd >= 0) {
        struct cut_name *name = find_name(cut, path);
        if (name->now < 0)
            name->now = add_file(cut, path);
        assert_true(fd < CUT_DISK_FDS);
        cut->file_of[fd] = name->now;
        cut->errors_told[fd] = cut->files[name->now].nerrors;
    }
    if (after && fd >= 0)
        close(fd);
    return end_operation(cut, after, fd);
}

static void cut_close(void *context, int fd)
{
    (void)context;
    close(fd);
}

static ssize_t cut_read(void *context, int fd, void *bytes, size_t len, off_t offset)
{
    const struct cut_disk *cut = context;

    return cut->dead ? -EIO : disk_read(&disk_real, fd, bytes, len, offset);
}

static ssize_t cut_write(void *context, int fd, const struct iovec *iov, int n, off_t offset)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    if (err != 0)
        return err;
    ssize_t wrote = cut->fail_write ? -EIO : disk_write(&disk_real, fd, iov, n, offset);
    cut->fail_write = false;
    struct cut_file *file = &cut->files[cut->file_of[fd]];
    size_t end = (size_t)offset + (size_t)(wrote > 0 ? wrote : 0);
    for (size_t at = (size_t)offset; at < end && at < file->given_up_len; at += PAGE - at % PAGE)
        file->pages_given_up[at / PAGE] = false;
    return after ? end_operation(cut, after, 0) : wrote;
}

static int cut_allocate(void *context, int fd, off_t offset, off_t len)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    if (err == 0)
        err = cut->is_full ? -ENOSPC : disk_allocate(&disk_real, fd, offset, len);
    return end_operation(cut, after, err);
}

static int cut_punch(void *context, int fd, off_t offset, off_t len)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    cut->npunched++;
    cut->is_full = false;
    return err != 0 ? err : end_operation(cut, after, disk_punch(&disk_real, fd, offset, len));
}

static int cut_truncate(void *context, int fd, off_t len)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    return err != 0 ? err : end_operation(cut, after, disk_truncate(&disk_real, fd, len));
}

static int cut_size(void *context, int fd, off_t *len)
{
    (void)context;
    return disk_size(&disk_real, fd, len);
}

static int cut_map(void *context, int fd, size_t len, void **out)
{
    const struct cut_disk *cut = context;

    return cut->dead ? -EIO : disk_map(&disk_real, fd, len, out);
}

static void cut_unmap(void *context, void *map, size_t len)
{
    (void)context;
    disk_unmap(&disk_real, map, len);
}

static int cut_sync(void *context, int fd)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    if (err != 0)
        return err;
    struct cut_file *file = &cut->files[cut->file_of[fd]];
    if (cut->fail_sync) {
        cut->fail_sync = false;
        file->nerrors++;
        give_up(cut, file);
    } else {
        sync_file(file);
    }
    bool told = cut->errors_told[fd] == file->nerrors;
    cut->errors_told[fd] = file->nerrors;
    return end_operation(cut, after, told ? 0 : -EIO);
}

static int cut_sync_dir(void *context, const char *path)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    if (err != 0)
        return err;
    assert_string_equal(path, cut->dir);
    for (uint32_t i = 0; i < cut->nnames; i++)
        cut->names[i].synced = cut->names[i].now;
    return end_operation(cut, after, 0);
}

static int cut_rename(void *context, const char *from, const char *to)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    if (err != 0)
        return err;
    err = disk_rename(&disk_real, from, to);
    if (err == 0) {
        int file = find_name(cut, from)->now;
        find_name(cut, to)->now = file;
        find_name(cut, from)->now = -1;
    }
    return end_operation(cut, after, err);
}

static int cut_unlink(void *context, const char *path)
{
    struct cut_disk *cut = context;
    bool after;
    int err = begin_operation(cut, &after);

    if (err != 0)
        return err;
    err = disk_unlink(&disk_real, path);
    cut->is_full = false;
    if (err == 0)
        find_name(cut, path)->now = -1;
    return end_operation(cut, after, err);
}

static int cut_make_dir(void *context, const char *path, mode_t mode)
{
    (void)context;
    return disk_make_dir(&disk_real, path, mode);
}

static int cut_boot(void *context, uint64_t id[2])
{
    const struct cut_disk *cut = context;

    id[0] = 1;
    id[1] = cut->boot;
    return 0;
}

static const struct disk_ops cut_ops = {
    .open = cut_open,
    .close = cut_close,
    .read = cut_read,
    .write = cut_write,
    .allocate = cut_allocate,
    .punch = cut_punch,
    .truncate = cut_truncate,
    .size = cut_size,
    .map = cut_map,
    .unmap = cut_unmap,
    .sync = cut_sync,
    .sync_dir = cut_sync_dir,
    .rename = cut_rename,
    .unlink = cut_unlink,
    .make_dir = cut_make_dir,
    .boot = cut_boot,
};

void cut_disk_begin(struct cut_disk *cut, const char *dir, uint64_t seed)
{
    memset(cut, 0, sizeof(*cut));
    cut->disk = (struct disk){&cut_ops, cut};
    cut->random = seed * 2 + 1;
    cut->boot = 1;
    snprintf(cut->dir, sizeof(cut->dir), "%s", dir);
    for_files(cut, take_in);
}

static void remove_file(struct cut_disk *cut, const char *path)
{
    (void)cut;
    assert_int_equal(unlink(path), 0);
}

/* What the process did after it was killed, it did not do. What was not synced still is not. */
static void undo_after_kill(struct cut_disk *cut)
{
    for (uint32_t i = 0; i < cut->nfiles; i++) {
        struct cut_file *file = &cut->files[i];
        assert_int_equal(ftruncate(file->fd, (off_t)file->left_len), 0);
        assert_int_equal(pwrite(file->fd, file->left, file->left_len, 0), (ssize_t)file->left_len);
        free(file->left);
        file->left = NULL;
    }
}

/* Only what the cut left is there. */
static void apply_cut(struct cut_disk *cut)
{
    for_files(cut, remove_file);
    for (uint32_t i = 0; i < cut->nnames; i++) {
        const struct cut_name *name = &cut->names[i];
        if (name->synced < 0)
            continue;
        const struct cut_file *file = &cut->files[name->synced];
        int fd = open(name->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, file->left, file->left_len), (ssize_t)file->left_len);
        close(fd);
    }
    forget_files(cut);
    for_files(cut, take_in);
    cut->boot++;
}

void cut_disk_restart(struct cut_disk *cut)
{
    assert_true(cut->dead);
    if (cut->is_kill)
        undo_after_kill(cut);
    else
        apply_cut(cut);
    cut->dead = cut->is_kill = cut->fail_sync = cut->is_full = cut->fail_write = false;
    cut->operations = cut->cut_at = 0;
}

void cut_disk_end(struct cut_disk *cut)
{
    forget_files(cut);
}
