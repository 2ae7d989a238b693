#include "examples.h"

#include <inttypes.h>
#include <string.h>

#define REGION 0x5eed5eed5eed0001u
#define PAGE 0x7f3a1c000u

static const unsigned char fill[8] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf0, 0x3f};
static const unsigned char lz4[] = {0x3f, 0x45, 0x44, 0x4d, 0x03, 0x00, 0xff, 0xff, 0xff, 0xff,
                                    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                    0xff, 0xf4, 0x50, 0x4d, 0x45, 0x44, 0x4d, 0x45};

const unsigned char *examples_lz4(size_t *len_bytes)
{
    *len_bytes = sizeof(lz4);
    return lz4;
}

void examples_page(unsigned char *out)
{
    for (size_t i = 0; i < WIRE_PAGE_BYTES; i++)
        out[i] = (unsigned char)"EDM"[i % 3];
}

static void add_page(struct example *example, struct wire_page *page, uint8_t encoding)
{
    const unsigned char *bytes = encoding == WIRE_FILL ? fill : lz4;
    size_t len = encoding == WIRE_FILL ? sizeof(fill) : sizeof(lz4);

    page->encoding = encoding;
    page->length_bytes = (uint32_t)len;
    page->checksum = wire_checksum(page->page, bytes, len);
    memcpy(example->body + example->body_bytes, bytes, len);
    example->body_bytes += len;
}

static int pack_request(struct example *example, const struct wire_request *msg)
{
    ssize_t len = wire_pack_request(msg, example->header, sizeof(example->header));

    example->header_bytes = len > 0 ? (size_t)len : 0;
    return len > 0 ? 0 : (int)len;
}

static int pack_reply(struct example *example, const struct wire_reply *msg)
{
    ssize_t len = wire_pack_reply(msg, example->header, sizeof(example->header));

    example->header_bytes = len > 0 ? (size_t)len : 0;
    return len > 0 ? 0 : (int)len;
}

static int hello_request(struct example *example)
{
    struct wire_request msg = {.method = WIRE_HELLO,
                               .id = 1,
                               .deadline_ms = 5000,
                               .version_min = 1,
                               .version_max = 1,
                               .name = "example"};
    return pack_request(example, &msg);
}

static int hello_reply(struct example *example)
{
    struct wire_reply msg = {.method = WIRE_HELLO,
                             .id = 1,
                             .version = 1,
                             .store = 0x1122334455667788,
                             .instance = 0x99aabbccddeeff00,
                             .shard = 0,
                             .nshards = 3,
                             .max_pages = 256};
    return pack_reply(example, &msg);
}

static int open_request(struct example *example)
{
    struct wire_request msg = {.method = WIRE_OPEN, .id = 2, .deadline_ms = 5000, .name = "sort-1"};
    return pack_request(example, &msg);
}

static int open_reply(struct example *example)
{
    struct wire_reply msg = {.method = WIRE_OPEN, .id = 2, .region = REGION, .epoch = 1};
    return pack_reply(example, &msg);
}

static int put_request(struct example *example)
{
    static struct wire_request msg;

    msg = (struct wire_request){.method = WIRE_PAGE_PUT, .id = 300, .region = REGION, .epoch = 1};
    msg.npages = 2;
    msg.pages[0] = (struct wire_page){.page = PAGE, .sequence = 1};
    msg.pages[1] = (struct wire_page){.page = PAGE + 1, .sequence = 2};
    add_page(example, &msg.pages[0], WIRE_FILL);
    add_page(example, &msg.pages[1], WIRE_LZ4);
    return pack_request(example, &msg);
}

static int put_reply(struct example *example)
{
    struct wire_reply msg = {.method = WIRE_PAGE_PUT, .id = 300};
    return pack_reply(example, &msg);
}

static int get_request(struct example *example)
{
    static struct wire_request msg;

    msg = (struct wire_request){.method = WIRE_PAGE_GET, .id = 301, .region = REGION, .epoch = 1};
    msg.npages = 4;
    msg.pages[0].page = 5;
    for (uint32_t i = 1; i < 4; i++)
        msg.pages[i].page = PAGE - 1 + i;
    return pack_request(example, &msg);
}

static int get_reply(struct example *example)
{
    static struct wire_reply msg;

    msg = (struct wire_reply){.method = WIRE_PAGE_GET, .id = 301, .npages = 4};
    msg.pages[0] = (struct wire_page){.page = 5, .encoding = WIRE_ABSENT};
    msg.pages[1] = (struct wire_page){.page = PAGE, .sequence = 1};
    msg.pages[2] = (struct wire_page){.page = PAGE + 1, .sequence = 2};
    msg.pages[3] = (struct wire_page){.page = PAGE + 2, .encoding = WIRE_ABSENT};
    add_page(example, &msg.pages[1], WIRE_FILL);
    add_page(example, &msg.pages[2], WIRE_LZ4);
    return pack_reply(example, &msg);
}

static int drop_request(struct example *example)
{
    static struct wire_request msg;

    msg = (struct wire_request){.method = WIRE_PAGE_DROP,
                                .id = 302,
                                .region = REGION,
                                .epoch = 1,
                                .sequence = 2,
                                .nranges = 1};
    msg.ranges[0] = (struct wire_range){PAGE, 1048576};
    return pack_request(example, &msg);
}

static int fenced_reply(struct example *example)
{
    struct wire_reply msg = {.method = WIRE_PAGE_DROP,
                             .id = 302,
                             .status = WIRE_FAILED_PRECONDITION,
                             .detail = "FENCED: epoch 1, now 2"};
    return pack_reply(example, &msg);
}

static int list_request(struct example *example)
{
    struct wire_request msg = {.method = WIRE_LIST, .id = 303};
    return pack_request(example, &msg);
}

static int list_reply(struct example *example)
{
    static struct wire_reply msg;

    msg = (struct wire_reply){.method = WIRE_LIST, .id = 303, .nregions = 2};
    msg.regions[0] = (struct wire_region_info){"sort-1", REGION, 0, 2, 2, 2, 0};
    msg.regions[1] =
        (struct wire_region_info){"sort-1@noon", REGION + 1, REGION, 1, 2, 2, WIRE_REGION_FROZEN};
    return pack_reply(example, &msg);
}

static const struct {
    const char *name;
    int (*make)(struct example *example);
} makers[] = {
    {"hello-request", hello_request}, {"hello-reply", hello_reply},
    {"open-request", open_request},   {"open-reply", open_reply},
    {"put-request", put_request},     {"put-reply", put_reply},
    {"get-request", get_request},     {"get-reply", get_reply},
    {"drop-request", drop_request},   {"fenced-reply", fenced_reply},
    {"list-request", list_request},   {"list-reply", list_reply},
};

int examples_count(void)
{
    return (int)(sizeof(makers) / sizeof(makers[0]));
}

int examples_make(struct example *out, int number)
{
    memset(out, 0, sizeof(*out));
    out->name = makers[number].name;
    return makers[number].make(out);
}

/* How the object at BYTES is printed: its bytes before the elements it holds, and its value. */
static size_t measure_object(const unsigned char *bytes, char *value, size_t cap, size_t *nelements)
{
    static const size_t widths[4] = {1, 2, 4, 8};
    unsigned first = bytes[0];

    *nelements = 0;
    if ((first & 0xf0) == 0x90) {
        *nelements = first & 0x0f;
        snprintf(value, cap, "array of %zu", *nelements);
        return 1;
    }
    if ((first & 0xe0) == 0xa0) {
        snprintf(value, cap, "\"%.*s\"", (int)(first & 0x1f), (const char *)bytes + 1);
        return 1 + (first & 0x1f);
    }
    size_t width = first < 0x80 ? 0 : widths[first - 0xcc];
    uint64_t number = width == 0 ? first : 0;
    for (size_t i = 0; i < width; i++)
        number = number << 8 | bytes[1 + i];
    snprintf(value, cap, "%" PRIu64, number);
    return 1 + width;
}

static void print_bytes(const unsigned char *bytes, size_t len, FILE *out)
{
    for (size_t i = 0; i < len; i++)
        fprintf(out, "%s%02x", i ? " " : "", bytes[i]);
}

/* Prints one object with all it holds; returns its length. */
static size_t print_object(const unsigned char *bytes, int depth, FILE *out)
{
    char value[300];
    size_t nelements;
    size_t len = measure_object(bytes, value, sizeof(value), &nelements);
    int used = depth * 2 + (int)len * 3;

    fprintf(out, "%*s", depth * 2, "");
    print_bytes(bytes, len, out);
    fprintf(out, "%*s# %s\n", used < 40 ? 40 - used : 1, "", value);
    for (size_t i = 0; i < nelements; i++)
        len += print_object(bytes + len, depth + 1, out);
    return len;
}

void examples_print(const struct example *example, FILE *out)
{
    fprintf(out, "```hex %s\n", example->name);
    print_object(example->header, 0, out);
    fprintf(out, "```\n");
    if (example->body_bytes == 0)
        return;
    fprintf(out, "```hex %s-body\n", example->name);
    for (size_t i = 0; i < example->body_bytes; i += 16) {
        size_t left = example->body_bytes - i;
        print_bytes(example->body + i, left < 16 ? left : 16, out);
        fprintf(out, "\n");
    }
    fprintf(out, "```\n");
}
