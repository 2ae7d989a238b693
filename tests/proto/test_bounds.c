/* Every bound of every field: the last good value passes, the first bad one does not. What packing
 * refuses is also given to unpacking, as bytes written by hand. */
#include "samples.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static unsigned char buf[WIRE_MAX_HEADER_BYTES];
static struct wire_request request, request_back;
static struct wire_reply reply, reply_back;

static void begin(uint8_t method)
{
    memset(&request, 0, sizeof(request));
    memset(&reply, 0, sizeof(reply));
    request.method = reply.method = method;
    request.id = reply.id = 9;
}

static void assert_packs(int expected)
{
    ssize_t len = wire_pack_request(&request, buf, sizeof(buf));

    assert_int_equal(len < 0 ? len : 0, expected);
}

static void assert_reply_packs(int expected)
{
    ssize_t len = wire_pack_reply(&reply, buf, sizeof(buf));

    assert_int_equal(len < 0 ? len : 0, expected);
}

static void test_names(void **state)
{
    (void)state;
    char longest[WIRE_MAX_NAME_BYTES + 2];
    static const char *const good[] = {
        "a", " ", "a b:c@d", "..", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x92\xbe", "\xc2\xa0", "~"};
    static const char *const bad[] = {"",
                                      "/",
                                      "a/b",
                                      "a\n",
                                      "\x1b[2J",
                                      "\x7f",
                                      "\xc2\x80",
                                      "\xff",
                                      "\xc3",
                                      "\xc0\xaf",
                                      "\xe0\x80\xaf",
                                      "\xed\xa0\x80",
                                      "a\xe2\x82",
                                      "\x80",
                                      "\xe2\x80\xa8",
                                      "\xe2\x80\xae",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80\x80"};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!wire_name_is_valid(good[i]))
            fail_msg("good name %zu is refused", i);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (wire_name_is_valid(bad[i]))
            fail_msg("bad name %zu passes", i);
    memset(longest, 'n', sizeof(longest));
    longest[WIRE_MAX_NAME_BYTES] = '\0';
    assert_true(wire_name_is_valid(longest));
    longest[WIRE_MAX_NAME_BYTES] = 'n';
    longest[WIRE_MAX_NAME_BYTES + 1] = '\0';
    assert_false(wire_name_is_valid(longest));
}

static void test_names_in_messages(void **state)
{
    (void)state;
    static const uint8_t methods[] = {WIRE_HELLO, WIRE_OPEN, WIRE_FREEZE, WIRE_BRANCH};

    for (size_t i = 0; i < sizeof(methods); i++) {
        begin(methods[i]);
        request.version_min = request.version_max = 1;
        assert_packs(-EINVAL);
        strcpy(request.name, "a/b");
        assert_packs(-EINVAL);
        strcpy(request.name, "ab");
        assert_packs(0);
        memset(request.name, 'n', sizeof(request.name));
        assert_packs(-EINVAL);
    }
    begin(WIRE_LIST);
    assert_packs(0);
    strcpy(request.name, "\n");
    assert_packs(-EINVAL);
}

static void test_hello(void **state)
{
    (void)state;
    begin(WIRE_HELLO);
    strcpy(request.name, "x");
    assert_packs(-EINVAL);
    request.version_max = 3;
    assert_packs(-EINVAL);
    request.version_min = 3;
    assert_packs(0);
    request.version_min = 4;
    assert_packs(-EINVAL);

    reply.version = reply.nshards = reply.max_pages = 1;
    assert_reply_packs(0);
    reply.shard = 1;
    assert_reply_packs(-EINVAL);
    reply.shard = 0;
    reply.max_pages = WIRE_MAX_PAGES + 1;
    assert_reply_packs(-EINVAL);
    reply.max_pages = 0;
    assert_reply_packs(-EINVAL);
    reply.max_pages = 1;
    reply.version = 0;
    assert_reply_packs(-EINVAL);
}

static void begin_put(uint8_t encoding, uint32_t length)
{
    begin(WIRE_PAGE_PUT);
    request.npages = 1;
    request.pages[0] =
        (struct wire_page){.page = 1, .sequence = 1, .encoding = encoding, .length_bytes = length};
}

static void test_page_counts(void **state)
{
    (void)state;
    begin_put(WIRE_FILL, 8);
    request.npages = 0;
    assert_packs(-EINVAL);
    for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++)
        request.pages[i] =
            (struct wire_page){.page = i, .sequence = 1, .encoding = WIRE_FILL, .length_bytes = 8};
    request.npages = WIRE_MAX_PAGES;
    assert_packs(0);
    request.npages = WIRE_MAX_PAGES + 1;
    assert_packs(-EINVAL);
    request.npages = UINT32_MAX;
    assert_packs(-EINVAL);
    request.method = WIRE_PAGE_GET;
    assert_packs(-EINVAL);
    request.npages = 0;
    assert_packs(-EINVAL);
    begin(WIRE_PAGE_GET);
    assert_reply_packs(-EINVAL);
    reply.npages = WIRE_MAX_PAGES + 1;
    assert_reply_packs(-EINVAL);
}

static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        uint8_t encoding;
        uint32_t length;
        int expected;
    } cases[] = {
        {WIRE_RAW, 4096, 0},       {WIRE_RAW, 4095, -EINVAL}, {WIRE_RAW, 4097, -EINVAL},
        {WIRE_RAW, 0, -EINVAL},    {WIRE_FILL, 8, 0},         {WIRE_FILL, 7, -EINVAL},
        {WIRE_FILL, 9, -EINVAL},   {WIRE_LZ4, 1, 0},          {WIRE_LZ4, 4095, 0},
        {WIRE_LZ4, 0, -EINVAL},    {WIRE_LZ4, 4096, -EINVAL}, {WIRE_LZ4, UINT32_MAX, -EINVAL},
        {3, 8, -EINVAL},           {254, 8, -EINVAL},         {WIRE_ABSENT, 0, -EINVAL},
        {WIRE_ABSENT, 8, -EINVAL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin_put(cases[i].encoding, cases[i].length);
        assert_packs(cases[i].expected);
        reply.method = WIRE_PAGE_GET;
        reply.npages = 1;
        reply.pages[0] = request.pages[0];
        assert_reply_packs(cases[i].expected);
    }
}

static void test_page_fields(void **state)
{
    (void)state;
    begin_put(WIRE_FILL, 8);
    request.pages[0].page = WIRE_MAX_PAGE - 1;
    assert_packs(0);
    request.pages[0].page = WIRE_MAX_PAGE;
    assert_packs(-EINVAL);
    request.method = WIRE_PAGE_GET;
    assert_packs(-EINVAL);
    begin_put(WIRE_FILL, 8);
    request.pages[0].sequence = 0;
    assert_packs(-EINVAL);
}

static void test_absent_pages(void **state)
{
    (void)state;
    begin(WIRE_PAGE_GET);
    reply.npages = 1;
    reply.pages[0].encoding = WIRE_ABSENT;
    assert_reply_packs(0);
    reply.pages[0].sequence = 1;
    assert_reply_packs(-EINVAL);
    reply.pages[0].sequence = 0;
    reply.pages[0].checksum = 1;
    assert_reply_packs(-EINVAL);
    reply.pages[0].checksum = 0;
    reply.pages[0].page = WIRE_MAX_PAGE;
    assert_reply_packs(-EINVAL);
}

/* Every pair of places in a full batch, so that no path through the search for twins is left out.
 */
static void test_twins(void **state)
{
    (void)state;
    begin_put(WIRE_FILL, 8);
    request.npages = WIRE_MAX_PAGES;
    for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++) {
        request.pages[i] = request.pages[0];
        request.pages[i].page = (uint64_t)(i * 37 % WIRE_MAX_PAGES) * 512;
    }
    assert_packs(0);
    for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++) {
        for (uint32_t k = 0; k < i; k++) {
            uint64_t own = request.pages[i].page;
            request.pages[i].page = request.pages[k].page;
            assert_packs(-EINVAL);
            request.pages[i].page = own;
        }
    }
    request.method = WIRE_PAGE_GET;
    request.pages[1].page = request.pages[0].page;
    assert_packs(0);
}

static void test_twins_among_random_pages(void **state)
{
    (void)state;
    uint64_t seed = 1;

    for (int round = 0; round < 200; round++) {
        begin_put(WIRE_FILL, 8);
        request.npages = WIRE_MAX_PAGES;
        for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            request.pages[i] = request.pages[0];
            request.pages[i].page = seed >> 12;
        }
        assert_packs(0);
        for (uint32_t i = 1; i < WIRE_MAX_PAGES; i += 5) {
            uint64_t own = request.pages[i].page;
            request.pages[i].page = request.pages[(seed >> 32) % i].page;
            assert_packs(-EINVAL);
            request.pages[i].page = own;
        }
    }
}

static void test_twins_side_by_side(void **state)
{
    (void)state;
    begin_put(WIRE_FILL, 8);
    request.pages[2] = request.pages[1] = request.pages[0];
    request.pages[2].page = 2;
    request.npages = 3;
    assert_packs(-EINVAL);
    request.pages[0].page = 0;
    assert_packs(0);
    request.pages[2].page = 1;
    assert_packs(-EINVAL);
}

static void test_ranges(void **state)
{
    (void)state;
    begin(WIRE_PAGE_DROP);
    assert_packs(-EINVAL);
    request.nranges = 1;
    assert_packs(-EINVAL);
    request.ranges[0] = (struct wire_range){0, WIRE_MAX_PAGE};
    assert_packs(0);
    request.ranges[0] = (struct wire_range){1, WIRE_MAX_PAGE};
    assert_packs(-EINVAL);
    request.ranges[0] = (struct wire_range){WIRE_MAX_PAGE - 1, 1};
    assert_packs(0);
    request.ranges[0] = (struct wire_range){WIRE_MAX_PAGE, 1};
    assert_packs(-EINVAL);
    request.ranges[0] = (struct wire_range){2, UINT64_MAX};
    assert_packs(-EINVAL);
    request.ranges[0] = (struct wire_range){UINT64_MAX, 2};
    assert_packs(-EINVAL);
    for (uint32_t i = 0; i < WIRE_MAX_RANGES; i++)
        request.ranges[i] = (struct wire_range){i, 1};
    request.nranges = WIRE_MAX_RANGES;
    assert_packs(0);
    request.nranges = WIRE_MAX_RANGES + 1;
    assert_packs(-EINVAL);
}

static void test_replies(void **state)
{
    (void)state;
    begin(WIRE_OPEN);
    reply.epoch = 1;
    assert_reply_packs(-EINVAL);
    reply.region = 1;
    assert_reply_packs(0);
    reply.epoch = 0;
    assert_reply_packs(-EINVAL);
    reply.status = 16;
    assert_reply_packs(0);
    reply.status = 17;
    assert_reply_packs(-EINVAL);

    begin(WIRE_PAGE_PUT);
    strcpy(reply.detail, "x");
    assert_reply_packs(-EINVAL);
    reply.status = WIRE_INTERNAL;
    memset(reply.detail, 'x', WIRE_MAX_DETAIL_BYTES);
    assert_reply_packs(0);
    reply.detail[WIRE_MAX_DETAIL_BYTES] = 'x';
    assert_reply_packs(-EINVAL);

    begin(WIRE_REMOVE + 1);
    assert_reply_packs(-EINVAL);
    reply.status = WIRE_UNIMPLEMENTED;
    assert_reply_packs(0);
    begin(WIRE_REMOVE + 1);
    assert_packs(-EINVAL);
    begin(0);
    assert_packs(-EINVAL);
}

static void test_regions(void **state)
{
    (void)state;
    begin(WIRE_LIST);
    assert_reply_packs(0);
    reply.nregions = 1;
    assert_reply_packs(-EINVAL);
    strcpy(reply.regions[0].name, "r");
    assert_reply_packs(-EINVAL);
    reply.regions[0].region = 1;
    assert_reply_packs(0);
    reply.nregions = WIRE_MAX_LISTED + 1;
    assert_reply_packs(-EINVAL);
    reply.method = WIRE_STAT;
    reply.nregions = 1;
    assert_reply_packs(0);
    reply.regions[1] = reply.regions[0];
    reply.nregions = 2;
    assert_reply_packs(-EINVAL);
}

/* A body that is one byte longer or shorter than the lengths say, and bodies where none belong. */
static void test_body_lengths(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REQUESTS; i++) {
        size_t body = samples_request(&request, i);
        size_t len = (size_t)wire_pack_request(&request, buf, sizeof(buf));
        assert_int_equal(wire_unpack_request(&request_back, buf, len, body), 0);
        assert_int_equal(wire_unpack_request(&request_back, buf, len, body + 1), -EBADMSG);
        assert_int_equal(wire_unpack_request(&request_back, buf, len, body - 1), -EBADMSG);
        assert_int_equal(wire_unpack_request(&request_back, buf, len, SIZE_MAX), -EBADMSG);
    }
    for (int i = 0; i < SAMPLE_REPLIES; i++) {
        size_t body = samples_reply(&reply, i);
        size_t len = (size_t)wire_pack_reply(&reply, buf, sizeof(buf));
        assert_int_equal(wire_unpack_reply(&reply_back, buf, len, body), 0);
        assert_int_equal(wire_unpack_reply(&reply_back, buf, len, body + 1), -EBADMSG);
        assert_int_equal(wire_unpack_reply(&reply_back, buf, len, body - 1), -EBADMSG);
    }
}

/* Bytes given as a string literal, whose last 0 does not count. */
#define UNPACK(bytes, body) wire_unpack_request(&request_back, bytes, sizeof(bytes) - 1, body)
#define UNPACK_REPLY(bytes, body) wire_unpack_reply(&reply_back, bytes, sizeof(bytes) - 1, body)

static void test_handwritten_requests(void **state)
{
    (void)state;
    /* [1, STAT, 7, 0, [5]], then the same with every kind of number that may stand for 5. */
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x91\x05", 0), 0);
    assert_int_equal(request_back.region, 5);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x91\xcd\x00\x05", 0), 0);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x91\xcf\0\0\0\0\0\0\0\x05", 0), 0);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x91\xd0\x05", 0), 0);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x91\xd3\0\0\0\0\0\0\0\x05", 0), 0);
    assert_int_equal(request_back.region, 5);
    assert_int_equal(UNPACK("\xdc\x00\x05\x01\x09\x07\x00\xdd\0\0\0\x01\x05", 0), 0);
    assert_int_equal(request_back.region, 5);
    static const char *const wrong[] = {"\xff",      "\xd0\xfb", "\xd1\xff\xff", "\xa1x",
                                        "\xc4\x01x", "\x90",     "\x80",         "\xc0",
                                        "\xc2",      "\xca????", "\xd4??",       "\xc1"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char bytes[32] = "\x95\x01\x09\x07.\x91";
        bytes[4] = 0;
        memcpy(bytes + 6, wrong[i], strlen(wrong[i]));
        assert_int_equal(wire_unpack_request(&request_back, bytes, 6 + strlen(wrong[i]), 0),
                         -EBADMSG);
        assert_int_equal(request_back.id, 7);
        assert_int_equal(request_back.method, WIRE_STAT);
    }
}

static void test_numbers_of_elements(void **state)
{
    (void)state;
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x92\x05\x05", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x90", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x96\x01\x09\x07\x00\x91\x05\x05", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x94\x01\x09\x07\x00", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x91\x05\x05", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\x00\x05", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x09\x07\xcf\0\0\0\x01\0\0\0\0\x91\x05", 0), -EBADMSG);
    /* [1, PAGE_GET, 7, 0, [1, 1, [[first, count], ...]]] */
    assert_int_equal(UNPACK("\x95\x01\x03\x07\0\x93\1\1\x91\x92\x04\xcd\x01\x00", 0), 0);
    assert_int_equal(request_back.npages, 256);
    assert_int_equal(request_back.pages[255].page, 259);
    assert_int_equal(UNPACK("\x95\x01\x03\x07\0\x93\1\1\x91\x92\x04\xcd\x01\x01", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x03\x07\0\x93\1\1\x92\x92\x04\xcc\xff\x92\x04\x02", 0),
                     -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x03\x07\0\x93\1\1\x91\x92\x04\x00", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x03\x07\0\x93\1\1\x91\x92\xcf\0\x0f\xff\xff\xff\xff\xff\xff"
                            "\x02",
                            0),
                     -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x03\x07\0\x93\1\1\x90", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x03\x07\0\x93\1\1\x91\x93\x04\x01\x01", 0), -EBADMSG);
    /* A name with a 0 byte in it. */
    assert_int_equal(UNPACK("\x95\x01\x02\x07\0\x92\xa3"
                            "a\0b\0",
                            0),
                     -EBADMSG);
}

/* Makes the list that a packed message ends with one element longer: its two-byte count is at
 * COUNT_AT, its last element is the last ELEMENT_BYTES bytes. Returns the new length. */
static size_t lengthen(size_t len, size_t count_at, size_t element_bytes)
{
    unsigned count = (unsigned)buf[count_at] << 8 | buf[count_at + 1];

    assert_int_equal(buf[count_at - 1], 0xdc);
    memcpy(buf + len, buf + len - element_bytes, element_bytes);
    count++;
    buf[count_at] = (unsigned char)(count >> 8);
    buf[count_at + 1] = (unsigned char)count;
    return len + element_bytes;
}

/* One more than there is room for in the structures. */
static void test_lists_too_long_on_the_wire(void **state)
{
    (void)state;
    begin(WIRE_PAGE_PUT);
    for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++)
        request.pages[i] =
            (struct wire_page){.page = i, .sequence = 1, .encoding = WIRE_FILL, .length_bytes = 8};
    request.npages = WIRE_MAX_PAGES;
    size_t len = (size_t)wire_pack_request(&request, buf, sizeof(buf));
    assert_int_equal(wire_unpack_request(&request_back, buf, len, 2048), 0);
    len = lengthen(len, 9, 7);
    assert_int_equal(wire_unpack_request(&request_back, buf, len, 2056), -EBADMSG);

    begin(WIRE_PAGE_DROP);
    for (uint32_t i = 0; i < WIRE_MAX_RANGES; i++)
        request.ranges[i] = (struct wire_range){i, 1};
    request.nranges = WIRE_MAX_RANGES;
    len = (size_t)wire_pack_request(&request, buf, sizeof(buf));
    assert_int_equal(wire_unpack_request(&request_back, buf, len, 0), 0);
    len = lengthen(len, 10, 4);
    assert_int_equal(wire_unpack_request(&request_back, buf, len, 0), -EBADMSG);

    begin(WIRE_LIST);
    reply.nregions = WIRE_MAX_LISTED;
    for (uint32_t i = 0; i < WIRE_MAX_LISTED; i++) {
        reply.regions[i].name[0] = 'n';
        reply.regions[i].region = 1;
    }
    len = (size_t)wire_pack_reply(&reply, buf, sizeof(buf));
    assert_int_equal(wire_unpack_reply(&reply_back, buf, len, 0), 0);
    len = lengthen(len, 8, 9);
    assert_int_equal(wire_unpack_reply(&reply_back, buf, len, 0), -EBADMSG);
}

static void test_detail_too_long_on_the_wire(void **state)
{
    (void)state;
    memset(buf, 'x', sizeof(buf));
    memcpy(buf, "\x96\x01\x04\x07\x05\xda\x01\x00", 8);
    buf[8 + 256] = 0x90;
    assert_int_equal(wire_unpack_reply(&reply_back, buf, 8 + 256 + 1, 0), 0);
    assert_int_equal(strlen(reply_back.detail), 256);
    /* Longer than the whole structure. */
    memcpy(buf + 6, "\x75\x30", 2);
    buf[8 + 256] = 'x';
    buf[8 + 30000] = 0x90;
    assert_int_equal(wire_unpack_reply(&reply_back, buf, 8 + 30000 + 1, 0), -EBADMSG);
    buf[8 + 30000] = 'x';
    memcpy(buf + 6, "\x01\x01", 2);
    buf[8 + 257] = 0x90;
    assert_int_equal(wire_unpack_reply(&reply_back, buf, 8 + 257 + 1, 0), -EBADMSG);
}

static void test_versions_and_methods(void **state)
{
    (void)state;
    assert_int_equal(UNPACK("\x95\x02\x09\x07\x00\x91\x05", 0), -EPROTONOSUPPORT);
    assert_int_equal(request_back.id, 7);
    assert_int_equal(request_back.method, WIRE_STAT);
    /* A later version may use anything after the first three. */
    assert_int_equal(UNPACK("\x94\xcd\x01\x00\x1f\x07\x81\xc0\xc3", 0), -EPROTONOSUPPORT);
    assert_int_equal(request_back.id, 7);
    assert_int_equal(request_back.method, 0x1f);
    assert_int_equal(UNPACK("\x95\x00\x09\x07\x00\x91\x05", 0), -EBADMSG);
    assert_int_equal(UNPACK("\x95\x01\x0b\x07\x00\x90", 0), -EOPNOTSUPP);
    assert_int_equal(request_back.method, 11);
    assert_int_equal(request_back.id, 7);
    assert_int_equal(UNPACK("\x95\x01\x00\x07\x00\x90", 0), -EOPNOTSUPP);
    assert_int_equal(UNPACK("\x95\x01\xcd\x01\x09\x07\x00\x91\x05", 0), -EOPNOTSUPP);
    assert_int_equal(request_back.method, 0);
    assert_int_equal(UNPACK_REPLY("\x96\x02\x09\x07\x00\xa0\x90", 0), -EPROTONOSUPPORT);
    assert_int_equal(reply_back.id, 7);
}

static void test_handwritten_replies(void **state)
{
    (void)state;
    assert_int_equal(UNPACK_REPLY("\x96\x01\x04\x07\x00\xa0\x90", 0), 0);
    assert_int_equal(UNPACK_REPLY("\x96\x01\x04\x07\x05\xa1x\x90", 0), 0);
    assert_string_equal(reply_back.detail, "x");
    assert_int_equal(UNPACK_REPLY("\x96\x01\x04\x07\x05\xa3\x1b[m\x90", 0), 0);
    assert_string_equal(reply_back.detail, "?[m");
    assert_int_equal(UNPACK_REPLY("\x96\x01\x04\x07\x00\xa1x\x90", 0), -EBADMSG);
    assert_int_equal(UNPACK_REPLY("\x96\x01\x04\x07\x05\xa0\x91\x01", 0), -EBADMSG);
    assert_int_equal(UNPACK_REPLY("\x96\x01\x04\x07\x00\xa0\x91\x01", 0), -EBADMSG);
    assert_int_equal(UNPACK_REPLY("\x96\x01\x04\x07\x11\xa0\x90", 0), -EBADMSG);
    assert_int_equal(UNPACK_REPLY("\x96\x01\x0b\x07\x00\xa0\x90", 0), -EBADMSG);
    assert_int_equal(UNPACK_REPLY("\x96\x01\x0b\x07\x0c\xa0\x90", 0), 0);
    assert_int_equal(UNPACK_REPLY("\x96\x01\x02\x07\x00\xa0\x93\x00\x01\x00", 0), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_names_in_messages),
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_page_counts),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_page_fields),
        cmocka_unit_test(test_absent_pages),
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_twins_among_random_pages),
        cmocka_unit_test(test_twins_side_by_side),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_regions),
        cmocka_unit_test(test_body_lengths),
        cmocka_unit_test(test_handwritten_requests),
        cmocka_unit_test(test_numbers_of_elements),
        cmocka_unit_test(test_lists_too_long_on_the_wire),
        cmocka_unit_test(test_detail_too_long_on_the_wire),
        cmocka_unit_test(test_versions_and_methods),
        cmocka_unit_test(test_handwritten_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
