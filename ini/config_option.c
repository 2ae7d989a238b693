#include "config_option.h"

#include "memory_available.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 4096, MAX_REGION_BYTES = 128 };

#define MIN_LOCAL_BYTES ((uint64_t)16 << 20)
#define MIN_CAPACITY_BYTES ((uint64_t)1 << 20)
/* What edm's own client sends at once, and what the wire can carry. */
#define MIN_REQUEST_BYTES ((uint64_t)256 << 10)
#define MAX_REQUEST_BYTES ((uint64_t)1 << 20)

#define ADDRESS_ALLOWED "an address such as 0x7f0000000000, a multiple of 4096"
#define ENDPOINT_ALLOWED "tcp://HOST:PORT or ipc://PATH"

const char *const config_section_names[CONFIG_NSECTIONS] = {"client", "dms", "limit", "log"};

const struct config_option config_options[] = {
    {.name = "dms",
     .section = CONFIG_SECTION_CLIENT,
     .key = "dms",
     .argument = "EP[,EP...]",
     .help = "the shards that keep the pages",
     .allowed = "up to 64 different endpoints, " ENDPOINT_ALLOWED ", separated by commas",
     .fallback = "none: a private DMS for this run",
     .kind = CONFIG_KIND_ENDPOINTS,
     .offset = offsetof(struct config, client.dms)},
    {.name = "local",
     .section = CONFIG_SECTION_CLIENT,
     .key = "local",
     .argument = "SIZE",
     .help = "local budget: managed memory that may be resident",
     .allowed = "a size such as 256M, 2G or 50%, at least 16M",
     .fallback = "80% of the available RAM",
     .kind = CONFIG_KIND_MEMORY,
     .offset = offsetof(struct config, client.local_bytes),
     .min = MIN_LOCAL_BYTES},
    {.name = "region",
     .section = CONFIG_SECTION_CLIENT,
     .key = "region",
     .argument = "NAME",
     .help = "name of the program's memory in the store",
     .allowed = "1 to 128 letters, digits or any of . _ : @ + -",
     .fallback = "generated, and said in the log",
     .kind = CONFIG_KIND_REGION,
     .offset = offsetof(struct config, client.region)},
    {.name = "stats",
     .section = CONFIG_SECTION_CLIENT,
     .key = "stats",
     .argument = "FILE",
     .help = "write statistics as JSON when the program has ended",
     .allowed = "a file name",
     .fallback = "none",
     .kind = CONFIG_KIND_PATH,
     .offset = offsetof(struct config, client.stats_path)},
    {.name = "stats-interval",
     .section = CONFIG_SECTION_CLIENT,
     .key = "stats_interval",
     .argument = "MS",
     .help = "write them also every so many milliseconds while it runs; 0: only at the end",
     .allowed = "a number of milliseconds from 0 to 3600000",
     .value = "0",
     .kind = CONFIG_KIND_NUMBER,
     .offset = offsetof(struct config, client.stats_interval_ms),
     .max = 3600000},
    {.name = "wait",
     .section = CONFIG_SECTION_CLIENT,
     .key = "wait",
     .argument = "SECONDS",
     .help = "how long the program may be held when no DMS can serve a page or take one",
     .allowed = "a number of seconds from 0 to 86400",
     .value = "60",
     .kind = CONFIG_KIND_NUMBER,
     .offset = offsetof(struct config, client.wait_s),
     .max = 86400},
    {.name = "follow",
     .section = CONFIG_SECTION_CLIENT,
     .key = "follow",
     .argument = "YES|NO",
     .help = "whether the program's children are managed too, within the same budget",
     .allowed = "yes or no",
     .value = "yes",
     .kind = CONFIG_KIND_SWITCH,
     .offset = offsetof(struct config, client.follow)},
    {.name = "compress",
     .section = CONFIG_SECTION_CLIENT,
     .key = "compress",
     .argument = "AUTO|YES|NO",
     .help = "whether pages are compressed before they are sent; auto: while that is faster",
     .allowed = "auto, yes or no",
     .value = "auto",
     .kind = CONFIG_KIND_COMPRESS,
     .offset = offsetof(struct config, client.compress)},
    {.name = "low-threshold",
     .section = CONFIG_SECTION_CLIENT,
     .key = "low_threshold",
     .argument = "PERCENT",
     .help = "reclaim stops at this part of the local budget",
     .allowed = "a percentage from 1 to 100",
     .value = "90",
     .kind = CONFIG_KIND_PERCENTAGE,
     .offset = offsetof(struct config, client.low_threshold),
     .min = 1,
     .max = 100},
    {.name = "high-threshold",
     .section = CONFIG_SECTION_CLIENT,
     .key = "high_threshold",
     .argument = "PERCENT",
     .help = "reclaim starts above this part of the local budget",
     .allowed = "a percentage from 1 to 100",
     .value = "95",
     .kind = CONFIG_KIND_PERCENTAGE,
     .offset = offsetof(struct config, client.high_threshold),
     .min = 1,
     .max = 100},
    {.name = "start-addr",
     .section = CONFIG_SECTION_CLIENT,
     .key = "start_addr",
     .argument = "ADDRESS",
     .help = "manage only memory from this address on",
     .allowed = ADDRESS_ALLOWED,
     .value = "0x0",
     .kind = CONFIG_KIND_ADDRESS,
     .offset = offsetof(struct config, client.start_addr)},
    {.name = "end-addr",
     .section = CONFIG_SECTION_CLIENT,
     .key = "end_addr",
     .argument = "ADDRESS",
     .help = "manage only memory below this address",
     .allowed = ADDRESS_ALLOWED,
     .value = "0xfffffffffffff000",
     .kind = CONFIG_KIND_ADDRESS,
     .offset = offsetof(struct config, client.end_addr)},
    {.name = "listen",
     .section = CONFIG_SECTION_DMS,
     .key = "listen",
     .argument = "EP",
     .help = "endpoint of shard 0; shard i takes the port + i (ipc: the path and .i)",
     .allowed = ENDPOINT_ALLOWED,
     .value = "tcp://127.0.0.1:7600",
     .kind = CONFIG_KIND_LISTEN,
     .offset = offsetof(struct config, dms.listen)},
    {.name = "data",
     .section = CONFIG_SECTION_DMS,
     .key = "data",
     .argument = "DIR",
     .help = "directory of the segment files",
     .allowed = "a directory name",
     .value = "./edm-data",
     .kind = CONFIG_KIND_PATH,
     .offset = offsetof(struct config, dms.data),
     .in_check = true},
    {.name = "capacity",
     .section = CONFIG_SECTION_DMS,
     .key = "capacity",
     .argument = "SIZE",
     .help = "bytes of pages it may hold",
     .allowed = "a size such as 512M or 64G, at least 1M",
     .fallback = "80% of the file system's free space",
     .kind = CONFIG_KIND_SIZE,
     .offset = offsetof(struct config, dms.capacity_bytes),
     .min = MIN_CAPACITY_BYTES},
    {.name = "shards",
     .section = CONFIG_SECTION_DMS,
     .key = "shards",
     .argument = "N",
     .help = "shards, each a thread and an endpoint",
     .allowed = "a number from 1 to 64",
     .value = "1",
     .kind = CONFIG_KIND_NUMBER,
     .offset = offsetof(struct config, dms.nshards),
     .min = 1,
     .max = CONFIG_MAX_SHARDS},
    {.name = "start-addr",
     .section = CONFIG_SECTION_DMS,
     .key = "start_addr",
     .argument = "ADDRESS",
     .help = "refuse pages below this address",
     .allowed = ADDRESS_ALLOWED,
     .value = "0x0",
     .kind = CONFIG_KIND_ADDRESS,
     .offset = offsetof(struct config, dms.start_addr)},
    {.name = "max-connections",
     .section = CONFIG_SECTION_DMS,
     .key = "max_connections",
     .argument = "N",
     .help = "connections to each shard; a client has two or three",
     .allowed = "a number from 1 to 65536",
     .value = "1024",
     .kind = CONFIG_KIND_NUMBER,
     .offset = offsetof(struct config, dms.max_connections),
     .min = 1,
     .max = 65536},
    {.name = "max-regions",
     .section = CONFIG_SECTION_DMS,
     .key = "max_regions",
     .argument = "N",
     .help = "regions, checkpoints included, that each shard keeps",
     .allowed = "a number from 1 to 65536",
     .value = "65536",
     .kind = CONFIG_KIND_NUMBER,
     .offset = offsetof(struct config, dms.max_regions),
     .min = 1,
     .max = 65536},
    {.name = "region-capacity",
     .section = CONFIG_SECTION_DMS,
     .key = "region_capacity",
     .argument = "SIZE",
     .help = "bytes of pages that one region may hold",
     .allowed = "a size such as 512M or 64G, at least 1M",
     .fallback = "no limit but the capacity",
     .kind = CONFIG_KIND_SIZE,
     .offset = offsetof(struct config, dms.region_bytes),
     .min = MIN_CAPACITY_BYTES},
    {.name = "max-request",
     .section = CONFIG_SECTION_DMS,
     .key = "max_request",
     .argument = "SIZE",
     .help = "bytes of pages in one request",
     .allowed = "a size from 256K to 1M",
     .value = "1M",
     .kind = CONFIG_KIND_SIZE,
     .offset = offsetof(struct config, dms.request_bytes),
     .min = MIN_REQUEST_BYTES,
     .max = MAX_REQUEST_BYTES},
    {.name = "durability",
     .section = CONFIG_SECTION_DMS,
     .key = "durability",
     .argument = "WHEN",
     .help = "when changes are synced to disk, so that they survive a power cut",
     .allowed = "none, interval or always",
     .value = "interval",
     .kind = CONFIG_KIND_DURABILITY,
     .offset = offsetof(struct config, dms.durability)},
    {.name = "sync-interval",
     .section = CONFIG_SECTION_DMS,
     .key = "sync_interval",
     .argument = "MS",
     .help = "how often that is with --durability=interval",
     .allowed = "a number of milliseconds from 1 to 3600000",
     .value = "100",
     .kind = CONFIG_KIND_NUMBER,
     .offset = offsetof(struct config, dms.sync_interval_ms),
     .min = 1,
     .max = 3600000},
    {.name = "scrub-rate",
     .section = CONFIG_SECTION_DMS,
     .key = "scrub_rate",
     .argument = "SIZE",
     .help = "bytes a second that are read again in the background, to find damage early; 0: none",
     .allowed = "a size such as 8M, or 0",
     .value = "8M",
     .kind = CONFIG_KIND_SIZE,
     .offset = offsetof(struct config, dms.scrub_bytes)},
    {.name = "wait",
     .section = CONFIG_SECTION_LIMIT,
     .key = "wait",
     .argument = "SECONDS",
     .help = "how long to wait until what is resident is within the new budget",
     .allowed = "a number of seconds from 0 to 86400",
     .value = "60",
     .kind = CONFIG_KIND_NUMBER,
     .offset = offsetof(struct config, ask.wait_s),
     .max = 86400},
    {.name = "log-level",
     .section = CONFIG_SECTION_LOG,
     .key = "level",
     .argument = "LEVEL",
     .help = "least level that is logged",
     .allowed = "debug, info, warn, error or fatal",
     .value = "info",
     .kind = CONFIG_KIND_LEVEL,
     .offset = offsetof(struct config, log_level)},
    {.name = "log-file",
     .section = CONFIG_SECTION_LOG,
     .key = "file",
     .argument = "FILE",
     .help = "file the log is appended to; -: standard error",
     .allowed = "a file name, or -",
     .fallback = "standard error if that is a terminal, otherwise none",
     .kind = CONFIG_KIND_PATH,
     .offset = offsetof(struct config, log_path)},
};

const size_t config_noptions = sizeof(config_options) / sizeof(config_options[0]);

_Static_assert(sizeof(config_options) / sizeof(config_options[0]) <= CONFIG_MAX_OPTIONS,
               "readers keep a bit for each option");

enum config_mode config_option_mode(const struct config_option *option)
{
    return option->section == CONFIG_SECTION_DMS     ? CONFIG_MODE_DMS
           : option->section == CONFIG_SECTION_LIMIT ? CONFIG_MODE_LIMIT
                                                     : CONFIG_MODE_CLIENT;
}

bool config_option_in_mode(const struct config_option *option, enum config_mode mode)
{
    return option->section == CONFIG_SECTION_LOG || config_option_mode(option) == mode ||
           (mode == CONFIG_MODE_CHECK && option->in_check);
}

const struct config_option *config_option_by_name(const char *name, enum config_mode mode)
{
    for (size_t i = 0; i < config_noptions; i++)
        if (config_option_in_mode(&config_options[i], mode) &&
            strcmp(config_options[i].name, name) == 0)
            return &config_options[i];
    return NULL;
}

const struct config_option *config_option_by_key(enum config_section section, const char *key)
{
    for (size_t i = 0; i < config_noptions; i++)
        if (config_options[i].section == section && strcmp(config_options[i].key, key) == 0)
            return &config_options[i];
    return NULL;
}

/* Decimal digits alone, or "0x" and hexadecimal ones. */
static int read_number(const char *text, int base, uint64_t *out)
{
    char *end;

    if (base == 16 &&
        (text[0] != '0' || (text[1] | 0x20) != 'x' || !isxdigit((unsigned char)text[2])))
        base = 10;
    if (base == 10 && !isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    *out = strtoull(text, &end, base);
    return errno != 0 || *end != '\0' ? -EINVAL : 0;
}

static int store_string(char **out, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL)
        return -ENOMEM;
    free(*out);
    *out = copy;
    return 0;
}

bool config_is_region(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._:@+-";
    size_t len = strlen(text);

    return len > 0 && len <= MAX_REGION_BYTES && strspn(text, letters) == len;
}

static int store_size(const struct config_option *option, uint64_t *out, const char *text)
{
    uint64_t whole = option->kind == CONFIG_KIND_MEMORY ? memory_total_bytes("") : 0;
    uint64_t bytes;

    if (config_parse_size(text, whole, &bytes) != 0 || bytes < option->min ||
        (option->max != 0 && bytes > option->max))
        return -EINVAL;
    *out = bytes;
    return 0;
}

int config_parse_local(const char *text, uint64_t *out_bytes, char *why, size_t why_cap)
{
    const struct config_option *option = config_option_by_name("local", CONFIG_MODE_CLIENT);
    int err = store_size(option, out_bytes, text);

    snprintf(why, why_cap, "%s", err == 0 ? "" : option->allowed);
    return err;
}

static int store_number(const struct config_option *option, uint32_t *out, const char *text)
{
    char digits[16];
    size_t len = strlen(text);
    uint64_t number;

    if (option->kind == CONFIG_KIND_PERCENTAGE && len > 0 && text[len - 1] == '%')
        len--;
    if (len >= sizeof(digits))
        return -EINVAL;
    memcpy(digits, text, len);
    digits[len] = '\0';
    if (read_number(digits, 10, &number) != 0 || number < option->min || number > option->max)
        return -EINVAL;
    *out = (uint32_t)number;
    return 0;
}

static int store_address(uint64_t *out, const char *text)
{
    uint64_t address;

    if (read_number(text, 16, &address) != 0 || address % PAGE_BYTES != 0)
        return -EINVAL;
    *out = address;
    return 0;
}

/* The place of TEXT among NAMES, or -EINVAL. */
static int find_name(const char *text, const char *const *names, int nnames)
{
    for (int i = 0; i < nnames; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return -EINVAL;
}

static int store_level(enum log_level *out, const char *text)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "fatal"};
    int found = find_name(text, names, sizeof(names) / sizeof(names[0]));

    if (found >= 0)
        *out = (enum log_level)found;
    return found < 0 ? found : 0;
}

static int store_durability(enum config_durability *out, const char *text)
{
    static const char *const names[] = {"none", "interval", "always"};
    int found = find_name(text, names, sizeof(names) / sizeof(names[0]));

    if (found >= 0)
        *out = (enum config_durability)found;
    return found < 0 ? found : 0;
}

static int store_compress(enum config_compress *out, const char *text)
{
    static const char *const names[] = {"auto", "yes", "no"};
    int found = find_name(text, names, sizeof(names) / sizeof(names[0]));

    if (found >= 0)
        *out = (enum config_compress)found;
    return found < 0 ? found : 0;
}

static int store_listen(char **out, const char *text, char *reason, size_t cap)
{
    int err = config_check_endpoint(text, reason, cap);

    return err != 0 ? err : store_string(out, text);
}

static int add_endpoint(struct client_config *client, const char *text, char *reason, size_t cap)
{
    int err = config_check_endpoint(text, reason, cap);

    if (err != 0)
        return err;
    if (strncmp(text, "tcp://*:", 8) == 0) {
        snprintf(reason, cap, "'*' is for --listen alone");
        return -EINVAL;
    }
    for (size_t i = 0; i < client->ndms; i++) {
        if (strcmp(client->dms[i], text) == 0) {
            snprintf(reason, cap, "an endpoint stands there twice");
            return -EINVAL;
        }
    }
    if (client->ndms == CONFIG_MAX_SHARDS) {
        snprintf(reason, cap, "more than %d endpoints", CONFIG_MAX_SHARDS);
        return -EINVAL;
    }
    err = store_string(&client->dms[client->ndms], text);
    client->ndms += err == 0;
    return err;
}

static int store_switch(bool *out, const char *text)
{
    *out = strcmp(text, "yes") == 0;
    return *out || strcmp(text, "no") == 0 ? 0 : -EINVAL;
}

static int add_endpoints(struct client_config *client, const char *text, char *reason, size_t cap)
{
    char *list = strdup(text);
    int err = list == NULL ? -ENOMEM : 0;
    char *rest = list;

    while (err == 0 && rest != NULL) {
        char *item = strsep(&rest, ",");
        item += strspn(item, " \t");
        size_t len = strlen(item);
        while (len > 0 && isspace((unsigned char)item[len - 1]))
            item[--len] = '\0';
        err = add_endpoint(client, item, reason, cap);
    }
    free(list);
    return err;
}

int config_option_store(const struct config_option *option, struct config *config, const char *text,
                        char *reason, size_t reason_cap)
{
    void *place = (char *)config + option->offset;

    *reason = '\0';
    switch (option->kind) {
    case CONFIG_KIND_PATH:
        return *text == '\0' ? -EINVAL : store_string(place, text);
    case CONFIG_KIND_REGION:
        return config_is_region(text) ? store_string(place, text) : -EINVAL;
    case CONFIG_KIND_SIZE:
    case CONFIG_KIND_MEMORY:
        return store_size(option, place, text);
    case CONFIG_KIND_NUMBER:
    case CONFIG_KIND_PERCENTAGE:
        return store_number(option, place, text);
    case CONFIG_KIND_ADDRESS:
        return store_address(place, text);
    case CONFIG_KIND_LISTEN:
        return store_listen(place, text, reason, reason_cap);
    case CONFIG_KIND_ENDPOINTS:
        return add_endpoints(&config->client, text, reason, reason_cap);
    case CONFIG_KIND_LEVEL:
        return store_level(place, text);
    case CONFIG_KIND_DURABILITY:
        return store_durability(place, text);
    case CONFIG_KIND_SWITCH:
        return store_switch(place, text);
    case CONFIG_KIND_COMPRESS:
        return store_compress(place, text);
    }
    return -EINVAL;
}

void config_option_forget(const struct config_option *option, struct config *config)
{
    if (option->kind != CONFIG_KIND_ENDPOINTS)
        return;
    for (size_t i = 0; i < config->client.ndms; i++) {
        free(config->client.dms[i]);
        config->client.dms[i] = NULL;
    }
    config->client.ndms = 0;
}
