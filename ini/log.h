/*
 * log: one line an event, to a file or to standard error.
 *
 *     [Tue Aug 30 2022 18:40:33.934]:[Info]-[Pager] - text
 *
 * Until log_open() is called, and after log_close(), lines of level error and fatal go to standard
 * error as "edm: text" and others nowhere. Lines of level fatal ("this ends the run") reach
 * standard error in that form in any case; where standard error is already the log they are not
 * said twice.
 *
 * Thread: any. A line is one write(2), so lines of several threads or processes do not mix.
 */
#ifndef EDM_INI_LOG_H
#define EDM_INI_LOG_H

enum log_level {
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_INFO,
    LOG_LEVEL_WARN,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_FATAL
};

/* Opens the log. PATH: a file to append to; "-" for standard error; NULL for standard error if that
 * is a terminal, otherwise only fatal lines are said. Returns 0 or -errno (nothing changes then).
 */
int log_open(const char *path, enum log_level least) __attribute__((warn_unused_result));
void log_close(void);

/* Writes a line if LEVEL is high enough. PART names the speaker ("Pager", "WriteBack", "Shard 0").
 * Longer texts are cut at 1000 bytes. */
void log_write(enum log_level level, const char *part, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(part, ...) log_write(LOG_LEVEL_DEBUG, part, __VA_ARGS__)
#define log_info(part, ...) log_write(LOG_LEVEL_INFO, part, __VA_ARGS__)
#define log_warn(part, ...) log_write(LOG_LEVEL_WARN, part, __VA_ARGS__)
#define log_error(part, ...) log_write(LOG_LEVEL_ERROR, part, __VA_ARGS__)
#define log_fatal(part, ...) log_write(LOG_LEVEL_FATAL, part, __VA_ARGS__)

#endif
