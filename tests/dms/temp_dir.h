/*
 * temp_dir: a directory of a test's own, gone when the test ends.
 */
#ifndef EDM_TESTS_DMS_TEMP_DIR_H
#define EDM_TESTS_DMS_TEMP_DIR_H

struct temp_dir {
    char path[128];
};

/* Ends the test when it cannot. */
void temp_dir_make(struct temp_dir *dir);

/* Removes the directory and what is in it. */
void temp_dir_remove(const struct temp_dir *dir);

/* The path of NAME in it, valid until the next call but three. */
const char *temp_dir_path(const struct temp_dir *dir, const char *name);

#endif
