#include "wire_text.h"

#include "wire.h"

#include <stdint.h>
#include <string.h>

/* The form of a character's first byte, and the least code point that needs so many bytes. */
struct utf8_form {
    uint8_t mask, bits, len;
    uint32_t least;
};

static const struct utf8_form forms[] = {
    {0x80, 0x00, 1, 0},
    {0xe0, 0xc0, 2, 0x80},
    {0xf0, 0xe0, 3, 0x800},
    {0xf8, 0xf0, 4, 0x10000},
};

static bool is_printable(uint32_t point)
{
    if (point < 0x20 || (point >= 0x7f && point < 0xa0))
        return false; /* control characters */
    if (point == 0x2028 || point == 0x2029)
        return false; /* line and paragraph separators */
    if (point >= 0x202a && point <= 0x202e)
        return false; /* change the direction of what follows */
    return (point < 0xd800 || point > 0xdfff) && point <= 0x10ffff;
}

/* The length of the printable character at TEXT, 0 if there is none. */
static size_t measure_character(const char *text, size_t len)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const struct utf8_form *form = &forms[i];
        uint8_t first = (uint8_t)text[0];
        if ((first & form->mask) != form->bits)
            continue;
        if (form->len > len)
            return 0;
        uint32_t point = first & (uint8_t)~form->mask;
        for (size_t k = 1; k < form->len; k++) {
            if (((uint8_t)text[k] & 0xc0) != 0x80)
                return 0;
            point = point << 6 | ((uint8_t)text[k] & 0x3f);
        }
        return point >= form->least && is_printable(point) ? form->len : 0;
    }
    return 0;
}

bool wire_text_is_name(const char *text, size_t len)
{
    if (len < 1 || len > WIRE_MAX_NAME_BYTES)
        return false;
    for (size_t i = 0; i < len;) {
        size_t step = measure_character(text + i, len - i);
        if (step == 0 || text[i] == '/')
            return false;
        i += step;
    }
    return true;
}

bool wire_name_is_valid(const char *name)
{
    return wire_text_is_name(name, strnlen(name, WIRE_MAX_NAME_BYTES + 1));
}

void wire_text_copy_printable(char *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t step = measure_character(text + i, len - i);
        if (step == 0) {
            out[i++] = '?';
            continue;
        }
        memcpy(out + i, text + i, step);
        i += step;
    }
    out[len] = '\0';
}
