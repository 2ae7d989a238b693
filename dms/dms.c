#include "dms.h"

#include "data_dir.h"
#include "mapped_fault.h"
#include "slot_pool.h"
#include "shard.h"
#include "../ini/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    EXIT_FAILED = 125,
    PERCENT_OF_FREE = 80,
    MAX_DESCRIPTORS = 1 << 20,
    FEW_DESCRIPTORS = 256,
};

static const char PART[] = "DMS";

struct dms {
    const struct dms_config *config;
    struct data_dir *data;
    struct shard *shards[CONFIG_MAX_SHARDS];
    uint32_t nready;
    int signal_fd;
    int events[2]; /* what the shards tell: a pipe */
    int ready_fd;
};

/* What each shard may hold. Returns 0 or -errno, logged. */
static int divide_capacity(const struct dms *dms, uint64_t *bytes)
{
    const struct dms_config *config = dms->config;
    uint64_t least = (uint64_t)SLOT_POOL_MIN_SLOTS * WIRE_PAGE_BYTES;
    uint64_t total = config->capacity_bytes;

    if (total == 0) {
        int err = data_dir_room(dms->data, &total);
        if (err != 0) {
            log_fatal(PART, "cannot see how much room %s has: %s", config->data, strerror(-err));
            return err;
        }
        total = total / 100 * PERCENT_OF_FREE;
    }
    *bytes = total / config->nshards;
    if (*bytes >= least)
        return 0;
    if (config->capacity_bytes == 0)
        log_fatal(PART,
                  "the file system of %s is full: make room, or name another directory with "
                  "--data",
                  config->data);
    else
        log_fatal(PART, "--capacity is too small: a shard needs at least %" PRIu64 " KiB",
                  least / 1024);
    return -ENOSPC;
}

static enum store_durability durability_of(const struct dms_config *config)
{
    switch (config->durability) {
    case CONFIG_SYNC_NONE:
        return STORE_NONE;
    case CONFIG_SYNC_ALWAYS:
        return STORE_ALWAYS;
    default:
        return STORE_INTERVAL;
    }
}

/* Binds all sockets. Failures are logged. */
static int make_shards(struct dms *dms)
{
    const struct dms_config *config = dms->config;
    long ncpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct shard_options options = {
        .nshards = config->nshards,
        .first_page = config->start_addr / WIRE_PAGE_BYTES,
        .max_connections = config->max_connections,
        .max_regions = config->max_regions,
        .region_bytes = config->region_bytes / config->nshards,
        .request_bytes = (uint32_t)config->request_bytes,
        .durability = durability_of(config),
        .sync_interval_ms = config->sync_interval_ms,
        .scrub_bytes = (config->scrub_bytes + config->nshards - 1) / config->nshards,
        .scan_threads = ncpus > (long)config->nshards ? (unsigned)ncpus / config->nshards : 1,
    };
    int err = divide_capacity(dms, &options.capacity_bytes);

    for (uint32_t i = 0; err == 0 && i < config->nshards; i++) {
        char *endpoint = config_shard_endpoint(config->listen, i);
        if (endpoint == NULL) {
            log_fatal(PART,
                      "there are no %" PRIu32 " endpoints from %s on: name another one with "
                      "--listen",
                      config->nshards, config->listen);
            return -EINVAL;
        }
        options.number = i;
        options.endpoint = endpoint;
        options.dir = data_dir_shard(dms->data, i);
        err = shard_new(&dms->shards[i], &options);
        free(endpoint);
    }
    return err;
}

static int start_shards(struct dms *dms)
{
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < dms->config->nshards; i++)
        err = shard_start(dms->shards[i], dms->events[1]);
    if (err != 0)
        log_fatal(PART, "cannot start a thread: %s", strerror(-err));
    return err;
}

static void say_ready(struct dms *dms)
{
    log_info(PART, "EDM %s serves %s from %s with %" PRIu32 " shard%s", EDM_VERSION,
             dms->config->listen, dms->config->data, dms->config->nshards,
             dms->config->nshards == 1 ? "" : "s");
    if (dms->ready_fd < 0)
        return;
    while (write(dms->ready_fd, "", 1) < 0 && errno == EINTR)
        ;
    close(dms->ready_fd);
    dms->ready_fd = -1;
}

/* Until a signal asks for the end or a shard fails. Returns the exit code. */
static int wait_for_end(struct dms *dms)
{
    struct pollfd fds[] = {{dms->signal_fd, POLLIN, 0}, {dms->events[0], POLLIN, 0}};
    struct signalfd_siginfo signal_info;
    struct shard_event event;

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            log_fatal(PART, "cannot wait: %s", strerror(errno));
            return EXIT_FAILED;
        }
        if ((fds[1].revents & POLLIN) != 0 &&
            read(dms->events[0], &event, sizeof(event)) == sizeof(event)) {
            if (event.kind == SHARD_FAILED)
                return EXIT_FAILED;
            if (++dms->nready == dms->config->nshards)
                say_ready(dms);
        }
        if ((fds[0].revents & POLLIN) != 0 &&
            read(dms->signal_fd, &signal_info, sizeof(signal_info)) == sizeof(signal_info)) {
            log_info(PART, "ending: signal %" PRIu32, signal_info.ssi_signo);
            return 0;
        }
    }
}

/* A connection takes a descriptor. */
static void raise_descriptor_limit(const struct dms_config *config)
{
    struct rlimit limit;
    /* With those that are beyond the limit and not closed yet, and the files. */
    rlim_t needed = (rlim_t)config->nshards * config->max_connections * 5 / 4 + FEW_DESCRIPTORS;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max < MAX_DESCRIPTORS ? limit.rlim_max : MAX_DESCRIPTORS;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < needed)
        log_warn(PART,
                 "only %llu files may be open: let it be %llu or more (ulimit -n), or lower "
                 "--max-connections",
                 (unsigned long long)limit.rlim_cur, (unsigned long long)needed);
}

static int run(struct dms *dms)
{
    char why[512];
    int status = EXIT_FAILED;

    raise_descriptor_limit(dms->config);
    if (data_dir_open(&dms->data, &disk_real, dms->config->data, dms->config->nshards, why,
                      sizeof(why)) != 0)
        log_fatal(PART, "%s", why);
    else if (make_shards(dms) == 0 && start_shards(dms) == 0)
        status = wait_for_end(dms);
    for (uint32_t i = 0; i < dms->config->nshards; i++) {
        if (dms->shards[i] != NULL && shard_stop(dms->shards[i]) != 0)
            status = EXIT_FAILED;
        shard_destroy(&dms->shards[i]);
    }
    data_dir_close(&dms->data);
    return status;
}

int dms_run(const struct dms_config *config, int ready_fd)
{
    struct dms dms = {.config = config, .ready_fd = ready_fd, .events = {-1, -1}};
    sigset_t ending, before;
    int status = EXIT_FAILED;

    /* Blocked in this thread, and so in all that it starts. */
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ending, &before);
    /* Whoever reads our log or waits for us may be gone. */
    signal(SIGPIPE, SIG_IGN);
    dms.signal_fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    int err = mapped_fault_install();
    if (err != 0)
        log_fatal(PART, "cannot start: %s", strerror(-err));
    else if (dms.signal_fd < 0 || pipe2(dms.events, O_CLOEXEC) != 0)
        log_fatal(PART, "cannot start: %s", strerror(errno));
    else
        status = run(&dms);
    int fds[] = {dms.signal_fd, dms.events[0], dms.events[1], dms.ready_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}
