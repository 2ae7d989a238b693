/* The form of log lines, levels, and where lines go. */
#include "../../ini/log.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_OUTPUT_BYTES = 1 << 20, NTHREADS = 4, LINES_EACH = 500 };

/* Standard error goes to a file while a test runs. */
struct fixture {
    char log_path[64], error_path[64];
    int saved_stderr;
    char *text;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->text = malloc(MAX_OUTPUT_BYTES);
    strcpy(f->log_path, "/tmp/edm-log-XXXXXX");
    strcpy(f->error_path, "/tmp/edm-err-XXXXXX");
    close(mkstemp(f->log_path));
    int fd = mkstemp(f->error_path);
    f->saved_stderr = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    log_close();
    dup2(f->saved_stderr, STDERR_FILENO);
    close(f->saved_stderr);
    unlink(f->log_path);
    unlink(f->error_path);
    free(f->text);
    free(f);
    return 0;
}

static const char *content(struct fixture *f, const char *path)
{
    FILE *file = fopen(path, "re");

    assert_non_null(file);
    f->text[fread(f->text, 1, MAX_OUTPUT_BYTES - 1, file)] = '\0';
    fclose(file);
    return f->text;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;

    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int result = regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    if (result != 0)
        fail_msg("'%s' does not match %s", text, pattern);
}

static void test_form(void **state)
{
    struct fixture *f = *state;
    char want[64];
    /* A zone of our own, five hours behind: the hour tells local time from UTC. */
    setenv("TZ", "EDM+5", 1);
    tzset();
    setlocale(LC_ALL, "");
    assert_int_equal(log_open(f->log_path, LOG_LEVEL_DEBUG), 0);
    time_t before = time(NULL);
    log_write(LOG_LEVEL_INFO, "Pager", "%d pages", 7);
    time_t after = time(NULL);
    const char *line = content(f, f->log_path);

    assert_matches(line,
                   "^\\[(Mon|Tue|Wed|Thu|Fri|Sat|Sun) "
                   "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-3][0-9] 20[0-9][0-9] "
                   "[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}\\]:\\[Info\\]-\\[Pager\\] - "
                   "7 pages\n$");
    int found = 0;
    for (time_t at = before; at <= after; at++) {
        time_t local = at - 5 * 3600;
        struct tm tm;
        gmtime_r(&local, &tm);
        strftime(want, sizeof(want), "[%a %b %d %Y %H:%M:%S.", &tm);
        found |= strncmp(line, want, strlen(want)) == 0;
    }
    assert_true(found);
}

static void say_all(void)
{
    log_debug("T", "d");
    log_info("T", "i");
    log_warn("T", "w");
    log_error("T", "e");
    log_fatal("T", "f");
}

static unsigned count(const char *text, char wanted)
{
    unsigned n = 0;

    for (; *text != '\0'; text++)
        n += *text == wanted;
    return n;
}

static void test_levels(void **state)
{
    static const char *const names[] = {"Debug", "Info", "Warn", "Error", "Fatal"};
    struct fixture *f = *state;

    for (int least = LOG_LEVEL_DEBUG; least <= LOG_LEVEL_FATAL; least++) {
        assert_int_equal(truncate(f->log_path, 0), 0);
        assert_int_equal(log_open(f->log_path, (enum log_level)least), 0);
        say_all();
        const char *text = content(f, f->log_path);
        assert_int_equal(count(text, '\n'), LOG_LEVEL_FATAL - least + 1);
        for (int level = least; level <= LOG_LEVEL_FATAL; level++)
            assert_non_null(strstr(text, names[level]));
    }
}

static void test_fatal_reaches_standard_error(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(log_open(f->log_path, LOG_LEVEL_DEBUG), 0);
    say_all();
    assert_string_equal(content(f, f->error_path), "edm: f\n");
}

static void test_standard_error_as_log(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(log_open("-", LOG_LEVEL_ERROR), 0);
    say_all();
    assert_matches(content(f, f->error_path), "^\\[.*\\]:\\[Error\\]-\\[T\\] - e\n"
                                              "\\[.*\\]:\\[Fatal\\]-\\[T\\] - f\n$");
}

static void test_no_log(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(log_open(NULL, LOG_LEVEL_DEBUG), 0);
    say_all();
    assert_string_equal(content(f, f->error_path), "edm: f\n");
}

static void test_before_open_and_after_close(void **state)
{
    struct fixture *f = *state;

    say_all();
    assert_string_equal(content(f, f->error_path), "edm: e\nedm: f\n");
    assert_int_equal(log_open(f->log_path, LOG_LEVEL_DEBUG), 0);
    log_close();
    say_all();
    assert_string_equal(content(f, f->error_path), "edm: e\nedm: f\nedm: e\nedm: f\n");
    assert_string_equal(content(f, f->log_path), "");
}

static void test_appends(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(log_open(f->log_path, LOG_LEVEL_INFO), 0);
        log_info("T", "x");
        log_close();
    }
    assert_int_equal(count(content(f, f->log_path), '\n'), 2);
}

static void test_cannot_open(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(log_open(f->log_path, LOG_LEVEL_INFO), 0);
    assert_int_equal(log_open("/nonexistent/log", LOG_LEVEL_INFO), -ENOENT);
    log_info("T", "still here");
    assert_matches(content(f, f->log_path), "still here\n$");
}

static void test_one_line_whatever_the_text(void **state)
{
    struct fixture *f = *state;
    char longer[3000];

    assert_int_equal(log_open(f->log_path, LOG_LEVEL_INFO), 0);
    log_info("T", "a\nb\tc\033d");
    assert_matches(content(f, f->log_path), " - a b c d\n$");
    assert_int_equal(truncate(f->log_path, 0), 0);
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    log_info("T", "%s", longer);
    const char *text = content(f, f->log_path);
    assert_int_equal(count(text, '\n'), 1);
    assert_int_equal(count(text, 'x'), 1000);
}

static void test_keeps_errno(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(log_open(f->log_path, LOG_LEVEL_INFO), 0);
    errno = ENOTDIR;
    log_info("T", "x");
    assert_int_equal(errno, ENOTDIR);
}

/* A file that takes the number of a closed standard stream would be handed to the program. */
static void test_keeps_clear_of_standard_streams(void **state)
{
    struct fixture *f = *state;
    int saved = dup(STDIN_FILENO);

    close(STDIN_FILENO);
    assert_int_equal(log_open(f->log_path, LOG_LEVEL_INFO), 0);
    assert_int_equal(fcntl(STDIN_FILENO, F_GETFD), -1);
    log_info("T", "x");
    dup2(saved, STDIN_FILENO);
    close(saved);
    assert_int_equal(count(content(f, f->log_path), '\n'), 1);
}

static void *say_much(void *arg)
{
    char text[200];

    memset(text, 'a' + (int)(intptr_t)arg, sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < LINES_EACH; i++)
        log_info("T", "%s", text);
    return NULL;
}

static void test_threads_do_not_mix(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[NTHREADS];

    assert_int_equal(log_open(f->log_path, LOG_LEVEL_INFO), 0);
    for (intptr_t i = 0; i < NTHREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, say_much, (void *)i), 0);
    for (int i = 0; i < NTHREADS; i++)
        pthread_join(threads[i], NULL);
    content(f, f->log_path);
    int lines = 0;
    for (char *save, *line = strtok_r(f->text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        const char *text = strstr(line, " - ");
        assert_non_null(text);
        assert_int_equal(strspn(text + 3, (char[]){text[3], '\0'}), 199);
        assert_int_equal(strlen(text + 3), 199);
        lines++;
    }
    assert_int_equal(lines, NTHREADS * LINES_EACH);
}

#define WITH_FILES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FILES(test_form),
        WITH_FILES(test_levels),
        WITH_FILES(test_fatal_reaches_standard_error),
        WITH_FILES(test_standard_error_as_log),
        WITH_FILES(test_no_log),
        WITH_FILES(test_before_open_and_after_close),
        WITH_FILES(test_appends),
        WITH_FILES(test_cannot_open),
        WITH_FILES(test_one_line_whatever_the_text),
        WITH_FILES(test_keeps_errno),
        WITH_FILES(test_keeps_clear_of_standard_streams),
        WITH_FILES(test_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
