#include "control_message.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GREETING "edm-control "
#define LETTERS "abcdefghijklmnopqrstuvwxyz0123456789_"

enum { ESCAPED_BYTES = 3, NUMBER_BYTES = 24 };

/* ---- writing ---- */

void control_begin(struct control_text *text, const char *word)
{
    int len =
        snprintf(text->bytes, sizeof text->bytes, GREETING "%d %s", (int)CONTROL_VERSION, word);
    text->len = (size_t)len;
}

static bool is_plain(char c)
{
    return c > ' ' && c <= '~' && c != '%';
}

void control_put(struct control_text *text, const char *key, const char *value)
{
    size_t left = sizeof text->bytes - text->len;
    if (strlen(key) + 2 > left)
        return;
    text->bytes[text->len++] = ' ';
    memcpy(text->bytes + text->len, key, strlen(key));
    text->len += strlen(key);
    text->bytes[text->len++] = '=';
    for (; *value && text->len + ESCAPED_BYTES <= sizeof text->bytes; value++) {
        static const char digits[] = "0123456789ABCDEF";
        unsigned char c = (unsigned char)*value;
        if (is_plain(*value)) {
            text->bytes[text->len++] = *value;
            continue;
        }
        text->bytes[text->len++] = '%';
        text->bytes[text->len++] = digits[c >> 4];
        text->bytes[text->len++] = digits[c & 15];
    }
}

void control_put_number(struct control_text *text, const char *key, uint64_t number)
{
    char digits[NUMBER_BYTES];
    snprintf(digits, sizeof digits, "%" PRIu64, number);
    control_put(text, key, digits);
}

/* ---- reading ---- */

/* Decimal digits alone. */
static bool read_number(const char *text, uint64_t *out)
{
    *out = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(*text - '0'), out))
            return false;
    }
    return true;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place. False: a byte that must not be there. */
static bool unescape(char *value)
{
    char *to = value;
    for (const char *from = value; *from; from++) {
        if (*from != '%') {
            if (!is_plain(*from))
                return false;
            *to++ = *from;
            continue;
        }
        int high = hex(from[1]);
        int low = high < 0 ? -1 : hex(from[2]);
        if (low < 0 || (high | low) == 0)
            return false;
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = 0;
    return true;
}

static bool is_word(const char *text)
{
    return *text && text[strspn(text, LETTERS)] == 0;
}

static bool take_field(struct control_message *out, char *part)
{
    char *equals = strchr(part, '=');
    if (!equals)
        return false;
    *equals = 0;
    if (!is_word(part) || !unescape(equals + 1))
        return false;
    if (out->nfields < CONTROL_FIELDS) {
        out->fields[out->nfields].key = part;
        out->fields[out->nfields++].value = equals + 1;
    }
    return true;
}

int control_parse(struct control_message *out, const char *bytes, size_t len)
{
    out->word = NULL;
    out->nfields = 0;
    size_t greeting = strlen(GREETING);
    if (len > CONTROL_MESSAGE_BYTES || len < greeting || memchr(bytes, 0, len) ||
        memcmp(bytes, GREETING, greeting) != 0)
        return -EPROTO;
    memcpy(out->bytes, bytes, len);
    out->bytes[len] = 0;
    char *rest = out->bytes + greeting;
    if (!read_number(strsep(&rest, " "), &out->version))
        return -EPROTO;
    if (out->version != CONTROL_VERSION)
        return 0;
    const char *word = strsep(&rest, " ");
    if (!word || !is_word(word))
        return -EPROTO;
    while (rest)
        if (!take_field(out, strsep(&rest, " ")))
            return -EPROTO;
    out->word = word;
    return 0;
}

const char *control_get(const struct control_message *message, const char *key)
{
    for (size_t i = 0; i < message->nfields; i++)
        if (strcmp(message->fields[i].key, key) == 0)
            return message->fields[i].value;
    return NULL;
}

uint64_t control_get_number(const struct control_message *message, const char *key,
                            uint64_t otherwise)
{
    const char *value = control_get(message, key);
    uint64_t number;
    return value && read_number(value, &number) ? number : otherwise;
}
