// zipf SOCKET KEYS THETA WARM_S SECONDS [REQUESTS]: puts KEYS values of 1 KiB into the Redis at
// SOCKET, then GETs them, some more often than others as Zipf has it, and compares every value.
// What is popular lies anywhere. AT_ONCE requests are under way. Prints requests a second. With
// REQUESTS it ends after so many of them, not after SECONDS. Exit status 3: a value was wrong.
#include <err.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"

#define VALUE_BYTES 1024u
#define VALUE_WORDS (VALUE_BYTES / sizeof(uint64_t))
#define AT_ONCE 16u
#define MAX_SAMPLES ((size_t)1 << 20)
// Larger than any number of keys and prime: rank times this, modulo the keys, is each key once.
#define SCATTER 4294967291u

static FILE *from;
static int to;

// ---- Zipf's distribution, after Gray et al., "Quickly generating billion-record databases" ----

static struct {
    uint64_t keys, random;
    double theta, zeta, alpha, eta;
} zipf;

static void zipf_start(uint64_t keys, double theta)
{
    zipf.keys = keys;
    zipf.theta = theta;
    zipf.random = 1;
    for (uint64_t i = 1; i <= keys; i++)
        zipf.zeta += 1 / pow((double)i, theta);
    zipf.alpha = 1 / (1 - theta);
    zipf.eta = (1 - pow(2 / (double)keys, 1 - theta)) / (1 - (1 + pow(0.5, theta)) / zipf.zeta);
}

static uint64_t next_random(void)
{
    uint64_t x = zipf.random += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static uint64_t zipf_next(void)
{
    double u = (double)(next_random() >> 11) / (double)((uint64_t)1 << 53);
    double uz = u * zipf.zeta;
    uint64_t rank =
        uz < 1 ? 0
        : uz < 1 + pow(0.5, zipf.theta)
            ? 1
            : (uint64_t)((double)zipf.keys * pow(zipf.eta * u - zipf.eta + 1, zipf.alpha));
    return rank % zipf.keys * SCATTER % zipf.keys;
}

// ---- Redis ----

static void make_value(uint64_t *words, uint64_t key)
{
    for (size_t i = 0; i < VALUE_WORDS; i++)
        words[i] = (key + 1) * 0x9E3779B97F4A7C15u + i * 0xD1B54A32D192ED03u;
}

static void send_all(const char *bytes, size_t len_bytes)
{
    for (size_t done = 0; done < len_bytes;) {
        ssize_t put = write(to, bytes + done, len_bytes - done);
        if (put <= 0)
            err(1, "write");
        done += (size_t)put;
    }
}

static void read_line(char *line, size_t len_bytes)
{
    if (fgets(line, (int)len_bytes, from) == NULL)
        errx(1, "redis hung up");
}

static size_t put_set(char *at, uint64_t key)
{
    uint64_t value[VALUE_WORDS];
    make_value(value, key);
    size_t len = (size_t)sprintf(at, "*3\r\n$3\r\nSET\r\n$16\r\n%016llx\r\n$%u\r\n",
                                 (unsigned long long)key, VALUE_BYTES);
    memcpy(at + len, value, VALUE_BYTES);
    memcpy(at + len + VALUE_BYTES, "\r\n", 2);
    return len + VALUE_BYTES + 2;
}

static void load(uint64_t keys)
{
    static char requests[AT_ONCE * (VALUE_BYTES + 128)];
    char line[128];
    for (uint64_t key = 0; key < keys;) {
        size_t len = 0;
        unsigned count = 0;
        for (; count < AT_ONCE && key < keys; count++)
            len += put_set(requests + len, key++);
        send_all(requests, len);
        for (; count > 0; count--) {
            read_line(line, sizeof(line));
            if (strcmp(line, "+OK\r\n") != 0)
                errx(1, "SET: %s", line);
        }
    }
}

static void read_value(uint64_t key)
{
    uint64_t expected[VALUE_WORDS];
    char line[128], value[VALUE_BYTES + 2];
    read_line(line, sizeof(line));
    if (strcmp(line, "$1024\r\n") != 0)
        errx(3, "GET of key %llu: %s", (unsigned long long)key, line);
    if (fread(value, 1, sizeof(value), from) != sizeof(value))
        errx(1, "redis hung up");
    make_value(expected, key);
    if (memcmp(value, expected, VALUE_BYTES) != 0)
        errx(3, "key %llu has another value than it was given", (unsigned long long)key);
}

static void get_some(void)
{
    static char requests[AT_ONCE * 64];
    uint64_t keys[AT_ONCE];
    size_t len = 0;
    for (unsigned i = 0; i < AT_ONCE; i++) {
        keys[i] = zipf_next();
        len += (size_t)sprintf(requests + len, "*2\r\n$3\r\nGET\r\n$16\r\n%016llx\r\n",
                               (unsigned long long)keys[i]);
    }
    send_all(requests, len);
    for (unsigned i = 0; i < AT_ONCE; i++)
        read_value(keys[i]);
}

static int compare(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 6 && argc != 7)
        errx(2, "usage: zipf SOCKET KEYS THETA WARM_S SECONDS [REQUESTS]");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
    to = socket(AF_UNIX, SOCK_STREAM, 0);
    if (to < 0 || connect(to, (struct sockaddr *)&address, sizeof(address)) != 0)
        err(1, "%s", argv[1]);
    from = fdopen(dup(to), "rb");
    if (from == NULL)
        err(1, "fdopen");
    uint64_t keys = strtoul(argv[2], NULL, 10);
    zipf_start(keys, strtod(argv[3], NULL));
    uint64_t begun = clock_ns();
    load(keys);
    double load_s = (double)(clock_ns() - begun) / 1e9;
    for (uint64_t end = clock_ns() + (uint64_t)(strtod(argv[4], NULL) * 1e9); clock_ns() < end;)
        get_some();
    unsigned *samples = malloc(MAX_SAMPLES * sizeof(*samples));
    if (samples == NULL)
        err(1, "malloc");
    size_t count = 0, most = MAX_SAMPLES;
    begun = clock_ns();
    uint64_t last = begun, end = begun + (uint64_t)(strtod(argv[5], NULL) * 1e9);
    if (argc == 7) {
        most = strtoul(argv[6], NULL, 10) / AT_ONCE;
        end = UINT64_MAX;
        if (most < 1 || most > MAX_SAMPLES)
            errx(2, "%u to %zu requests", AT_ONCE, MAX_SAMPLES * AT_ONCE);
    }
    while (last < end && count < most) {
        get_some();
        uint64_t now = clock_ns();
        samples[count++] = (unsigned)(now - last);
        last = now;
    }
    double seconds = (double)(last - begun) / 1e9;
    qsort(samples, count, sizeof(*samples), compare);
    printf("{\"what\":\"zipf\",\"requests_per_s\":%.1f,\"load_s\":%.3f,\"asked_s\":%.6f,"
           "\"batch_p50_us\":%.1f,\"batch_p99_us\":%.1f}\n",
           (double)(count * AT_ONCE) / seconds, load_s, seconds, samples[count / 2] / 1e3,
           samples[count * 99 / 100] / 1e3);
    return 0;
}
