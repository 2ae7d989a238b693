/* run_dir: where it is made, what is in it, and what is said when it cannot be made. */
#include "../../client/run_dir.h"
#include "../../client/agent_image.h"
#include "temp_dir.h"
#include "test.h"

#include <elf.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WHY_BYTES = 512 };

static char why[WHY_BYTES];

static int remove_entry(const char *entry, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    remove(entry);
    return 0;
}

static void remove_dir(const struct run_dir *dir)
{
    if (dir->listen_fd >= 0)
        close(dir->listen_fd);
    nftw(dir->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Makes one with TMPDIR as given (NULL: unset) and removes it; it must lie in BASE, or, where that
 * is NULL, anywhere but in TMPDIR. */
static void make(const char *tmpdir, const char *base)
{
    struct run_dir dir;
    struct stat info;
    if (tmpdir)
        setenv("TMPDIR", tmpdir, 1);
    else
        unsetenv("TMPDIR");
    int err = run_dir_make(&dir, why, sizeof why);
    unsetenv("TMPDIR");
    if (err)
        fail_msg("%s", why);
    bool is_there = stat(dir.path, &info) == 0;
    bool is_empty = rmdir(dir.path) == 0;
    assert_true(is_there && is_empty);
    assert_true(S_ISDIR(info.st_mode));
    assert_int_equal(info.st_mode & 07777, 0700);
    assert_int_equal(dir.path[0], '/');
    assert_int_equal(dir.listen_fd, -1);
    if (base)
        assert_int_equal(strncmp(dir.path, base, strlen(base)), 0);
    else if (tmpdir && tmpdir[0])
        assert_int_not_equal(strncmp(dir.path, tmpdir, strlen(tmpdir)), 0);
    size_t len = strlen(dir.path);
    assert_int_equal(strncmp(dir.agent, dir.path, len), 0);
    assert_int_equal(strncmp(dir.socket, dir.path, len), 0);
    assert_string_not_equal(dir.agent, dir.socket);
    assert_int_equal(strncmp(dir.preload, dir.agent, strlen(dir.agent)), 0);
}

static void test_good_base(void **state)
{
    (void)state;
    make(temp_dir(), temp_dir());
    make(NULL, NULL);
}

static void test_falls_over(void **state)
{
    (void)state;
    char *long_name = malloc(4000);
    assert_non_null(long_name);
    memset(long_name, 'z', 3999);
    long_name[0] = '/';
    long_name[3999] = 0;
    make("", NULL);
    make("/no/such/directory", NULL);
    make("relative", NULL);
    make(".", NULL);
    make(temp_file("file", "", 0, 0600), NULL);
    make("/proc", NULL); /* there, but nothing can be made in it, by nobody */
    make(long_name, NULL);
    /* A directory that is good but whose name is too long for a socket's. */
    long_name[100] = 0;
    const char *deep = temp_path(long_name + 1);
    assert_int_equal(mkdir(deep, 0700), 0);
    make(deep, NULL);
    free(long_name);
}

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    return close(fd) == 0 && good;
}

/* In a name space of its own, where anybody may mount; a directory can be made there. Returns false
 * where nobody may. */
static bool mount_noexec(const char *path)
{
    char users[64], groups[64], inside[300];
    snprintf(users, sizeof users, "0 %u 1", (unsigned)geteuid());
    snprintf(groups, sizeof groups, "0 %u 1", (unsigned)getegid());
    snprintf(inside, sizeof inside, "%s/inside", path);
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_text("/proc/self/uid_map", users) &&
           write_text("/proc/self/setgroups", "deny") && write_text("/proc/self/gid_map", groups) &&
           mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("edm-test", path, "tmpfs", MS_NOEXEC, "mode=0777") == 0 &&
           mkdir(inside, 0700) == 0 && rmdir(inside) == 0;
}

/* Where code cannot be mapped, the next base is taken, and nothing is left behind. */
static void test_noexec(void **state)
{
    (void)state;
    enum { GOOD, CANNOT_MOUNT, FAILED, SAME_BASE, LEFT_BEHIND };
    const char *path = temp_path("noexec");
    assert_int_equal(mkdir(path, 0700), 0);
    setenv("TMPDIR", path, 1);
    pid_t child = fork();
    if (child == 0) {
        struct run_dir dir;
        if (!mount_noexec(path))
            _exit(CANNOT_MOUNT);
        if (run_dir_make(&dir, why, sizeof why))
            _exit(FAILED);
        if (strncmp(dir.path, path, strlen(path)) == 0)
            _exit(SAME_BASE);
        rmdir(dir.path);
        /* A directory just made has two links, and one more for each directory in it. */
        struct stat info;
        _exit(stat(path, &info) == 0 && info.st_nlink == 2 ? GOOD : LEFT_BEHIND);
    }
    unsetenv("TMPDIR");
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CANNOT_MOUNT)
        skip();
    assert_int_equal(WEXITSTATUS(status), GOOD);
}

static void test_longest_base(void **state)
{
    (void)state;
    /* Every length: the names made from it fit, or another base is taken. */
    for (size_t len = strlen(temp_dir()) + 2; len < 110; len++) {
        char base[128];
        size_t used = (size_t)snprintf(base, sizeof base, "%s/", temp_dir());
        memset(base + used, 'd', len - used);
        base[len] = 0;
        assert_int_equal(mkdir(base, 0700), 0);
        struct run_dir dir;
        setenv("TMPDIR", base, 1);
        int err = run_dir_make(&dir, why, sizeof why);
        unsetenv("TMPDIR");
        assert_int_equal(err, 0);
        if (len % 2)
            run_dir_may_be_outlived(&dir);
        err = run_dir_fill(&dir, false, why, sizeof why);
        int control = err ? -1 : run_dir_listen(&dir, why, sizeof why);
        int there = access(dir.agent, X_OK) | access(dir.socket, W_OK);
        assert_true(control >= 0);
        close(control);
        remove_dir(&dir);
        assert_int_equal(err, 0);
        assert_int_equal(there, 0);
        assert_true(strlen(dir.socket) < sizeof((struct sockaddr_un *)0)->sun_path);
    }
}

static void test_fill(void **state)
{
    (void)state;
    struct run_dir dir;
    setenv("TMPDIR", temp_dir(), 1);
    assert_int_equal(run_dir_make(&dir, why, sizeof why), 0);
    unsetenv("TMPDIR");
    assert_int_equal(run_dir_fill(&dir, false, why, sizeof why), 0);
    /* The agent as it is in the binary: a shared object that can be mapped. */
    struct stat info;
    assert_int_equal(stat(dir.agent, &info), 0);
    assert_int_equal(info.st_size, agent_image_bytes());
    /* What root starts may go on as somebody else. */
    assert_int_equal(info.st_mode & 0777, geteuid() == 0 ? 0755 : 0700);
    int fd = open(dir.agent, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    size_t len = (size_t)info.st_size;
    const char *bytes = mmap(NULL, len, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    assert_ptr_not_equal(bytes, MAP_FAILED);
    assert_memory_equal(bytes, agent_image, len);
    Elf64_Ehdr header;
    assert_true(len > sizeof header);
    memcpy(&header, bytes, sizeof header);
    assert_memory_equal(header.e_ident, ELFMAG, SELFMAG);
    assert_int_equal(header.e_type, ET_DYN);
    munmap((void *)bytes, len);
    close(fd);
    /* The socket listens, does not block and does not reach other programs. */
    assert_true(dir.listen_fd >= 0);
    assert_true(fcntl(dir.listen_fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(dir.listen_fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(accept(dir.listen_fd, NULL, NULL), -1);
    int one = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", dir.socket);
    assert_int_equal(connect(one, (struct sockaddr *)&address, sizeof address), 0);
    int other = accept(dir.listen_fd, NULL, NULL);
    assert_true(other >= 0);
    assert_int_equal(send(one, "hello", 5, 0), 5);
    char text[16];
    assert_int_equal(recv(other, text, sizeof text, 0), 5);
    close(one);
    close(other);
    remove_dir(&dir);
}

static void test_fill_fails(void **state)
{
    (void)state;
    struct run_dir dir;
    setenv("TMPDIR", temp_dir(), 1);
    assert_int_equal(run_dir_make(&dir, why, sizeof why), 0);
    unsetenv("TMPDIR");
    rmdir(dir.path);
    why[0] = 0;
    assert_true(run_dir_listen(&dir, why, sizeof why) < 0);
    assert_non_null(strstr(why, dir.path));
    assert_null(strchr(why, '\n'));
    why[0] = 0;
    assert_true(run_dir_fill(&dir, false, why, sizeof why) < 0);
    assert_non_null(strstr(why, dir.path));
    assert_null(strchr(why, '\n'));
    assert_int_equal(dir.listen_fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_base), cmocka_unit_test(test_falls_over),
        cmocka_unit_test(test_noexec),    cmocka_unit_test(test_longest_base),
        cmocka_unit_test(test_fill),      cmocka_unit_test(test_fill_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
