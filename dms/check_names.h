/*
 * check_names: files in the directory of a shard that are not EDM's.
 *
 * Thread: any.
 */
#ifndef EDM_DMS_CHECK_NAMES_H
#define EDM_DMS_CHECK_NAMES_H

#include <stdio.h>

/* Writes a line to OUT for each file in DIR that EDM does not know and leaves alone. */
void check_names_say(const char *dir, FILE *out);

#endif
