/*
 * wire_scan: a first look at a header's bytes, before anything is decoded.
 *
 * Walks the bytes once, with a stack of fixed size and without memory of its own. What passes can
 * be given to the MessagePack library: no length in it promises more than the bytes that follow,
 * and its objects are few enough that decoding it takes little memory.
 *
 * Thread: none; pure.
 */
#ifndef EDM_PROTO_WIRE_SCAN_H
#define EDM_PROTO_WIRE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_SCAN_MAX_DEPTH = 4,      /* header, its parameters, a list in them, an entry of the list */
    WIRE_SCAN_MAX_OBJECTS = 2048, /* the largest message, 256 pages, has 1,546 */
};

/* What every version's header begins with; 0 for what could not be read. */
struct wire_prefix {
    uint64_t version;
    uint8_t method;
    uint64_t id;
};

/* Reads the beginning of a header, whatever follows it. Returns whether all of it is there. */
bool wire_scan_prefix(struct wire_prefix *out, const void *buf, size_t len);

/* Whether BUF is one whole object of arrays, unsigned integers and strings, within the bounds
 * above, and nothing after it. */
bool wire_scan_is_sound(const void *buf, size_t len);

#endif
