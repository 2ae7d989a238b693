#include "sync_job.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int sync_job_reserve(struct sync_job *job, uint32_t count)
{
    uint32_t need = job->count + count;

    if (need <= job->capacity)
        return 0;
    int *fds = realloc(job->fds, 2 * (size_t)need * sizeof(*fds));
    if (fds == NULL)
        return -ENOMEM;
    job->fds = fds;
    job->capacity = 2 * need;
    return 0;
}

void sync_job_add(struct sync_job *job, int fd)
{
    assert(job->count < job->capacity);
    job->fds[job->count++] = fd;
}

int sync_job_run(const struct sync_job *job)
{
    int err = job->dir == NULL ? 0 : disk_sync_dir(job->disk, job->dir);

    for (uint32_t i = 0; err == 0 && i < job->count; i++)
        err = disk_sync(job->disk, job->fds[i]);
    if (err != 0 || job->note_fd == 0)
        return err;
    err = disk_write_all(job->disk, job->note_fd, job->note, sizeof(job->note), job->note_offset);
    return err != 0 ? err : disk_sync(job->disk, job->note_fd);
}

void sync_job_clear(struct sync_job *job)
{
    job->dir = NULL;
    job->count = 0;
    job->note_fd = 0;
}

void sync_job_free(struct sync_job *job)
{
    free(job->fds);
    *job = (struct sync_job){.disk = job->disk};
}
