/* control_message: what is written is read again, and nothing else is. */
#include "../../client/control_message.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS = 200000, CHANGES = 3 };

static int parse(struct control_message *out, const char *text)
{
    return control_parse(out, text, strlen(text));
}

static void test_there_and_back(void **state)
{
    (void)state;
    char every[256];
    for (int i = 0; i < 255; i++)
        every[i] = (char)(i + 1);
    every[255] = 0;
    struct control_text text;
    control_begin(&text, "limit");
    control_put(&text, "size", "50%");
    control_put(&text, "every", every);
    control_put(&text, "none", "");
    control_put_number(&text, "most", UINT64_MAX);
    control_put(&text, "size", "the second is not seen");
    struct control_message message;
    assert_int_equal(control_parse(&message, text.bytes, text.len), 0);
    assert_int_equal(message.version, CONTROL_VERSION);
    assert_string_equal(message.word, "limit");
    assert_int_equal(message.nfields, 5);
    assert_string_equal(control_get(&message, "size"), "50%");
    assert_string_equal(control_get(&message, "every"), every);
    assert_string_equal(control_get(&message, "none"), "");
    assert_true(control_get_number(&message, "most", 0) == UINT64_MAX);
    assert_null(control_get(&message, "siz"));
    assert_int_equal(control_get_number(&message, "size", 7), 7);
    assert_int_equal(control_get_number(&message, "none", 7), 7);
    assert_int_equal(control_get_number(&message, "absent", 7), 7);
}

/* As the header says it is written: other programs may talk to us. */
static void test_as_written(void **state)
{
    (void)state;
    struct control_text text;
    control_begin(&text, "error");
    control_put(&text, "code", "bad");
    control_put(&text, "text", "a \n%\xff~");
    static const char expected[] = "edm-control 1 error code=bad text=a%20%0A%25%FF~";
    assert_int_equal(text.len, sizeof expected - 1);
    assert_memory_equal(text.bytes, expected, sizeof expected - 1);
    struct control_message message;
    assert_int_equal(parse(&message, "edm-control 1 status"), 0);
    assert_string_equal(message.word, "status");
    assert_int_equal(message.nfields, 0);
    assert_int_equal(parse(&message, "edm-control 1 a_word9 k_1=a=b"), 0);
    assert_string_equal(control_get(&message, "k_1"), "a=b");
}

static void test_not_ours(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "edm-control",
        "edm-control ",
        "edm-control  status",
        "edm-control 1",
        "edm-control 1 ",
        "edm-control 1 Status",
        "edm-control 1 sta-tus",
        "edm-control 1  a=b",
        "edm-control 1 status ",
        "edm-control 1 status a",
        "edm-control 1 status a=b  c=d",
        "edm-control 1 status =b",
        "edm-control 1 status a-=b",
        "edm-control 1 status a=%",
        "edm-control 1 status a=%2",
        "edm-control 1 status a=%2g",
        "edm-control 1 status a=%0a",
        "edm-control 1 status a=%00",
        "edm-control 1 status a=\n",
        "edm-control 1 status a=\x80",
        "edm-control 1\nstatus",
        "edm-control x status",
        "edm-control -1 status",
        "edm-control 1x status",
        "edm-control 18446744073709551617 status",
        "edm-controls 1 status",
        "GET / HTTP/1.1",
    };
    struct control_message message;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (parse(&message, bad[i]) != -EPROTO)
            fail_msg("'%s' was taken", bad[i]);
    assert_int_equal(control_parse(&message, "edm-control 1 status\0a", 22), -EPROTO);
}

static void test_another_version(void **state)
{
    (void)state;
    struct control_message message;
    assert_int_equal(parse(&message, "edm-control 2 anything \x01 that there may be"), 0);
    assert_int_equal(message.version, 2);
    assert_null(message.word);
    assert_int_equal(message.nfields, 0);
    assert_int_equal(parse(&message, "edm-control 0"), 0);
    assert_null(message.word);
}

static void test_sizes(void **state)
{
    (void)state;
    static char bytes[CONTROL_MESSAGE_BYTES + 1];
    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes, "edm-control 1 word k=", 21);
    static struct control_message message;
    assert_int_equal(control_parse(&message, bytes, CONTROL_MESSAGE_BYTES), 0);
    assert_int_equal(strlen(control_get(&message, "k")), CONTROL_MESSAGE_BYTES - 21);
    assert_int_equal(control_parse(&message, bytes, CONTROL_MESSAGE_BYTES + 1), -EPROTO);
    /* Fields beyond the last that is kept are passed over, but must be right. */
    struct control_text text;
    control_begin(&text, "word");
    for (int i = 0; i < CONTROL_FIELDS + 5; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        control_put_number(&text, key, (uint64_t)i);
    }
    assert_int_equal(control_parse(&message, text.bytes, text.len), 0);
    assert_int_equal(message.nfields, CONTROL_FIELDS);
    assert_int_equal(control_get_number(&message, "k31", 0), 31);
    assert_null(control_get(&message, "k32"));
    text.bytes[text.len - 1] = ' ';
    assert_int_equal(control_parse(&message, text.bytes, text.len), -EPROTO);
}

/* What does not fit is cut, and the message stays whole. */
static void test_too_much_to_say(void **state)
{
    (void)state;
    static char value[2 * CONTROL_MESSAGE_BYTES];
    static struct control_message message;
    for (size_t len = CONTROL_MESSAGE_BYTES - 40; len < CONTROL_MESSAGE_BYTES + 10; len++)
        for (char fill = ' '; fill <= '!'; fill++) {
            struct control_text text;
            memset(value, fill, len);
            value[len] = 0;
            control_begin(&text, "word");
            control_put(&text, "first", value);
            control_put(&text, "second", value);
            assert_true(text.len <= CONTROL_MESSAGE_BYTES);
            assert_int_equal(control_parse(&message, text.bytes, text.len), 0);
            const char *first = control_get(&message, "first");
            assert_non_null(first);
            assert_int_equal(strspn(first, fill == ' ' ? " " : "!"), strlen(first));
            assert_true(strlen(first) > CONTROL_MESSAGE_BYTES / 4);
        }
}

/* Whatever comes, no word or key is taken that must not be one, and no byte read that is not there
 * (under the sanitizers). */
static void test_damaged(void **state)
{
    (void)state;
    static const char good[] = "edm-control 1 limit size=50%25 wait_ms=60000 text=a%20b";
    static struct control_message message;
    uint64_t random = 4711;
    unsigned taken = 0;
    for (int i = 0; i < ROUNDS; i++) {
        char bytes[sizeof good];
        memcpy(bytes, good, sizeof good);
        for (int n = 0; n < CHANGES; n++)
            bytes[test_random(&random) % (sizeof good - 1)] = (char)test_random(&random);
        size_t len = test_random(&random) % sizeof good;
        if (control_parse(&message, bytes, len) || !message.word)
            continue;
        taken++;
        assert_true(message.word[0] != 0 && message.nfields <= 3);
        for (size_t n = 0; n < message.nfields; n++)
            assert_true(message.fields[n].key[0] != 0 && !strchr(message.fields[n].key, ' '));
    }
    assert_true(taken > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_as_written),
        cmocka_unit_test(test_not_ours),       cmocka_unit_test(test_another_version),
        cmocka_unit_test(test_sizes),          cmocka_unit_test(test_too_much_to_say),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
