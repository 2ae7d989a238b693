/*
 * wire_bounds: the bounds of every field, in one place for both directions.
 *
 * Packing checks a message before its bytes are written, unpacking after they are read, so neither
 * side can send what the other would refuse.
 *
 * Thread: none; pure.
 */
#ifndef EDM_PROTO_WIRE_BOUNDS_H
#define EDM_PROTO_WIRE_BOUNDS_H

#include "wire.h"

/* Whether the fields MSG's method uses are inside their bounds. Counts are checked before what they
 * count is read. */
bool wire_bounds_hold_request(const struct wire_request *msg);
bool wire_bounds_hold_reply(const struct wire_reply *msg);

/* The bytes of the body frame that belongs to MSG, whose bounds hold. */
size_t wire_bounds_request_body(const struct wire_request *msg);
size_t wire_bounds_reply_body(const struct wire_reply *msg);

#endif
