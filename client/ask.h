/*
 * ask: --mode=limit and --mode=status: asks running clients for something.
 *
 * Thread: main.
 */
#ifndef EDM_CLIENT_ASK_H
#define EDM_CLIENT_ASK_H

#include "../ini/config.h"

#include <stdio.h>

enum ask_result {
    ASK_DONE = 0,
    ASK_NOT_KEPT = 1,  /* the budget was set, but is not kept within the time, or not any more */
    ASK_NO_REGION = 2, /* none of that name, or several: nothing was done */
    ASK_ENDED = 3,     /* the run ended meanwhile */
    ASK_FAILED = 125,
};

/* Sets another budget and waits until it is kept. What came of it is written to OUT, or, when that
 * is not what was asked for, logged as what ends the run. */
enum ask_result ask_limit(const struct ask_config *config, FILE *out);

/* Writes a line for each running client, or the one asked for, to OUT. */
enum ask_result ask_status(const struct ask_config *config, FILE *out);

#endif
