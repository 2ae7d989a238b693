/*
 * syncer: a thread that runs a shard's sync jobs, one at a time, while the shard serves.
 *
 * Thread: the shard's makes it, gives it jobs and takes their results. A job is the syncer's from
 * syncer_start() until syncer_take() or syncer_wait() has returned its result.
 */
#ifndef EDM_DMS_SYNCER_H
#define EDM_DMS_SYNCER_H

#include "sync_job.h"

#include <stdbool.h>

struct syncer;

/* Returns 0 or -errno. */
int syncer_new(struct syncer **out) __attribute__((warn_unused_result));

/* No job may be under way. */
void syncer_destroy(struct syncer **syncer);

/* Readable when a job has run. */
int syncer_fd(const struct syncer *syncer);

void syncer_start(struct syncer *syncer, const struct sync_job *job);

/* Whether the job under way has run; *ERR is what it returned. */
bool syncer_take(struct syncer *syncer, int *err);

/* Blocks until the job under way has run, and returns what it returned. */
int syncer_wait(struct syncer *syncer);

#endif
