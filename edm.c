/*
 * edm: reads what it is told and becomes a client, a DMS, the check of a DMS's files, or asks a
 * running client.
 */
#include "client/ask.h"
#include "client/client.h"
#include "dms/check.h"
#include "dms/dms.h"
#include "ini/config.h"
#include "ini/log.h"

#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_EDM_FAILED = 125, MAX_ERROR_BYTES = 1024 };

/* Message buffers of some hundred KiB come and go all the time. By itself malloc would map and
 * unmap each of them, and fault its pages in again: 32 MiB is the most it lets one set. */
static void keep_buffers(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

/* The path by which this binary can be started again. /proc/self/exe works even where the file is
 * gone, but would name the new process "exe". */
static const char *find_self(char *path, size_t cap)
{
    static const char self[] = "/proc/self/exe";
    ssize_t len = readlink(self, path, cap);

    if (len <= 0 || (size_t)len >= cap)
        return self;
    path[len] = '\0';
    return access(path, X_OK) == 0 ? path : self;
}

/* Whether all that was written to standard output has got there. */
static bool is_written(void)
{
    return fflush(stdout) == 0 && ferror(stdout) == 0;
}

static bool asks(const struct config *config)
{
    return config->mode == CONFIG_MODE_LIMIT || config->mode == CONFIG_MODE_STATUS;
}

static int run(const struct config *config)
{
    char self[PATH_MAX];

    if (config->mode == CONFIG_MODE_DMS)
        return dms_run(&config->dms, -1);
    if (config->mode == CONFIG_MODE_CHECK) {
        int status = (int)check_run(config->dms.data, config->repair, stdout);
        return is_written() ? status : EXIT_EDM_FAILED;
    }
    if (asks(config)) {
        enum ask_result (*ask)(const struct ask_config *, FILE *) =
            config->mode == CONFIG_MODE_LIMIT ? ask_limit : ask_status;
        int status = (int)ask(&config->ask, stdout);
        return is_written() ? status : EXIT_EDM_FAILED;
    }
    return client_run(&config->client, find_self(self, sizeof(self)));
}

/* A caller may have closed some of the three streams. Their numbers must not be given to files of
 * ours; the program gets them closed, as they came (close-on-exec). */
static void fill_streams(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR | O_CLOEXEC) < 0)
            return;
}

int main(int argc, char **argv)
{
    struct config config;
    char error[MAX_ERROR_BYTES];

    fill_streams();
    keep_buffers();
    switch (config_read(&config, argc, argv, error, sizeof(error))) {
    case CONFIG_DONE:
        return is_written() ? 0 : EXIT_EDM_FAILED;
    case CONFIG_BAD:
        fprintf(stderr, "%s\n", error);
        return EXIT_EDM_FAILED;
    case CONFIG_RUN:
        break;
    }
    int status = EXIT_EDM_FAILED;
    /* Who asks wants an answer, not a log of it. */
    bool logs = config.log_path != NULL || !asks(&config);
    int err = logs ? log_open(config.log_path, config.log_level) : 0;
    if (err == 0)
        status = run(&config);
    else
        log_fatal("Main", "cannot write the log to %s: %s", config.log_path, strerror(-err));
    log_close();
    config_clear(&config);
    return status;
}
