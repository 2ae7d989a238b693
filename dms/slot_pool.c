#include "slot_pool.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NONE = UINT32_MAX, MAX_SCAN_THREADS = 16 };

static const char PREFIX[] = "segment-";

/* One segment file; a place in the list of those with free slots, from most to least wanted. */
struct member {
    struct segment *segment; /* NULL: no file of this number */
    uint8_t *checks;         /* during a scan: enum slot_check of every slot */
    uint32_t previous, next;
    bool listed;
};

struct slot_pool {
    char *dir;
    uint32_t segment_slots;
    struct member *members;
    uint32_t nmembers;
    uint32_t head, tail;
    struct segment *dying; /* unlinked, being given back piece by piece */
    uint32_t nempty;       /* segments with no slot in use */
    uint64_t used;
    uint64_t free;
};

static uint64_t make_ref(uint32_t member, uint32_t slot)
{
    return ((uint64_t)member + 1) << 32 | slot;
}

static uint32_t slot_of(uint64_t ref)
{
    return (uint32_t)ref;
}

static struct segment *segment_of(const struct slot_pool *pool, uint64_t ref)
{
    return pool->members[(uint32_t)(ref >> 32) - 1].segment;
}

static bool is_empty(const struct segment *segment)
{
    return segment_free_slots(segment) == segment_slots(segment);
}

static void list_append(struct slot_pool *pool, uint32_t i)
{
    struct member *member = &pool->members[i];

    member->previous = pool->tail;
    member->next = NONE;
    member->listed = true;
    if (pool->tail == NONE)
        pool->head = i;
    else
        pool->members[pool->tail].next = i;
    pool->tail = i;
}

static void list_remove(struct slot_pool *pool, uint32_t i)
{
    struct member *member = &pool->members[i];

    if (member->previous == NONE)
        pool->head = member->next;
    else
        pool->members[member->previous].next = member->next;
    if (member->next == NONE)
        pool->tail = member->previous;
    else
        pool->members[member->next].previous = member->previous;
    member->listed = false;
}

/* Makes a place for segment number I. */
static int make_member(struct slot_pool *pool, uint32_t i)
{
    if (i < pool->nmembers)
        return 0;
    size_t count = 2 * (size_t)i + 1;
    struct member *members = realloc(pool->members, count * sizeof(*members));
    if (members == NULL)
        return -ENOMEM;
    memset(members + pool->nmembers, 0, (count - pool->nmembers) * sizeof(*members));
    pool->members = members;
    pool->nmembers = (uint32_t)count;
    return 0;
}

static int path_of(const struct slot_pool *pool, uint32_t i, const char *suffix, char *path,
                   size_t cap)
{
    int len = snprintf(path, cap, "%s/%s%06u%s", pool->dir, PREFIX, i, suffix);

    return len < 0 || (size_t)len >= cap ? -ENAMETOOLONG : 0;
}

static int open_member(struct slot_pool *pool, uint32_t i, uint32_t *nrepaired)
{
    char path[PATH_MAX];
    bool repaired = false;
    int err = make_member(pool, i);

    if (err == 0)
        err = path_of(pool, i, "", path, sizeof(path));
    if (err == 0)
        err = segment_open(&pool->members[i].segment, path, pool->segment_slots, &repaired);
    *nrepaired += repaired;
    return err;
}

/* Opens the segment that NAME is, if it is one. */
static int open_name(struct slot_pool *pool, const char *name, uint32_t *nrepaired)
{
    unsigned number;
    int end = 0;
    char path[PATH_MAX];

    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
        sscanf(name + strlen(PREFIX), "%6u%n", &number, &end) != 1)
        return 0;
    const char *rest = name + strlen(PREFIX) + end;
    if (*rest == '\0')
        return open_member(pool, number, nrepaired);
    if (strcmp(rest, ".new") != 0)
        return 0;
    int err = path_of(pool, number, ".new", path, sizeof(path));
    if (err != 0)
        return err;
    return unlink(path) == 0 ? 0 : -errno;
}

int slot_pool_open(struct slot_pool **out, const char *dir, uint32_t segment_slots,
                   uint32_t *nrepaired)
{
    struct slot_pool *pool = calloc(1, sizeof(*pool));
    struct dirent *entry;
    int err = 0;

    if (pool == NULL)
        return -ENOMEM;
    pool->segment_slots = segment_slots;
    pool->head = pool->tail = NONE;
    *nrepaired = 0;
    pool->dir = strdup(dir);
    DIR *listing = pool->dir == NULL ? NULL : opendir(dir);
    if (listing == NULL) {
        err = pool->dir == NULL ? -ENOMEM : -errno;
        goto out;
    }
    while (err == 0 && (entry = readdir(listing)) != NULL) /* NOLINT(concurrency-mt-unsafe) */
        err = open_name(pool, entry->d_name, nrepaired);
    closedir(listing);
out:
    if (err != 0)
        slot_pool_close(&pool);
    else
        *out = pool;
    return err;
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

static void *scan_segments(void *context)
{
    struct scan *scan = context;
    uint32_t i;

    while ((i = atomic_fetch_add(&scan->next, 1)) < scan->pool->nmembers) {
        struct member *member = &scan->pool->members[i];
        if (member->segment == NULL)
            continue;
        for (uint32_t slot = 0; slot < scan->pool->segment_slots; slot++)
            member->checks[slot] = (uint8_t)segment_check(member->segment, slot, true);
    }
    return NULL;
}

/* Fills every member's checks. */
static int check_all(struct slot_pool *pool, unsigned nthreads)
{
    struct scan scan = {.pool = pool};
    pthread_t threads[MAX_SCAN_THREADS];
    unsigned started = 0;

    for (uint32_t i = 0; i < pool->nmembers; i++) {
        if (pool->members[i].segment == NULL)
            continue;
        pool->members[i].checks = malloc(pool->segment_slots);
        if (pool->members[i].checks == NULL)
            return -ENOMEM;
    }
    /* This thread scans too: fewer helpers than asked for, or none, only take longer. */
    while (started + 1 < nthreads && started < MAX_SCAN_THREADS &&
           pthread_create(&threads[started], NULL, scan_segments, &scan) == 0)
        started++;
    scan_segments(&scan);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    return 0;
}

/* Takes over what a segment holds. Slots in use are held once, by the caller of the scan. */
static void adopt(struct slot_pool *pool, uint32_t i, struct slot_pool_report *report)
{
    struct member *member = &pool->members[i];

    for (uint32_t slot = 0; slot < pool->segment_slots; slot++) {
        enum slot_check check = member->checks[slot];
        segment_adopt(member->segment, slot, check != SLOT_CHECK_EMPTY);
        report->pages += check == SLOT_CHECK_GOOD || check == SLOT_CHECK_BAD_PAGE;
        report->bad_headers += check == SLOT_CHECK_BAD_HEADER;
        report->bad_pages += check == SLOT_CHECK_BAD_PAGE;
    }
    uint32_t nfree = segment_free_slots(member->segment);
    pool->free += nfree;
    pool->used += pool->segment_slots - nfree;
    if (nfree > 0)
        list_append(pool, i);
    pool->nempty += is_empty(member->segment);
}

int slot_pool_scan(struct slot_pool *pool, unsigned nthreads,
                   int (*visit)(void *context, uint64_t ref, const struct slot_header *header),
                   void *context, struct slot_pool_report *report)
{
    *report = (struct slot_pool_report){0};
    int err = check_all(pool, nthreads);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        if (pool->members[i].segment != NULL)
            adopt(pool, i, report);
    }
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        struct member *member = &pool->members[i];
        for (uint32_t slot = 0; member->checks != NULL && slot < pool->segment_slots; slot++) {
            if (err == 0 && (member->checks[slot] == SLOT_CHECK_GOOD ||
                             member->checks[slot] == SLOT_CHECK_BAD_PAGE))
                err = visit(context, make_ref(i, slot), segment_header(member->segment, slot));
        }
        free(member->checks);
        member->checks = NULL;
    }
    return err;
}

/* A new segment file. It gets its name when it is whole. */
static int add_segment(struct slot_pool *pool)
{
    char path[PATH_MAX], final_path[PATH_MAX];
    struct segment *segment;
    uint32_t i = 0;

    while (i < pool->nmembers && pool->members[i].segment != NULL)
        i++;
    int err = make_member(pool, i);
    if (err == 0)
        err = path_of(pool, i, ".new", path, sizeof(path));
    if (err == 0)
        err = path_of(pool, i, "", final_path, sizeof(final_path));
    if (err == 0)
        err = segment_create(&segment, path, pool->segment_slots);
    if (err != 0)
        return err;
    if (rename(path, final_path) != 0) {
        err = -errno;
        segment_close(&segment);
        unlink(path);
        return err;
    }
    pool->members[i].segment = segment;
    pool->free += pool->segment_slots;
    pool->nempty++;
    list_append(pool, i);
    return 0;
}

int slot_pool_reserve(struct slot_pool *pool, uint64_t nslots)
{
    int err = 0;

    while (err == 0 && pool->free < nslots)
        err = add_segment(pool);
    return err;
}

int slot_pool_fill(struct slot_pool *pool, uint32_t count, const struct slot_source *sources,
                   uint64_t *first)
{
    uint32_t i = pool->head;
    uint32_t slot = 0;

    assert(i != NONE && count > 0);
    struct segment *segment = pool->members[i].segment;
    bool was_empty = is_empty(segment);
    uint32_t taken = segment_take(segment, count, &slot);
    int err = segment_fill(segment, slot, taken, sources);
    if (err != 0) {
        segment_untake(segment, slot, taken);
        return err;
    }
    pool->nempty -= was_empty;
    pool->used += taken;
    pool->free -= taken;
    if (segment_free_slots(segment) == 0)
        list_remove(pool, i);
    *first = make_ref(i, slot);
    return (int)taken;
}

void slot_pool_retain(struct slot_pool *pool, uint64_t ref)
{
    segment_retain(segment_of(pool, ref), slot_of(ref));
}

void slot_pool_release(struct slot_pool *pool, uint64_t ref)
{
    uint32_t i = (uint32_t)(ref >> 32) - 1;
    struct member *member = &pool->members[i];

    if (!segment_release(member->segment, slot_of(ref)))
        return;
    pool->used--;
    pool->free++;
    if (!member->listed)
        list_append(pool, i);
    pool->nempty += is_empty(member->segment);
}

uint32_t slot_pool_refs(const struct slot_pool *pool, uint64_t ref)
{
    return segment_refs(segment_of(pool, ref), slot_of(ref));
}

const struct slot_header *slot_pool_header(const struct slot_pool *pool, uint64_t ref)
{
    return segment_header(segment_of(pool, ref), slot_of(ref));
}

const void *slot_pool_bytes(const struct slot_pool *pool, uint64_t ref)
{
    return segment_bytes(segment_of(pool, ref), slot_of(ref));
}

bool slot_pool_is_sound(const struct slot_pool *pool, uint64_t ref)
{
    return segment_check(segment_of(pool, ref), slot_of(ref), false) == SLOT_CHECK_GOOD;
}

bool slot_pool_trim(struct slot_pool *pool, uint32_t keep)
{
    char path[PATH_MAX];

    if (pool->dying != NULL) {
        if (segment_shrink(pool->dying))
            segment_close(&pool->dying);
        return true;
    }
    if (pool->nempty <= keep)
        return false;
    uint32_t i = pool->tail;
    while (!is_empty(pool->members[i].segment))
        i = pool->members[i].previous;
    /* A file that cannot be removed stays in use. */
    if (path_of(pool, i, "", path, sizeof(path)) != 0 || unlink(path) != 0)
        return false;
    list_remove(pool, i);
    pool->dying = pool->members[i].segment;
    pool->members[i].segment = NULL;
    pool->nempty--;
    pool->free -= pool->segment_slots;
    return true;
}

uint64_t slot_pool_used(const struct slot_pool *pool)
{
    return pool->used;
}

int slot_pool_sync(struct slot_pool *pool)
{
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < pool->nmembers; i++) {
        if (pool->members[i].segment != NULL)
            err = segment_sync(pool->members[i].segment);
    }
    return err;
}
