/*
 * temp_dir: a directory of a test's own, gone when the test ends, also when it fails.
 */
#ifndef EDM_TESTS_CLIENT_TEMP_DIR_H
#define EDM_TESTS_CLIENT_TEMP_DIR_H

/* The directory's path: made at the first call, removed when the process ends in order. */
const char *temp_dir(void);

/* NAME in it: valid until the next call but seven. */
const char *temp_path(const char *name);

/* Writes a file in it with these permissions and returns its path (as temp_path() does). */
const char *temp_file(const char *name, const void *bytes, unsigned long len, unsigned mode);

#endif
