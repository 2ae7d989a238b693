/*
 * wire_reader: reads the elements of a decoded MessagePack array one after the other.
 *
 * The first element that is not what was asked for makes the reader bad; from then on it yields
 * zeros and empty lists. So it is enough to ask once, at the end, with wire_reader_is_done().
 *
 * Thread: none; works on its arguments alone.
 */
#ifndef EDM_PROTO_WIRE_READER_H
#define EDM_PROTO_WIRE_READER_H

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

struct wire_reader {
    const msgpack_object *at;
    uint32_t left;
    bool is_bad;
};

/* A reader of OBJECT's elements; bad when it is NULL or no array. */
struct wire_reader wire_reader_of(const msgpack_object *object);

/* The next element, whatever it is; NULL when there is none or the reader is bad. */
const msgpack_object *wire_reader_next(struct wire_reader *reader);

/* Whether everything was as asked for and nothing is left. */
bool wire_reader_is_done(const struct wire_reader *reader);

uint64_t wire_reader_u64(struct wire_reader *reader);
uint32_t wire_reader_u32(struct wire_reader *reader);
uint8_t wire_reader_u8(struct wire_reader *reader);

/* A text of at most MOST bytes; NULL when bad. */
const msgpack_object_str *wire_reader_text(struct wire_reader *reader, uint32_t most);

/* A name, or the empty text where MAY_BE_EMPTY. OUT: WIRE_MAX_NAME_BYTES + 1 bytes, written when it
 * is a name. */
void wire_reader_name(struct wire_reader *reader, bool may_be_empty, char *out);

/* A reader of an array of at most MOST elements. When it was read, wire_reader_end_list() passes
 * what was wrong with it on to the reader it came from. */
struct wire_reader wire_reader_list(struct wire_reader *reader, uint32_t most);
void wire_reader_end_list(struct wire_reader *reader, const struct wire_reader *list);

#endif
