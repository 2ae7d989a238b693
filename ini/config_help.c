#include "config_help.h"

#include "config_option.h"

static void print_option(FILE *out, const struct config_option *option)
{
    fprintf(out, "  --%s=%s\n        %s\n", option->name, option->argument, option->help);
    fprintf(out, "        [%s] %s: %s\n", config_section_names[option->section], option->key,
            option->allowed);
    fprintf(out, "        default: %s\n", option->value != NULL ? option->value : option->fallback);
}

static void print_section(FILE *out, enum config_section section)
{
    for (size_t i = 0; i < config_noptions; i++)
        if (config_options[i].section == section)
            print_option(out, &config_options[i]);
}

static void print_usage(FILE *out, enum config_mode mode)
{
    static const char *const usage[] = {
        "  edm --mode=client [options] -- PROG ARGS   run a program on paged memory\n",
        "  edm --mode=dms    [options]                serve pages\n",
        "  edm --mode=check  [options]                look for damage in the files of a DMS\n",
        "  edm --mode=limit  [options] REGION SIZE    change the budget of a running client\n",
        "  edm --mode=status [options] [REGION]       say what clients run\n",
    };

    fputs(usage[mode], out);
}

static void print_check(FILE *out)
{
    fputs("  --repair\n"
          "        make a damaged store servable and say what was lost; without it nothing is "
          "changed\n",
          out);
}

static void print_operands(FILE *out, enum config_mode mode)
{
    if (mode == CONFIG_MODE_LIMIT || mode == CONFIG_MODE_STATUS)
        fputs("  REGION  a region's name, or the process id of the client that runs it\n", out);
    if (mode == CONFIG_MODE_LIMIT)
        fprintf(out, "  SIZE    the new budget: %s\n",
                config_option_by_name("local", CONFIG_MODE_CLIENT)->allowed);
}

static void print_common(FILE *out)
{
    fputs("\nIn every mode:\n", out);
    print_section(out, CONFIG_SECTION_LOG);
    fputs("  --config=FILE\n"
          "        ini file with the keys named above; an option given here wins over the file\n"
          "  --help\n        print this (one mode's options with --mode)\n"
          "  --version\n        print the version\n",
          out);
}

void config_help_mode(FILE *out, enum config_mode mode)
{
    static const char *const names[] = {"client", "dms", "check", "limit", "status"};

    fputs("Usage:\n", out);
    print_usage(out, mode);
    print_operands(out, mode);
    if (mode != CONFIG_MODE_STATUS)
        fprintf(out,
                "\nOptions of --mode=%s (below each: section and key of the ini file, what is "
                "allowed):\n",
                names[mode]);
    for (size_t i = 0; i < config_noptions; i++)
        if (config_options[i].section != CONFIG_SECTION_LOG &&
            config_option_in_mode(&config_options[i], mode))
            print_option(out, &config_options[i]);
    if (mode == CONFIG_MODE_CHECK)
        print_check(out);
    print_common(out);
}

void config_help_all(FILE *out)
{
    fputs("Usage:\n", out);
    print_usage(out, CONFIG_MODE_CLIENT);
    print_usage(out, CONFIG_MODE_DMS);
    print_usage(out, CONFIG_MODE_CHECK);
    print_usage(out, CONFIG_MODE_LIMIT);
    print_usage(out, CONFIG_MODE_STATUS);
    fputs("\nOptions are written --option=VALUE or --option VALUE. Below each: section and key of "
          "the\nini file, what is allowed, what holds without it.\n",
          out);
    fputs("\nOptions of --mode=client:\n", out);
    print_section(out, CONFIG_SECTION_CLIENT);
    fputs("\nOptions of --mode=dms:\n", out);
    print_section(out, CONFIG_SECTION_DMS);
    fputs("\nOptions of --mode=check (and --data, as above):\n", out);
    print_check(out);
    fputs("\nOptions of --mode=limit:\n", out);
    print_section(out, CONFIG_SECTION_LIMIT);
    print_common(out);
}
