/* Options, the ini file, how they come together, and every line said about a mistake. */
#include "../../ini/config.h"
#include "../../ini/memory_available.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_WORDS = 24, MAX_TEXT_BYTES = 1024, MIB = 1 << 20 };

static char file_path[64];

struct result {
    enum config_result result;
    struct config config;
    char error[MAX_TEXT_BYTES];
    char *words[MAX_WORDS + 2];
};

static int make_file(void **state)
{
    (void)state;
    strcpy(file_path, "/tmp/edm-ini-XXXXXX");
    int fd = mkstemp(file_path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(file_path);
}

/* Reads the command line LINE, whose words stand between single spaces. "@" is the ini file, which
 * holds INI. */
static void read_line(struct result *r, const char *ini, const char *line)
{
    static char copy[MAX_TEXT_BYTES];
    int argc = 1;

    if (ini != NULL) {
        FILE *file = fopen(file_path, "we");
        assert_non_null(file);
        fputs(ini, file);
        fclose(file);
    }
    memset(r, 0, sizeof(*r));
    r->words[0] = "edm";
    strcpy(copy, line);
    for (char *rest = copy; rest != NULL && *copy != '\0';) {
        char *word = strsep(&rest, " ");
        r->words[argc++] = strcmp(word, "@") == 0 ? file_path : word;
        assert_true(argc <= MAX_WORDS);
    }
    r->result = config_read(&r->config, argc, r->words, r->error, sizeof(r->error));
}

static void read_good(struct result *r, const char *ini, const char *line)
{
    read_line(r, ini, line);
    if (r->result != CONFIG_RUN)
        fail_msg("'%s': %s", line, r->error);
}

/* A "@:" in ERROR is the path of the ini file. */
static void says(const char *ini, const char *line, const char *error)
{
    struct result r;
    char want[MAX_TEXT_BYTES] = "";
    const char *at = strstr(error, "@:");

    if (at != NULL)
        snprintf(want, sizeof(want), "%.*s%s%s", (int)(at - error), error, file_path, at + 1);
    read_line(&r, ini, line);
    assert_int_equal(r.result, CONFIG_BAD);
    assert_string_equal(r.error, at != NULL ? want : error);
}

static void test_client_defaults(void **state)
{
    struct result r;

    (void)state;
    read_good(&r, NULL, "--mode=client -- prog -x --local=3");
    const struct client_config *c = &r.config.client;
    assert_int_equal(r.config.mode, CONFIG_MODE_CLIENT);
    assert_int_equal(c->ndms, 0);
    assert_null(c->region);
    assert_null(c->stats_path);
    assert_int_equal(c->stats_interval_ms, 0);
    assert_int_equal(c->wait_s, 60);
    assert_true(c->follow);
    assert_int_equal(c->compress, CONFIG_COMPRESS_AUTO);
    assert_int_equal(c->low_threshold, 90);
    assert_int_equal(c->high_threshold, 95);
    assert_int_equal(c->start_addr, 0);
    assert_int_equal(c->end_addr, 0xfffffffffffff000);
    assert_null(r.config.log_path);
    assert_int_equal(r.config.log_level, LOG_LEVEL_INFO);
    assert_string_equal(c->argv[0], "prog");
    assert_string_equal(c->argv[1], "-x");
    assert_string_equal(c->argv[2], "--local=3");
    assert_null(c->argv[3]);
    /* What is available changes all the time. */
    uint64_t want = memory_available_bytes("") / 5 * 4;
    assert_in_range(c->local_bytes, want / 2, want * 2);
    assert_true(c->local_bytes <= memory_total_bytes("") / 5 * 4);
    config_clear(&r.config);
}

static void test_dms_defaults(void **state)
{
    struct result r;

    (void)state;
    read_good(&r, NULL, "--mode=dms");
    assert_int_equal(r.config.mode, CONFIG_MODE_DMS);
    assert_string_equal(r.config.dms.listen, "tcp://127.0.0.1:7600");
    assert_string_equal(r.config.dms.data, "./edm-data");
    assert_int_equal(r.config.dms.capacity_bytes, 0);
    assert_int_equal(r.config.dms.nshards, 1);
    assert_int_equal(r.config.dms.start_addr, 0);
    assert_int_equal(r.config.dms.max_connections, 1024);
    assert_int_equal(r.config.dms.max_regions, 65536);
    assert_int_equal(r.config.dms.region_bytes, 0);
    assert_int_equal(r.config.dms.request_bytes, MIB);
    assert_int_equal(r.config.dms.durability, CONFIG_SYNC_INTERVAL);
    assert_int_equal(r.config.dms.sync_interval_ms, 100);
    config_clear(&r.config);
}

static void test_client_options(void **state)
{
    struct result r;

    (void)state;
    read_good(
        &r, NULL,
        "--mode client --dms tcp://a:1,ipc:///x --local=256M --region=a.b@1 --stats s.json "
        "--stats-interval=500 --wait=0 --follow=no --compress=no --log-file - --log-level debug "
        "-- p");
    const struct client_config *c = &r.config.client;
    assert_int_equal(c->ndms, 2);
    assert_string_equal(c->dms[0], "tcp://a:1");
    assert_string_equal(c->dms[1], "ipc:///x");
    assert_int_equal(c->local_bytes, 256 * MIB);
    assert_string_equal(c->region, "a.b@1");
    assert_string_equal(c->stats_path, "s.json");
    assert_int_equal(c->stats_interval_ms, 500);
    assert_int_equal(c->wait_s, 0);
    assert_false(c->follow);
    assert_int_equal(c->compress, CONFIG_COMPRESS_NO);
    assert_string_equal(r.config.log_path, "-");
    assert_int_equal(r.config.log_level, LOG_LEVEL_DEBUG);
    config_clear(&r.config);

    read_good(&r, NULL,
              "--mode=client --low-threshold=50% --high-threshold=100 --start-addr=0x1000 "
              "--end-addr=8192 --local=25% -- p");
    assert_int_equal(c->low_threshold, 50);
    assert_int_equal(c->high_threshold, 100);
    assert_int_equal(c->start_addr, 4096);
    assert_int_equal(c->end_addr, 8192);
    assert_int_equal(c->local_bytes, memory_total_bytes("") / 4);
    config_clear(&r.config);
}

static void test_dms_options(void **state)
{
    struct result r;

    (void)state;
    read_good(&r, NULL,
              "--listen=tcp://*:65472 --shards 64 --data /d --capacity=1.5G --start-addr 0x2000 "
              "--max-connections=65536 --max-regions=1 --region-capacity=3M --max-request 256K "
              "--mode=dms --durability=always --sync-interval=7");
    assert_int_equal(r.config.dms.durability, CONFIG_SYNC_ALWAYS);
    assert_int_equal(r.config.dms.sync_interval_ms, 7);
    assert_string_equal(r.config.dms.listen, "tcp://*:65472");
    assert_int_equal(r.config.dms.nshards, 64);
    assert_string_equal(r.config.dms.data, "/d");
    assert_int_equal(r.config.dms.capacity_bytes, 1536ul * MIB);
    assert_int_equal(r.config.dms.start_addr, 0x2000);
    assert_int_equal(r.config.dms.max_connections, 65536);
    assert_int_equal(r.config.dms.max_regions, 1);
    assert_int_equal(r.config.dms.region_bytes, 3 * MIB);
    assert_int_equal(r.config.dms.request_bytes, MIB / 4);
    assert_int_equal(r.config.client.start_addr, 0);
    config_clear(&r.config);
}

static void test_last_option_wins(void **state)
{
    struct result r;

    (void)state;
    read_good(&r, NULL,
              "--mode=dms --dms=tcp://a:1 --dms tcp://b:1 --local=1G --local 32M "
              "--mode=client -- p");
    assert_int_equal(r.config.client.ndms, 1);
    assert_string_equal(r.config.client.dms[0], "tcp://b:1");
    assert_int_equal(r.config.client.local_bytes, 32 * MIB);
    config_clear(&r.config);
}

static void test_asking(void **state)
{
    (void)state;
    struct result r;
    read_good(&r, NULL, "--mode=limit night 50%");
    assert_int_equal(r.config.mode, CONFIG_MODE_LIMIT);
    assert_string_equal(r.config.ask.region, "night");
    assert_string_equal(r.config.ask.size, "50%");
    assert_int_equal(r.config.ask.wait_s, 60);
    config_clear(&r.config);
    read_good(&r, "[client]\nwait = 5\n[limit]\nwait = 7\n", "night --config @ --mode limit 16M");
    assert_string_equal(r.config.ask.region, "night");
    assert_string_equal(r.config.ask.size, "16M");
    assert_int_equal(r.config.ask.wait_s, 7);
    config_clear(&r.config);
    read_good(&r, "[limit]\nwait = 7\n", "--mode=limit --wait 0 --config @ -- -n- 16M");
    assert_string_equal(r.config.ask.region, "-n-");
    assert_int_equal(r.config.ask.wait_s, 0);
    config_clear(&r.config);
    read_good(&r, NULL, "--mode=status");
    assert_int_equal(r.config.mode, CONFIG_MODE_STATUS);
    assert_null(r.config.ask.region);
    config_clear(&r.config);
    read_good(&r, NULL, "--mode=status 4711");
    assert_string_equal(r.config.ask.region, "4711");
    config_clear(&r.config);
}

static void test_mistakes_in_asking(void **state)
{
    (void)state;
    says(NULL, "--mode=limit", "edm: no region: edm --mode=limit [options] REGION SIZE");
    says(NULL, "--mode=limit night", "edm: no size: edm --mode=limit [options] REGION SIZE");
    says(NULL, "--mode=limit night 1G 2G",
         "edm: too many arguments: edm --mode=limit [options] REGION SIZE");
    says(NULL, "--mode=limit night -- 1G 2G",
         "edm: too many arguments: edm --mode=limit [options] REGION SIZE");
    says(NULL, "--mode=limit night\n 1G",
         "edm: bad value 'night ' for REGION: a name of 1 to 128 letters, digits or any of . _ : @ "
         "+ -, or a process id");
    static const char *const sizes[] = {"15M", "16383K", "12Q", "0", "101%", "-- -1G", "0x1000000"};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char line[64], error[128];
        snprintf(line, sizeof(line), "--mode=limit night %s", sizes[i]);
        snprintf(error, sizeof(error),
                 "edm: bad value '%s' for SIZE: a size such as 256M, 2G or 50%%, at least 16M",
                 sizes[i] + (sizes[i][0] == '-' ? 3 : 0));
        says(NULL, line, error);
    }
    says(NULL, "--mode=limit --wait=86401 night 1G",
         "edm: bad value '86401' for --wait: a number of seconds from 0 to 86400");
    says(NULL, "--mode=limit --local=1G night 1G",
         "edm: --local is an option of --mode=client, not of --mode=limit");
    says(NULL, "--mode=status a b",
         "edm: too many arguments: edm --mode=status [options] [REGION]");
    says(NULL, "--mode=status --wait=1",
         "edm: --wait is an option of --mode=client, not of --mode=status");
    says("[limit]\nlocal = 1G\n", "--mode=limit --config @ night 1G",
         "edm: @:2: unknown key 'local' in [limit]: known keys are wait");
    says(NULL, "--mode=client night -- p",
         "edm: unexpected argument 'night': the program and its arguments follow --");
    says(NULL, "--mode=dms 1G",
         "edm: unexpected argument '1G': the program and its arguments follow --");
}

static void test_mistakes_in_options(void **state)
{
    (void)state;
    says(NULL, "", "edm: no --mode: client, dms, check, limit or status (see edm --help)");
    says(NULL, "-- p", "edm: no --mode: client, dms, check, limit or status (see edm --help)");
    says(NULL, "--mode=resume",
         "edm: bad value 'resume' for --mode: client, dms, check, limit or status");
    says(NULL, "--mode", "edm: --mode needs a value: client, dms, check, limit or status");
    says(NULL, "--mode --help", "edm: --mode needs a value: client, dms, check, limit or status");
    says(NULL, "--mode=dms --repair",
         "edm: --repair is an option of --mode=check, not of --mode=dms");
    says(NULL, "--mode=check --repair=yes", "edm: --repair takes no value");
    says(NULL, "--mode=check --shards=2",
         "edm: --shards is an option of --mode=dms, not of --mode=check");
    says(NULL, "--mode=check -- p", "edm: --mode=check runs no program: nothing may follow --");
    says(NULL, "--mode=dms --scrub-rate=fast",
         "edm: bad value 'fast' for --scrub-rate: a size such as 8M, or 0");
    says(NULL, "--mode=client --locl=1G -- p", "edm: unknown option --locl: see edm --help");
    says(NULL, "--mode=client -l -- p", "edm: unknown option -l: see edm --help");
    says(NULL, "--mode=client --a-name-longer-than-any-option-has=1 -- p",
         "edm: unknown option --a-name-longer-than-any-option-has: see edm --help");
    says(NULL, "--mode=client ls -- p",
         "edm: unexpected argument 'ls': the program and its arguments follow --");
    says(NULL, "--mode=client --local -- p",
         "edm: --local needs a value: a size such as 256M, 2G or 50%, at least 16M");
    says(NULL, "--mode=client --wait --local=1G -- p",
         "edm: --wait needs a value: a number of seconds from 0 to 86400");
    says(NULL, "--mode=client --help=x -- p", "edm: --help takes no value");
    says(NULL, "--version=2", "edm: --version takes no value");
    says(NULL, "--mode=client --shards=2 -- p",
         "edm: --shards is an option of --mode=dms, not of --mode=client");
    says(NULL, "--mode=client --region=a\nb\x7f\t -- p",
         "edm: bad value 'a b  ' for --region: 1 to 128 letters, digits or any of . _ : @ + -");
    says(NULL, "--mode=\n1",
         "edm: bad value ' 1' for --mode: "
         "client, dms, check, limit or status");
    says(NULL, "--mode=dms --local=1G",
         "edm: --local is an option of --mode=client, not of --mode=dms");
    says(NULL, "--mode=client", "edm: no program to run: edm --mode=client [options] -- PROG ARGS");
    says(NULL, "--mode=client --",
         "edm: no program to run: edm --mode=client [options] -- PROG ARGS");
    says(NULL, "--mode=dms --", "edm: --mode=dms runs no program: nothing may follow --");
}

static void test_mistakes_in_values(void **state)
{
    static const char *const cases[][2] = {
        {"--local=12Q", "'12Q' for --local: a size such as 256M, 2G or 50%, at least 16M"},
        {"--local=", "'' for --local: a size such as 256M, 2G or 50%, at least 16M"},
        {"--local=15M", "'15M' for --local: a size such as 256M, 2G or 50%, at least 16M"},
        {"--local=0%", "'0%' for --local: a size such as 256M, 2G or 50%, at least 16M"},
        {"--local=101%", "'101%' for --local: a size such as 256M, 2G or 50%, at least 16M"},
        {"--region=", "'' for --region: 1 to 128 letters, digits or any of . _ : @ + -"},
        {"--region=a/b", "'a/b' for --region: 1 to 128 letters, digits or any of . _ : @ + -"},
        {"--region=a*", "'a*' for --region: 1 to 128 letters, digits or any of . _ : @ + -"},
        {"--stats=", "'' for --stats: a file name"},
        {"--stats-interval=-1",
         "'-1' for --stats-interval: a number of milliseconds from 0 to 3600000"},
        {"--stats-interval=3600001",
         "'3600001' for --stats-interval: a number of milliseconds from 0 to 3600000"},
        {"--follow=maybe", "'maybe' for --follow: yes or no"},
        {"--compress=lz4", "'lz4' for --compress: auto, yes or no"},
        {"--wait=1s", "'1s' for --wait: a number of seconds from 0 to 86400"},
        {"--wait=99999999999999999999",
         "'99999999999999999999' for --wait: a number of seconds from 0 to 86400"},
        {"--low-threshold=0", "'0' for --low-threshold: a percentage from 1 to 100"},
        {"--low-threshold=%", "'%' for --low-threshold: a percentage from 1 to 100"},
        {"--high-threshold=101", "'101' for --high-threshold: a percentage from 1 to 100"},
        {"--start-addr=x",
         "'x' for --start-addr: an address such as 0x7f0000000000, a multiple of 4096"},
        {"--start-addr=0x",
         "'0x' for --start-addr: an address such as 0x7f0000000000, a multiple of 4096"},
        {"--end-addr=0x1001",
         "'0x1001' for --end-addr: an address such as 0x7f0000000000, a multiple of 4096"},
        {"--end-addr=0x10000000000000000", "'0x10000000000000000' for --end-addr: an address such "
                                           "as 0x7f0000000000, a multiple of 4096"},
        {"--log-level=Info", "'Info' for --log-level: debug, info, warn, error or fatal"},
        {"--log-file=", "'' for --log-file: a file name, or -"},
    };
    char line[MAX_TEXT_BYTES], error[MAX_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(line, sizeof(line), "--mode=client %s -- p", cases[i][0]);
        snprintf(error, sizeof(error), "edm: bad value %s", cases[i][1]);
        says(NULL, line, error);
    }
}

#define ENDPOINTS_ALLOWED \
    "up to 64 different endpoints, tcp://HOST:PORT or ipc://PATH, separated by commas"

static void test_mistakes_in_endpoints(void **state)
{
    (void)state;
    says(NULL, "--mode=client --dms=tcp://a:1,tcp://b -- p",
         "edm: bad value 'tcp://a:1,tcp://b' for --dms: no port: " ENDPOINTS_ALLOWED);
    says(NULL, "--mode=client --dms= -- p",
         "edm: bad value '' for --dms: an endpoint is empty: " ENDPOINTS_ALLOWED);
    says(NULL, "--mode=client --dms=tcp://a:1,,tcp://b:1 -- p",
         "edm: bad value 'tcp://a:1,,tcp://b:1' for --dms: an endpoint is "
         "empty: " ENDPOINTS_ALLOWED);
    says(NULL, "--mode=client --dms=tcp://a:1, -- p",
         "edm: bad value 'tcp://a:1,' for --dms: an endpoint is empty: " ENDPOINTS_ALLOWED);
    says(NULL, "--mode=client --dms=tcp://a:1,tcp://a:1 -- p",
         "edm: bad value 'tcp://a:1,tcp://a:1' for --dms: an endpoint stands there "
         "twice: " ENDPOINTS_ALLOWED);
    says(NULL, "--mode=client --dms=tcp://*:1 -- p",
         "edm: bad value 'tcp://*:1' for --dms: '*' is for --listen alone: " ENDPOINTS_ALLOWED);
    says(NULL, "--mode=dms --listen=udp://a:1",
         "edm: bad value 'udp://a:1' for --listen: it begins with neither tcp:// nor ipc://: "
         "tcp://HOST:PORT or ipc://PATH");
    says(NULL, "--mode=dms --listen=tcp://a:65535 --shards=2",
         "edm: no ports for 2 shards from tcp://a:65535 on: the last port is 65535");
}

static void test_number_of_endpoints(void **state)
{
    char line[MAX_TEXT_BYTES] = "--mode=client --dms=";
    struct result r;

    (void)state;
    for (int i = 0; i < CONFIG_MAX_SHARDS; i++)
        sprintf(line + strlen(line), "%sipc://%d", i == 0 ? "" : ",", i);
    size_t len = strlen(line);
    strcat(line, " -- p");
    read_good(&r, NULL, line);
    assert_int_equal(r.config.client.ndms, CONFIG_MAX_SHARDS);
    assert_string_equal(r.config.client.dms[63], "ipc://63");
    config_clear(&r.config);
    strcpy(line + len, ",ipc://64 -- p");
    read_line(&r, NULL, line);
    assert_int_equal(r.result, CONFIG_BAD);
    assert_non_null(strstr(r.error, "more than 64 endpoints"));
}

static void test_mistakes_between_options(void **state)
{
    (void)state;
    says(NULL, "--mode=client --low-threshold=95 -- p",
         "edm: low threshold 95 must be below high threshold 95");
    says(NULL, "--mode=client --high-threshold=80 -- p",
         "edm: low threshold 90 must be below high threshold 80");
    says(NULL, "--mode=client --start-addr=0x2000 --end-addr=0x2000 -- p",
         "edm: start address 0x2000 must be below end address 0x2000");
    says(NULL, "--mode=dms --capacity=1000K",
         "edm: bad value '1000K' for --capacity: a size such as 512M or 64G, at least 1M");
    says(NULL, "--mode=dms --durability=sometimes",
         "edm: bad value 'sometimes' for --durability: none, interval or always");
    says(NULL, "--mode=dms --sync-interval=0",
         "edm: bad value '0' for --sync-interval: a number of milliseconds from 1 to 3600000");
    says(NULL, "--mode=dms --capacity=50%",
         "edm: bad value '50%' for --capacity: a size such as 512M or 64G, at least 1M");
    says(NULL, "--mode=dms --shards=0", "edm: bad value '0' for --shards: a number from 1 to 64");
    says(NULL, "--mode=dms --shards=65", "edm: bad value '65' for --shards: a number from 1 to 64");
    says(NULL, "--mode=dms --data=", "edm: bad value '' for --data: a directory name");
}

static const char whole_file[] = "\xef\xbb\xbf# both modes\n"
                                 "[client]\n"
                                 "dms = tcp://a:1, tcp://b:2\n"
                                 "   ipc:///c\n"
                                 "local: 64M ; a comment\n"
                                 "region=r\n"
                                 "stats = /s t.json\n"
                                 "stats_interval = 10\n"
                                 "wait = 5\n"
                                 "compress = yes\n"
                                 "low_threshold = 10\n"
                                 "high_threshold = 20%\n"
                                 "start_addr = 0x1000\n"
                                 "end_addr = 0x2000\n"
                                 "\n"
                                 "[dms]\n"
                                 "listen = ipc:///l\n"
                                 "data = /d\n"
                                 "capacity = 1G\n"
                                 "shards = 3\n"
                                 "start_addr = 0x3000\n"
                                 "durability = none\n"
                                 "sync_interval = 3600000\n"
                                 "[log]\n"
                                 "level = warn\n"
                                 "file = /l.log";

static void test_whole_file(void **state)
{
    struct result r;

    (void)state;
    read_good(&r, whole_file, "--mode=client --config @ -- p");
    const struct client_config *c = &r.config.client;
    assert_int_equal(c->ndms, 3);
    assert_string_equal(c->dms[1], "tcp://b:2");
    assert_string_equal(c->dms[2], "ipc:///c");
    assert_int_equal(c->local_bytes, 64 * MIB);
    assert_string_equal(c->region, "r");
    assert_string_equal(c->stats_path, "/s t.json");
    assert_int_equal(c->stats_interval_ms, 10);
    assert_int_equal(c->wait_s, 5);
    assert_int_equal(c->compress, CONFIG_COMPRESS_YES);
    assert_int_equal(c->low_threshold, 10);
    assert_int_equal(c->high_threshold, 20);
    assert_int_equal(c->start_addr, 0x1000);
    assert_int_equal(c->end_addr, 0x2000);
    assert_string_equal(r.config.dms.listen, "ipc:///l");
    assert_string_equal(r.config.dms.data, "/d");
    assert_int_equal(r.config.dms.capacity_bytes, 1024 * MIB);
    assert_int_equal(r.config.dms.nshards, 3);
    assert_int_equal(r.config.dms.start_addr, 0x3000);
    assert_int_equal(r.config.dms.durability, CONFIG_SYNC_NONE);
    assert_int_equal(r.config.dms.sync_interval_ms, 3600000);
    assert_int_equal(r.config.log_level, LOG_LEVEL_WARN);
    assert_string_equal(r.config.log_path, "/l.log");
    config_clear(&r.config);
}

static void test_command_line_wins(void **state)
{
    struct result r;

    (void)state;
    read_good(&r, whole_file,
              "--mode=client --local=128M --dms=tcp://z:9 --config @ --log-level=error -- p");
    assert_int_equal(r.config.client.local_bytes, 128 * MIB);
    assert_int_equal(r.config.client.ndms, 1);
    assert_string_equal(r.config.client.dms[0], "tcp://z:9");
    assert_int_equal(r.config.log_level, LOG_LEVEL_ERROR);
    assert_int_equal(r.config.client.wait_s, 5);
    config_clear(&r.config);
}

#define READ_CLIENT "--mode=client --config @ -- p"

static void test_mistakes_in_file(void **state)
{
    (void)state;
    says("[client]\nlocal = 1G\n\nlocl = 1G\n", READ_CLIENT,
         "edm: @:4: unknown key 'locl' in [client]: known keys are dms, local, region, stats, "
         "stats_interval, wait, follow, compress, low_threshold, high_threshold, start_addr, "
         "end_addr");
    says("[dms]\nlocal = 1G\n", READ_CLIENT,
         "edm: @:2: unknown key 'local' in [dms]: known keys are listen, data, capacity, shards, "
         "start_addr, max_connections, max_regions, region_capacity, max_request, durability, "
         "sync_interval, scrub_rate");
    says("[log]\nx = 1\n", READ_CLIENT,
         "edm: @:2: unknown key 'x' in [log]: known keys are level, file");
    says("# c\n[client]\nlow_threshold = x\n", READ_CLIENT,
         "edm: @:3: bad value 'x' for low_threshold: a percentage from 1 to 100");
    says("[dms]\nshards = 0\n", READ_CLIENT,
         "edm: @:2: bad value '0' for shards: a number from 1 to 64");
    says("[client]\nregion =\n", READ_CLIENT,
         "edm: @:2: bad value '' for region: 1 to 128 letters, digits or any of . _ : @ + -");
    says("[client]\ndms = tcp://a\n", READ_CLIENT,
         "edm: @:2: bad value 'tcp://a' for dms: no port: " ENDPOINTS_ALLOWED);
    says("[client]\ndms = tcp://a:1\n  tcp://a:1\n", READ_CLIENT,
         "edm: @:3: bad value 'tcp://a:1' for dms: an endpoint stands there "
         "twice: " ENDPOINTS_ALLOWED);
    says("[client]\nwait = 1\nwait = 1\n", READ_CLIENT,
         "edm: @:3: wait is given twice (or goes on in an indented line)");
    says("[client]\nwait = 1\n  2\n", READ_CLIENT,
         "edm: @:3: wait is given twice (or goes on in an indented line)");
    says("wait = 1\n", READ_CLIENT,
         "edm: @:1: a key before the first section: sections are [client], [dms], [limit], [log]");
    says("[clinet]\nwait = 1\n", READ_CLIENT,
         "edm: @:2: unknown section [clinet]: sections are [client], [dms], [limit], [log]");
    says("[client]\nwait\n", READ_CLIENT,
         "edm: @:2: neither 'key = value' nor a [section] nor a comment");
    says("[client\nwait = 1\n", READ_CLIENT,
         "edm: @:1: neither 'key = value' nor a [section] nor a comment");
    says("[client]\nhigh_threshold = 50\n", READ_CLIENT,
         "edm: @:2: low threshold 90 must be below high threshold 50");
    says("[client]\nhigh_threshold = 50\nlow_threshold = 60\n", READ_CLIENT,
         "edm: @:3: low threshold 60 must be below high threshold 50");
    says("[client]\nstart_addr = 0x2000\nend_addr = 0x1000\n", READ_CLIENT,
         "edm: @:3: start address 0x2000 must be below end address 0x1000");
    says("[client]\nlow_threshold = 60\n",
         "--mode=client --config @ --low-threshold=70 --high-threshold=60 -- p",
         "edm: low threshold 70 must be below high threshold 60");
}

static void test_file_that_cannot_be_read(void **state)
{
    (void)state;
    says(NULL, "--mode=client --config=/nonexistent/edm.ini -- p",
         "edm: cannot read /nonexistent/edm.ini: No such file or directory");
    says(NULL, "--mode=client --config=/ -- p", "edm: cannot read /: Is a directory");
    says(NULL, "--mode=client --config= -- p", "edm: cannot read : No such file or directory");
}

#define TOO_LONG \
    "edm: @:3: the line is longer than 198 bytes (a list may go on in the next, indented)"

static void test_long_lines(void **state)
{
    char ini[MAX_TEXT_BYTES];
    struct result r;

    (void)state;
    int at = sprintf(ini, "# %0*d\n[client]\nstats = ", 600, 1);
    memset(ini + at, 'x', 191);
    strcpy(ini + at + 191, "\nwait = 7\n");
    says(ini, READ_CLIENT, TOO_LONG);
    strcpy(ini + at + 190, "\nwait = 7\n");
    read_good(&r, ini, READ_CLIENT);
    assert_int_equal(strlen(r.config.client.stats_path), 190);
    assert_int_equal(r.config.client.wait_s, 7);
    config_clear(&r.config);
    /* A last line without an end. */
    ini[at + 190] = '\0';
    read_good(&r, ini, READ_CLIENT);
    assert_int_equal(strlen(r.config.client.stats_path), 190);
    config_clear(&r.config);
    strcpy(ini + at + 190, "x");
    says(ini, READ_CLIENT, TOO_LONG);
}

static void test_error_is_cut(void **state)
{
    char *words[] = {"edm", "--mode=client", "--local=12Q", "--", "p", NULL};
    struct config config;
    char error[16];

    (void)state;
    memset(error, 'x', sizeof(error));
    assert_int_equal(config_read(&config, 5, words, error, 10), CONFIG_BAD);
    assert_string_equal(error, "edm: bad ");
    assert_int_equal(error[10], 'x');
}

/* Every sample is read as it is, and again with its commented keys in force. */
static void check_sample(const char *name, const char *options, unsigned want_keys)
{
    char path[512], ini[16384], line[512], words[256];
    unsigned nkeys = 0;
    struct result r;

    snprintf(path, sizeof(path), "%s/%s", EDM_DOCS, name);
    for (int uncomment = 0; uncomment <= 1; uncomment++) {
        FILE *file = fopen(path, "re");
        assert_non_null(file);
        size_t at = 0;
        while (fgets(line, sizeof(line), file) != NULL) {
            const char *text = uncomment && *line == ';' ? line + 1 : line;
            nkeys += uncomment && strchr("#\n[", *text) == NULL;
            at += (size_t)snprintf(ini + at, sizeof(ini) - at, "%s", text);
        }
        fclose(file);
        snprintf(words, sizeof(words), "--config @ %s", options);
        read_good(&r, ini, words);
        config_clear(&r.config);
    }
    assert_int_equal(nkeys, want_keys);
}

static void test_samples(void **state)
{
    (void)state;
    check_sample("edm-client.ini", "--mode=client -- p", 15);
    check_sample("edm-dms.ini", "--mode=dms", 14);
}

#define WITH_FILE(test) cmocka_unit_test_setup_teardown(test, make_file, remove_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FILE(test_client_defaults),
        WITH_FILE(test_dms_defaults),
        WITH_FILE(test_client_options),
        WITH_FILE(test_dms_options),
        WITH_FILE(test_last_option_wins),
        WITH_FILE(test_asking),
        WITH_FILE(test_mistakes_in_asking),
        WITH_FILE(test_mistakes_in_options),
        WITH_FILE(test_mistakes_in_values),
        WITH_FILE(test_mistakes_in_endpoints),
        WITH_FILE(test_number_of_endpoints),
        WITH_FILE(test_mistakes_between_options),
        WITH_FILE(test_whole_file),
        WITH_FILE(test_command_line_wins),
        WITH_FILE(test_mistakes_in_file),
        WITH_FILE(test_file_that_cannot_be_read),
        WITH_FILE(test_long_lines),
        WITH_FILE(test_error_is_cut),
        WITH_FILE(test_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
