/*
 * fuzz_dir: a directory in memory that goes when this process does, however it ends.
 */
#ifndef EDM_TESTS_FUZZ_DIR_H
#define EDM_TESTS_FUZZ_DIR_H

/* Made at the first call. */
const char *fuzz_dir(void);

/* Removes the files in it. */
void fuzz_dir_clear(void);

/* A path in it; valid until the next call but three. */
const char *fuzz_dir_path(const char *name);

#endif
