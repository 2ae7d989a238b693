/*
 * fuzz_config: any command line and any configuration file.
 *
 * An input is the arguments, one a line, an empty line, and the file. The argument @ stands for
 * --config=FILE. What is accepted must be inside the bounds that the options name; what is refused
 * must say so in a line of our own.
 */
#include "fuzz_dir.h"
#include "fuzz_input.h"

#include "../../ini/config.h"

#include <unistd.h>

enum { MAX_ARGS = 16, MAX_ARG_BYTES = 400 };

static char words[MAX_ARGS][MAX_ARG_BYTES];

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");

    fuzz_require(file != NULL);
    fuzz_require(len == 0 || fwrite(bytes, len, 1, file) == 1);
    fclose(file);
}

/* The first line of what is left, without its end; empty lines end the arguments. */
static size_t take_line(struct fuzz_input *input, char *line)
{
    const uint8_t *end = input->left == 0 ? NULL : memchr(input->at, '\n', input->left);
    size_t len = end == NULL ? input->left : (size_t)(end - input->at);
    size_t kept = len < MAX_ARG_BYTES ? len : MAX_ARG_BYTES - 1;

    if (kept > 0)
        memcpy(line, input->at, kept);
    line[kept] = '\0';
    input->at += len + (end != NULL);
    input->left -= len + (end != NULL);
    return strlen(line);
}

/* Files of this machine are none of the input's business. */
static bool is_allowed(const char *word)
{
    return strncmp(word, "--config", 8) != 0 || strchr(word, '/') == NULL;
}

static int take_arguments(struct fuzz_input *input, char **argv, const char *path)
{
    static char name[] = "edm";
    int argc = 0;

    argv[argc++] = name;
    while (argc < MAX_ARGS && take_line(input, words[argc]) > 0) {
        if (strcmp(words[argc], "@") == 0)
            snprintf(words[argc], MAX_ARG_BYTES, "--config=%s", path);
        else if (!is_allowed(words[argc]))
            continue;
        argv[argc] = words[argc];
        argc++;
    }
    argv[argc] = NULL;
    return argc;
}

static void check_client(const struct client_config *client)
{
    char reason[256];

    fuzz_require(client->ndms <= CONFIG_MAX_SHARDS);
    for (size_t i = 0; i < client->ndms; i++)
        fuzz_require(config_check_endpoint(client->dms[i], reason, sizeof(reason)) == 0);
    fuzz_require(client->local_bytes >= 16 << 20);
    fuzz_require(client->region == NULL ||
                 (strlen(client->region) > 0 && strlen(client->region) <= 128));
    fuzz_require(client->low_threshold > 0 && client->low_threshold < client->high_threshold);
    fuzz_require(client->high_threshold <= 100);
    fuzz_require(client->start_addr % 4096 == 0 && client->end_addr % 4096 == 0);
    fuzz_require(client->start_addr < client->end_addr);
    fuzz_require(client->argv != NULL && client->argv[0] != NULL);
}

static void check_dms(const struct dms_config *dms)
{
    char reason[256];

    fuzz_require(dms->nshards >= 1 && dms->nshards <= CONFIG_MAX_SHARDS);
    fuzz_require(config_check_endpoint(dms->listen, reason, sizeof(reason)) == 0);
    for (uint32_t i = 0; i < dms->nshards; i++) {
        char *endpoint = config_shard_endpoint(dms->listen, i);
        fuzz_require(endpoint != NULL);
        free(endpoint);
    }
    fuzz_require(dms->data != NULL && dms->data[0] != '\0');
    fuzz_require(dms->capacity_bytes == 0 || dms->capacity_bytes >= 1 << 20);
    fuzz_require(dms->start_addr % 4096 == 0);
    fuzz_require(dms->max_connections >= 1 && dms->max_connections <= 65536);
    fuzz_require(dms->max_regions >= 1 && dms->max_regions <= 65536);
    fuzz_require(dms->region_bytes == 0 || dms->region_bytes >= 1 << 20);
    fuzz_require(dms->request_bytes >= 256 << 10 && dms->request_bytes <= 1 << 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *quiet;
    struct fuzz_input input = {data, size};
    struct config config;
    char *argv[MAX_ARGS + 1];
    char error[512];
    const char *path = fuzz_dir_path("edm.ini");

    /* --help goes to standard output. */
    if (quiet == NULL)
        quiet = freopen("/dev/null", "w", stdout);
    memset(error, 'x', sizeof(error));
    int argc = take_arguments(&input, argv, path);
    write_file(path, input.at, input.left);
    enum config_result result = config_read(&config, argc, argv, error, sizeof(error));
    if (result == CONFIG_BAD) {
        fuzz_require(memchr(error, '\0', sizeof(error)) != NULL);
        fuzz_require(strncmp(error, "edm: ", 5) == 0 && strlen(error) > 5);
    }
    if (result != CONFIG_RUN)
        return 0;
    if (config.mode == CONFIG_MODE_CLIENT)
        check_client(&config.client);
    else
        check_dms(&config.dms);
    fuzz_require(config.log_level >= LOG_LEVEL_DEBUG && config.log_level <= LOG_LEVEL_FATAL);
    config_clear(&config);
    return 0;
}
