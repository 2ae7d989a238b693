#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TEXT_BYTES = 1000, MAX_PREFIX_BYTES = 160 };

/* Where lines go. In use by any thread at any time, so the descriptor of a file is never closed
 * while the process may still log: log_close() is for the end of main() and for tests. */
static atomic_int log_fd = -1;
static atomic_int log_least = LOG_LEVEL_ERROR;

static const char *const level_names[] = {"Debug", "Info", "Warn", "Error", "Fatal"};

/* Keeps clear of descriptors 0 to 2: where one of them was closed by the caller, the program that
 * is run later would find the log there. */
static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd < 0)
        return -errno;
    if (fd > STDERR_FILENO)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int err = errno;
    close(fd);
    return high < 0 ? -err : high;
}

int log_open(const char *path, enum log_level least)
{
    int fd = -1;

    if (path != NULL && strcmp(path, "-") != 0) {
        fd = open_file(path);
        if (fd < 0)
            return fd;
    } else if (path != NULL || isatty(STDERR_FILENO)) {
        fd = STDERR_FILENO;
    }
    log_close();
    /* Without a place to log, only what ends the run is said. */
    atomic_store(&log_least, fd < 0 ? LOG_LEVEL_FATAL : least);
    atomic_store(&log_fd, fd);
    return 0;
}

void log_close(void)
{
    int fd = atomic_exchange(&log_fd, -1);
    atomic_store(&log_least, LOG_LEVEL_ERROR);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* English names whatever the locale: strftime() would translate them. */
static int put_prefix(char *out, size_t cap, enum log_level level, const char *part)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct timespec now;
    struct tm tm;

    clock_gettime(CLOCK_REALTIME, &now);
    if (localtime_r(&now.tv_sec, &tm) == NULL)
        memset(&tm, 0, sizeof(tm));
    return snprintf(out, cap, "[%s %s %02d %d %02d:%02d:%02d.%03ld]:[%s]-[%.40s] - ",
                    days[tm.tm_wday], months[tm.tm_mon], tm.tm_mday, tm.tm_year + 1900, tm.tm_hour,
                    tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000, level_names[level], part);
}

/* A line that cannot be written is lost: there is nowhere left to say so. */
static void write_line(int fd, const char *line, size_t len)
{
    while (write(fd, line, len) < 0 && errno == EINTR)
        ;
}

/* One event is one line, whatever bytes came in with the text. Returns the length. */
static size_t put_text(char *out, const char *format, va_list args)
{
    int want = vsnprintf(out, MAX_TEXT_BYTES + 1, format, args);
    size_t len = want < 0 ? 0 : (size_t)want;

    if (len > MAX_TEXT_BYTES)
        len = MAX_TEXT_BYTES;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)out[i] < ' ' || out[i] == 0x7f)
            out[i] = ' ';
    out[len] = '\n';
    return len + 1;
}

void log_write(enum log_level level, const char *part, const char *format, ...)
{
    int saved_errno = errno;
    char line[MAX_PREFIX_BYTES + MAX_TEXT_BYTES + 2];
    int fd = atomic_load(&log_fd);
    bool wanted = (int)level >= atomic_load(&log_least);
    va_list args;

    if (fd >= 0 && wanted) {
        size_t at = (size_t)put_prefix(line, MAX_PREFIX_BYTES, level, part);
        va_start(args, format);
        size_t len = put_text(line + at, format, args);
        va_end(args);
        write_line(fd, line, at + len);
    }
    bool said = fd == STDERR_FILENO;
    if (!said && (level == LOG_LEVEL_FATAL || (fd < 0 && wanted))) {
        static const char name[] = "edm: ";
        memcpy(line, name, sizeof(name) - 1);
        va_start(args, format);
        size_t len = put_text(line + sizeof(name) - 1, format, args);
        va_end(args);
        write_line(STDERR_FILENO, line, sizeof(name) - 1 + len);
    }
    errno = saved_errno;
}
