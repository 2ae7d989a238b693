/*
 * check: looks through the files of a DMS that is not running, says what is damaged and whose pages
 * that were, and makes it servable again.
 *
 * Thread: the main thread's; reading uses threads of its own and waits for them.
 */
#ifndef EDM_DMS_CHECK_H
#define EDM_DMS_CHECK_H

#include <stdbool.h>
#include <stdio.h>

enum check_result {
    CHECK_SOUND = 0, /* nothing is damaged, or nothing any more */
    CHECK_DAMAGED = 1,
    CHECK_FAILED = 125 /* in use, not a store, of an unknown format, or cannot be read */
};

/* Checks the store in DIR and writes what it finds to OUT: a line for each damage, and a summary.
 * Nothing is written to DIR unless REPAIR, and then only where there is damage. What prevents a
 * check goes to the log. */
enum check_result check_run(const char *dir, bool repair, FILE *out);

#endif
