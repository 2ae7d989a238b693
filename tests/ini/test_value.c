/* Sizes and endpoints. */
#include "../../ini/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KIB ((uint64_t)1024)

static uint64_t size_of(const char *text, uint64_t whole)
{
    uint64_t bytes = 0;

    if (config_parse_size(text, whole, &bytes) != 0)
        fail_msg("'%s' is refused", text);
    return bytes;
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(size_of("0", 0), 0);
    assert_int_equal(size_of("4096", 0), 4096);
    assert_int_equal(size_of("7B", 0), 7);
    assert_int_equal(size_of("1K", 0), KIB);
    assert_int_equal(size_of("1k", 0), KIB);
    assert_int_equal(size_of("256M", 0), 256 * KIB * KIB);
    assert_int_equal(size_of("256MB", 0), 256 * KIB * KIB);
    assert_int_equal(size_of("256MiB", 0), 256 * KIB * KIB);
    assert_int_equal(size_of("2G", 0), 2 * KIB * KIB * KIB);
    assert_int_equal(size_of("1.5G", 0), 1536 * KIB * KIB);
    assert_int_equal(size_of("0.1K", 0), 102);
    assert_int_equal(size_of("3T", 0), 3 * KIB * KIB * KIB * KIB);
    assert_int_equal(size_of("18446744073709551615", 0), UINT64_MAX);
}

static void test_percentages(void **state)
{
    (void)state;
    assert_int_equal(size_of("50%", 1000), 500);
    assert_int_equal(size_of("100%", 1000), 1000);
    assert_int_equal(size_of("12.5%", 1000), 125);
    assert_int_equal(size_of("0%", 1000), 0);
}

static void test_bad_sizes(void **state)
{
    static const char *const bad[] = {
        "",          " ",
        "12Q",       "M",
        "-1",        "+1",
        "1.5",       "1.5B",
        "1.M",       ".5M",
        "1,5M",      "1 M",
        " 1M",       "1M ",
        "1KM",       "1iB",
        "1Mi",       "1Mb/s",
        "0x10",      "101%",
        "50%%",      "1.5.2M",
        "%",         "18446744073709551616",
        "16777216T", "1.0000000001G",
    };
    uint64_t bytes = 42;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (config_parse_size(bad[i], 1000, &bytes) != -EINVAL)
            fail_msg("'%s' is taken", bad[i]);
    assert_int_equal(config_parse_size("50%", 0, &bytes), -EINVAL);
    assert_int_equal(bytes, 42);
}

static void test_endpoints(void **state)
{
    static const char *const good[] = {
        "tcp://127.0.0.1:7600", "tcp://host-1.example:1", "tcp://a_b:65535",
        "tcp://*:7600",         "tcp://[::1]:7600",       "tcp://[fe80::1%2]:7600",
        "ipc:///run/edm.sock",  "ipc://@abstract",        "ipc://relative",
    };
    char reason[128];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (config_check_endpoint(good[i], reason, sizeof(reason)) != 0)
            fail_msg("'%s' is refused: %s", good[i], reason);
}

static void refused(const char *endpoint, const char *why)
{
    char reason[128] = "";

    if (config_check_endpoint(endpoint, reason, sizeof(reason)) != -EINVAL)
        fail_msg("'%s' is taken", endpoint);
    assert_string_equal(reason, why);
}

static void test_bad_endpoints(void **state)
{
    static const char scheme[] = "it begins with neither tcp:// nor ipc://";
    static const char port[] = "the port is not a number from 1 to 65535";
    char longer[512] = "ipc://";

    (void)state;
    refused("", "an endpoint is empty");
    refused("127.0.0.1:7600", scheme);
    refused("http://a:1", scheme);
    refused("tcp:/a:1", scheme);
    refused("tcp://a", "no port");
    refused("tcp://[::1]", "no port");
    refused("tcp://:7600", "no host");
    refused("tcp://a:", port);
    refused("tcp://a:0", port);
    refused("tcp://a:65536", port);
    refused("tcp://a:99999999999", port);
    refused("tcp://a:12x", port);
    refused("tcp://a:*", port);
    refused("tcp://a:-1", port);
    refused("tcp://::1:7600", "an IPv6 address needs brackets");
    refused("tcp://[]:7600", "not an IPv6 address in brackets");
    refused("tcp://[x]:7600", "not an IPv6 address in brackets");
    refused("tcp://a b:7600", "the host has a character that no host name has");
    refused("tcp://eth0;a:7600", "the host has a character that no host name has");
    refused("ipc://", "no path");
    memset(longer + 6, 'x', 100);
    char reason[128];
    assert_int_equal(config_check_endpoint(longer, reason, sizeof(reason)), 0);
    longer[106] = 'x';
    refused(longer, "the path is longer than 100 bytes");
    snprintf(longer, sizeof(longer), "tcp://%0256d:1", 1);
    refused(longer, "the host is longer than 255 bytes");
}

static void shard_is(const char *base, uint32_t shard, const char *want)
{
    char *got = config_shard_endpoint(base, shard);

    if (want == NULL)
        assert_null(got);
    else
        assert_string_equal(got, want);
    free(got);
}

static void test_shard_endpoints(void **state)
{
    (void)state;
    shard_is("tcp://127.0.0.1:7600", 0, "tcp://127.0.0.1:7600");
    shard_is("tcp://127.0.0.1:7600", 3, "tcp://127.0.0.1:7603");
    shard_is("tcp://[::1]:7600", 1, "tcp://[::1]:7601");
    shard_is("tcp://*:65535", 0, "tcp://*:65535");
    shard_is("tcp://*:65535", 1, NULL);
    shard_is("tcp://*:65472", 63, "tcp://*:65535");
    shard_is("ipc:///run/edm", 0, "ipc:///run/edm");
    shard_is("ipc:///run/edm", 63, "ipc:///run/edm.63");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),         cmocka_unit_test(test_percentages),
        cmocka_unit_test(test_bad_sizes),     cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_bad_endpoints), cmocka_unit_test(test_shard_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
