/*
 * dms: serves pages until it is told to stop.
 *
 * Thread: the main thread calls dms_run() once; it starts a thread for each shard and ends them.
 */
#ifndef EDM_DMS_DMS_H
#define EDM_DMS_DMS_H

#include "../ini/config.h"

/* Serves until SIGINT or SIGTERM. When READY_FD is not -1, one byte is written to it (and it is
 * closed) once every shard is bound. Returns the exit code: 0 after an orderly end, 125 when it
 * could not start or go on (already logged). */
int dms_run(const struct dms_config *config, int ready_fd);

#endif
