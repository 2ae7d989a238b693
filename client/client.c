#include "client.h"

#include "control.h"
#include "guard.h"
#include "pager.h"
#include "private_dms.h"
#include "program.h"
#include "run_dir.h"
#include "stats.h"
#include "ticks.h"
#include "tree_watch.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FAILED = 125,
    CANNOT_RUN = 126,
    POLL_MS = 200,
    /* A silent DMS is worth a line at once: its address may be wrong. The private one's is not. */
    SAY_AFTER_MS = 300,
    SAY_OWN_AFTER_MS = 10000,
    AGENT_GRACE_US = 1000000,     /* how long an image may be without an agent before we look */
    AGENT_PATIENCE_US = 15000000, /* and before we give up */
    REMOVE_MS = 5000,
    LAST_MS = 2000,
    DMS_STARTS_MOST = 10,
    STRANGERS_MOST = 64,
};

struct run {
    const struct client_config *config;
    const char *self;
    char region[WIRE_MAX_NAME_BYTES + 1];
    char path[PATH_MAX];
    struct run_dir dir;
    struct guard *guard;
    int device_fd, signal_fd, error_fd, program_fd, control_fd;
    pid_t program;
    struct private_dms dms;
    char *endpoints[1]; /* the private DMS's */
    struct shard_set set;
    struct pager *pager;
    struct control *control;
    struct tree_watch *tree; /* NULL: children are left alone */
    bool is_static;          /* the program is */
    bool program_ended, failed;
    int left_behind, passed_on;
    pid_t strangers[STRANGERS_MOST];
    int nstrangers;
    int exit_code;
    uint64_t limit_bytes; /* the budget, as it is now */
    uint64_t begun_us, stats_due_us, present_us;
};

/* Signals that are passed on to the program. */
static const int passed_on[] = {SIGHUP,  SIGINT,  SIGQUIT,  SIGTERM,
                                SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM};

static int open_signals(struct run *run)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
        sigaddset(&set, passed_on[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return run->signal_fd < 0 ? -errno : 0;
}

static void name_region(struct run *run)
{
    if (run->config->region) {
        snprintf(run->region, sizeof run->region, "%s", run->config->region);
        return;
    }
    char host[33] = "host";
    gethostname(host, sizeof host - 1);
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = (uint32_t)ticks_us();
    snprintf(run->region, sizeof run->region, "%s-%d-%08x", host, (int)getpid(), random);
}

/* ---- start ---- */

static int open_store(struct run *run, char *why, size_t why_cap)
{
    run->set.wait_ms = run->config->wait_s * 1000;
    run->set.say_after_ms = SAY_AFTER_MS;
    run->set.endpoints = run->config->dms;
    run->set.nshards = (uint32_t)run->config->ndms;
    if (run->config->ndms == 0) {
        int err = private_dms_start(&run->dms, run->self, run->dir.store, guard_fd(run->guard));
        if (err) {
            snprintf(why, why_cap, "cannot start the private DMS: %s", strerror(-err));
            return err;
        }
        run->set.say_after_ms = SAY_OWN_AFTER_MS;
        run->endpoints[0] = run->dms.endpoint;
        run->set.endpoints = run->endpoints;
        run->set.nshards = 1;
    }
    int err = shard_set_open(&run->set, run->region, run->signal_fd, why, why_cap);
    if (err == -EINTR && run->dms.pid > 0 && waitpid(run->dms.pid, NULL, WNOHANG) == run->dms.pid) {
        char words[512];
        private_dms_last_words(&run->dms, words, sizeof words);
        snprintf(why, why_cap, "the private DMS ended at once: %s", words);
    } else if (err == -EINTR) {
        snprintf(why, why_cap, "interrupted before the program was started");
    }
    return err;
}

static int open_pager(struct run *run)
{
    struct pager_config config = {
        .local_bytes = run->config->local_bytes,
        .low_threshold = run->config->low_threshold,
        .high_threshold = run->config->high_threshold,
        .start_addr = run->config->start_addr,
        .end_addr = run->config->end_addr,
        .listen_fd = run->dir.listen_fd,
        .socket = run->dir.socket,
        .agent = run->dir.agent,
        .device_fd = run->device_fd,
        .guard_fd = guard_fd(run->guard),
        .follow = run->config->follow,
        .compress = run->config->compress,
        .region = run->region,
        .remove_ms = run->config->ndms > 0 ? REMOVE_MS : 0,
    };
    return pager_new(&run->pager, &config, &run->set);
}

static int open_control(struct run *run, char *why, size_t why_cap)
{
    run->control_fd = run_dir_listen(&run->dir, why, why_cap);
    if (run->control_fd < 0)
        return run->control_fd;
    struct control_config config = {
        .listen_fd = run->control_fd,
        .pager = run->pager,
        .region = run->region,
        .program = run->config->argv[0],
        .limit_bytes = run->limit_bytes,
    };
    int err = control_new(&run->control, &config);
    if (err)
        snprintf(why, why_cap, "cannot make the control socket: %s", strerror(-err));
    return err;
}

static int start_program(struct run *run)
{
    int go[2];
    if (pipe2(go, O_CLOEXEC))
        return -errno;
    pid_t pid = program_start(run->path, run->config->argv, run->dir.preload, run->dir.socket,
                              go[0], &run->error_fd);
    close(go[0]);
    if (pid > 0) {
        run->program = pid;
        run->program_fd = (int)syscall(SYS_pidfd_open, pid, 0);
        pager_set_program(run->pager, pid);
        guard_end_with_us(guard_fd(run->guard), pid);
        if (run->is_static) {
            pager_let_go(run->pager, go[1]);
            return 0;
        }
        if (write(go[1], "g", 1) != 1)
            log_warn("Client", "cannot let the program go: %s", strerror(errno));
    }
    close(go[1]);
    return pid < 0 ? pid : 0;
}

/* ---- while it runs ---- */

static void write_stats(struct run *run, bool ended)
{
    if (!run->config->stats_path)
        return;
    static struct stats stats;
    stats = (struct stats){
        .program = run->config->argv[0],
        .region = run->region,
        .ended = ended,
        .exit_status = run->exit_code,
        .wall_s = (double)(ticks_us() - run->begun_us) / 1e6,
        .local_limit_bytes = run->limit_bytes,
        .nshards = run->set.nshards,
    };
    pager_counters(run->pager, &stats.pager);
    stats.write_back = pager_write_back_counters(run->pager);
    int err = stats_write(&stats, run->config->stats_path);
    if (err)
        log_error("Client", "cannot write %s: %s", run->config->stats_path, strerror(-err));
}

static void end_program(struct run *run, int code)
{
    if (run->failed)
        return;
    run->failed = true;
    run->exit_code = code;
    if (!run->program_ended)
        kill(run->program, SIGKILL);
}

static void on_program_end(struct run *run, int status)
{
    run->program_ended = true;
    if (run->failed)
        return;
    run->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    int err = 0;
    if (read(run->error_fd, &err, sizeof err) == (ssize_t)sizeof err) {
        run->exit_code = err == ENOENT ? 127 : CANNOT_RUN;
        log_fatal("Client", "%s: %s", run->path, strerror(err));
    }
}

static void on_dms_end(struct run *run)
{
    run->dms.pid = 0;
    char words[512];
    private_dms_last_words(&run->dms, words, sizeof words);
    if (run->dms.starts >= DMS_STARTS_MOST) {
        log_fatal("Client", "the private DMS ends again and again: %s", words);
        end_program(run, FAILED);
        return;
    }
    log_error("Client", "the private DMS ended (%s): starting it again on its pages", words);
    int err = private_dms_start(&run->dms, run->self, run->dir.store, guard_fd(run->guard));
    if (err) {
        log_fatal("Client", "cannot start the private DMS: %s", strerror(-err));
        end_program(run, FAILED);
    }
}

/* Whoever has become edm by exec() may have had children of its own. */
static void note_stranger(struct run *run, pid_t pid)
{
    if (run->nstrangers < STRANGERS_MOST)
        run->strangers[run->nstrangers++] = pid;
}

static bool is_stranger(const struct run *run, pid_t pid)
{
    for (int i = 0; i < run->nstrangers; i++)
        if (run->strangers[i] == pid)
            return true;
    return false;
}

/* The program's first process, and what is not the program's. */
static bool is_known(const struct run *run, pid_t pid)
{
    return pid == run->program || pid == run->dms.pid ||
           (run->guard && pid == guard_pid(run->guard)) || is_stranger(run, pid);
}

/* Daemons the program has left behind became our children (see PR_SET_CHILD_SUBREAPER below). Who
 * is our child, of the main thread; false when that cannot be known. */
static bool each_child(struct run *run, void (*each)(struct run *run, pid_t pid))
{
    FILE *file = fopen("/proc/thread-self/children", "re");
    if (!file)
        return false;
    int pid;
    while (fscanf(file, "%d", &pid) == 1)
        if (!is_known(run, pid))
            each(run, pid);
    fclose(file);
    return true;
}

static void reap_one(struct run *run, pid_t pid)
{
    siginfo_t info = {0};
    /* Looked at first: a wait takes the tracer's stops away, whatever it is for. */
    bool ended =
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid &&
        (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED);
    if (!ended)
        run->left_behind++;
    else
        (void)waitpid(pid, NULL, WNOHANG);
}

/* How many of the program's processes have outlived their parents. */
static void count_left_behind(struct run *run)
{
    run->left_behind = 0;
    if (run->config->follow)
        each_child(run, reap_one);
}

static void reap(struct run *run)
{
    int status;
    if (run->dms.pid > 0 && waitpid(run->dms.pid, &status, WNOHANG) == run->dms.pid)
        on_dms_end(run);
    /* The pager's thread traces the program at times (brake.h): waiting for it before it has ended
     * would take the tracer's stops away. */
    if (!run->program_ended && program_has_ended(run->program_fd) &&
        waitpid(run->program, &status, WNOHANG) == run->program)
        on_program_end(run, status);
    count_left_behind(run);
}

static void pass_on(struct run *run, pid_t pid)
{
    kill(pid, run->passed_on);
}

static void take_signals(struct run *run)
{
    struct signalfd_siginfo info;
    while (read(run->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        /* What the terminal sends goes to its whole foreground group: the program has it already.
         */
        if (info.ssi_code == SI_KERNEL && getpgid(run->program) == getpgrp())
            continue;
        run->passed_on = (int)info.ssi_signo;
        if (!run->program_ended)
            kill(run->program, run->passed_on);
        else
            each_child(run, pass_on);
    }
    reap(run);
}

/* A program that runs without an agent would not be held to its budget. */
static void watch_agent(struct run *run)
{
    bool present;
    pager_images(run->pager, &present);
    uint64_t now = ticks_us();
    if (present || run->program_ended) {
        run->present_us = now;
        return;
    }
    if (now - run->present_us < AGENT_GRACE_US)
        return;
    char link[64], why[512], target[PATH_MAX];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)run->program);
    ssize_t len = readlink(link, target, sizeof target - 1);
    if (len <= 0)
        return; /* ending */
    target[len] = 0;
    bool is_static;
    if (program_check(link, &is_static, why, sizeof why)) {
        /* It says "/proc/PID/exe: ..."; the name is more use. */
        const char *colon = strchr(why, ':');
        log_fatal("Client", "%s%s", target, colon ? colon : "");
        end_program(run, CANNOT_RUN);
    } else if (now - run->present_us > AGENT_PATIENCE_US) {
        log_fatal("Client", "%s runs without EDM's agent and cannot be managed%s", target,
                  is_static ? "" : ": is LD_PRELOAD or EDM_AGENT taken out of its environment?");
        end_program(run, FAILED);
    }
}

static void found_static(void *arg, pid_t pid)
{
    struct run *run = arg;
    pager_found(run->pager, pid);
}

static void look_below(struct run *run, pid_t pid)
{
    tree_watch_look(run->tree, pid);
}

/* The agent does not come by itself into what loads nothing. */
static void watch_tree(struct run *run)
{
    uint64_t now = ticks_us();
    if (!run->tree || now < tree_watch_due_us(run->tree))
        return;
    tree_watch_begin(run->tree, now, found_static, run);
    if (!run->program_ended)
        tree_watch_look(run->tree, run->program);
    each_child(run, look_below);
    tree_watch_end(run->tree);
}

static int until(uint64_t due_us, int most_ms)
{
    uint64_t now = ticks_us();
    uint64_t due = due_us <= now ? 0 : (due_us - now) / 1000 + 1;
    return due < (uint64_t)most_ms ? (int)due : most_ms;
}

static int until_next(const struct run *run)
{
    int ms = POLL_MS;
    if (run->config->stats_interval_ms)
        ms = until(run->stats_due_us, ms);
    if (run->tree)
        ms = until(tree_watch_due_us(run->tree), ms);
    return until(control_due_us(run->control), ms);
}

/* The program's children may live on, and have pages elsewhere. */
static bool is_over(const struct run *run)
{
    return run->program_ended &&
           (run->failed || (run->left_behind == 0 && pager_processes(run->pager) == 0));
}

static void end_one(struct run *run, pid_t pid)
{
    kill(pid, SIGKILL);
    reap_one(run, pid);
}

/* After a failure nothing runs on. Whoever loses its parent by that becomes our child. */
static void end_left_behind(struct run *run)
{
    uint64_t begun = ticks_us();
    do {
        run->left_behind = 0;
        if (!run->config->follow || !each_child(run, end_one) || run->left_behind == 0)
            return;
        poll(NULL, 0, 1);
    } while (ticks_us() - begun < LAST_MS * 1000ull);
}

static void wait_for_program(struct run *run)
{
    while (!is_over(run)) {
        enum { OWN = 2 };
        struct pollfd fds[OWN + CONTROL_POLL_FDS] = {{run->signal_fd, POLLIN, 0},
                                                     {pager_fd(run->pager), POLLIN, 0}};
        control_poll_fds(run->control, fds + OWN);
        if (poll(fds, OWN + CONTROL_POLL_FDS, until_next(run)) < 0 && errno != EINTR)
            log_error("Client", "poll: %s", strerror(errno));
        take_signals(run);
        if (pager_event(run->pager) == PAGER_FAILED)
            end_program(run, FAILED);
        control_process(run->control, fds + OWN);
        run->limit_bytes = control_limit_bytes(run->control);
        watch_agent(run);
        watch_tree(run);
        if (run->config->stats_interval_ms && ticks_us() >= run->stats_due_us) {
            write_stats(run, false);
            run->stats_due_us = ticks_us() + 1000ull * run->config->stats_interval_ms;
        }
    }
}

/* ---- the whole ---- */

static int run_program(struct run *run)
{
    char why[1024];
    int err = run_dir_fill(&run->dir, !uffd_tells_of_forks(run->device_fd), why, sizeof why);
    if (!err)
        err = open_store(run, why, sizeof why);
    if (err) {
        log_fatal("Client", "%s", why);
        return FAILED;
    }
    if (run->config->follow)
        err = tree_watch_new(&run->tree, run->dir.agent);
    if (!err)
        err = open_pager(run);
    if (err) {
        log_fatal("Client", "cannot start the pager: %s", strerror(-err));
        return FAILED;
    }
    if (open_control(run, why, sizeof why)) {
        log_fatal("Client", "%s", why);
        return FAILED;
    }
    log_info("Client", "region %s on %u shard%s, budget %llu MiB", run->region, run->set.nshards,
             run->set.nshards == 1 ? "" : "s",
             (unsigned long long)(run->config->local_bytes >> 20));
    run->begun_us = run->present_us = ticks_us();
    err = start_program(run);
    if (err) {
        log_fatal("Client", "cannot start %s: %s", run->path, strerror(-err));
        return FAILED;
    }
    wait_for_program(run);
    control_end(&run->control);
    pager_stop(run->pager);
    if (run->failed)
        end_left_behind(run);
    write_stats(run, true);
    log_info("Client", "%s ended with %d after %.3f s", run->config->argv[0], run->exit_code,
             (double)(ticks_us() - run->begun_us) / 1e6);
    return run->exit_code;
}

static void close_store(struct run *run)
{
    /* A private DMS goes with its pages; elsewhere they have to be taken out. */
    if (run->pager && run->config->ndms > 0) {
        uint32_t confirmed = shard_set_remove_region(&run->set, REMOVE_MS);
        if (confirmed < run->set.nshards)
            log_warn("Client", "region %s could be removed from %u of %u shards only", run->region,
                     confirmed, run->set.nshards);
    }
    control_end(&run->control);
    pager_destroy(&run->pager);
    tree_watch_destroy(&run->tree);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Processes are found in /proc, by their numbers here: another namespace's has other ones. */
static bool has_proc(void)
{
    char self[16];
    ssize_t len = readlink("/proc/self", self, sizeof self - 1);
    self[len > 0 ? len : 0] = '\0';
    return strtol(self, NULL, 10) == getpid();
}

int client_run(const struct client_config *config, const char *self)
{
    static struct run run;
    run = (struct run){.config = config,
                       .self = self,
                       .signal_fd = -1,
                       .error_fd = -1,
                       .program_fd = -1,
                       .control_fd = -1,
                       .limit_bytes = config->local_bytes,
                       .exit_code = FAILED};
    char why[1024];
    run.device_fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (run.device_fd < 0)
        run.device_fd = open("/dev/userfaultfd", O_RDONLY | O_CLOEXEC);
    int code = FAILED;
    int unfit = program_find(config->argv[0], run.path, &run.is_static, why, sizeof why);
    if (unfit) {
        log_fatal("Client", "%s", why);
        close_fd(run.device_fd);
        return unfit;
    }
    if (!has_proc()) {
        log_fatal("Client", "/proc is not mounted, or is another pid namespace's: mount this one's "
                            "(mount -t proc proc /proc)");
        close_fd(run.device_fd);
        return FAILED;
    }
    int no_stats = config->stats_path ? stats_check(config->stats_path) : 0;
    if (no_stats) {
        log_fatal("Client", "cannot write %s (--stats): %s", config->stats_path,
                  strerror(-no_stats));
        close_fd(run.device_fd);
        return FAILED;
    }
    name_region(&run);
    program_raise_limits();
    each_child(&run, note_stranger);
    if (config->follow && prctl(PR_SET_CHILD_SUBREAPER, 1))
        log_warn("Client", "cannot wait for daemons: %s", strerror(errno));
    if (uffd_check_machine(run.device_fd, why, sizeof why) ||
        run_dir_make(&run.dir, why, sizeof why)) {
        log_fatal("Client", "%s", why);
        close_fd(run.device_fd);
        return FAILED;
    }
    if (!config->follow)
        run_dir_may_be_outlived(&run.dir);
    const struct guard_config guarded = {.directory = run.dir.path,
                                         .whole_tree = config->follow,
                                         .marks = {run.dir.agent, run.dir.socket}};
    int err = guard_start(&run.guard, &guarded);
    if (err) {
        log_fatal("Client", "cannot start the guard process: %s", strerror(-err));
        rmdir(run.dir.path);
    } else {
        err = open_signals(&run);
        if (err)
            log_fatal("Client", "cannot receive signals: %s", strerror(-err));
        else
            code = run_program(&run);
        close_store(&run);
        guard_finish(&run.guard);
    }
    close_fd(run.dir.listen_fd);
    close_fd(run.control_fd);
    close_fd(run.signal_fd);
    close_fd(run.error_fd);
    close_fd(run.program_fd);
    close_fd(run.device_fd);
    return code;
}
