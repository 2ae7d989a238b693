/* stats: whatever the figures and names are, the file is one JSON object with every key in it. */
#include "../../client/stats.h"
#include "temp_dir.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reads the file given as the first argument and compares it with what is said here. */
static const char checker[] =
    "import json, sys\n"
    "text = open(sys.argv[1], 'rb').read().decode('ascii')\n"
    "def once(pairs):\n"
    "    assert len(pairs) == len(dict(pairs)), 'a key twice'\n"
    "    return dict(pairs)\n"
    "got = json.loads(text, object_pairs_hook=once, parse_constant=lambda name: 1 / 0)\n"
    "parts = {'faults': 'remote zero staged write', 'prefetch': 'issued used wasted',\n"
    "         'fault_us': 'p50 p99 p999 max count', 'cpu_s': 'pager write_back agent',\n"
    "         'spins': 'found in_vain', 'compress': 'filled lz4 bytes_saved'}\n"
    "keys = ('program exit_status wall_s local_limit_bytes peak_resident_bytes '\n"
    "        'peak_managed_bytes pages_got pages_put pages_clean_dropped bytes_sent '\n"
    "        'bytes_received retries failovers').split() + list(parts)\n"
    "for key in keys:\n"
    "    assert key in got, key\n"
    "for key, names in parts.items():\n"
    "    for name in names.split():\n"
    "        assert type(got[key][name]) in (int, float), (key, name)\n"
    "for path, value in eval(sys.argv[2]).items():\n"
    "    at = got\n"
    "    for name in path.split('.'):\n"
    "        at = at[name]\n"
    "    assert at == value, (path, at, value)\n";

static void check(const char *path, const char *expected)
{
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/usr/bin/python3", "python3", "-c", checker, path, expected, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static struct stats stats;

static void begin(void)
{
    memset(&stats, 0, sizeof stats);
    stats.program = "/usr/bin/sort";
    stats.region = "sort-1";
}

static void test_figures(void **state)
{
    (void)state;
    begin();
    stats.ended = true;
    stats.exit_status = 3;
    stats.wall_s = 12.5;
    stats.local_limit_bytes = 256 << 20;
    stats.nshards = 2;
    stats.pager = (struct pager_counters){.faults_remote = 1,
                                          .faults_zero = 2,
                                          .faults_staged = 3,
                                          .faults_write = 4,
                                          .pages_got = 5,
                                          .pages_clean_dropped = 6,
                                          .readahead_issued = 7,
                                          .readahead_used = 8,
                                          .readahead_wasted = 9,
                                          .spins_found = 13,
                                          .spins_in_vain = 14,
                                          .peak_resident_pages = 10,
                                          .peak_managed_pages = 11,
                                          .cpu_us = 1500000,
                                          .agent_cpu_us = 250000};
    stats.pager.rpc = (struct rpc_counters){.bytes_sent = 100, .bytes_received = 200, .retries = 1};
    stats.write_back.rpc =
        (struct rpc_counters){.bytes_sent = 1000, .bytes_received = 2000, .retries = 2};
    stats.write_back.pages_put = 12;
    stats.write_back.cpu_us = 750000;
    stats.write_back.pages_filled = 15;
    stats.write_back.pages_compressed = 16;
    stats.write_back.bytes_saved = 17;
    for (uint64_t us = 1; us <= 10; us++)
        histogram_add(&stats.pager.fault_us, us);
    const char *path = temp_path("figures.json");
    assert_int_equal(stats_write(&stats, path), 0);
    check(path, "{'program': '/usr/bin/sort', 'exit_status': 3, 'wall_s': 12.5,"
                " 'local_limit_bytes': 256 << 20, 'peak_resident_bytes': 10 * 4096,"
                " 'peak_managed_bytes': 11 * 4096, 'faults.remote': 1, 'faults.zero': 2,"
                " 'faults.staged': 3, 'faults.write': 4, 'pages_got': 5, 'pages_put': 12,"
                " 'pages_clean_dropped': 6, 'prefetch.issued': 7, 'prefetch.used': 8,"
                " 'spins.found': 13, 'spins.in_vain': 14,"
                " 'prefetch.wasted': 9, 'fault_us.count': 10, 'fault_us.max': 10,"
                " 'compress.filled': 15, 'compress.lz4': 16, 'compress.bytes_saved': 17,"
                " 'fault_us.p50': 6, 'bytes_sent': 1100, 'bytes_received': 2200, 'retries': 3,"
                " 'cpu_s.pager': 1.5, 'cpu_s.write_back': 0.75, 'cpu_s.agent': 0.25}");
}

static void test_nothing_known(void **state)
{
    (void)state;
    begin();
    const char *path = temp_path("nothing.json");
    assert_int_equal(stats_write(&stats, path), 0);
    check(path, "{'exit_status': None, 'fault_us.p99': 0, 'fault_us.count': 0, 'retries': 0}");
}

static void test_largest_figures(void **state)
{
    (void)state;
    begin();
    stats.pager.pages_got = UINT64_MAX;
    stats.wall_s = 1e9;
    stats.ended = true;
    stats.exit_status = 255;
    const char *path = temp_path("largest.json");
    assert_int_equal(stats_write(&stats, path), 0);
    check(path, "{'pages_got': 2 ** 64 - 1, 'wall_s': 1e9, 'exit_status': 255}");
}

static void test_odd_names(void **state)
{
    (void)state;
    static const struct {
        const char *name, *expected;
    } names[] = {
        {"", "{'program': ''}"},
        {"a \"quoted\" name", "{'program': 'a \"quoted\" name'}"},
        {"back\\slash\\", "{'program': 'back\\\\slash\\\\'}"},
        {"\\u0041", "{'program': chr(92) + 'u0041'}"},
        {"new\nline\ttab\rreturn\001one\033[31m\177",
         "{'program': 'new\\nline\\ttab\\rreturn\\x01one\\x1b[31m\\x7f'}"},
        {"</script>{}[],:'", "{'program': \"</script>{}[],:'\"}"},
        /* UTF-8, and bytes that are no text at all: each byte stands for itself. */
        {"na\303\257ve", "{'program': 'na\\xc3\\xafve'}"},
        {"\377\376\200", "{'program': '\\xff\\xfe\\x80'}"},
        {"%s%n%d", "{'program': '%s%n%d'}"},
    };
    const char *path = temp_path("odd.json");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        begin();
        stats.program = names[i].name;
        assert_int_equal(stats_write(&stats, path), 0);
        check(path, names[i].expected);
    }
    static char name[100000];
    memset(name, '"', sizeof name - 1);
    begin();
    stats.program = stats.region = name;
    assert_int_equal(stats_write(&stats, path), 0);
    check(path, "{'program': 99999 * '\"', 'region': 99999 * '\"'}");
}

static int count_files(const char *dir)
{
    int count = 0;
    DIR *entries = opendir(dir);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries));)
        count += entry->d_name[0] != '.';
    closedir(entries);
    return count;
}

static void test_as_a_whole_or_not_at_all(void **state)
{
    (void)state;
    begin();
    const char *path = temp_file("whole.json", "what was there", 14, 0600);
    int files = count_files(temp_dir());
    assert_int_equal(stats_write(&stats, path), 0);
    check(path, "{'program': '/usr/bin/sort'}");
    assert_int_equal(count_files(temp_dir()), files);
    assert_int_equal(stats_write(&stats, temp_path("no/such/dir.json")), -ENOENT);
    /* A directory is in the way: nothing of ours is left beside it. */
    assert_int_equal(mkdir(temp_path("taken"), 0700), 0);
    files = count_files(temp_dir());
    assert_int_equal(stats_write(&stats, temp_path("taken")), -EISDIR);
    assert_int_equal(count_files(temp_dir()), files);
}

/* A device or a pipe stays what it is. */
static void test_no_file(void **state)
{
    (void)state;
    char text[8192];
    char path[256];
    snprintf(path, sizeof path, "%s", temp_path("pipe"));
    assert_int_equal(mkfifo(path, 0600), 0);
    int pipe = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    assert_true(pipe >= 0);
    stats = (struct stats){.program = "p", .region = "r"};
    assert_int_equal(stats_check(path), 0);
    assert_int_equal(stats_write(&stats, path), 0);
    assert_true(read(pipe, text, sizeof text) > 100);
    assert_int_equal(text[0], '{');
    close(pipe);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
}

static void test_check(void **state)
{
    (void)state;
    assert_int_equal(stats_check(temp_path("checked.json")), 0);
    assert_int_equal(access(temp_path("checked.json"), F_OK), -1);
    assert_int_equal(stats_check(temp_path("no/such/dir.json")), -ENOENT);
    assert_int_equal(stats_check(temp_path(".")), -EISDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_largest_figures),
        cmocka_unit_test(test_odd_names),
        cmocka_unit_test(test_as_a_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
