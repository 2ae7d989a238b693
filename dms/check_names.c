#include "check_names.h"

#include <dirent.h>
#include <stdbool.h>
#include <string.h>

static bool is_known(const char *name)
{
    static const char *const known[] = {".",        "..",           "shard",     "shard.new",
                                        "manifest", "manifest.new", "lost+found"};
    unsigned number, slot_bytes;
    int end = 0;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i]) == 0)
            return true;
    }
    if (sscanf(name, "segment-%9u%n", &number, &end) != 1)
        return false;
    if (sscanf(name, "segment-%9u-%4u%n", &number, &slot_bytes, &end) < 1)
        return false;
    return name[end] == '\0' || strcmp(name + end, ".new") == 0;
}

void check_names_say(const char *dir, FILE *out)
{
    struct dirent *entry;
    DIR *listing = opendir(dir);

    if (listing == NULL)
        return;
    while ((entry = readdir(listing)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        if (!is_known(entry->d_name))
            fprintf(out, "%s/%s: not a file of EDM's: left alone\n", dir, entry->d_name);
    }
    closedir(listing);
}
