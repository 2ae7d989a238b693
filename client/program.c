#include "program.h"

#include "kernel_abi.h"

#include <elf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SCRIPT_DEPTH = 4,
    HEADER_BYTES = 4096,
    CANNOT_RUN = 126,
    NOT_FOUND = 127,
    STAT_BYTES = 1024
};

/* A name of its own (DT_SONAME) has what others load: the dynamic linker, above all, which can be
 * run as a program and then preloads what it is told to. */
static bool has_name(int fd, const Elf64_Phdr *dynamic)
{
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry;
        if (pread(fd, &entry, sizeof entry, (off_t)(dynamic->p_offset + at)) !=
                (ssize_t)sizeof entry ||
            entry.d_tag == DT_NULL)
            return false;
        if (entry.d_tag == DT_SONAME)
            return true;
    }
    return false;
}

/* Whether nobody loads anything into it when it starts. -ENOEXEC: it is not whole. */
static int loads_nothing(int fd, const Elf64_Ehdr *header)
{
    int result = 1;
    for (int i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr part;
        off_t at = (off_t)(header->e_phoff + (uint64_t)i * header->e_phentsize);
        if (pread(fd, &part, sizeof part, at) != (ssize_t)sizeof part)
            return -ENOEXEC;
        if (part.p_type == PT_INTERP || (part.p_type == PT_DYNAMIC && has_name(fd, &part)))
            result = 0;
    }
    return header->e_phnum > 0 ? result : -ENOEXEC;
}

static bool is_ours(const Elf64_Ehdr *header)
{
    return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
           header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_machine == EM_X86_64;
}

/* 1: a program for this machine. */
static int is_for_us(const char *path)
{
    Elf64_Ehdr header;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header && is_ours(&header);
    close(fd);
    return result;
}

int program_is_static(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    Elf64_Ehdr header;
    int result = 0;
    if (pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header && is_ours(&header))
        result = loads_nothing(fd, &header);
    close(fd);
    return result;
}

/* 1, 0 or -errno. */
static int file_contains(const char *path, const char *words)
{
    char bytes[HEADER_BYTES];
    size_t len = strlen(words), kept = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = 0;
    ssize_t got;
    while (!result && (got = read(fd, bytes + kept, sizeof bytes - kept)) > 0) {
        kept += (size_t)got;
        result = memmem(bytes, kept, words, len) != NULL;
        /* The words may go on in what is read next. */
        size_t tail = kept < len ? kept : len - 1;
        memmove(bytes, bytes + kept - tail, tail);
        kept = tail;
    }
    close(fd);
    return result;
}

int program_loads_no_agent(pid_t pid, const char *agent)
{
    char exe[64], path[64];
    snprintf(exe, sizeof exe, "/proc/%d/exe", (int)pid);
    int fixed = program_is_static(exe);
    if (fixed)
        return fixed;
    /* Who writes over its environment, to show something in ps, still has the file mapped; and so
     * have its children. */
    static const char *const tells[] = {"environ", "maps"};
    for (size_t i = 0; i < sizeof tells / sizeof *tells; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, tells[i]);
        int found = file_contains(path, agent);
        if (found)
            return found < 0 ? found : 0;
    }
    return is_for_us(exe);
}

static int check_elf(int fd, const char *path, const char *bytes, size_t len, char *why,
                     size_t why_cap, bool *is_static)
{
    Elf64_Ehdr header = {0};
    if (len >= sizeof header)
        memcpy(&header, bytes, sizeof header);
    if (len >= sizeof header && !is_ours(&header)) {
        snprintf(why, why_cap, "%s: not a 64-bit x86 program: EDM cannot manage it", path);
        return CANNOT_RUN;
    }
    int fixed = loads_nothing(fd, &header);
    if (fixed < 0) {
        snprintf(why, why_cap, "%s: not a whole program", path);
        return CANNOT_RUN;
    }
    *is_static = fixed > 0;
    struct stat info;
    if (fstat(fd, &info) == 0 && (info.st_mode & (S_ISUID | S_ISGID)) && geteuid() != 0) {
        snprintf(why, why_cap,
                 "%s: runs with another user's rights (set-user-ID): EDM cannot manage it", path);
        return CANNOT_RUN;
    }
    return 0;
}

/* "#!/usr/bin/env python3" -> the file that will be run in the end. */
static int check_script(const char *path, const char *bytes, size_t len, int depth, char *why,
                        size_t why_cap, bool *is_static);

static int check(const char *path, int depth, char *why, size_t why_cap, bool *is_static)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        /* Executable but not readable: let exec decide. */
        if (errno == EACCES)
            return 0;
        snprintf(why, why_cap, "%s: %s", path, strerror(errno));
        return errno == ENOENT ? NOT_FOUND : CANNOT_RUN;
    }
    char bytes[HEADER_BYTES];
    ssize_t got = pread(fd, bytes, sizeof bytes - 1, 0);
    int result = 0;
    if (got >= SELFMAG && memcmp(bytes, ELFMAG, SELFMAG) == 0)
        result = check_elf(fd, path, bytes, (size_t)got, why, why_cap, is_static);
    else if (got >= 2 && bytes[0] == '#' && bytes[1] == '!')
        result = check_script(path, bytes, (size_t)got, depth, why, why_cap, is_static);
    close(fd);
    return result;
}

static int check_script(const char *path, const char *bytes, size_t len, int depth, char *why,
                        size_t why_cap, bool *is_static)
{
    char line[PATH_MAX];
    size_t end = 2;
    while (end < len && bytes[end] != '\n' && end < sizeof line)
        end++;
    snprintf(line, sizeof line, "%.*s", (int)(end - 2), bytes + 2);
    char *rest = NULL;
    const char *interpreter = strtok_r(line, " \t", &rest);
    if (!interpreter || depth == 0)
        return 0;
    if (access(interpreter, X_OK)) {
        snprintf(why, why_cap, "%s: its interpreter %s: %s", path, interpreter, strerror(errno));
        return CANNOT_RUN;
    }
    return check(interpreter, depth - 1, why, why_cap, is_static);
}

int program_check(const char *path, bool *is_static, char *why, size_t why_cap)
{
    *is_static = false;
    return check(path, SCRIPT_DEPTH, why, why_cap, is_static);
}

/* 0: PATH can be run. Otherwise errno's value. */
static int try_path(const char *path)
{
    struct stat info;
    if (stat(path, &info))
        return errno;
    if (S_ISDIR(info.st_mode))
        return EISDIR;
    return access(path, X_OK) ? errno : 0;
}

static int search_path(const char *name, char path[PATH_MAX])
{
    const char *at = getenv("PATH");
    if (!at)
        at = "/usr/local/bin:/usr/bin:/bin";
    int worst = ENOENT;
    for (;;) {
        size_t len = strcspn(at, ":");
        int written = snprintf(path, PATH_MAX, "%.*s%s%s", (int)len, at, len ? "/" : "./", name);
        if (written > 0 && written < PATH_MAX) {
            int err = try_path(path);
            if (!err)
                return 0;
            if (err != ENOENT && err != ENOTDIR)
                worst = err;
        }
        if (!at[len])
            return worst;
        at += len + 1;
    }
}

int program_find(const char *name, char path[PATH_MAX], bool *is_static, char *why, size_t why_cap)
{
    int err;
    *is_static = false;
    if (strchr(name, '/')) {
        err = snprintf(path, PATH_MAX, "%s", name) < PATH_MAX ? try_path(path) : ENAMETOOLONG;
    } else {
        err = name[0] ? search_path(name, path) : ENOENT;
    }
    if (err == ENOENT || err == ENOTDIR) {
        snprintf(why, why_cap, "%s: %s", name[0] ? name : "''",
                 strchr(name, '/') ? strerror(err) : "command not found");
        return NOT_FOUND;
    }
    if (err) {
        snprintf(why, why_cap, "%s: %s", name, strerror(err));
        return CANNOT_RUN;
    }
    return program_check(path, is_static, why, why_cap);
}

static struct rlimit descriptors; /* as they were */
static bool descriptors_raised;

void program_raise_limits(void)
{
    if (getrlimit(RLIMIT_NOFILE, &descriptors))
        return;
    struct rlimit raised = {descriptors.rlim_max, descriptors.rlim_max};
    descriptors_raised = setrlimit(RLIMIT_NOFILE, &raised) == 0;
}

static void free_environment(char **made)
{
    free(made[0]);
    free(made[1]);
    free(made);
}

/* The environment with the agent in it; the first two strings are ours. NULL: no memory. */
static char **make_environment(const char *agent, const char *socket)
{
    size_t count = 0;
    while (environ[count])
        count++;
    char **made = calloc(count + 3, sizeof *made);
    if (!made)
        return NULL;
    size_t n = 2;
    const char *before = NULL;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(environ[i], "LD_PRELOAD=", 11) == 0)
            before = environ[i] + 11;
        else if (strncmp(environ[i], "EDM_AGENT=", 10) != 0)
            made[n++] = environ[i];
    }
    if (asprintf(&made[0], "LD_PRELOAD=%s%s%s", agent, before && before[0] ? ":" : "",
                 before ? before : "") < 0)
        made[0] = NULL;
    if (asprintf(&made[1], "EDM_AGENT=%s", socket) < 0)
        made[1] = NULL;
    if (!made[0] || !made[1]) {
        free_environment(made);
        return NULL;
    }
    return made;
}

/* In the child: only what is allowed between fork and exec. */
static void be_program(const char *path, char *const *argv, char **environment, int go_fd,
                       int error_fd, pid_t parent)
{
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || read(go_fd, &byte, 1) != 1)
        _exit(125);
    if (descriptors_raised)
        setrlimit(RLIMIT_NOFILE, &descriptors);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(path, argv, environment);
    int err = errno;
    if (err == ENOEXEC) {
        /* A script without a first line that says so: the shell's, as the shell does. */
        char *shell[1024] = {"/bin/sh", (char *)path};
        for (int i = 1; argv[i - 1] && i < 1022; i++)
            shell[i + 1] = argv[i];
        execve("/bin/sh", shell, environment);
        err = errno;
    }
    ssize_t written = write(error_fd, &err, sizeof err);
    _exit(written < 0 ? 125 : CANNOT_RUN);
}

pid_t program_start(const char *path, char *const *argv, const char *agent, const char *socket,
                    int go_fd, int *error_fd)
{
    char **environment = make_environment(agent, socket);
    int report[2];
    if (!environment)
        return -ENOMEM;
    if (pipe2(report, O_CLOEXEC)) {
        int err = -errno;
        free_environment(environment);
        return err;
    }
    pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0)
        be_program(path, argv, environment, go_fd, report[1], parent);
    int err = -errno;
    close(report[1]);
    free_environment(environment);
    if (child < 0) {
        close(report[0]);
        return err;
    }
    *error_fd = report[0];
    return child;
}

bool program_has_ended(int pidfd)
{
    struct pollfd fd = {pidfd, POLLIN, 0};
    return poll(&fd, 1, 0) == 1;
}

/* What /proc/PID/stat says after the name, in TEXT; NULL: the process is gone. */
static const char *read_stat(pid_t pid, char text[STAT_BYTES])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, STAT_BYTES - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    return strrchr(text, ')');
}

static pid_t parent_of(pid_t pid)
{
    char text[STAT_BYTES];
    int parent = 0;
    const char *after = read_stat(pid, text);
    return after && sscanf(after, ") %*c %d", &parent) == 1 ? parent : 0;
}

bool program_has_dumped(pid_t pid, int pidfd)
{
    char text[STAT_BYTES];
    const char *after = read_stat(pid, text);
    if (after) {
        const char *last = strrchr(after, ' '); /* exit_code is the last field */
        int status = last ? atoi(last) : 0;
        return WIFSIGNALED(status) && WCOREDUMP(status);
    }
    struct kpidfd_info info = {.mask = KPIDFD_INFO_EXIT};
    return pidfd >= 0 && ioctl(pidfd, KPIDFD_GET_INFO, &info) == 0 &&
           (info.mask & KPIDFD_INFO_EXIT) && WIFSIGNALED(info.exit_code) &&
           WCOREDUMP(info.exit_code);
}

bool program_is_below(pid_t pid, pid_t ancestor)
{
    enum { DEPTH_MOST = 1000, TRIES = 3 };
    /* Who loses its parent meanwhile gets another one, and may be looked for above the wrong one.
     */
    for (int i = 0; i < TRIES; i++) {
        pid_t at = pid;
        for (int depth = 0; at > 1 && at != ancestor && depth < DEPTH_MOST; depth++)
            at = parent_of(at);
        if (at == ancestor)
            return true;
    }
    return false;
}

bool program_pass_on_end(pid_t pid)
{
    siginfo_t info = {0};
    return parent_of(pid) == getpid() ||
           waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | __WALL | __WNOTHREAD) ||
           info.si_pid == pid;
}

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
    enum { DEPTH_MOST = 64 };
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = depth < DEPTH_MOST ? opendir(path) : NULL;
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            look_at_children(dirfd(dir), entry->d_name, depth + 1, each, arg);
    closedir(dir);
}

void program_each_below(pid_t pid, bool (*each)(void *arg, pid_t pid), void *arg)
{
    look_below(pid, 0, each, arg);
}

pid_t program_own_number(int status_fd, int *in)
{
    FILE *file = status_fd < 0 ? NULL : fdopen(status_fd, "r");
    char *line = NULL; /* that of its groups may be long */
    size_t cap = 0;
    pid_t number = 0;
    *in = 0;
    while (*in == 0 && file && getline(&line, &cap, file) > 0) {
        char *rest = NULL;
        char *word = strncmp(line, "NSpid:", 6) == 0 ? strtok_r(line + 6, " \t\n", &rest) : NULL;
        for (; word; word = strtok_r(NULL, " \t\n", &rest)) {
            number = (pid_t)strtol(word, NULL, 10);
            (*in)++;
        }
    }
    free(line);
    if (file)
        fclose(file);
    else if (status_fd >= 0)
        close(status_fd);
    return number;
}

static pid_t number_of(pid_t pid, int *in)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    return program_own_number(open(path, O_RDONLY | O_CLOEXEC), in);
}

struct search {
    pid_t number, found;
    int nfound;
};

static bool is_called(void *arg, pid_t pid)
{
    struct search *search = arg;
    int in;
    if (number_of(pid, &in) == search->number) {
        search->found = pid;
        search->nfound++;
    }
    return false; /* its children are not PARENT's */
}

pid_t program_child_called(pid_t parent, pid_t number)
{
    struct search search = {number, 0, 0};
    int in;
    /* Most have one number only. */
    if (parent_of(number) == parent && number_of(number, &in) == number && in == 1)
        return number;
    program_each_below(parent, is_called, &search);
    return search.nfound == 1 ? search.found : 0;
}
