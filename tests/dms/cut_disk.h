/*
 * cut_disk: a disk whose power can be cut. Files are real ones in a directory; beside each it keeps
 * what was synced of it. A cut leaves of every 512-byte block that was not synced either what was
 * synced or what is there now, by chance, and of every name the file it stood for at the last sync
 * of the directory or the one it stands for now.
 *
 * A sync can fail on order. As with Linux, what it did not write can then still be read, but it no
 * longer counts as unwritten: no later sync writes it, unless it is written again. Every descriptor
 * that was open is told of it once.
 *
 * Thread: one, also for all that uses the disk.
 */
#ifndef EDM_TESTS_DMS_CUT_DISK_H
#define EDM_TESTS_DMS_CUT_DISK_H

#include "../../dms/disk.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CUT_DISK_FILES = 256, CUT_DISK_FDS = 1024 };

struct cut_file {
    int fd; /* our own */
    uint8_t *synced;
    size_t synced_len;
    uint8_t *given_up; /* what a sync that failed did not write: see is_given_up() */
    bool *pages_given_up;
    size_t given_up_len;
    unsigned nerrors; /* syncs that failed */
    uint8_t *left;    /* what the cut left */
    size_t left_len;
};

struct cut_name {
    char path[256];
    int now, synced; /* index of the file, -1: none */
};

struct cut_disk {
    struct disk disk; /* to be given to what is tested */
    char dir[256];
    uint64_t random;
    uint64_t operations;
    unsigned npunched;
    uint64_t cut_at; /* the operation at which the power goes; 0: none */
    bool is_kill;    /* the process goes, not the power: all that was written is there */
    bool fail_sync;  /* the next sync of a file fails, once */
    bool fail_write; /* the next write fails, once */
    bool is_full;    /* no room for anything, until something is given back */
    bool dead;       /* it has gone: every operation fails */
    uint64_t boot;
    struct cut_file files[CUT_DISK_FILES];
    uint32_t nfiles;
    struct cut_name names[CUT_DISK_FILES];
    uint32_t nnames;
    int file_of[CUT_DISK_FDS];
    unsigned errors_told[CUT_DISK_FDS];
};

/* Begins with the files in DIR, all of them synced. */
void cut_disk_begin(struct cut_disk *cut, const char *dir, uint64_t seed);

/* Cuts the power now, if it is not. */
void cut_disk_cut(struct cut_disk *cut);

/* After the cut, when nobody has a file open any more: the directory is as the cut left it, the
 * machine has been started again and the disk works. */
void cut_disk_restart(struct cut_disk *cut);

void cut_disk_end(struct cut_disk *cut);

#endif
