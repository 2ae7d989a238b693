/*
 * watch_budget: runs a command and holds the program that the command starts to a memory budget, by
 * what the kernel says about it from outside.
 *
 *     watch_budget --local=256M [--out=FILE] -- edm --mode=client --local=256M ... -- PROG ARGS
 *
 * Every 10 ms it reads the anonymous resident memory (statm: resident less shared) of the command's
 * child that is not the command's own binary: edm has children that are edm, and between fork and
 * exec the program is edm too. FILE gets one line: peak_bytes= limit_bytes= samples=
 * longest_gap_ms=.
 *
 * It exits as the command does, but with 120 where the peak exceeds the budget by more than 16 MiB
 * or 5 %, whichever is more, and 121 where it never saw a program.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_OVER_BUDGET = 120,
    EXIT_NOTHING_SEEN = 121,
    EXIT_FAILED = 122,
    SAMPLE_NS = 10000000,
    PATH_BYTES = 64,
};

#define SLACK_BYTES ((uint64_t)16 << 20)
#define SLACK_PERCENT 5

struct watch {
    pid_t command, program;
    uint64_t peak_bytes, nsamples;
    double last_sample, longest_gap_ms;
};

static volatile sig_atomic_t passed_signal;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "watch_budget: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILED);
}

static double now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static ssize_t read_file(pid_t pid, const char *name, char *text, size_t cap)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t len = read(fd, text, cap - 1);
    close(fd);
    text[len > 0 ? len : 0] = '\0';
    return len;
}

static pid_t parent_of(pid_t pid)
{
    char text[512];
    int parent;

    if (read_file(pid, "stat", text, sizeof(text)) <= 0)
        return 0;
    /* The name, in parentheses, may hold anything. */
    const char *end = strrchr(text, ')');
    return end != NULL && sscanf(end, ") %*c %d", &parent) == 1 ? parent : 0;
}

static bool same_binary(pid_t a, pid_t b)
{
    char path[PATH_BYTES];
    struct stat info_a, info_b;

    snprintf(path, sizeof(path), "/proc/%d/exe", (int)a);
    if (stat(path, &info_a) != 0)
        return true;
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)b);
    if (stat(path, &info_b) != 0)
        return true;
    return info_a.st_dev == info_b.st_dev && info_a.st_ino == info_b.st_ino;
}

static pid_t find_program(pid_t command)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    pid_t found = 0;

    if (proc == NULL)
        fail("/proc");
    while (found == 0 && (entry = readdir(proc)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (parent_of(pid) == command && !same_binary(pid, command))
            found = pid;
    }
    closedir(proc);
    return found;
}

static void sample(struct watch *watch)
{
    char text[256];
    uint64_t resident, shared;

    if (watch->program == 0)
        watch->program = find_program(watch->command);
    if (watch->program == 0 || read_file(watch->program, "statm", text, sizeof(text)) <= 0)
        return;
    if (sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2 || resident < shared)
        return;
    uint64_t bytes = (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (bytes > watch->peak_bytes)
        watch->peak_bytes = bytes;
    double at = now_ms();
    if (watch->nsamples > 0 && at - watch->last_sample > watch->longest_gap_ms)
        watch->longest_gap_ms = at - watch->last_sample;
    watch->last_sample = at;
    watch->nsamples++;
}

static void pass_on(int number)
{
    passed_signal = number;
}

static pid_t start(char **argv)
{
    pid_t parent = getpid(), child = fork();

    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(EXIT_FAILED);
        execvp(argv[0], argv);
        fail(argv[0]);
    }
    /* Not before the fork: the command's signals are to be as they were. */
    struct sigaction action = {.sa_handler = pass_on};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    return child;
}

/* Returns the command's wait status. */
static int watch_command(struct watch *watch)
{
    static const struct timespec pause = {.tv_nsec = SAMPLE_NS};
    int status;
    pid_t ended;

    while ((ended = waitpid(watch->command, &status, WNOHANG)) == 0) {
        sample(watch);
        nanosleep(&pause, NULL);
        if (passed_signal != 0) {
            kill(watch->command, passed_signal);
            passed_signal = 0;
        }
    }
    if (ended < 0)
        fail("waitpid");
    return status;
}

static void write_result(const struct watch *watch, uint64_t limit_bytes, const char *path)
{
    FILE *file = fopen(path, "we");

    if (file == NULL)
        fail(path);
    fprintf(file,
            "peak_bytes=%" PRIu64 " limit_bytes=%" PRIu64 " samples=%" PRIu64
            " longest_gap_ms=%.0f\n",
            watch->peak_bytes, limit_bytes, watch->nsamples, watch->longest_gap_ms);
    if (fclose(file) != 0)
        fail(path);
}

static uint64_t parse_size(const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t bytes = strtoull(text, &end, 10);
    const char *unit = *end == '\0' ? NULL : strchr(units, *end);

    if (end == text || (*end != '\0' && (unit == NULL || end[1] != '\0'))) {
        fprintf(stderr, "watch_budget: bad size '%s'\n", text);
        exit(EXIT_FAILED);
    }
    return unit == NULL ? bytes : bytes << 10 * (unit - units + 1);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"local", required_argument, NULL, 'l'},
                                          {"out", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
    uint64_t local_bytes = 0;
    const char *out = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "+", known, NULL)) != -1) {
        if (option == 'l')
            local_bytes = parse_size(optarg);
        else if (option == 'o')
            out = optarg;
        else
            return EXIT_FAILED;
    }
    if (local_bytes == 0 || optind == argc) {
        fprintf(stderr, "usage: watch_budget --local=SIZE [--out=FILE] -- COMMAND ARGS\n");
        return EXIT_FAILED;
    }
    uint64_t slack = local_bytes * SLACK_PERCENT / 100;
    uint64_t limit_bytes = local_bytes + (slack > SLACK_BYTES ? slack : SLACK_BYTES);
    struct watch watch = {.command = start(argv + optind)};
    int status = watch_command(&watch);
    if (out != NULL)
        write_result(&watch, limit_bytes, out);
    if (watch.nsamples == 0) {
        fprintf(stderr, "watch_budget: %s has started no program\n", argv[optind]);
        return EXIT_NOTHING_SEEN;
    }
    if (watch.peak_bytes > limit_bytes) {
        fprintf(stderr,
                "watch_budget: %" PRIu64 " KiB were resident, %" PRIu64 " KiB are allowed\n",
                watch.peak_bytes >> 10, limit_bytes >> 10);
        return EXIT_OVER_BUDGET;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
