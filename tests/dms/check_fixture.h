/*
 * check_fixture: a data directory with one shard, whose store store_fixture uses, and what
 * --mode=check says of it.
 */
#ifndef EDM_TESTS_DMS_CHECK_FIXTURE_H
#define EDM_TESTS_DMS_CHECK_FIXTURE_H

#include "store_fixture.h"

#include "../../dms/check.h"

#include <stdbool.h>
#include <stdint.h>

struct check_fixture {
    struct temp_dir data;
    struct store_fixture store; /* shard 0's */
    char *said;                 /* by the last check */
};

void check_fixture_begin(struct check_fixture *fixture, uint64_t capacity_bytes);
void check_fixture_end(struct check_fixture *fixture);

/* Runs a check of the store, which must be closed. */
enum check_result check_fixture_run(struct check_fixture *fixture, bool repair);

/* A number for all files and what is in them. */
uint64_t check_fixture_files(const struct check_fixture *fixture);

/* Names of the shard's files, in no particular order: COUNT at most, of which there are as many as
 * it returns. */
enum { CHECK_FIXTURE_NAME_BYTES = 64 };
uint32_t check_fixture_names(const struct check_fixture *fixture,
                             char (*names)[CHECK_FIXTURE_NAME_BYTES], uint32_t count);

#endif
