#include "wire_reader.h"

#include "wire.h"
#include "wire_text.h"

#include <string.h>

struct wire_reader wire_reader_of(const msgpack_object *object)
{
    if (!object || object->type != MSGPACK_OBJECT_ARRAY)
        return (struct wire_reader){.is_bad = true};
    return (struct wire_reader){object->via.array.ptr, object->via.array.size, false};
}

const msgpack_object *wire_reader_next(struct wire_reader *reader)
{
    if (reader->is_bad || reader->left == 0) {
        reader->is_bad = true;
        return NULL;
    }
    reader->left--;
    return reader->at++;
}

bool wire_reader_is_done(const struct wire_reader *reader)
{
    return !reader->is_bad && reader->left == 0;
}

/* A number of at most MOST. */
static uint64_t take_number(struct wire_reader *reader, uint64_t most)
{
    const msgpack_object *object = wire_reader_next(reader);

    if (!object || object->type != MSGPACK_OBJECT_POSITIVE_INTEGER || object->via.u64 > most) {
        reader->is_bad = true;
        return 0;
    }
    return object->via.u64;
}

uint64_t wire_reader_u64(struct wire_reader *reader)
{
    return take_number(reader, UINT64_MAX);
}

uint32_t wire_reader_u32(struct wire_reader *reader)
{
    return (uint32_t)take_number(reader, UINT32_MAX);
}

uint8_t wire_reader_u8(struct wire_reader *reader)
{
    return (uint8_t)take_number(reader, UINT8_MAX);
}

const msgpack_object_str *wire_reader_text(struct wire_reader *reader, uint32_t most)
{
    const msgpack_object *object = wire_reader_next(reader);

    if (!object || object->type != MSGPACK_OBJECT_STR || object->via.str.size > most) {
        reader->is_bad = true;
        return NULL;
    }
    return &object->via.str;
}

void wire_reader_name(struct wire_reader *reader, bool may_be_empty, char *out)
{
    const msgpack_object_str *text = wire_reader_text(reader, WIRE_MAX_NAME_BYTES);

    if (!text || (text->size == 0 && may_be_empty))
        return;
    /* Checked here: a 0 byte inside it would hide the rest from a later look. */
    if (!wire_text_is_name(text->ptr, text->size)) {
        reader->is_bad = true;
        return;
    }
    memcpy(out, text->ptr, text->size);
    out[text->size] = '\0';
}

struct wire_reader wire_reader_list(struct wire_reader *reader, uint32_t most)
{
    struct wire_reader list = wire_reader_of(wire_reader_next(reader));

    if (list.is_bad || list.left > most) {
        reader->is_bad = true;
        return (struct wire_reader){.is_bad = true};
    }
    return list;
}

void wire_reader_end_list(struct wire_reader *reader, const struct wire_reader *list)
{
    if (!wire_reader_is_done(list))
        reader->is_bad = true;
}
