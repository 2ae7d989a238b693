#include "config_file.h"

#include "config_option.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { MAX_REASON_BYTES = 128 };

/* What the callbacks of inih share. */
struct reading {
    struct config *config;
    const char *path;
    FILE *file;
    unsigned line;
    uint32_t *lines; /* for each row of config_options */
    int err;         /* the first error; nothing is read after it */
    char *error;
    size_t error_cap;
};

__attribute__((format(printf, 3, 4))) static void fail(struct reading *reading, int err,
                                                       const char *format, ...)
{
    va_list args;
    int at;

    if (reading->err != 0)
        return;
    reading->err = err;
    at = snprintf(reading->error, reading->error_cap, "edm: %s:%u: ", reading->path, reading->line);
    if (at < 0 || (size_t)at >= reading->error_cap)
        return;
    va_start(args, format);
    vsnprintf(reading->error + at, reading->error_cap - (size_t)at, format, args);
    va_end(args);
}

static void fail_file(struct reading *reading, int err)
{
    reading->err = err;
    snprintf(reading->error, reading->error_cap, "edm: cannot read %s: %s", reading->path,
             strerror(-err));
}

/* inih cuts a line that fills its buffer into two, or fails: say so first. A comment may be as long
 * as it likes. */
static char *next_line(char *line, int cap, void *stream)
{
    struct reading *reading = stream;

    if (reading->err != 0)
        return NULL;
    if (fgets(line, cap, reading->file) == NULL) {
        if (ferror(reading->file))
            fail_file(reading, -errno);
        return NULL;
    }
    reading->line++;
    if (strchr(line, '\n') != NULL || strlen(line) < (size_t)cap - 1)
        return line;
    const char *text = line + strspn(line, " \t");
    if (*text != '#' && *text != ';') {
        fail(reading, -EINVAL,
             "the line is longer than %d bytes (a list may go on in the next, indented)", cap - 2);
        return NULL;
    }
    for (int next = 0; next != '\n' && next != EOF;)
        next = fgetc(reading->file);
    line[cap - 2] = '\n';
    return line;
}

static void list_keys(enum config_section section, char *out, size_t cap)
{
    size_t at = 0;

    *out = '\0';
    for (size_t i = 0; i < config_noptions && at < cap; i++)
        if (config_options[i].section == section)
            at += (size_t)snprintf(out + at, cap - at, "%s%s", at == 0 ? "" : ", ",
                                   config_options[i].key);
}

static bool find_section(struct reading *reading, const char *name, enum config_section *out)
{
    for (unsigned i = 0; i < CONFIG_NSECTIONS; i++) {
        if (strcmp(name, config_section_names[i]) == 0) {
            *out = (enum config_section)i;
            return true;
        }
    }
    if (*name == '\0')
        fail(reading, -EINVAL,
             "a key before the first section: sections are [client], [dms], [limit], [log]");
    else
        fail(reading, -EINVAL, "unknown section [%s]: sections are [client], [dms], [limit], [log]",
             name);
    return false;
}

/* A list may be given in several lines; anything else once. */
static bool first_time(struct reading *reading, const struct config_option *option)
{
    uint32_t *line = &reading->lines[option - config_options];
    bool first = *line == 0;

    *line = reading->line;
    if (first)
        config_option_forget(option, reading->config);
    return first || option->kind == CONFIG_KIND_ENDPOINTS;
}

static int take_key(void *user, const char *section_name, const char *key, const char *value)
{
    struct reading *reading = user;
    char reason[MAX_REASON_BYTES], keys[512];
    enum config_section section;

    if (reading->err != 0 || !find_section(reading, section_name, &section))
        return 0;
    const struct config_option *option = config_option_by_key(section, key);
    if (option == NULL) {
        list_keys(section, keys, sizeof(keys));
        fail(reading, -EINVAL, "unknown key '%s' in [%s]: known keys are %s", key, section_name,
             keys);
        return 0;
    }
    if (!first_time(reading, option)) {
        fail(reading, -EINVAL, "%s is given twice (or goes on in an indented line)", key);
        return 0;
    }
    int err = config_option_store(option, reading->config, value, reason, sizeof(reason));
    if (err == -ENOMEM)
        fail(reading, err, "no memory");
    else if (err != 0)
        fail(reading, err, "bad value '%s' for %s: %s%s%s", value, key, reason,
             *reason == '\0' ? "" : ": ", option->allowed);
    return err == 0;
}

int config_file_read(struct config *config, const char *path, uint32_t *lines, char *error,
                     size_t error_cap)
{
    struct reading reading = {
        .config = config, .path = path, .lines = lines, .error = error, .error_cap = error_cap};

    reading.file = fopen(path, "re");
    if (reading.file == NULL) {
        fail_file(&reading, -errno);
        return reading.err;
    }
    int line = ini_parse_stream(next_line, &reading, take_key, &reading);
    /* inih reads on after a line that is none, so a later mistake may have been seen first. */
    if (line != 0 && (reading.err == 0 || (unsigned)line < reading.line)) {
        reading.err = 0;
        reading.line = (unsigned)line;
        fail(&reading, -EINVAL, "neither 'key = value' nor a [section] nor a comment");
    }
    fclose(reading.file);
    return reading.err;
}
