/* Whatever is done to a message's bytes: unpacking says no, or yields something that is inside all
 * bounds. Each frame lies in a buffer of just its length, so that the address sanitizer sees a read
 * beyond it. */
#include "samples.h"

#include "../../proto/wire_scan.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned char buf[WIRE_MAX_HEADER_BYTES], again[WIRE_MAX_HEADER_BYTES];
static struct wire_request request;
static struct wire_reply reply;

/* What was accepted can be packed: the bounds for both are the same. */
static int check_request(const unsigned char *bytes, size_t len, size_t body)
{
    unsigned char *exact = malloc(len + (len == 0));

    assert_non_null(exact);
    memcpy(exact, bytes, len);
    int err = wire_unpack_request(&request, exact, len, body);
    free(exact);
    if (err == 0)
        assert_true(wire_pack_request(&request, again, sizeof(again)) > 0);
    else
        assert_true(err == -EBADMSG || err == -EPROTONOSUPPORT || err == -EOPNOTSUPP);
    return err;
}

static int check_reply(const unsigned char *bytes, size_t len, size_t body)
{
    unsigned char *exact = malloc(len + (len == 0));

    assert_non_null(exact);
    memcpy(exact, bytes, len);
    int err = wire_unpack_reply(&reply, exact, len, body);
    free(exact);
    if (err == 0)
        assert_true(wire_pack_reply(&reply, again, sizeof(again)) > 0);
    else
        assert_true(err == -EBADMSG || err == -EPROTONOSUPPORT);
    return err;
}

struct sample {
    size_t len, body;
    int (*check)(const unsigned char *bytes, size_t len, size_t body);
};

/* Packs sample NUMBER of requests and replies, counted together, into buf. */
static struct sample pack_sample(int number)
{
    struct sample sample;
    ssize_t len;

    if (number < SAMPLE_REQUESTS) {
        sample.body = samples_request(&request, number);
        sample.check = check_request;
        len = wire_pack_request(&request, buf, sizeof(buf));
    } else {
        sample.body = samples_reply(&reply, number - SAMPLE_REQUESTS);
        sample.check = check_reply;
        len = wire_pack_reply(&reply, buf, sizeof(buf));
    }
    assert_true(len > 0);
    sample.len = (size_t)len;
    return sample;
}

static void test_truncations(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REQUESTS + SAMPLE_REPLIES; i++) {
        struct sample sample = pack_sample(i);
        for (size_t len = 0; len < sample.len; len++)
            assert_int_equal(sample.check(buf, len, sample.body), -EBADMSG);
    }
}

static void test_trailing_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REQUESTS + SAMPLE_REPLIES; i++) {
        struct sample sample = pack_sample(i);
        buf[sample.len] = 0;
        assert_int_equal(sample.check(buf, sample.len + 1, sample.body), -EBADMSG);
    }
}

static void test_flipped_bits(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REQUESTS + SAMPLE_REPLIES; i++) {
        struct sample sample = pack_sample(i);
        int refused = 0;
        /* Of the large messages, which repeat themselves, every fifth bit: all places in a byte. */
        size_t step = sample.len > 1000 ? 5 : 1;
        for (size_t bit = 0; bit < sample.len * 8; bit += step) {
            buf[bit / 8] ^= (unsigned char)(1u << bit % 8);
            refused += sample.check(buf, sample.len, sample.body) != 0;
            buf[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        /* The first bytes, which say what it is, are there in any message. */
        assert_true(refused >= 4);
        assert_int_equal(sample.check(buf, sample.len, sample.body), 0);
    }
}

/* Every byte of the small messages becomes every other. */
static void test_changed_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REQUESTS + SAMPLE_REPLIES; i++) {
        struct sample sample = pack_sample(i);
        for (size_t at = 0; at < sample.len && sample.len < 300; at++) {
            unsigned char own = buf[at];
            for (unsigned value = 0; value < 256; value++) {
                buf[at] = (unsigned char)value;
                (void)sample.check(buf, sample.len, sample.body);
            }
            buf[at] = own;
        }
    }
}

static void test_random_bytes(void **state)
{
    (void)state;
    uint64_t seed = 20220830;

    for (int i = 0; i < 200000; i++) {
        for (size_t k = 0; k < 48; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            buf[k] = (unsigned char)(seed >> 56);
        }
        /* Half of them begin like a message. */
        if (i % 2) {
            buf[0] = i % 4 == 1 ? 0x95 : 0x96;
            buf[1] = WIRE_VERSION;
        }
        (void)check_request(buf, (size_t)i % 48, 0);
        (void)check_reply(buf, (size_t)i % 48, 0);
    }
}

/* Nests ARRAYS one in the other, with a number in the innermost. */
static size_t nest(size_t arrays)
{
    memset(buf, 0x91, arrays);
    buf[arrays] = 1;
    return arrays + 1;
}

static void test_depth(void **state)
{
    (void)state;
    assert_true(wire_scan_is_sound(buf, nest(WIRE_SCAN_MAX_DEPTH)));
    assert_false(wire_scan_is_sound(buf, nest(WIRE_SCAN_MAX_DEPTH + 1)));
    assert_false(wire_scan_is_sound(buf, nest(sizeof(buf) - 1)));
    memset(buf, 0x90, 1);
    assert_true(wire_scan_is_sound(buf, 1));
    assert_false(wire_scan_is_sound(buf, 0));
}

static void test_what_the_scan_refuses(void **state)
{
    (void)state;
    assert_true(wire_scan_is_sound("\x92\x05\xa1x", 4));
    assert_false(wire_scan_is_sound("\x92\x05\xa1x\x05", 5));
    assert_true(wire_scan_is_sound("\x91\xd0\x7f", 3));
    assert_false(wire_scan_is_sound("\x91\xd0\x80", 3));
    assert_false(wire_scan_is_sound("\x91\xd3\xff\0\0\0\0\0\0\0", 10));
    assert_false(wire_scan_is_sound("\x91\xe0", 2));
    assert_false(wire_scan_is_sound("\x91\xc4\x01x", 4));
    assert_false(wire_scan_is_sound("\x91\x80", 2));
    assert_false(wire_scan_is_sound("\x91\xd4\x01\x01", 4));
}

static void test_number_of_objects(void **state)
{
    (void)state;
    memset(buf, 1, sizeof(buf));
    buf[0] = 0xdc;
    buf[1] = (WIRE_SCAN_MAX_OBJECTS - 1) >> 8;
    buf[2] = (WIRE_SCAN_MAX_OBJECTS - 1) & 0xff;
    assert_true(wire_scan_is_sound(buf, 3 + WIRE_SCAN_MAX_OBJECTS - 1));
    buf[1] = WIRE_SCAN_MAX_OBJECTS >> 8;
    buf[2] = WIRE_SCAN_MAX_OBJECTS & 0xff;
    assert_false(wire_scan_is_sound(buf, 3 + WIRE_SCAN_MAX_OBJECTS));
}

/* Frames that promise far more than they hold: refused without taking memory for it. */
static void test_promises(void **state)
{
    (void)state;
    static const char *const promises[] = {"\xdd\xff\xff\xff\xff",
                                           "\xdc\xff\xff",
                                           "\x9f",
                                           "\xdb\xff\xff\xff\xff",
                                           "\xda\xff\xff",
                                           "\xd9\xff",
                                           "\xc6\xff\xff\xff\xff",
                                           "\xc9\xff\xff\xff\xff\x01",
                                           "\xdf\xff\xff\xff\xff",
                                           "\xde\xff\xff"};
    static const char *const before[] = {"", "\x95\x01\x03\x07\x01", "\x96\x01\x08\x07\x10\xa1x",
                                         "\x95\x01\x03\x07\x01\x93\x01\x01",
                                         "\x95\x01\x04\x07\x01\x93\x01\x01\x91"};
    size_t held = mallinfo2().uordblks + mallinfo2().hblkhd;
    size_t taken = mallinfo2().arena;

    for (size_t i = 0; i < sizeof(promises) / sizeof(promises[0]); i++) {
        for (size_t k = 0; k < sizeof(before) / sizeof(before[0]); k++) {
            size_t len = strlen(before[k]);
            memcpy(buf, before[k], len);
            memcpy(buf + len, promises[i], strlen(promises[i]));
            len += strlen(promises[i]);
            assert_false(wire_scan_is_sound(buf, len));
            assert_int_equal(check_request(buf, len, 0), -EBADMSG);
            assert_int_equal(check_reply(buf, len, 0), -EBADMSG);
            /* And with as many bytes after it as a frame can have. */
            memset(buf + len, 1, sizeof(buf) - len);
            assert_int_equal(check_request(buf, sizeof(buf), 0), -EBADMSG);
        }
    }
    assert_true(mallinfo2().uordblks + mallinfo2().hblkhd <= held + 1024);
    assert_true(mallinfo2().arena <= taken + 256 * 1024);
}

static void test_too_long(void **state)
{
    (void)state;
    static unsigned char large[WIRE_MAX_HEADER_BYTES + 1];
    struct sample sample = pack_sample(5);

    memcpy(large, buf, sample.len);
    assert_int_equal(check_request(large, sizeof(large), 0), -EBADMSG);
    assert_int_equal(request.id, 65535);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_trailing_bytes),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_what_the_scan_refuses),
        cmocka_unit_test(test_number_of_objects),
        cmocka_unit_test(test_promises),
        cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
