/*
 * fuzz_wire: any bytes as a request or a reply.
 *
 * An input is 4 bytes and a header. The first byte says what it is unpacked as (odd: a reply), the
 * next three are the length of the body it claims to have come with, little-endian. What is
 * accepted must be packed again without loss.
 */
#include "../../proto/wire.h"

#include <stdlib.h>
#include <string.h>

enum { PREFIX_BYTES = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Unpacking overwrites all of a message, the gaps between fields too. */
static bool are_same(const void *first, const void *second, size_t size)
{
    return memcmp(first, second, size) == 0;
}

static void try_request(const uint8_t *header, size_t len, size_t body)
{
    static struct wire_request first, second;
    static uint8_t buf[WIRE_MAX_HEADER_BYTES];

    if (wire_unpack_request(&first, header, len, body) != 0)
        return;
    ssize_t packed = wire_pack_request(&first, buf, sizeof(buf));
    require(packed > 0);
    require(wire_unpack_request(&second, buf, (size_t)packed, body) == 0);
    require(are_same(&first, &second, sizeof(first)));
}

static void try_reply(const uint8_t *header, size_t len, size_t body)
{
    static struct wire_reply first, second;
    static uint8_t buf[WIRE_MAX_HEADER_BYTES];

    if (wire_unpack_reply(&first, header, len, body) != 0)
        return;
    ssize_t packed = wire_pack_reply(&first, buf, sizeof(buf));
    require(packed > 0);
    require(wire_unpack_reply(&second, buf, (size_t)packed, body) == 0);
    require(are_same(&first, &second, sizeof(first)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < PREFIX_BYTES)
        return 0;
    size_t body = data[1] | (size_t)data[2] << 8 | (size_t)data[3] << 16;
    if (data[0] % 2)
        try_reply(data + PREFIX_BYTES, size - PREFIX_BYTES, body);
    else
        try_request(data + PREFIX_BYTES, size - PREFIX_BYTES, body);
    return 0;
}
