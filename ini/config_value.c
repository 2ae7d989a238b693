/* Values that stand on their own: sizes and endpoints. */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_FRACTION_DIGITS = 9,
    MAX_HOST_BYTES = 255,
    MAX_IPC_PATH_BYTES = 100, /* of the 107 a Unix socket has: a shard's ".63" must fit too */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "123.45": whole part in *WHOLE, the rest in *FRACTION (0 to 1). Returns what follows, or NULL. */
static const char *read_decimal(const char *text, uint64_t *whole, long double *fraction)
{
    if (!is_digit(*text))
        return NULL;
    *whole = 0;
    for (; is_digit(*text); text++) {
        if (__builtin_mul_overflow(*whole, 10, whole) ||
            __builtin_add_overflow(*whole, (uint64_t)(*text - '0'), whole))
            return NULL;
    }
    *fraction = 0;
    if (*text != '.')
        return text;
    if (!is_digit(*++text))
        return NULL;
    long double place = 1;
    for (int digits = 0; is_digit(*text); text++) {
        if (++digits > MAX_FRACTION_DIGITS)
            return NULL;
        place /= 10;
        *fraction += place * (*text - '0');
    }
    return text;
}

/* 0 when SUFFIX is no unit. */
static uint64_t read_unit(const char *suffix)
{
    static const char letters[] = "KMGT";

    if (*suffix == '\0' || strcasecmp(suffix, "B") == 0)
        return 1;
    for (unsigned i = 0; letters[i] != '\0'; i++) {
        if (strncasecmp(suffix, &letters[i], 1) != 0)
            continue;
        const char *rest = suffix + 1;
        if (*rest == '\0' || strcasecmp(rest, "B") == 0 || strcasecmp(rest, "iB") == 0)
            return (uint64_t)1 << (10 * (i + 1));
    }
    return 0;
}

int config_parse_size(const char *text, uint64_t percent_of_bytes, uint64_t *out_bytes)
{
    uint64_t whole, unit, bytes;
    long double fraction;
    const char *suffix = read_decimal(text, &whole, &fraction);

    if (suffix == NULL)
        return -EINVAL;
    if (strcmp(suffix, "%") == 0) {
        long double percent = (long double)whole + fraction;
        if (percent_of_bytes == 0 || percent > 100)
            return -EINVAL;
        *out_bytes = (uint64_t)((long double)percent_of_bytes * percent / 100);
        return 0;
    }
    unit = read_unit(suffix);
    if (unit == 0 || (unit == 1 && fraction > 0) || __builtin_mul_overflow(whole, unit, &bytes) ||
        __builtin_add_overflow(bytes, (uint64_t)(fraction * (long double)unit + 0.5L), &bytes))
        return -EINVAL;
    *out_bytes = bytes;
    return 0;
}

static int refuse(char *reason, size_t cap, const char *text)
{
    snprintf(reason, cap, "%s", text);
    return -EINVAL;
}

static int check_host(const char *host, size_t len, char *reason, size_t cap)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    static const char inside_brackets[] = "0123456789abcdefABCDEF:.%";

    if (len == 0)
        return refuse(reason, cap, "no host");
    if (len > MAX_HOST_BYTES)
        return refuse(reason, cap, "the host is longer than 255 bytes");
    if (len == 1 && *host == '*')
        return 0;
    if (*host == '[') {
        if (len < 4 || host[len - 1] != ']' || strspn(host + 1, inside_brackets) != len - 2)
            return refuse(reason, cap, "not an IPv6 address in brackets");
        return 0;
    }
    if (memchr(host, ':', len) != NULL)
        return refuse(reason, cap, "an IPv6 address needs brackets");
    if (strspn(host, letters) < len)
        return refuse(reason, cap, "the host has a character that no host name has");
    return 0;
}

static int check_port(const char *port, char *reason, size_t cap)
{
    size_t len = strspn(port, "0123456789");

    if (len == 0 || len > 5 || port[len] != '\0' || atoi(port) < 1 || atoi(port) > 65535)
        return refuse(reason, cap, "the port is not a number from 1 to 65535");
    return 0;
}

int config_check_endpoint(const char *endpoint, char *reason, size_t reason_cap)
{
    if (*endpoint == '\0')
        return refuse(reason, reason_cap, "an endpoint is empty");
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        size_t len = strlen(endpoint + 6);
        if (len == 0)
            return refuse(reason, reason_cap, "no path");
        if (len > MAX_IPC_PATH_BYTES)
            return refuse(reason, reason_cap, "the path is longer than 100 bytes");
        return 0;
    }
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return refuse(reason, reason_cap, "it begins with neither tcp:// nor ipc://");
    const char *host = endpoint + 6;
    const char *colon = strrchr(host, ':');
    const char *bracket = strrchr(host, ']');
    if (colon == NULL || (bracket != NULL && bracket > colon))
        return refuse(reason, reason_cap, "no port");
    int err = check_host(host, (size_t)(colon - host), reason, reason_cap);
    return err != 0 ? err : check_port(colon + 1, reason, reason_cap);
}

char *config_shard_endpoint(const char *base, uint32_t shard)
{
    char *out = NULL;

    if (shard == 0)
        return strdup(base);
    if (strncmp(base, "ipc://", 6) == 0)
        return asprintf(&out, "%s.%u", base, shard) < 0 ? NULL : out;
    const char *colon = strrchr(base, ':');
    if (colon == NULL)
        return NULL;
    uint64_t port = strtoul(colon + 1, NULL, 10) + shard;
    if (port > 65535)
        return NULL;
    return asprintf(&out, "%.*s:%u", (int)(colon - base), base, (unsigned)port) < 0 ? NULL : out;
}
