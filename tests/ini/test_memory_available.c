/* Memory limits, read from a tree of files made for each test. */
#include "../../ini/memory_available.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static char root[PATH_MAX];

/* Writes TEXT to PATH below the root, making the directories on the way. */
static void put(const char *path, const char *text)
{
    char full[2 * PATH_MAX];

    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/edm-memory-XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    put("/proc/meminfo", "MemTotal:        8192000 kB\nMemFree:          100 kB\n"
                         "MemAvailable:    4096000 kB\n");
    return 0;
}

static int remove_root(void **state)
{
    char command[PATH_MAX + 16];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command); // NOLINT: a name of our own making
}

static void test_meminfo_alone(void **state)
{
    (void)state;
    assert_int_equal(memory_available_bytes(root), 4000 * MIB);
    assert_int_equal(memory_total_bytes(root), 8000 * MIB);
}

static void test_nothing_to_read(void **state)
{
    (void)state;
    assert_int_equal(memory_available_bytes("/nonexistent"), 0);
    assert_int_equal(memory_total_bytes("/nonexistent"), 0);
}

static void put_v2(void)
{
    put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
                                "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
    put("/proc/self/cgroup", "0::/user.slice/job\n");
}

static void test_v2_own_limit(void **state)
{
    (void)state;
    put_v2();
    put("/sys/fs/cgroup/user.slice/job/memory.max", "1048576000\n");
    put("/sys/fs/cgroup/user.slice/memory.max", "max\n");
    assert_int_equal(memory_available_bytes(root), 1000 * MIB);
    assert_int_equal(memory_total_bytes(root), 1000 * MIB);
}

static void test_v2_limit_above(void **state)
{
    (void)state;
    put_v2();
    put("/sys/fs/cgroup/user.slice/job/memory.max", "max\n");
    put("/sys/fs/cgroup/user.slice/memory.max", "524288000\n");
    assert_int_equal(memory_available_bytes(root), 500 * MIB);
}

static void test_v2_limit_above_ram(void **state)
{
    (void)state;
    put_v2();
    put("/sys/fs/cgroup/user.slice/job/memory.max", "6291456000\n");
    assert_int_equal(memory_available_bytes(root), 4000 * MIB);
    assert_int_equal(memory_total_bytes(root), 6000 * MIB);
}

static void put_v1(const char *group)
{
    char line[256];

    put("/proc/self/mountinfo",
        "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n");
    snprintf(line, sizeof(line), "5:devices:/other\n4:memory:%s\n0::/\n", group);
    put("/proc/self/cgroup", line);
}

static void test_v1(void **state)
{
    (void)state;
    put_v1("/job");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "209715200\n");
    put("/sys/fs/cgroup/cpu/job/memory.limit_in_bytes", "1\n");
    assert_int_equal(memory_available_bytes(root), 200 * MIB);
}

/* In a container without a namespace for control groups, the name is the host's and the mount's top
 * is the container's own group. */
static void test_v1_group_not_visible(void **state)
{
    (void)state;
    put_v1("/docker/0123456789");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
    assert_int_equal(memory_available_bytes(root), 100 * MIB);
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ROOT(test_meminfo_alone),        WITH_ROOT(test_nothing_to_read),
        WITH_ROOT(test_v2_own_limit),         WITH_ROOT(test_v2_limit_above),
        WITH_ROOT(test_v2_limit_above_ram),   WITH_ROOT(test_v1),
        WITH_ROOT(test_v1_group_not_visible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
