/*
 * replay: gives every file of the directories named to a fuzz target, once. For builds without a
 * fuzzer: what was found once is not forgotten.
 */
#include "fuzz_input.h"

#include <dirent.h>

enum { MAX_PATH_BYTES = 4096, MAX_INPUT_BYTES = 1 << 20 };

__attribute__((weak)) const char *fuzz_summary(void)
{
    return "";
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(MAX_INPUT_BYTES);

    if (!file || !data) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, MAX_INPUT_BYTES, file);
    fclose(file);
    /* Of just its size, for the address sanitizer. */
    uint8_t *exact = realloc(data, size + (size == 0));
    if (!exact) {
        perror(path);
        exit(1);
    }
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 1;
}

static int replay_directory(const char *path)
{
    char name[MAX_PATH_BYTES];
    DIR *dir = opendir(path);
    int nfiles = 0;

    if (!dir) {
        perror(path);
        exit(1);
    }
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        nfiles += replay_file(name);
    }
    closedir(dir);
    return nfiles;
}

int main(int argc, char **argv)
{
    int nfiles = 0;

    for (int i = 1; i < argc; i++)
        nfiles += replay_directory(argv[i]);
    printf("%d inputs%s\n", nfiles, fuzz_summary());
    return nfiles > 0 ? 0 : 1;
}
