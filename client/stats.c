#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void write_string(FILE *file, const char *text)
{
    fputc('"', file);
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\')
            fprintf(file, "\\%c", *at);
        else if (*at < 0x20 || *at >= 0x7f)
            /* Bytes that are not ASCII: as Latin-1, so that the file is JSON whatever they are. */
            fprintf(file, "\\u%04x", *at);
        else
            fputc(*at, file);
    }
    fputc('"', file);
}

static void number(FILE *file, const char *key, uint64_t value, const char *end)
{
    fprintf(file, "\"%s\": %" PRIu64 "%s", key, value, end);
}

static void write_faults(FILE *file, const struct pager_counters *pager)
{
    fputs("  \"faults\": {", file);
    number(file, "remote", pager->faults_remote, ", ");
    number(file, "zero", pager->faults_zero, ", ");
    number(file, "staged", pager->faults_staged, ", ");
    number(file, "write", pager->faults_write, "},\n  ");
    const struct histogram *us = &pager->fault_us;
    fputs("\"fault_us\": {", file);
    number(file, "p50", histogram_quantile_us(us, 0.5), ", ");
    number(file, "p99", histogram_quantile_us(us, 0.99), ", ");
    number(file, "p999", histogram_quantile_us(us, 0.999), ", ");
    number(file, "max", us->max_us, ", ");
    number(file, "count", us->count, "},\n");
}

static void write_pages(FILE *file, const struct stats *stats)
{
    const struct pager_counters *pager = &stats->pager;
    number(file, "pages_got", pager->pages_got, ",\n  ");
    number(file, "pages_put", stats->write_back.pages_put, ",\n  ");
    number(file, "pages_evicted", pager->pages_evicted, ",\n  ");
    number(file, "pages_clean_dropped", pager->pages_clean_dropped, ",\n  ");
    number(file, "pages_zero_dropped", pager->pages_zero_dropped, ",\n  ");
    number(file, "pages_given_up_unseen", pager->pages_given_up_unseen, ",\n  ");
    number(file, "pages_bad", pager->bad_pages, ",\n");
    fputs("  \"prefetch\": {", file);
    number(file, "issued", pager->readahead_issued, ", ");
    number(file, "used", pager->readahead_used, ", ");
    number(file, "wasted", pager->readahead_wasted, "},\n");
}

static void write_codes(FILE *file, const struct write_back_counters *write_back)
{
    fputs("\"compress\": {", file);
    number(file, "filled", write_back->pages_filled, ", ");
    number(file, "lz4", write_back->pages_compressed, ", ");
    number(file, "bytes_saved", write_back->bytes_saved, "},\n");
}

static void write_images(FILE *file, const struct pager_counters *pager)
{
    fputs("\"processes\": [", file);
    const char *before = "";
    for (int i = 0; i < PAGER_IMAGES; i++) {
        const struct image_figures *image = &pager->by_image[i];
        if (image->pid == 0)
            continue;
        fprintf(file, "%s\n    {\"pid\": %d, \"name\": ", before, (int)image->pid);
        before = ",";
        write_string(file, image->name);
        fprintf(file, ", \"ended\": %s, ", image->ended ? "true" : "false");
        number(file, "peak_resident_bytes", image->peak_resident_pages * PAGE, ", ");
        number(file, "peak_managed_bytes", image->peak_managed_pages * PAGE, ", ");
        number(file, "faults", image->faults, ", ");
        number(file, "pages_evicted", image->pages_evicted, "}");
    }
    fputs(*before ? "\n  ],\n  " : "],\n  ", file);
}

static void write_all(FILE *file, const struct stats *stats)
{
    const struct pager_counters *pager = &stats->pager;
    const struct write_back_counters *write_back = &stats->write_back;
    fputs("{\n  \"program\": ", file);
    write_string(file, stats->program);
    fputs(",\n  \"region\": ", file);
    write_string(file, stats->region);
    if (stats->ended)
        fprintf(file, ",\n  \"exit_status\": %d", stats->exit_status);
    else
        fputs(",\n  \"exit_status\": null", file);
    fprintf(file, ",\n  \"wall_s\": %.6f,\n  ", stats->wall_s);
    number(file, "shards", stats->nshards, ",\n  ");
    number(file, "local_limit_bytes", stats->local_limit_bytes, ",\n  ");
    number(file, "resident_bytes", pager->resident_pages * PAGE, ",\n  ");
    number(file, "peak_resident_bytes", pager->peak_resident_pages * PAGE, ",\n  ");
    number(file, "managed_bytes", pager->managed_pages * PAGE, ",\n  ");
    number(file, "peak_managed_bytes", pager->peak_managed_pages * PAGE, ",\n");
    write_faults(file, pager);
    fputs("  ", file);
    write_pages(file, stats);
    fputs("  ", file);
    write_codes(file, write_back);
    fputs("  ", file);
    number(file, "bytes_sent", pager->rpc.bytes_sent + write_back->rpc.bytes_sent, ",\n  ");
    number(file, "bytes_received", pager->rpc.bytes_received + write_back->rpc.bytes_received,
           ",\n  ");
    fprintf(file, "\"cpu_s\": {\"pager\": %.6f, \"write_back\": %.6f, \"agent\": %.6f},\n  ",
            (double)pager->cpu_us / 1e6, (double)write_back->cpu_us / 1e6,
            (double)pager->agent_cpu_us / 1e6);
    number(file, "page_table_bytes", pager->table_bytes, ",\n  ");
    fputs("\"spins\": {", file);
    number(file, "found", pager->spins_found, ", ");
    number(file, "in_vain", pager->spins_in_vain, "},\n  ");
    number(file, "brakes", pager->brakes, ",\n  ");
    number(file, "looks", pager->looks, ",\n  ");
    number(file, "looks_us", pager->looks_us, ",\n  ");
    number(file, "images", pager->images, ",\n  ");
    number(file, "forks", pager->forks, ",\n  ");
    write_images(file, pager);
    number(file, "retries", pager->rpc.retries + write_back->rpc.retries, ",\n  ");
    number(file, "failovers", 0, "\n}\n");
}

static int write_to(const char *path, const struct stats *stats)
{
    FILE *file = fopen(path, "we");
    if (!file)
        return -errno;
    write_all(file, stats);
    int err = ferror(file) ? -EIO : 0;
    if (fclose(file) && !err)
        err = -errno;
    return err;
}

static char *temporary_of(const char *path)
{
    char *temporary;
    return asprintf(&temporary, "%s.%d.tmp", path, (int)getpid()) < 0 ? NULL : temporary;
}

/* A terminal, a pipe or a device must not be replaced by a file. */
static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

int stats_write(const struct stats *stats, const char *path)
{
    if (is_special(path))
        return write_to(path, stats);
    char *temporary = temporary_of(path);
    if (!temporary)
        return -ENOMEM;
    int err = write_to(temporary, stats);
    if (!err && rename(temporary, path))
        err = -errno;
    if (err)
        unlink(temporary);
    free(temporary);
    return err;
}

int stats_check(const char *path)
{
    if (is_special(path)) {
        struct stat info;
        bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
        return directory ? -EISDIR : access(path, W_OK) ? -errno : 0;
    }
    char *temporary = temporary_of(path);
    if (!temporary)
        return -ENOMEM;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int err = fd < 0 ? -errno : 0;
    if (fd >= 0) {
        close(fd);
        unlink(temporary);
    }
    free(temporary);
    return err;
}
