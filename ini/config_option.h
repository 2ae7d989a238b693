/*
 * config_option: the table of options. One row says how an option is written on the command line
 * and in the ini file, what it takes, what it is without, and where it is kept, so that --help,
 * errors and both readers cannot disagree.
 *
 * Thread: any; the table is constant.
 */
#ifndef EDM_INI_CONFIG_OPTION_H
#define EDM_INI_CONFIG_OPTION_H

#include "config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_section {
    CONFIG_SECTION_CLIENT,
    CONFIG_SECTION_DMS,
    CONFIG_SECTION_LIMIT,
    CONFIG_SECTION_LOG
};

enum { CONFIG_NSECTIONS = 4, CONFIG_MAX_OPTIONS = 64 };

enum config_kind {
    CONFIG_KIND_PATH,
    CONFIG_KIND_REGION,
    CONFIG_KIND_SIZE,       /* from min, to max unless that is 0 */
    CONFIG_KIND_MEMORY,     /* a size, or a percentage of RAM; from min */
    CONFIG_KIND_NUMBER,     /* min to max */
    CONFIG_KIND_PERCENTAGE, /* a number with or without "%" */
    CONFIG_KIND_ADDRESS,    /* of a page */
    CONFIG_KIND_LISTEN,     /* an endpoint */
    CONFIG_KIND_ENDPOINTS,  /* a list of them */
    CONFIG_KIND_LEVEL,
    CONFIG_KIND_DURABILITY,
    CONFIG_KIND_SWITCH, /* yes or no */
    CONFIG_KIND_COMPRESS,
};

struct config_option {
    const char *name;            /* "local" for --local */
    enum config_section section; /* of the ini file; options of [log] go with every mode */
    const char *key;
    const char *argument; /* "SIZE": what --help calls the value */
    const char *help;
    const char *allowed;  /* "a size such as 256M": for errors and --help */
    const char *value;    /* the default, as one would write it; NULL: see fallback */
    const char *fallback; /* words for a default that is not a value */
    enum config_kind kind;
    size_t offset; /* of the member of struct config */
    uint64_t min, max;
    bool in_check; /* an option of --mode=check too */
};

extern const struct config_option config_options[];
extern const size_t config_noptions;
extern const char *const config_section_names[CONFIG_NSECTIONS];

/* NULL when there is none. */
const struct config_option *config_option_by_name(const char *name, enum config_mode mode);
const struct config_option *config_option_by_key(enum config_section section, const char *key);

bool config_option_in_mode(const struct config_option *option, enum config_mode mode);

/* The mode whose option OPTION is; any for those of [log]. */
enum config_mode config_option_mode(const struct config_option *option);

/* Whether TEXT can be a region's name. */
bool config_is_region(const char *text);

/* Stores TEXT, which is in the form of OPTION's kind. A list grows by what TEXT holds; anything
 * else is replaced. -EINVAL: not allowed; REASON then says why in more detail than option->allowed
 * does, or is empty. -ENOMEM: no memory. */
int config_option_store(const struct config_option *option, struct config *config, const char *text,
                        char *reason, size_t reason_cap) __attribute__((warn_unused_result));

/* Empties what is stored, for a list that is to be given anew. */
void config_option_forget(const struct config_option *option, struct config *config);

#endif
