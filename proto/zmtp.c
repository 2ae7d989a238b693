#include "zmtp.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

enum {
    VERSION_AT = 10,
    MECHANISM_AT = 12,
    MECHANISM_BYTES = 20,
    SHORT_MOST = 255,
    MOST_CONTEXT = 16, /* of a PING, to be given back */
    TTL_BYTES = 2,
};

static const char PING[] = "\4PING", PONG[] = "\4PONG", READY[] = "\5READY", ERROR[] = "\5ERROR";
static const char SOCKET_TYPE[] = "Socket-Type";

void zmtp_greeting(unsigned char out[ZMTP_GREETING_BYTES])
{
    memset(out, 0, ZMTP_GREETING_BYTES);
    out[0] = 0xff;
    out[8] = 1; /* what ZMTP 2 would take for the identity's length, as the specification has it */
    out[9] = 0x7f;
    out[VERSION_AT] = 3;
    out[VERSION_AT + 1] = 1;
    memcpy(out + MECHANISM_AT, "NULL", 4);
}

int zmtp_check_greeting(const unsigned char *in, size_t have)
{
    static const char mechanism[MECHANISM_BYTES] = "NULL";

    if ((have > 0 && in[0] != 0xff) || (have > 9 && in[9] != 0x7f))
        return -EPROTO;
    if (have > VERSION_AT && in[VERSION_AT] < 3)
        return -EPROTO;
    if (have >= MECHANISM_AT + MECHANISM_BYTES &&
        memcmp(in + MECHANISM_AT, mechanism, MECHANISM_BYTES) != 0)
        return -ENOTSUP;
    return 0;
}

size_t zmtp_frame_begin(unsigned char *out, uint8_t flags, uint64_t len_bytes)
{
    if (len_bytes <= SHORT_MOST) {
        out[0] = flags;
        out[1] = (unsigned char)len_bytes;
        return 2;
    }
    out[0] = flags | ZMTP_LONG;
    for (int i = 0; i < 8; i++)
        out[1 + i] = (unsigned char)(len_bytes >> (56 - 8 * i));
    return ZMTP_FRAME_BYTES;
}

int zmtp_frame_read(const unsigned char *in, size_t have, struct zmtp_frame *out)
{
    if (have == 0)
        return 0;
    uint8_t flags = in[0];
    if ((flags & ~(ZMTP_MORE | ZMTP_LONG | ZMTP_COMMAND)) != 0 ||
        ((flags & ZMTP_COMMAND) != 0 && (flags & ZMTP_MORE) != 0))
        return -EPROTO;
    int begin = (flags & ZMTP_LONG) != 0 ? ZMTP_FRAME_BYTES : 2;
    if (have < (size_t)begin)
        return 0;
    out->flags = flags;
    out->len_bytes = 0;
    for (int i = 1; i < begin; i++)
        out->len_bytes = out->len_bytes << 8 | in[i];
    return out->len_bytes >> 63 == 0 ? begin : -EPROTO;
}

static size_t begin_command(unsigned char *out, size_t len_bytes)
{
    return zmtp_frame_begin(out, ZMTP_COMMAND, len_bytes);
}

/* A property: the length of its name in a byte, the name, that of its value in four, the value. */
static size_t put_property(unsigned char *out, const char *name, const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value);

    out[0] = (unsigned char)name_len;
    memcpy(out + 1, name, name_len);
    memset(out + 1 + name_len, 0, 3);
    out[4 + name_len] = (unsigned char)value_len;
    memcpy(out + 5 + name_len, value, value_len);
    return 5 + name_len + value_len;
}

size_t zmtp_ready(unsigned char out[ZMTP_READY_BYTES], const char *type)
{
    unsigned char body[ZMTP_READY_BYTES];
    size_t len = strlen(READY);

    memcpy(body, READY, len);
    len += put_property(body + len, SOCKET_TYPE, type);
    len += put_property(body + len, "Identity", "");
    size_t begin = begin_command(out, len);
    memcpy(out + begin, body, len);
    return begin + len;
}

size_t zmtp_ping(unsigned char out[ZMTP_PING_BYTES])
{
    size_t begin = begin_command(out, strlen(PING) + TTL_BYTES);

    /* A time to live of 0: the peer need not watch us. */
    memset(out + begin, 0, strlen(PING) + TTL_BYTES);
    memcpy(out + begin, PING, strlen(PING));
    return begin + strlen(PING) + TTL_BYTES;
}

size_t zmtp_pong(unsigned char out[ZMTP_PING_BYTES], const unsigned char *ping, size_t len_bytes)
{
    size_t before = strlen(PING) + TTL_BYTES;
    size_t context = len_bytes > before ? len_bytes - before : 0;

    if (context > MOST_CONTEXT)
        context = MOST_CONTEXT;
    size_t begin = begin_command(out, strlen(PONG) + context);
    memcpy(out + begin, PONG, strlen(PONG));
    if (context > 0)
        memcpy(out + begin + strlen(PONG), ping + before, context);
    return begin + strlen(PONG) + context;
}

static int begins_with(const unsigned char *body, size_t len_bytes, const char *name)
{
    return len_bytes >= strlen(name) && memcmp(body, name, strlen(name)) == 0;
}

enum zmtp_command zmtp_command(const unsigned char *body, size_t len_bytes)
{
    if (begins_with(body, len_bytes, PING))
        return ZMTP_PING;
    if (begins_with(body, len_bytes, PONG))
        return ZMTP_PONG;
    if (begins_with(body, len_bytes, READY))
        return ZMTP_READY;
    return begins_with(body, len_bytes, ERROR) ? ZMTP_ERROR : ZMTP_OTHER;
}

int zmtp_check_ready(const unsigned char *body, size_t len_bytes, const char *type)
{
    size_t at = strlen(READY);

    if (zmtp_command(body, len_bytes) != ZMTP_READY)
        return -EPROTO;
    while (at < len_bytes) {
        size_t name_len = body[at++];
        if (name_len == 0 || len_bytes - at < name_len + 4)
            return -EPROTO;
        const unsigned char *name = body + at;
        at += name_len;
        uint64_t value_len = 0;
        for (int i = 0; i < 4; i++)
            value_len = value_len << 8 | body[at++];
        if (value_len > len_bytes - at)
            return -EPROTO;
        /* Names are compared without regard to case. */
        if (name_len == strlen(SOCKET_TYPE) &&
            strncasecmp((const char *)name, SOCKET_TYPE, name_len) == 0)
            return value_len == strlen(type) && memcmp(body + at, type, strlen(type)) == 0
                       ? 0
                       : -ENOTSUP;
        at += (size_t)value_len;
    }
    return -ENOTSUP;
}
