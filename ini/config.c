#include "config.h"

#include "config_file.h"
#include "config_help.h"
#include "config_option.h"
#include "memory_available.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_REASON_BYTES = CONFIG_REASON_BYTES,
    MAX_NAME_BYTES = 32,
    MAX_OPERANDS = 2,
    MAX_PLACE_BYTES = 4200
};

#define MODES_ALLOWED "client, dms, check, limit or status"

static const char *const mode_names[] = {"client", "dms", "check", "limit", "status"};

/* The command line, taken apart but not yet looked at. */
struct words {
    int argc;
    char **argv;
    const char *mode;
    const char *config_path;
    bool help, version, repair;
    char **program;                     /* what follows "--", NULL where there is none */
    const char *operands[MAX_OPERANDS]; /* what is no option, before "--" */
    size_t noperands;                   /* of which only so many are kept */
    uint32_t lines[CONFIG_MAX_OPTIONS]; /* of the file; 0: not from there. As config_options. */
};

struct error {
    char *text;
    size_t cap;
};

__attribute__((format(printf, 2, 3))) static int fail(struct error error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error.text, error.cap, format, args);
    va_end(args);
    return -EINVAL;
}

/* Takes the option at argv[*AT] apart: its name into NAME, its value into *VALUE (NULL: it has none
 * beside "="), and *AT past it. */
static int next_word(const struct words *words, int *at, char *name, const char **value,
                     struct error error)
{
    const char *word = words->argv[(*at)++];

    if (strncmp(word, "--", 2) != 0)
        return fail(error, "edm: unknown option %s: see edm --help", word);
    const char *equals = strchr(word, '=');
    size_t len = equals == NULL ? strlen(word + 2) : (size_t)(equals - word - 2);
    if (len >= MAX_NAME_BYTES)
        return fail(error, "edm: unknown option %.*s: see edm --help", (int)len + 2, word);
    memcpy(name, word + 2, len);
    name[len] = '\0';
    *value = equals == NULL ? NULL : equals + 1;
    return 0;
}

/* The value of option NAME: what follows "=", or the next argument unless that is an option. */
static int take_value(const struct words *words, int *at, const char *name, const char **value,
                      const char *allowed, struct error error)
{
    if (*value != NULL)
        return 0;
    const char *next = *at < words->argc ? words->argv[*at] : NULL;
    if (next == NULL || strncmp(next, "--", 2) == 0)
        return fail(error, "edm: --%s needs a value: %s", name, allowed);
    *value = next;
    (*at)++;
    return 0;
}

static void take_operand(struct words *words, const char *word)
{
    if (words->noperands < MAX_OPERANDS)
        words->operands[words->noperands] = word;
    words->noperands++;
}

static int take_flag(const char *name, const char *value, bool *flag, struct error error)
{
    if (value != NULL)
        return fail(error, "edm: --%s takes no value", name);
    *flag = true;
    return 0;
}

/* An option of the table, in the mode it belongs to. Without a known MODE any mode's will do. */
static const struct config_option *find_option(const char *name, const enum config_mode *mode)
{
    if (mode != NULL)
        return config_option_by_name(name, *mode);
    const struct config_option *option = config_option_by_name(name, CONFIG_MODE_CLIENT);
    if (option == NULL)
        option = config_option_by_name(name, CONFIG_MODE_DMS);
    return option != NULL ? option : config_option_by_name(name, CONFIG_MODE_LIMIT);
}

static int scan_value(struct words *words, int *at, const char *name, const char *value,
                      struct error error)
{
    const struct config_option *option = find_option(name, NULL);
    bool mode = strcmp(name, "mode") == 0, config = strcmp(name, "config") == 0;

    if (option == NULL && !mode && !config)
        return fail(error, "edm: unknown option --%s: see edm --help", name);
    const char *allowed = mode ? MODES_ALLOWED : config ? "a file name" : option->allowed;
    int err = take_value(words, at, name, &value, allowed, error);
    if (mode)
        words->mode = value;
    if (config)
        words->config_path = value;
    return err;
}

/* First pass: the options that decide how the others are read, and where the program begins. */
static int scan_words(struct words *words, struct error error)
{
    int at = 1, err = 0;

    while (err == 0 && at < words->argc) {
        char name[MAX_NAME_BYTES];
        const char *value = NULL;
        if (strcmp(words->argv[at], "--") == 0) {
            words->program = words->argv + at + 1;
            words->argc = at;
            break;
        }
        if (words->argv[at][0] != '-') {
            take_operand(words, words->argv[at++]);
            continue;
        }
        err = next_word(words, &at, name, &value, error);
        if (err != 0)
            break;
        if (strcmp(name, "help") == 0)
            err = take_flag(name, value, &words->help, error);
        else if (strcmp(name, "version") == 0)
            err = take_flag(name, value, &words->version, error);
        else if (strcmp(name, "repair") == 0)
            err = take_flag(name, value, &words->repair, error);
        else
            err = scan_value(words, &at, name, value, error);
    }
    return err;
}

static int read_mode(const char *text, enum config_mode *mode, struct error error)
{
    if (text == NULL)
        return fail(error, "edm: no --mode: " MODES_ALLOWED " (see edm --help)");
    for (unsigned i = 0; i < sizeof(mode_names) / sizeof(mode_names[0]); i++) {
        if (strcmp(text, mode_names[i]) == 0) {
            *mode = (enum config_mode)i;
            return 0;
        }
    }
    return fail(error, "edm: bad value '%s' for --mode: " MODES_ALLOWED, text);
}

static int store_default(const struct config_option *option, struct config *config,
                         struct error error)
{
    char reason[MAX_REASON_BYTES];

    if (option->value == NULL)
        return 0;
    int err = config_option_store(option, config, option->value, reason, sizeof(reason));
    if (err != 0)
        return fail(error, "edm: default of --%s: %s", option->name, strerror(-err));
    return 0;
}

static int store_defaults(struct config *config, struct error error)
{
    int err = 0;

    for (size_t i = 0; err == 0 && i < config_noptions; i++)
        err = store_default(&config_options[i], config, error);
    return err;
}

static int store_word(struct words *words, struct config *config, const char *name,
                      const char *value, struct error error)
{
    const struct config_option *option = find_option(name, &config->mode);
    char reason[MAX_REASON_BYTES];

    if (option == NULL)
        return fail(error, "edm: --%s is an option of --mode=%s, not of --mode=%s", name,
                    mode_names[config_option_mode(find_option(name, NULL))],
                    mode_names[config->mode]);
    config_option_forget(option, config);
    words->lines[option - config_options] = 0;
    int err = config_option_store(option, config, value, reason, sizeof(reason));
    if (err == -ENOMEM)
        return fail(error, "edm: no memory");
    if (err != 0)
        return fail(error, "edm: bad value '%s' for --%s: %s%s%s", value, name, reason,
                    *reason == '\0' ? "" : ": ", option->allowed);
    return 0;
}

/* Second pass: everything else, over what the file said. */
static int store_words(struct words *words, struct config *config, struct error error)
{
    int at = 1, err = 0;

    while (err == 0 && at < words->argc) {
        char name[MAX_NAME_BYTES];
        const char *value = NULL;
        if (words->argv[at][0] != '-') {
            at++;
            continue;
        }
        err = next_word(words, &at, name, &value, error);
        if (err != 0)
            break;
        bool known = strcmp(name, "mode") == 0 || strcmp(name, "config") == 0;
        if (strcmp(name, "help") == 0 || strcmp(name, "version") == 0 ||
            strcmp(name, "repair") == 0)
            continue;
        err = take_value(words, &at, name, &value, "see edm --help", error);
        if (err == 0 && !known)
            err = store_word(words, config, name, value, error);
    }
    return err;
}

static uint32_t line_of(const struct words *words, const char *name)
{
    return words->lines[config_option_by_name(name, CONFIG_MODE_CLIENT) - config_options];
}

/* Of two values that do not go together: " FILE:LINE:" of the one that comes later in the file, ""
 * where neither is from there. */
static const char *place_of(const struct words *words, const char *one, const char *other,
                            char place[MAX_PLACE_BYTES])
{
    uint32_t line = line_of(words, one), later = line_of(words, other);

    line = later > line ? later : line;
    *place = '\0';
    if (line > 0)
        snprintf(place, MAX_PLACE_BYTES, " %s:%" PRIu32 ":", words->config_path, line);
    return place;
}

static int check_client(struct client_config *client, const struct words *words, struct error error)
{
    char place[MAX_PLACE_BYTES];

    if (words->program == NULL || words->program[0] == NULL)
        return fail(error, "edm: no program to run: edm --mode=client [options] -- PROG ARGS");
    client->argv = words->program;
    if (client->low_threshold >= client->high_threshold)
        return fail(error, "edm:%s low threshold %" PRIu32 " must be below high threshold %" PRIu32,
                    place_of(words, "low-threshold", "high-threshold", place),
                    client->low_threshold, client->high_threshold);
    if (client->start_addr >= client->end_addr)
        return fail(
            error, "edm:%s start address 0x%" PRIx64 " must be below end address 0x%" PRIx64,
            place_of(words, "start-addr", "end-addr", place), client->start_addr, client->end_addr);
    if (client->local_bytes != 0)
        return 0;
    uint64_t available = memory_available_bytes("");
    if (available == 0)
        return fail(error, "edm: cannot read how much memory is available: give --local");
    client->local_bytes = available / 5 * 4 & ~(uint64_t)4095;
    if (client->local_bytes < config_option_by_name("local", CONFIG_MODE_CLIENT)->min)
        return fail(error, "edm: only %" PRIu64 " KiB of memory are available: give --local",
                    available / 1024);
    return 0;
}

static int check_dms(const struct dms_config *dms, struct error error)
{
    char *last = config_shard_endpoint(dms->listen, dms->nshards - 1);
    if (last == NULL)
        return fail(error,
                    "edm: no ports for %" PRIu32 " shards from %s on: the last port is 65535",
                    dms->nshards, dms->listen);
    free(last);
    return 0;
}

static bool asks(enum config_mode mode)
{
    return mode == CONFIG_MODE_LIMIT || mode == CONFIG_MODE_STATUS;
}

/* --mode=limit REGION SIZE, --mode=status [REGION]; what follows "--" may begin with a dash. */
static int check_asking(struct config *config, struct words *words, struct error error)
{
    bool limit = config->mode == CONFIG_MODE_LIMIT;
    const char *usage = limit ? "limit [options] REGION SIZE" : "status [options] [REGION]";
    char why[MAX_REASON_BYTES];
    uint64_t bytes;

    for (char **word = words->program; word != NULL && *word != NULL; word++)
        take_operand(words, *word);
    if (words->noperands > (limit ? 2 : 1))
        return fail(error, "edm: too many arguments: edm --mode=%s", usage);
    if (limit && words->noperands < 2)
        return fail(error, "edm: no %s: edm --mode=%s", words->noperands == 0 ? "region" : "size",
                    usage);
    config->ask.region = words->operands[0];
    config->ask.size = words->operands[1];
    if (words->noperands > 0 && !config_is_region(config->ask.region))
        return fail(error, "edm: bad value '%s' for REGION: a name of %s, or a process id",
                    config->ask.region,
                    config_option_by_name("region", CONFIG_MODE_CLIENT)->allowed);
    if (limit && config_parse_local(config->ask.size, &bytes, why, sizeof(why)) != 0)
        return fail(error, "edm: bad value '%s' for SIZE: %s", config->ask.size, why);
    return 0;
}

static int check_flags(const struct config *config, const struct words *words, struct error error)
{
    if (words->noperands > 0 && !asks(config->mode))
        return fail(error, "edm: unexpected argument '%s': the program and its arguments follow --",
                    words->operands[0]);
    if (words->repair && config->mode != CONFIG_MODE_CHECK)
        return fail(error, "edm: --repair is an option of --mode=check, not of --mode=%s",
                    mode_names[config->mode]);
    if (words->program != NULL && config->mode != CONFIG_MODE_CLIENT && !asks(config->mode))
        return fail(error, "edm: --mode=%s runs no program: nothing may follow --",
                    mode_names[config->mode]);
    return 0;
}

static int read_all(struct config *config, struct words *words, struct error error)
{
    int err = check_flags(config, words, error);

    config->repair = words->repair;
    if (err == 0)
        err = store_defaults(config, error);

    if (err == 0 && words->config_path != NULL)
        err = config_file_read(config, words->config_path, words->lines, error.text, error.cap);
    if (err == 0)
        err = store_words(words, config, error);
    if (err == 0 && config->mode == CONFIG_MODE_CLIENT)
        err = check_client(&config->client, words, error);
    if (err == 0 && config->mode == CONFIG_MODE_DMS)
        err = check_dms(&config->dms, error);
    if (err == 0 && asks(config->mode))
        err = check_asking(config, words, error);
    return err;
}

static enum config_result read_command(struct config *out, int argc, char **argv,
                                       struct error error)
{
    struct words words = {.argc = argc, .argv = argv};

    memset(out, 0, sizeof(*out));
    if (scan_words(&words, error) != 0)
        return CONFIG_BAD;
    if (words.version) {
        puts("edm " EDM_VERSION);
        return CONFIG_DONE;
    }
    if (words.help && words.mode == NULL) {
        config_help_all(stdout);
        return CONFIG_DONE;
    }
    if (read_mode(words.mode, &out->mode, error) != 0)
        return CONFIG_BAD;
    if (words.help) {
        config_help_mode(stdout, out->mode);
        return CONFIG_DONE;
    }
    if (read_all(out, &words, error) == 0)
        return CONFIG_RUN;
    config_clear(out);
    return CONFIG_BAD;
}

enum config_result config_read(struct config *out, int argc, char **argv, char *error,
                               size_t error_cap)
{
    enum config_result result =
        read_command(out, argc, argv, (struct error){.text = error, .cap = error_cap});

    /* One line, whatever bytes were in a value that is repeated in it. */
    for (char *at = error; result == CONFIG_BAD && *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    return result;
}

void config_clear(struct config *config)
{
    for (size_t i = 0; i < config->client.ndms; i++)
        free(config->client.dms[i]);
    free(config->client.region);
    free(config->client.stats_path);
    free(config->dms.listen);
    free(config->dms.data);
    free(config->log_path);
    memset(config, 0, sizeof(*config));
}
