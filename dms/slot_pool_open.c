#include "slot_pool_parts.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MAX_SCAN_THREADS = 16,
    MAX_SEARCHES = 4096, /* for what a damaged header was: some seconds */
};

static const char PREFIX[] = "segment-";

static int add_damage(struct damage_list *list, const struct slot_pool_file *file,
                      enum damage_kind kind, bool hides)
{
    struct damage damage = {.kind = kind, .hides = hides};

    slot_pool_name(file, damage.file, sizeof(damage.file));
    return damage_add(list, &damage);
}

/* What segment_open() found to be wrong with the file. */
static int add_faults(struct damage_list *list, const struct slot_pool_file *file, unsigned faults)
{
    int err = 0;

    if ((faults & SEGMENT_BAD_HEADER) != 0)
        err = add_damage(list, file, DAMAGE_FILE_HEADER, false);
    if (err == 0 && (faults & SEGMENT_BAD_LENGTH) != 0)
        err = add_damage(list, file, DAMAGE_FILE_LENGTH, (faults & SEGMENT_BAD_HEADERS) != 0);
    return err;
}

static int open_member(struct slot_pool *pool, const struct member *found, const char *path,
                       struct damage_list *damage)
{
    unsigned faults = 0;
    uint32_t i = 0;

    while (i < pool->nmembers && pool->members[i].segment != NULL)
        i++;
    int err = slot_pool_make_member(pool, i);
    if (err != 0)
        return err;
    struct member *member = &pool->members[i];
    *member = *found;
    err = segment_open(&member->segment, pool->disk, path,
                       slot_pool_shape(pool, found->file.slot_bytes), &faults);
    if (err == -EPROTONOSUPPORT && add_damage(damage, &found->file, DAMAGE_FORMAT, false) != 0)
        err = -ENOMEM;
    if (err != 0)
        return err;
    member->size_class = size_class_find(segment_shape(member->segment).slot_bytes);
    return add_faults(damage, &found->file, faults);
}

/* Whether NAME is that of a segment file; with ".new" behind it, one that is being made. */
static bool parse_name(const char *name, struct slot_pool_file *file, bool *fresh)
{
    char whole[SLOT_POOL_NAME_BYTES];

    if (sscanf(name, "segment-%9u-%4u", &file->number, &file->slot_bytes) != 2 ||
        size_class_find(file->slot_bytes) == SIZE_CLASSES)
        return false;
    slot_pool_name(file, whole, sizeof(whole));
    size_t len = strlen(whole);
    if (strncmp(name, whole, len) != 0)
        return false;
    *fresh = strcmp(name + len, ".new") == 0;
    return *fresh || name[len] == '\0';
}

/* The files of stores of old are not read, nor passed over. */
static int refuse_old(const char *name, struct damage_list *list)
{
    struct damage damage = {.kind = DAMAGE_FORMAT};
    unsigned number;
    int end = 0;

    if (sscanf(name, "segment-%9u%n", &number, &end) != 1 || name[end] != '\0')
        return 0;
    snprintf(damage.file, sizeof(damage.file), "%s%06u", PREFIX, number);
    return damage_add(list, &damage) != 0 ? -ENOMEM : -EPROTONOSUPPORT;
}

/* Opens the segment that NAME is, if it is one. */
static int open_name(struct slot_pool *pool, const char *name, struct damage_list *damage)
{
    struct member found = {0};
    char path[PATH_MAX];
    bool fresh;

    if (!parse_name(name, &found.file, &fresh))
        return refuse_old(name, damage);
    int err = slot_pool_path(pool, &found, fresh ? ".new" : "", path, sizeof(path));
    if (err == 0 && fresh)
        return disk_unlink(pool->disk, path);
    if (found.file.number >= pool->next_number)
        pool->next_number = found.file.number + 1;
    return err != 0 ? err : open_member(pool, &found, path, damage);
}

int slot_pool_open(struct slot_pool **out, const struct disk *disk, const char *dir,
                   uint32_t segment_slots, struct damage_list *damage)
{
    struct slot_pool *pool = calloc(1, sizeof(*pool));
    struct dirent *entry;
    int err = 0;

    if (pool == NULL)
        return -ENOMEM;
    pool->disk = disk;
    pool->segment_slots = segment_slots;
    pool->capacity_bytes = UINT64_MAX / 2;
    memset(pool->lists, 0xff, sizeof(pool->lists)); /* SLOT_POOL_NONE */
    pool->dir = strdup(dir);
    DIR *listing = pool->dir == NULL ? NULL : opendir(dir);
    if (listing == NULL) {
        err = pool->dir == NULL ? -ENOMEM : -errno;
        goto out;
    }
    while (err == 0 && (entry = readdir(listing)) != NULL) /* NOLINT(concurrency-mt-unsafe) */
        err = open_name(pool, entry->d_name, damage);
    closedir(listing);
out:
    if (err != 0)
        slot_pool_close(&pool);
    else
        *out = pool;
    return err;
}

uint32_t slot_pool_guess_slots(const char *dir)
{
    uint64_t most = 0;
    struct dirent *entry;
    struct stat st;
    DIR *listing = opendir(dir);

    while (listing != NULL &&
           (entry = readdir(listing)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        struct slot_pool_file file;
        bool fresh;
        if (!parse_name(entry->d_name, &file, &fresh) || fresh ||
            fstatat(dirfd(listing), entry->d_name, &st, 0) != 0)
            continue;
        uint32_t each = file.slot_bytes == 0 ? SIZE_CLASS_HEADER_BYTES : file.slot_bytes;
        uint64_t bytes = (uint64_t)segment_slots_in(file.slot_bytes, (uint64_t)st.st_size) * each;
        most = bytes > most ? bytes : most;
    }
    if (listing != NULL)
        closedir(listing);
    /* Those of other sizes are a little shorter than as many raw pages. */
    uint64_t groups = (most / WIRE_PAGE_BYTES + SLOT_POOL_MIN_SLOTS - 1) / SLOT_POOL_MIN_SLOTS;
    uint64_t slots = groups * SLOT_POOL_MIN_SLOTS;
    return (uint32_t)(slots > SLOT_POOL_MAX_SLOTS ? SLOT_POOL_MAX_SLOTS : slots);
}

void slot_pool_set_in_doubt(struct slot_pool *pool)
{
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        if (pool->members[i].segment != NULL)
            segment_set_in_doubt(pool->members[i].segment);
    }
}

void slot_pool_close(struct slot_pool **pool)
{
    if (*pool == NULL)
        return;
    for (uint32_t i = 0; i < (*pool)->nmembers; i++) {
        segment_close(&(*pool)->members[i].segment);
        free((*pool)->members[i].checks);
    }
    segment_close(&(*pool)->dying);
    ref_queue_clear(&(*pool)->superseded);
    ref_queue_clear(&(*pool)->dropped);
    free((*pool)->members);
    free((*pool)->dir);
    free(*pool);
    *pool = NULL;
}

/* What the scanning threads share: which segment is next. */
struct scan {
    struct slot_pool *pool;
    _Atomic uint32_t next;
};

static void scan_segments(struct scan *scan, void *buffer)
{
    uint32_t i;

    while ((i = atomic_fetch_add(&scan->next, 1)) < scan->pool->nmembers) {
        struct member *member = &scan->pool->members[i];
        if (member->segment == NULL)
            continue;
        uint32_t nslots = segment_shape(member->segment).nslots;
        for (uint32_t slot = 0; slot < nslots; slot += SEGMENT_GROUP_SLOTS)
            segment_check_group(member->segment, slot / SEGMENT_GROUP_SLOTS, buffer,
                                &member->checks[slot], &member->headers_lost);
    }
}

/* A helper without memory leaves the work to the others. */
static void *help_scan(void *context)
{
    void *buffer = malloc(SEGMENT_GROUP_BYTES);

    if (buffer != NULL)
        scan_segments(context, buffer);
    free(buffer);
    return NULL;
}

/* Fills every member's checks. */
static int check_all(struct slot_pool *pool, unsigned nthreads)
{
    struct scan scan = {.pool = pool};
    pthread_t threads[MAX_SCAN_THREADS];
    unsigned started = 0;

    for (uint32_t i = 0; i < pool->nmembers; i++) {
        struct member *member = &pool->members[i];
        if (member->segment == NULL)
            continue;
        member->checks = malloc(segment_shape(member->segment).nslots);
        if (member->checks == NULL)
            return -ENOMEM;
    }
    void *buffer = malloc(SEGMENT_GROUP_BYTES);
    if (buffer == NULL)
        return -ENOMEM;
    /* This thread scans too: fewer helpers than asked for, or none, only take longer. */
    while (started + 1 < nthreads && started < MAX_SCAN_THREADS &&
           pthread_create(&threads[started], NULL, help_scan, &scan) == 0)
        started++;
    scan_segments(&scan, buffer);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    free(buffer);
    return 0;
}

/* Takes over what a segment holds. Slots in use are held once, by the caller of the scan. */
static int adopt(struct slot_pool *pool, uint32_t i)
{
    struct member *member = &pool->members[i];
    uint32_t nslots = segment_shape(member->segment).nslots;

    for (uint32_t slot = 0; slot < nslots; slot++)
        segment_adopt(member->segment, slot, member->checks[slot]);
    int err = segment_end_adoption(member->segment);
    pool->nunsure += segment_is_unsure(member->segment);
    pool->nempty += slot_pool_is_empty(member->segment);
    slot_pool_note_freed(pool, member->size_class, segment_holes(member->segment));
    slot_pool_account(pool, i, (int64_t)nslots - segment_holes(member->segment), 0);
    if (segment_is_lost(member->segment))
        slot_pool_retire(pool, i);
    return err;
}

/* How the scan goes through the slots. */
struct tour {
    struct slot_pool *pool;
    int (*visit)(void *context, uint64_t ref, const struct slot_header *header,
                 enum slot_check check);
    void *context;
    uint32_t nsearches;
};

static int visit_slots(struct tour *tour, uint32_t i)
{
    const struct member *member = &tour->pool->members[i];
    uint32_t nslots = segment_shape(member->segment).nslots;
    int err = 0;

    for (uint32_t slot = 0; err == 0 && slot < nslots; slot++) {
        enum slot_check check = member->checks[slot];
        if (check == SLOT_CHECK_EMPTY)
            continue;
        if (check == SLOT_CHECK_BAD_HEADER &&
            (tour->nsearches++ >= MAX_SEARCHES || !segment_identify(member->segment, slot)))
            check = SLOT_CHECK_UNKNOWN;
        if (check == SLOT_CHECK_BAD_PAGE || check == SLOT_CHECK_BAD_HEADER ||
            check == SLOT_CHECK_UNKNOWN)
            segment_set_reported(member->segment, slot);
        err = tour->visit(tour->context, slot_pool_ref(i, slot),
                          segment_header(member->segment, slot), check);
    }
    return err;
}

int slot_pool_scan(struct slot_pool *pool, unsigned nthreads,
                   int (*visit)(void *context, uint64_t ref, const struct slot_header *header,
                                enum slot_check check),
                   void *context, struct damage_list *damage)
{
    struct tour tour = {pool, visit, context, 0};
    int err = check_all(pool, nthreads);
    for (uint32_t i = 0; err == 0 && i < pool->nmembers; i++) {
        const struct member *member = &pool->members[i];
        if (member->segment == NULL)
            continue;
        if (segment_is_lost(member->segment))
            err = add_damage(damage, &member->file, DAMAGE_FILE_LENGTH, member->headers_lost);
        if (err == 0)
            err = adopt(pool, i);
    }
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        struct member *member = &pool->members[i];
        if (err == 0 && member->segment != NULL)
            err = visit_slots(&tour, i);
        free(member->checks);
        member->checks = NULL;
    }
    return err;
}
