/*
 * control_message: what is said over the control socket of a running client.
 *
 * A message is one SOCK_SEQPACKET packet of text: "edm-control VERSION WORD KEY=VALUE ...", the
 * parts each separated by one space. VERSION is 1. WORD is a request's verb or a reply's outcome;
 * words and keys are small letters, digits and "_". In a value each byte that is not a printable
 * ASCII character, and each space and "%", is written %XX. New verbs, outcomes and keys may come
 * with the same version; who does not know a key passes over it.
 *
 *     status                                  what runs here
 *     limit size=SIZE wait_ms=MS              another budget; the reply comes when it is kept
 *
 *     ok ...                                  done
 *     late, replaced, ended ...               to limit: not kept within that time, another one was
 *                                             asked for meanwhile, the program has ended
 *     error code=CODE text=TEXT               nothing was done; CODE: version, unknown, bad, denied
 *                                             or busy
 *
 * A pure module. Thread: any.
 */
#ifndef EDM_CLIENT_CONTROL_MESSAGE_H
#define EDM_CLIENT_CONTROL_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CONTROL_VERSION = 1,
    CONTROL_MESSAGE_BYTES = 4096, /* the longest */
    CONTROL_FIELDS = 32,          /* of one message; more are passed over */
};

/* One to be sent. */
struct control_text {
    char bytes[CONTROL_MESSAGE_BYTES];
    size_t len;
};

void control_begin(struct control_text *text, const char *word);
/* A value that does not fit any more is cut short, a key left out. */
void control_put(struct control_text *text, const char *key, const char *value);
void control_put_number(struct control_text *text, const char *key, uint64_t number);

/* One that has come. */
struct control_message {
    uint64_t version;
    const char *word; /* NULL where the version is not ours: nothing more is known then */
    struct {
        const char *key, *value;
    } fields[CONTROL_FIELDS];
    size_t nfields;
    char bytes[CONTROL_MESSAGE_BYTES + 1]; /* what the above points into */
};

/* 0, or -EPROTO: no such message. */
int control_parse(struct control_message *out, const char *bytes, size_t len)
    __attribute__((warn_unused_result));

/* The first with that key. NULL, or DEFAULT where there is none or it is no number. */
const char *control_get(const struct control_message *message, const char *key);
uint64_t control_get_number(const struct control_message *message, const char *key,
                            uint64_t otherwise);

#endif
