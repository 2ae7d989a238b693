/*
 * config_file: reads an ini file into a configuration.
 *
 * Thread: whoever calls; nothing is kept between calls.
 */
#ifndef EDM_INI_CONFIG_FILE_H
#define EDM_INI_CONFIG_FILE_H

#include "config.h"

#include <stddef.h>
#include <stdint.h>

/* Stores what the file at PATH says over what CONFIG holds, and in LINES, which has
 * CONFIG_MAX_OPTIONS zeros, where: the line of each row of config_options (config_option.h).
 * Returns 0, or -errno with ERROR holding the line to print; CONFIG may have been changed then, and
 * still needs config_clear(). */
int config_file_read(struct config *config, const char *path, uint32_t *lines, char *error,
                     size_t error_cap) __attribute__((warn_unused_result));

#endif
