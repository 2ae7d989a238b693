#include "wire_scan.h"

enum kind { KIND_NUMBER, KIND_SIGNED, KIND_TEXT, KIND_ARRAY };

struct cursor {
    const uint8_t *at;
    size_t left;
};

struct token {
    enum kind kind;
    uint64_t value; /* the number, the bytes of text, the elements of the array */
};

/* What follows the first bytes from 0xc0 to 0xdf: a big-endian number of so many bytes; none: the
 * first byte is none of ours. */
struct wide_form {
    uint8_t width;
    enum kind kind;
};

/* clang-format off */
static const struct wide_form wide_forms[0x20] = {
    [0x0c] = {1, KIND_NUMBER}, [0x0d] = {2, KIND_NUMBER}, [0x0e] = {4, KIND_NUMBER}, [0x0f] = {8, KIND_NUMBER},
    [0x10] = {1, KIND_SIGNED}, [0x11] = {2, KIND_SIGNED}, [0x12] = {4, KIND_SIGNED}, [0x13] = {8, KIND_SIGNED},
    [0x19] = {1, KIND_TEXT},   [0x1a] = {2, KIND_TEXT},   [0x1b] = {4, KIND_TEXT},
    [0x1c] = {2, KIND_ARRAY},  [0x1d] = {4, KIND_ARRAY},
};
/* clang-format on */

static bool read_wide(struct cursor *cursor, uint8_t first, struct token *out)
{
    const struct wide_form *form = &wide_forms[first & 0x1f];
    uint64_t value = 0;

    if (first < 0xc0 || first > 0xdf || form->width == 0 || form->width > cursor->left)
        return false;
    for (size_t k = 0; k < form->width; k++)
        value = value << 8 | cursor->at[k];
    /* Some packers use the signed forms for every number: good if not negative. */
    if (form->kind == KIND_SIGNED && (cursor->at[0] & 0x80))
        return false;
    *out = (struct token){form->kind == KIND_SIGNED ? KIND_NUMBER : form->kind, value};
    cursor->at += form->width;
    cursor->left -= form->width;
    return true;
}

/* Reads one token; the bytes of a text are passed over. Any promise it makes about what follows
 * fits into the bytes left (an array's element takes at least one). */
static bool read_token(struct cursor *cursor, struct token *out)
{
    if (cursor->left == 0)
        return false;
    uint8_t first = cursor->at[0];
    cursor->at++;
    cursor->left--;
    if (first < 0x80)
        *out = (struct token){KIND_NUMBER, first};
    else if ((first & 0xf0) == 0x90)
        *out = (struct token){KIND_ARRAY, first & 0x0f};
    else if ((first & 0xe0) == 0xa0)
        *out = (struct token){KIND_TEXT, first & 0x1f};
    else if (!read_wide(cursor, first, out))
        return false;
    if (out->kind != KIND_NUMBER && out->value > cursor->left)
        return false;
    if (out->kind == KIND_TEXT) {
        cursor->at += out->value;
        cursor->left -= out->value;
    }
    return true;
}

static bool read_number(struct cursor *cursor, uint64_t *out)
{
    struct token token;

    if (!read_token(cursor, &token) || token.kind != KIND_NUMBER)
        return false;
    *out = token.value;
    return true;
}

bool wire_scan_prefix(struct wire_prefix *out, const void *buf, size_t len)
{
    struct cursor cursor = {buf, len};
    struct token token;
    uint64_t method;

    *out = (struct wire_prefix){0};
    if (!read_token(&cursor, &token) || token.kind != KIND_ARRAY || token.value < 3)
        return false;
    if (!read_number(&cursor, &out->version) || !read_number(&cursor, &method))
        return false;
    if (method <= UINT8_MAX)
        out->method = (uint8_t)method;
    return read_number(&cursor, &out->id);
}

bool wire_scan_is_sound(const void *buf, size_t len)
{
    struct cursor cursor = {buf, len};
    uint64_t missing[WIRE_SCAN_MAX_DEPTH + 1] = {1}; /* elements still to come, by depth */
    size_t depth = 0;
    size_t nobjects = 0;

    while (missing[0] > 0 || depth > 0) {
        if (missing[depth] == 0) {
            depth--;
            continue;
        }
        struct token token;
        if (!read_token(&cursor, &token) || ++nobjects > WIRE_SCAN_MAX_OBJECTS)
            return false;
        missing[depth]--;
        if (token.kind != KIND_ARRAY)
            continue;
        /* Counted before it is walked: a list of many is refused at its first byte. */
        if (depth == WIRE_SCAN_MAX_DEPTH || token.value > WIRE_SCAN_MAX_OBJECTS - nobjects)
            return false;
        missing[++depth] = token.value;
    }
    return cursor.left == 0;
}
