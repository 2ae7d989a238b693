/* The worked examples of PROTOCOL.md are what the code makes, and the code reads them. With
 * "--print" it prints them as they have to stand there. */
#include "examples.h"

#include <endian.h>
#include <inttypes.h>
#include <lz4.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

static char *document;
static struct example example;

static int read_document(void **state)
{
    (void)state;
    FILE *file = fopen(EDM_PROTOCOL_MD, "r");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return -1;
    long len = ftell(file);
    if (len <= 0 || fseek(file, 0, SEEK_SET) != 0)
        return -1;
    document = calloc(1, (size_t)len + 1);
    size_t got = document ? fread(document, 1, (size_t)len, file) : 0;
    fclose(file);
    return got == (size_t)len ? 0 : -1;
}

static int free_document(void **state)
{
    (void)state;
    free(document);
    return 0;
}

/* Where the lines of the block ```hex NAME begin; NULL if there is none. */
static const char *find_block(const char *name)
{
    char fence[96];

    snprintf(fence, sizeof(fence), "\n```hex %s\n", name);
    const char *at = strstr(document, fence);
    return at ? at + strlen(fence) : NULL;
}

static int digit_of(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* The bytes of a block, comments left out. */
static size_t read_block(const char *name, unsigned char *out, size_t cap)
{
    const char *at = find_block(name);
    size_t len = 0;

    if (!at)
        fail_msg("PROTOCOL.md has no example %s", name);
    while (at[0] != '`') {
        if (at[0] == '#') {
            at = strchr(at, '\n');
        } else if (at[0] == ' ' || at[0] == '\n') {
            at++;
        } else {
            int high = digit_of(at[0]);
            int low = digit_of(at[1]);
            if (high < 0 || low < 0 || len == cap)
                fail_msg("example %s: not hexadecimal: %.20s", name, at);
            out[len++] = (unsigned char)(high * 16 + low);
            at += 2;
        }
    }
    return len;
}

static void test_examples_stand_in_the_document(void **state)
{
    (void)state;
    static unsigned char bytes[WIRE_MAX_HEADER_BYTES];
    char body_name[64];

    for (int i = 0; i < examples_count(); i++) {
        assert_int_equal(examples_make(&example, i), 0);
        size_t len = read_block(example.name, bytes, sizeof(bytes));
        if (len != example.header_bytes || memcmp(bytes, example.header, len) != 0)
            fail_msg("example %s differs: see proto_test_document --print", example.name);
        snprintf(body_name, sizeof(body_name), "%s-body", example.name);
        if (example.body_bytes == 0) {
            assert_null(find_block(body_name));
            continue;
        }
        len = read_block(body_name, bytes, sizeof(bytes));
        if (len != example.body_bytes || memcmp(bytes, example.body, len) != 0)
            fail_msg("example %s differs: see proto_test_document --print", body_name);
    }
}

static void test_document_has_no_other_examples(void **state)
{
    (void)state;
    int nblocks = 0;
    int expected = 0;

    for (const char *at = strstr(document, "```hex "); at; at = strstr(at + 1, "```hex "))
        nblocks++;
    for (int i = 0; i < examples_count(); i++) {
        assert_int_equal(examples_make(&example, i), 0);
        expected += example.body_bytes ? 2 : 1;
    }
    assert_int_equal(nblocks, expected);
}

static void test_examples_are_understood(void **state)
{
    (void)state;
    static struct wire_request request;
    static struct wire_reply reply;

    for (int i = 0; i < examples_count(); i++) {
        assert_int_equal(examples_make(&example, i), 0);
        int err = strstr(example.name, "request")
                      ? wire_unpack_request(&request, example.header, example.header_bytes,
                                            example.body_bytes)
                      : wire_unpack_reply(&reply, example.header, example.header_bytes,
                                          example.body_bytes);
        if (err != 0)
            fail_msg("example %s: %d", example.name, err);
    }
}

static void test_lz4_example_decodes(void **state)
{
    (void)state;
    char page[WIRE_PAGE_BYTES];
    unsigned char expected[WIRE_PAGE_BYTES];
    size_t len;
    const unsigned char *block = examples_lz4(&len);

    assert_int_equal(LZ4_decompress_safe((const char *)block, page, (int)len, sizeof(page)),
                     WIRE_PAGE_BYTES);
    examples_page(expected);
    assert_memory_equal(page, expected, sizeof(page));
}

static uint64_t weigh(uint64_t extent, uint64_t store)
{
    uint64_t pair[2] = {htole64(extent), htole64(store)};

    return XXH3_64bits(pair, sizeof(pair));
}

/* Lines "| extent | store | weight |", the weight in hexadecimal. */
static void test_weights_of_the_document(void **state)
{
    (void)state;
    int nlines = 0;

    for (const char *at = strchr(document, '\n'); at; at = strchr(at + 1, '\n')) {
        uint64_t extent, store, weight;
        if (sscanf(at, "\n| %" SCNu64 " | %" SCNu64 " | 0x%" SCNx64 " |", &extent, &store,
                   &weight) != 3)
            continue;
        if (weigh(extent, store) != weight)
            fail_msg("weight of (%" PRIu64 ", %" PRIu64 ") is 0x%016" PRIx64, extent, store,
                     weigh(extent, store));
        nlines++;
    }
    assert_int_equal(nlines, 6);
}

static int print_examples(void)
{
    for (int i = 0; i < examples_count(); i++) {
        if (examples_make(&example, i) != 0)
            return 1;
        examples_print(&example, stdout);
        printf("\n");
    }
    for (uint64_t extent = 7; extent < 9; extent++) {
        for (uint64_t store = 1; store <= 3; store++)
            printf("| %" PRIu64 " | %" PRIu64 " | 0x%016" PRIx64 " |\n", extent, store,
                   weigh(extent, store));
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_stand_in_the_document),
        cmocka_unit_test(test_document_has_no_other_examples),
        cmocka_unit_test(test_examples_are_understood),
        cmocka_unit_test(test_lz4_example_decodes),
        cmocka_unit_test(test_weights_of_the_document),
    };
    if (argc == 2 && strcmp(argv[1], "--print") == 0)
        return print_examples();
    return cmocka_run_group_tests(tests, read_document, free_document);
}
