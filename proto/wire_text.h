/*
 * wire_text: which text may stand in a message: printable UTF-8.
 *
 * Names come from the network and go into log lines and terminals, so nothing that moves a cursor
 * or ends a line may pass.
 *
 * Thread: none; pure.
 */
#ifndef EDM_PROTO_WIRE_TEXT_H
#define EDM_PROTO_WIRE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Whether LEN bytes are a name, as wire_name_is_valid() says. TEXT need not end with 0. */
bool wire_text_is_name(const char *text, size_t len);

/* Copies LEN bytes of TEXT to OUT (LEN + 1 bytes, ended with 0); whatever is not printable UTF-8
 * becomes '?', byte by byte. */
void wire_text_copy_printable(char *out, const char *text, size_t len);

#endif
