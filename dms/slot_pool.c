#include "slot_pool.h"

#include "mapped_fault.h"
#include "ref_queue.h"
#include "slot_identify.h"
#include "../ini/log.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    NONE = UINT32_MAX,
    MAX_SCAN_THREADS = 16,
    MAX_SEARCHES = 4096, /* for what a damaged header was: some seconds */
};

static const char PREFIX[] = "segment-";

/* One segment file; a place in the list of those with free slots, from most to least wanted. */
struct member {
    struct segment *segment; /* NULL: no file of this number */
    uint8_t *checks;         /* during a scan: enum slot_check of every slot */
    uint32_t previous, next;
    bool listed;
    bool lost;         /* parts of it cannot be read: nothing more is stored there */
    bool kept;         /* the file cannot be removed */
    bool headers_lost; /* at the scan: what was in its slots nobody knows */
};

struct slot_pool {
    const struct disk *disk;
    char *dir;
    uint32_t segment_slots;
    int (*note)(void *context, uint32_t number, bool there);
    void *note_context;
    struct member *members;
    uint32_t nmembers;
    uint32_t head, tail;
    struct segment *dying; /* unlinked, being given back piece by piece */
    uint32_t nempty;       /* segments with no slot in use */
    uint64_t used;
    uint64_t free;
    uint32_t nfaults; /* mapped_fault_total() when all was seen to */
    bool durable;
    bool changed;     /* pages were stored or dropped since the last round began */
    bool freed;       /* or slots marked free */
    bool dir_changed; /* or files made or removed */
    uint64_t rounds_begun, rounds_done, full_begun, full_done;
    struct ref_queue superseded; /* due by rounds_done */
    struct ref_queue dropped;    /* due by full_done */
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

static int add_damage(struct damage_list *list, uint32_t i, enum damage_kind kind, bool hides)
{
    struct damage damage = {.kind = kind, .hides = hides};

    snprintf(damage.file, sizeof(damage.file), "%s%06u", PREFIX, i);
    return damage_add(list, &damage);
}

/* What segment_open() found to be wrong with the file. */
static int add_faults(struct damage_list *list, uint32_t i, unsigned faults)
{
    int err = 0;

    if ((faults & SEGMENT_BAD_HEADER) != 0)
        err = add_damage(list, i, DAMAGE_FILE_HEADER, false);
    if (err == 0 && (faults & SEGMENT_BAD_LENGTH) != 0)
        err = add_damage(list, i, DAMAGE_FILE_LENGTH, (faults & SEGMENT_BAD_HEADERS) != 0);
    return err;
}

static int open_member(struct slot_pool *pool, uint32_t i, struct damage_list *damage)
{
    char path[PATH_MAX];
    unsigned faults = 0;
    int err = make_member(pool, i);

    if (err == 0)
        err = path_of(pool, i, "", path, sizeof(path));
    if (err == 0)
        err =
            segment_open(&pool->members[i].segment, pool->disk, path, pool->segment_slots, &faults);
    if (err == -EPROTONOSUPPORT && add_damage(damage, i, DAMAGE_FORMAT, false) != 0)
        err = -ENOMEM;
    return err != 0 ? err : add_faults(damage, i, faults);
}

/* Opens the segment that NAME is, if it is one. */
static int open_name(struct slot_pool *pool, const char *name, struct damage_list *damage)
{
    unsigned number;
    int end = 0;
    char path[PATH_MAX];

    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
        sscanf(name + strlen(PREFIX), "%6u%n", &number, &end) != 1)
        return 0;
    const char *rest = name + strlen(PREFIX) + end;
    if (*rest == '\0')
        return open_member(pool, number, damage);
    if (strcmp(rest, ".new") != 0)
        return 0;
    int err = path_of(pool, number, ".new", path, sizeof(path));
    return err != 0 ? err : disk_unlink(pool->disk, path);
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
    pool->head = pool->tail = NONE;
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
    uint32_t most = 0;
    struct dirent *entry;
    struct stat st;
    DIR *listing = opendir(dir);

    while (listing != NULL &&
           (entry = readdir(listing)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0 ||
            fstatat(dirfd(listing), entry->d_name, &st, 0) != 0)
            continue;
        uint32_t nslots = segment_slots_in((uint64_t)st.st_size);
        most = nslots > most ? nslots : most;
    }
    if (listing != NULL)
        closedir(listing);
    return most;
}

void slot_pool_set_durable(struct slot_pool *pool)
{
    pool->durable = pool->changed = pool->dir_changed = true;
}

int slot_pool_write_again(struct slot_pool *pool, uint64_t stamp)
{
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < pool->nmembers; i++) {
        if (pool->members[i].segment != NULL)
            err = segment_write_again(pool->members[i].segment, stamp);
    }
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

static void *scan_segments(void *context)
{
    struct scan *scan = context;
    uint32_t i;

    while ((i = atomic_fetch_add(&scan->next, 1)) < scan->pool->nmembers) {
        struct member *member = &scan->pool->members[i];
        if (member->segment == NULL)
            continue;
        member->headers_lost = !segment_read_headers(member->segment);
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
        report->pages += check == SLOT_CHECK_GOOD || check == SLOT_CHECK_BAD_PAGE ||
                         check == SLOT_CHECK_SUPERSEDED;
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
                   int (*visit)(void *context, uint64_t ref, const struct slot_header *header,
                                enum slot_check check),
                   void *context, struct damage_list *damage, struct slot_pool_report *report)
{
    uint32_t nsearches = 0;

    *report = (struct slot_pool_report){0};
    int err = check_all(pool, nthreads);
    if (err != 0)
        return err;
    for (uint32_t i = 0; err == 0 && i < pool->nmembers; i++) {
        const struct member *member = &pool->members[i];
        if (member->segment == NULL)
            continue;
        if (segment_is_lost(member->segment))
            err = add_damage(damage, i, DAMAGE_FILE_LENGTH, member->headers_lost);
        adopt(pool, i, report);
    }
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        struct member *member = &pool->members[i];
        for (uint32_t slot = 0; member->checks != NULL && slot < pool->segment_slots; slot++) {
            enum slot_check check = member->checks[slot];
            if (err != 0 || check == SLOT_CHECK_EMPTY)
                continue;
            if (check == SLOT_CHECK_BAD_HEADER &&
                (nsearches++ >= MAX_SEARCHES || !segment_identify(member->segment, slot)))
                check = SLOT_CHECK_UNKNOWN;
            if (check == SLOT_CHECK_BAD_PAGE || check == SLOT_CHECK_BAD_HEADER ||
                check == SLOT_CHECK_UNKNOWN)
                segment_set_reported(member->segment, slot);
            err = visit(context, make_ref(i, slot), segment_header(member->segment, slot), check);
        }
        free(member->checks);
        member->checks = NULL;
    }
    return err;
}

static int note_file(const struct slot_pool *pool, uint32_t number, bool there)
{
    return pool->note == NULL ? 0 : pool->note(pool->note_context, number, there);
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
        err = segment_create(&segment, pool->disk, path, pool->segment_slots);
    if (err != 0)
        return err;
    err = disk_rename(pool->disk, path, final_path);
    const char *name = err == 0 ? final_path : path;
    if (err == 0)
        err = note_file(pool, i, true);
    if (err != 0) {
        segment_close(&segment);
        int left = disk_unlink(pool->disk, name);
        (void)left; /* opening the pool removes it */
        return err;
    }
    pool->members[i].segment = segment;
    pool->changed = pool->dir_changed = true;
    pool->free += pool->segment_slots;
    pool->nempty++;
    list_append(pool, i);
    return 0;
}

static void retire(struct slot_pool *pool, uint32_t i)
{
    struct member *member = &pool->members[i];

    member->lost = true;
    pool->free -= segment_free_slots(member->segment);
    pool->nempty -= is_empty(member->segment);
    if (member->listed)
        list_remove(pool, i);
    log_error("Store",
              "parts of %s/%s%06u cannot be read any more: the file was cut short, or the disk is "
              "failing; the pages in them are answered with DATA_LOSS, and nothing more is stored "
              "in this file",
              pool->dir, PREFIX, i);
}

void slot_pool_retire_lost(struct slot_pool *pool)
{
    uint32_t nfaults = mapped_fault_total();

    if (nfaults == pool->nfaults)
        return;
    pool->nfaults = nfaults;
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        const struct member *member = &pool->members[i];
        if (member->segment != NULL && !member->lost && segment_is_lost(member->segment))
            retire(pool, i);
    }
}

int slot_pool_reserve(struct slot_pool *pool, uint64_t nslots)
{
    int err = 0;

    slot_pool_retire_lost(pool);
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
    pool->changed = true;
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

/* Makes a slot that nobody holds free. */
static void free_slot(struct slot_pool *pool, uint64_t ref)
{
    uint32_t i = (uint32_t)(ref >> 32) - 1;
    struct member *member = &pool->members[i];

    segment_free(member->segment, slot_of(ref));
    pool->freed = true;
    if (member->lost)
        return;
    pool->free++;
    if (!member->listed)
        list_append(pool, i);
    pool->nempty += is_empty(member->segment);
}

/* When there is no memory to remember it by, a slot stays out of use until the next start. */
static void free_later(struct slot_pool *pool, uint64_t ref)
{
    uint32_t state = atomic_load(&slot_pool_header(pool, ref)->state);
    int err;

    if (state == SLOT_DROPPED) {
        err = ref_queue_push(&pool->dropped, ref, pool->full_begun + 2);
    } else {
        segment_supersede(segment_of(pool, ref), slot_of(ref));
        err = ref_queue_push(&pool->superseded, ref, pool->rounds_begun + 1);
    }
    (void)err;
}

void slot_pool_revive(struct slot_pool *pool, uint64_t ref)
{
    segment_revive(segment_of(pool, ref), slot_of(ref));
    pool->changed = true;
}

void slot_pool_release(struct slot_pool *pool, uint64_t ref)
{
    if (!segment_unhold(segment_of(pool, ref), slot_of(ref)))
        return;
    pool->used--;
    if (pool->durable)
        free_later(pool, ref);
    else
        free_slot(pool, ref);
}

bool slot_pool_is_writable(const struct slot_pool *pool, uint64_t ref)
{
    return !segment_is_lost(segment_of(pool, ref));
}

void slot_pool_drop(struct slot_pool *pool, uint64_t ref)
{
    segment_drop(segment_of(pool, ref), slot_of(ref));
    pool->changed = true;
}

void slot_pool_discard(struct slot_pool *pool, uint64_t ref)
{
    bool last = segment_unhold(segment_of(pool, ref), slot_of(ref));

    assert(last);
    (void)last;
    pool->used--;
    free_slot(pool, ref);
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

bool slot_pool_identify(const struct slot_pool *pool, uint64_t ref, struct slot_header *out)
{
    const struct slot_header *header = slot_pool_header(pool, ref);

    if (slot_pool_is_sound(pool, ref)) {
        memcpy(out, header, sizeof(*out));
        return true;
    }
    return slot_identify(header, slot_of(ref), out);
}

bool slot_pool_trim(struct slot_pool *pool, uint32_t keep)
{
    char path[PATH_MAX];

    /* The round under way may be about to sync it. */
    if (pool->rounds_begun != pool->rounds_done)
        return false;
    if (pool->dying != NULL) {
        if (segment_shrink(pool->dying))
            segment_close(&pool->dying);
        return true;
    }
    if (pool->nempty <= keep)
        return false;
    uint32_t i = pool->tail;
    while (i != NONE && (!is_empty(pool->members[i].segment) || pool->members[i].kept))
        i = pool->members[i].previous;
    if (i == NONE || path_of(pool, i, "", path, sizeof(path)) != 0 ||
        note_file(pool, i, false) != 0)
        return false;
    if (disk_unlink(pool->disk, path) != 0) {
        /* It stays in use, and is not tried again: that would be noted each time. */
        pool->members[i].kept = true;
        int err = note_file(pool, i, true);
        (void)err; /* the next start notes what is there */
        return true;
    }
    list_remove(pool, i);
    pool->dying = pool->members[i].segment;
    pool->dir_changed = true;
    pool->members[i].segment = NULL;
    pool->nempty--;
    pool->free -= pool->segment_slots;
    return true;
}

uint64_t slot_pool_used(const struct slot_pool *pool)
{
    return pool->used;
}

int slot_pool_begin_sync(struct slot_pool *pool, bool full, struct sync_job *job)
{
    assert(pool->rounds_begun == pool->rounds_done);
    int err = sync_job_reserve(job, pool->nmembers);

    if (err != 0)
        return err;
    for (uint32_t i = 0; i < pool->nmembers; i++) {
        struct segment *segment = pool->members[i].segment;
        int fd = segment == NULL ? -1 : segment_begin_sync(segment, full);
        if (fd >= 0)
            sync_job_add(job, fd);
    }
    if (pool->dir_changed)
        job->dir = pool->dir;
    pool->rounds_begun++;
    pool->full_begun += full;
    pool->changed = pool->dir_changed = false;
    pool->freed = pool->freed && !full;
    return 0;
}

void slot_pool_end_sync(struct slot_pool *pool, bool full)
{
    uint64_t ref;

    pool->rounds_done = pool->rounds_begun;
    pool->full_done += full;
    while (ref_queue_pop(&pool->superseded, pool->rounds_done, &ref))
        free_slot(pool, ref);
    while (ref_queue_pop(&pool->dropped, pool->full_done, &ref))
        free_slot(pool, ref);
}

bool slot_pool_changed(const struct slot_pool *pool)
{
    return pool->changed || pool->dir_changed;
}

uint64_t slot_pool_waiting(const struct slot_pool *pool)
{
    return pool->superseded.count + pool->dropped.count;
}

bool slot_pool_unsettled(const struct slot_pool *pool)
{
    return slot_pool_changed(pool) || pool->freed || slot_pool_waiting(pool) > 0;
}

int slot_pool_mend(struct slot_pool *pool)
{
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < pool->nmembers; i++) {
        if (pool->members[i].segment != NULL)
            err = segment_mend(pool->members[i].segment);
    }
    return err;
}

void slot_pool_on_file(struct slot_pool *pool,
                       int (*note)(void *context, uint32_t number, bool there), void *context)
{
    pool->note = note;
    pool->note_context = context;
}

uint32_t slot_pool_end_number(const struct slot_pool *pool)
{
    return pool->nmembers;
}

bool slot_pool_has_file(const struct slot_pool *pool, uint32_t number)
{
    return number < pool->nmembers && pool->members[number].segment != NULL;
}

uint32_t slot_pool_files(const struct slot_pool *pool)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < pool->nmembers; i++)
        count += pool->members[i].segment != NULL;
    return count;
}

int slot_pool_lose(struct slot_pool *pool, uint64_t ref, const struct slot_header *header)
{
    pool->changed = true;
    return segment_lose(segment_of(pool, ref), slot_of(ref), header);
}

bool slot_pool_is_lost(const struct slot_pool *pool, uint64_t ref)
{
    return slot_pool_header(pool, ref)->encoding == SLOT_LOST && slot_pool_is_sound(pool, ref);
}

void slot_pool_place(const struct slot_pool *pool, uint64_t ref, char *file, size_t cap,
                     uint64_t *slot)
{
    (void)pool;
    snprintf(file, cap, "%s%06u", PREFIX, (uint32_t)(ref >> 32) - 1);
    *slot = slot_of(ref);
}

/* Looks at COUNT slots. Returns the first damaged one that was not reported, or FIRST + COUNT. */
static uint32_t scrub_slots(struct segment *segment, uint32_t first, uint32_t count,
                            uint64_t *bytes)
{
    uint32_t slot = first;

    for (; slot < first + count; slot++) {
        if (segment_refs(segment, slot) == 0 || segment_is_reported(segment, slot))
            continue;
        *bytes += SEGMENT_SLOT_BYTES;
        if (segment_check(segment, slot, true) != SLOT_CHECK_GOOD)
            break;
    }
    return slot;
}

static bool any_in_use(const struct segment *segment, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        if (segment_refs(segment, slot) > 0)
            return true;
    }
    return false;
}

uint64_t slot_pool_scrub(struct slot_pool *pool, uint64_t *ref, uint32_t max, bool hurry,
                         uint64_t *bytes, bool *again)
{
    uint32_t i = *ref == 0 ? 0 : (uint32_t)(*ref >> 32) - 1;
    uint32_t first = slot_of(*ref);

    *again = false;
    while (i < pool->nmembers &&
           (pool->members[i].segment == NULL || first >= segment_slots(pool->members[i].segment))) {
        i++;
        first = 0;
    }
    *ref = i < pool->nmembers ? make_ref(i, first) : 0;
    if (*ref == 0)
        return 0;
    struct segment *segment = pool->members[i].segment;
    uint32_t left = segment_slots(segment) - first, count = max < left ? max : left;
    if (any_in_use(segment, first, count)) {
        *again = !hurry && !segment_is_near(segment, first, count);
        if (*again)
            return 0;
        uint32_t stop = scrub_slots(segment, first, count, bytes);
        if (stop < first + count) {
            segment_set_reported(segment, stop);
            if (segment_check(segment, stop, false) != SLOT_CHECK_GOOD)
                (void)segment_identify(segment, stop);
            *ref = make_ref(i, stop + 1);
            return make_ref(i, stop);
        }
    }
    *ref = make_ref(i, first + count);
    return 0;
}
