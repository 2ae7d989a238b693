/* Every method's messages come out as they went in. */
#include "samples.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned char buf[WIRE_MAX_HEADER_BYTES];
static struct wire_request request, request_back;
static struct wire_reply reply, reply_back;

static void test_requests(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REQUESTS; i++) {
        size_t body = samples_request(&request, i);
        ssize_t len = wire_pack_request(&request, buf, sizeof(buf));
        if (len <= 0)
            fail_msg("request %d: %zd", i, len);
        memset(&request_back, 0x5a, sizeof(request_back));
        int err = wire_unpack_request(&request_back, buf, (size_t)len, body);
        if (err != 0 || memcmp(&request, &request_back, offsetof(struct wire_request, pages)) != 0)
            fail_msg("request %d: %d", i, err);
        assert_memory_equal(&request, &request_back, sizeof(request));
    }
}

static void test_replies(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REPLIES; i++) {
        size_t body = samples_reply(&reply, i);
        ssize_t len = wire_pack_reply(&reply, buf, sizeof(buf));
        if (len <= 0)
            fail_msg("reply %d: %zd", i, len);
        memset(&reply_back, 0x5a, sizeof(reply_back));
        int err = wire_unpack_reply(&reply_back, buf, (size_t)len, body);
        if (err != 0)
            fail_msg("reply %d: %d", i, err);
        assert_memory_equal(&reply, &reply_back, sizeof(reply));
    }
}

static void test_every_method_has_a_sample(void **state)
{
    (void)state;
    bool has_request[WIRE_REMOVE + 1] = {false};
    bool has_reply[WIRE_REMOVE + 1] = {false};

    for (int i = 0; i < SAMPLE_REQUESTS; i++) {
        samples_request(&request, i);
        has_request[request.method] = true;
    }
    for (int i = 0; i < SAMPLE_REPLIES; i++) {
        samples_reply(&reply, i);
        if (reply.status == WIRE_OK)
            has_reply[reply.method] = true;
    }
    for (int method = WIRE_HELLO; method <= WIRE_REMOVE; method++) {
        assert_true(has_request[method]);
        assert_true(has_reply[method]);
    }
}

/* Fields that the method does not use are neither sent nor checked. */
static void test_unused_fields_are_ignored(void **state)
{
    (void)state;
    memset(&request, 0xff, sizeof(request));
    request.method = WIRE_STAT;
    request.region = 5;
    ssize_t len = wire_pack_request(&request, buf, sizeof(buf));
    assert_true(len > 0);
    assert_int_equal(wire_unpack_request(&request_back, buf, (size_t)len, 0), 0);
    assert_int_equal(request_back.region, 5);
    assert_int_equal(request_back.npages, 0);
    assert_int_equal(request_back.name[0], 0);
}

static void test_runs_are_sent_as_ranges(void **state)
{
    (void)state;
    memset(&request, 0, sizeof(request));
    request.method = WIRE_PAGE_GET;
    request.npages = WIRE_MAX_PAGES;
    for (uint32_t i = 0; i < WIRE_MAX_PAGES; i++)
        request.pages[i].page = 1000000 + i;
    assert_in_range(wire_pack_request(&request, buf, sizeof(buf)), 1, 30);
}

static void test_small_buffers(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_REPLIES; i++) {
        samples_reply(&reply, i);
        ssize_t len = wire_pack_reply(&reply, buf, sizeof(buf));
        assert_true(len > 0);
        char *exact = malloc((size_t)len);
        assert_non_null(exact);
        for (ssize_t cap = 0; cap < len; cap++)
            assert_int_equal(wire_pack_reply(&reply, exact, (size_t)cap), -ENOSPC);
        assert_int_equal(wire_pack_reply(&reply, exact, (size_t)len), len);
        free(exact);
    }
}

/* The largest header there can be leaves room in the buffer everybody uses. */
static void test_largest_headers_fit(void **state)
{
    (void)state;
    samples_reply(&reply, 9);
    for (uint32_t i = 0; i < WIRE_MAX_LISTED; i++) {
        struct wire_region_info *info = &reply.regions[i];
        memset(info->name, 'n', WIRE_MAX_NAME_BYTES);
        info->region = info->parent = info->epoch = info->sequence = info->npages = UINT64_MAX;
        info->flags = UINT32_MAX;
    }
    reply.id = UINT64_MAX;
    ssize_t listed = wire_pack_reply(&reply, buf, sizeof(buf));
    assert_true(listed > 0);
    assert_int_equal(wire_unpack_reply(&reply_back, buf, (size_t)listed, 0), 0);
    samples_request(&request, 10);
    request.id = UINT64_MAX;
    ssize_t put = wire_pack_request(&request, buf, sizeof(buf));
    assert_true(put > 0);
    assert_int_equal(wire_unpack_request(&request_back, buf, (size_t)put, WIRE_MAX_BODY_BYTES), 0);
}

static void test_detail_is_made_printable(void **state)
{
    (void)state;
    memset(&reply, 0, sizeof(reply));
    reply.method = WIRE_OPEN;
    reply.status = WIRE_NOT_FOUND;
    strcpy(reply.detail, "no 'a\x1b[2Jb' \xc3\xa4 cut \xe2\x82");
    ssize_t len = wire_pack_reply(&reply, buf, sizeof(buf));
    assert_true(len > 0);
    assert_int_equal(wire_unpack_reply(&reply_back, buf, (size_t)len, 0), 0);
    assert_string_equal(reply_back.detail, "no 'a?[2Jb' \xc3\xa4 cut ??");
}

static void test_names_of_numbers(void **state)
{
    (void)state;
    assert_string_equal(wire_status_name(WIRE_RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED");
    assert_string_equal(wire_status_name(WIRE_OK), "OK");
    assert_string_equal(wire_status_name(200), "UNKNOWN");
    assert_string_equal(wire_method_name(WIRE_PAGE_DROP), "PAGE_DROP");
    assert_string_equal(wire_method_name(0), "UNKNOWN");
    for (int method = WIRE_HELLO; method <= WIRE_REMOVE; method++)
        assert_string_not_equal(wire_method_name((uint8_t)method), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_every_method_has_a_sample),
        cmocka_unit_test(test_unused_fields_are_ignored),
        cmocka_unit_test(test_runs_are_sent_as_ranges),
        cmocka_unit_test(test_small_buffers),
        cmocka_unit_test(test_largest_headers_fit),
        cmocka_unit_test(test_detail_is_made_printable),
        cmocka_unit_test(test_names_of_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
