#include "memory_available.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A hierarchy of control groups as this process sees it. */
struct hierarchy {
    char mount[PATH_MAX];
    char group[PATH_MAX];
    const char *limit_file;
};

static FILE *open_below(const char *root, const char *path)
{
    char full[2 * PATH_MAX];

    if (snprintf(full, sizeof(full), "%s%s", root, path) >= (int)sizeof(full))
        return NULL;
    return fopen(full, "re");
}

/* 0 when there is no such line. */
static uint64_t read_meminfo(const char *root, const char *field)
{
    FILE *file = open_below(root, "/proc/meminfo");
    char line[256];
    uint64_t kib = 0;
    size_t len = strlen(field);

    if (file == NULL)
        return 0;
    while (kib == 0 && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, field, len) == 0 && line[len] == ':')
            kib = strtoull(line + len + 1, NULL, 10);
    fclose(file);
    return kib * 1024;
}

/* "max" and a missing file are no limit. */
static uint64_t read_limit(const char *root, const char *path)
{
    FILE *file = open_below(root, path);
    unsigned long long bytes;
    bool read;

    if (file == NULL)
        return UINT64_MAX;
    read = fscanf(file, "%llu", &bytes) == 1;
    fclose(file);
    return read ? bytes : UINT64_MAX;
}

/* Is WORD one of the words in LIST, which are separated by commas? */
static bool list_has(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (; list != NULL; list = strchr(list, ',')) {
        list += *list == ',';
        if (strncmp(list, word, len) == 0 && strchr(",\n", list[len]) != NULL)
            return true;
    }
    return false;
}

/* "30 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory": mount point, type, options. */
static bool find_mount(const char *root, bool v2, struct hierarchy *out)
{
    FILE *file = open_below(root, "/proc/self/mountinfo");
    char *line = NULL;
    size_t cap = 0;
    bool found = false;

    if (file == NULL)
        return false;
    while (!found && getline(&line, &cap, file) >= 0) {
        char type[32], options[512];
        const char *dash = strstr(line, " - ");
        if (dash == NULL || sscanf(dash, " - %31s %*s %511s", type, options) != 2 ||
            sscanf(line, "%*s %*s %*s %*s %4095s", out->mount) != 1)
            continue;
        found = v2 ? strcmp(type, "cgroup2") == 0
                   : strcmp(type, "cgroup") == 0 && list_has(options, "memory");
    }
    free(line);
    fclose(file);
    return found;
}

/* "0::/group" (v2) or "4:memory:/group" (v1). */
static bool find_group(const char *root, bool v2, struct hierarchy *out)
{
    FILE *file = open_below(root, "/proc/self/cgroup");
    char *line = NULL;
    size_t cap = 0;
    bool found = false;

    if (file == NULL)
        return false;
    while (!found && getline(&line, &cap, file) >= 0) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (group == NULL || strlen(group + 1) >= sizeof(out->group))
            continue;
        *group++ = '\0';
        found = v2 ? strcmp(line, "0:") == 0 : list_has(controllers + 1, "memory");
        if (found)
            strcpy(out->group, group);
    }
    free(line);
    fclose(file);
    return found;
}

/* Every level counts, from the process's own group up. In a container the group's name may be the
 * host's while the mount shows only a part of the tree: levels that are not there are passed over.
 */
static uint64_t lowest_limit(const char *root, bool v2)
{
    struct hierarchy tree = {.limit_file = v2 ? "memory.max" : "memory.limit_in_bytes"};
    uint64_t lowest = UINT64_MAX;

    if (!find_mount(root, v2, &tree) || !find_group(root, v2, &tree))
        return UINT64_MAX;
    for (;;) {
        char path[3 * PATH_MAX];
        snprintf(path, sizeof(path), "%s%s/%s", tree.mount, tree.group, tree.limit_file);
        uint64_t limit = read_limit(root, path);
        if (limit < lowest)
            lowest = limit;
        char *slash = strrchr(tree.group, '/');
        if (slash == NULL)
            return lowest;
        *slash = '\0';
    }
}

static uint64_t bound(const char *root, uint64_t bytes)
{
    for (int v2 = 0; v2 <= 1; v2++) {
        uint64_t limit = lowest_limit(root, v2);
        if (limit < bytes)
            bytes = limit;
    }
    return bytes;
}

uint64_t memory_available_bytes(const char *root)
{
    return bound(root, read_meminfo(root, "MemAvailable"));
}

uint64_t memory_total_bytes(const char *root)
{
    return bound(root, read_meminfo(root, "MemTotal"));
}
