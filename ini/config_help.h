/*
 * config_help: what --help prints, made from the table of options.
 *
 * Thread: any; nothing is kept.
 */
#ifndef EDM_INI_CONFIG_HELP_H
#define EDM_INI_CONFIG_HELP_H

#include "config.h"

#include <stdio.h>

/* The usage and every mode's options. */
void config_help_all(FILE *out);

/* One mode's usage and options. */
void config_help_mode(FILE *out, enum config_mode mode);

#endif
