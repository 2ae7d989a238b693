#include "slot_pool_parts.h"

#include "slot_identify.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t slot_pool_ref(uint32_t member, uint32_t slot)
{
    return ((uint64_t)member + 1) << 32 | slot;
}

static uint32_t member_of(uint64_t ref)
{
    return (uint32_t)(ref >> 32) - 1;
}

static uint32_t slot_of(uint64_t ref)
{
    return (uint32_t)ref;
}

static struct segment *segment_of(const struct slot_pool *pool, uint64_t ref)
{
    return pool->members[member_of(ref)].segment;
}

bool slot_pool_is_empty(const struct segment *segment)
{
    return segment_ready_slots(segment) + segment_holes(segment) == segment_shape(segment).nslots;
}

uint64_t slot_pool_slot_bytes(uint32_t size_class)
{
    return (uint64_t)size_class_bytes(size_class) + SIZE_CLASS_HEADER_BYTES;
}

static void list_append(struct slot_pool *pool, enum slot_list list, uint32_t i)
{
    struct member *member = &pool->members[i];
    struct slot_link *link = &member->links[list];
    uint32_t *head = &pool->lists[list][member->size_class].head;
    uint32_t *tail = &pool->lists[list][member->size_class].tail;

    *link = (struct slot_link){.previous = *tail, .next = SLOT_POOL_NONE, .listed = true};
    if (*tail == SLOT_POOL_NONE)
        *head = i;
    else
        pool->members[*tail].links[list].next = i;
    *tail = i;
}

static void list_remove(struct slot_pool *pool, enum slot_list list, uint32_t i)
{
    struct member *member = &pool->members[i];
    struct slot_link *link = &member->links[list];

    if (link->previous == SLOT_POOL_NONE)
        pool->lists[list][member->size_class].head = link->next;
    else
        pool->members[link->previous].links[list].next = link->next;
    if (link->next == SLOT_POOL_NONE)
        pool->lists[list][member->size_class].tail = link->previous;
    else
        pool->members[link->next].links[list].previous = link->previous;
    link->listed = false;
}

static void list_if(struct slot_pool *pool, enum slot_list list, uint32_t i, bool wanted)
{
    if (wanted == pool->members[i].links[list].listed)
        return;
    if (wanted)
        list_append(pool, list, i);
    else
        list_remove(pool, list, i);
}

void slot_pool_account(struct slot_pool *pool, uint32_t i, int64_t nused, int64_t nready)
{
    const struct member *member = &pool->members[i];
    uint32_t size_class = member->size_class;

    pool->used += (uint64_t)nused;
    pool->used_bytes += (uint64_t)(nused * (int64_t)size_class_charge(size_class));
    pool->nused[size_class] += (uint64_t)nused;
    pool->held_bytes += (uint64_t)(nused * (int64_t)slot_pool_slot_bytes(size_class));
    list_if(pool, SLOT_LIST_UNMARKED, i, segment_unmarked_slots(member->segment) > 0);
    if (member->lost)
        return;
    pool->nready[size_class] += (uint64_t)nready;
    pool->ready_bytes += (uint64_t)(nready * (int64_t)slot_pool_slot_bytes(size_class));
    list_if(pool, SLOT_LIST_READY, i, segment_ready_slots(member->segment) > 0);
    list_if(pool, SLOT_LIST_HOLES, i, segment_holes(member->segment) > 0);
}

void slot_pool_forget(struct slot_pool *pool, uint32_t i)
{
    const struct member *member = &pool->members[i];
    uint32_t nready = segment_ready_slots(member->segment);

    pool->nready[member->size_class] -= nready;
    pool->ready_bytes -= nready * slot_pool_slot_bytes(member->size_class);
    list_if(pool, SLOT_LIST_READY, i, false);
    list_if(pool, SLOT_LIST_HOLES, i, false);
}

int slot_pool_make_member(struct slot_pool *pool, uint32_t i)
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

int slot_pool_path(const struct slot_pool *pool, const struct member *member, const char *suffix,
                   char *path, size_t cap)
{
    char name[SLOT_POOL_NAME_BYTES];

    slot_pool_name(&member->file, name, sizeof(name));
    int len = snprintf(path, cap, "%s/%s%s", pool->dir, name, suffix);
    return len < 0 || (size_t)len >= cap ? -ENAMETOOLONG : 0;
}

struct segment_shape slot_pool_shape(const struct slot_pool *pool, uint32_t slot_bytes)
{
    uint64_t bytes = (uint64_t)pool->segment_slots * WIRE_PAGE_BYTES;
    uint64_t nslots = bytes / (slot_bytes == 0 ? SIZE_CLASS_HEADER_BYTES : slot_bytes);

    if (nslots > SEGMENT_MAX_SLOTS)
        nslots = SEGMENT_MAX_SLOTS;
    nslots -= nslots % SEGMENT_GROUP_SLOTS;
    return (struct segment_shape){slot_bytes, (uint32_t)nslots};
}

/* Makes a segment file, which gets its name when it is whole. */
static int make_file(struct slot_pool *pool, const struct member *member, struct segment **out)
{
    char path[PATH_MAX], final_path[PATH_MAX];
    struct segment_shape shape = slot_pool_shape(pool, member->file.slot_bytes);
    int err = slot_pool_path(pool, member, ".new", path, sizeof(path));

    if (err == 0)
        err = slot_pool_path(pool, member, "", final_path, sizeof(final_path));
    if (err == 0)
        err = segment_create(out, pool->disk, path, shape);
    if (err != 0)
        return err;
    err = disk_rename(pool->disk, path, final_path);
    const char *name = err == 0 ? final_path : path;
    if (err == 0)
        err = slot_pool_note(pool, member, true);
    if (err == 0)
        return 0;
    segment_close(out);
    int left = disk_unlink(pool->disk, name);
    (void)left; /* opening the pool removes it */
    return err;
}

static int add_segment(struct slot_pool *pool, uint32_t size_class)
{
    uint32_t i = 0;

    while (i < pool->nmembers && pool->members[i].segment != NULL)
        i++;
    if (pool->next_number > SLOT_POOL_MAX_NUMBER)
        return -ENFILE;
    int err = slot_pool_make_member(pool, i);
    if (err != 0)
        return err;
    struct member *member = &pool->members[i];
    *member = (struct member){
        .file = {.number = pool->next_number, .slot_bytes = size_class_bytes(size_class)},
        .size_class = size_class,
    };
    struct segment *segment;
    err = make_file(pool, member, &segment);
    if (err != 0)
        return err;
    pool->changed = pool->dir_changed = true;
    pool->next_number++;
    pool->nempty++;
    member->segment = segment;
    slot_pool_account(pool, i, 0, 0);
    return 0;
}

void slot_pool_set_capacity(struct slot_pool *pool, uint64_t bytes)
{
    pool->capacity_bytes = bytes;
}

bool slot_pool_may_grow(const struct slot_pool *pool, uint64_t more_bytes)
{
    uint64_t capacity =
        pool->capacity_bytes > pool->used_bytes ? pool->capacity_bytes : pool->used_bytes;
    uint64_t bytes = pool->held_bytes + pool->ready_bytes + more_bytes, groups = 0;

    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++)
        groups += SEGMENT_GROUP_SLOTS * slot_pool_slot_bytes(size_class);
    return bytes <= groups || (bytes - groups) / 2 <= capacity;
}

/* Makes one more group ready. */
static int reserve_group(struct slot_pool *pool, uint32_t size_class)
{
    uint64_t bytes = SEGMENT_GROUP_SLOTS * slot_pool_slot_bytes(size_class);
    int err = slot_pool_may_grow(pool, bytes) ? 0 : -ENOSPC;

    if (err == 0 && pool->lists[SLOT_LIST_HOLES][size_class].head == SLOT_POOL_NONE)
        err = add_segment(pool, size_class);
    if (err != 0)
        return err;
    uint32_t i = pool->lists[SLOT_LIST_HOLES][size_class].head;
    int count = segment_reserve(pool->members[i].segment);
    if (count < 0)
        return count;
    slot_pool_account(pool, i, 0, count);
    return 0;
}

int slot_pool_reserve(struct slot_pool *pool, const uint32_t counts[SIZE_CLASSES])
{
    int err = 0;

    slot_pool_retire_lost(pool);
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        while (err == 0 && pool->nready[size_class] < counts[size_class])
            err = reserve_group(pool, size_class);
    }
    return err;
}

int slot_pool_fill_taken(struct slot_pool *pool, uint32_t i, uint32_t slot, uint32_t taken,
                         const struct slot_source *sources, uint64_t *first)
{
    struct segment *segment = pool->members[i].segment;
    int err = segment_fill(segment, slot, taken, sources);

    if (err != 0) {
        segment_untake(segment, slot, taken);
        slot_pool_account(pool, i, 0, -(int64_t)taken);
        if (segment_is_lost(segment))
            slot_pool_retire(pool, i);
        return err;
    }
    slot_pool_account(pool, i, taken, -(int64_t)taken);
    *first = slot_pool_ref(i, slot);
    return (int)taken;
}

int slot_pool_fill(struct slot_pool *pool, uint32_t count, const struct slot_source *sources,
                   uint64_t *first)
{
    uint32_t size_class = size_class_of(sources[0].page->length_bytes);
    uint32_t i = pool->lists[SLOT_LIST_READY][size_class].head;
    uint32_t alike = 1;
    uint32_t slot = 0;

    assert(i != SLOT_POOL_NONE && count > 0);
    while (alike < count && size_class_of(sources[alike].page->length_bytes) == size_class)
        alike++;
    struct segment *segment = pool->members[i].segment;
    bool was_empty = slot_pool_is_empty(segment);
    pool->changed = true;
    uint32_t taken = segment_take(segment, alike, &slot);
    pool->nempty -= was_empty;
    int done = slot_pool_fill_taken(pool, i, slot, taken, sources, first);
    if (done > 0)
        pool->compact.filled[size_class] += (uint32_t)done;
    return done;
}

void slot_pool_retain(struct slot_pool *pool, uint64_t ref)
{
    segment_retain(segment_of(pool, ref), slot_of(ref));
}

static void free_slot(struct slot_pool *pool, uint64_t ref)
{
    segment_free(segment_of(pool, ref), slot_of(ref));
    slot_pool_account(pool, member_of(ref), 0, 0);
}

void slot_pool_free(struct slot_pool *pool, uint64_t ref)
{
    free_slot(pool, ref);
    slot_pool_note_freed(pool, pool->members[member_of(ref)].size_class, 1);
}

static int supersede(struct slot_pool *pool, uint64_t ref)
{
    segment_supersede(segment_of(pool, ref), slot_of(ref));
    slot_pool_account(pool, member_of(ref), 0, 0);
    return ref_queue_push(&pool->superseded, ref, pool->rounds_begun + 1);
}

/* When there is no memory to remember it by, a slot stays out of use until the next start; and so
 * do slots that say of pages that they were dropped, for it may be one of theirs. */
static void free_later(struct slot_pool *pool, uint64_t ref)
{
    int err = 0;

    if (segment_is_dropped(segment_of(pool, ref), slot_of(ref)))
        err = ref_queue_push(&pool->dropped, ref, pool->full_begun + 2);
    else if (pool->durable)
        err = supersede(pool, ref);
    else
        slot_pool_free(pool, ref);
    pool->forgot = pool->forgot || err != 0;
}

void slot_pool_release(struct slot_pool *pool, uint64_t ref)
{
    if (!segment_unhold(segment_of(pool, ref), slot_of(ref)))
        return;
    slot_pool_account(pool, member_of(ref), -1, 0);
    free_later(pool, ref);
}

void slot_pool_drop(struct slot_pool *pool, uint64_t ref, bool is_dropped)
{
    segment_drop(segment_of(pool, ref), slot_of(ref), is_dropped);
    slot_pool_account(pool, member_of(ref), 0, 0);
    pool->changed = true;
}

void slot_pool_revive(struct slot_pool *pool, uint64_t ref)
{
    segment_revive(segment_of(pool, ref), slot_of(ref));
    slot_pool_account(pool, member_of(ref), 0, 0);
    pool->changed = true;
}

bool slot_pool_is_writable(const struct slot_pool *pool, uint64_t ref)
{
    return !segment_is_lost(segment_of(pool, ref));
}

void slot_pool_discard(struct slot_pool *pool, uint64_t ref)
{
    bool last = segment_unhold(segment_of(pool, ref), slot_of(ref));

    assert(last);
    (void)last;
    slot_pool_account(pool, member_of(ref), -1, 0);
    /* Not a change that makes it worth while to look again: a copy may be what is discarded. */
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
    return segment_is_sound(segment_of(pool, ref), slot_of(ref));
}

bool slot_pool_has_bad_page(const struct slot_pool *pool, uint64_t ref)
{
    return segment_is_reported(segment_of(pool, ref), slot_of(ref)) &&
           slot_pool_is_sound(pool, ref);
}

uint64_t slot_pool_written(const struct slot_pool *pool, uint64_t ref)
{
    return slot_header_written(slot_pool_header(pool, ref),
                               segment_shape(segment_of(pool, ref)).slot_bytes);
}

bool slot_pool_identify(const struct slot_pool *pool, uint64_t ref, struct slot_header *out)
{
    const struct segment *segment = segment_of(pool, ref);
    const struct slot_header *header = slot_pool_header(pool, ref);

    return slot_identify(header, slot_of(ref), segment_shape(segment).slot_bytes, out);
}

int slot_pool_lose(struct slot_pool *pool, uint64_t ref, const struct slot_header *header)
{
    pool->changed = true;
    return segment_lose(segment_of(pool, ref), slot_of(ref), header);
}

bool slot_pool_read(const struct slot_pool *pool, uint64_t ref, struct slot_header *header,
                    void *bytes)
{
    const struct segment *segment = segment_of(pool, ref);

    return segment_refs(segment, slot_of(ref)) > 0 && !segment_is_reported(segment, slot_of(ref)) &&
           segment_copy(segment, slot_of(ref), header, bytes);
}

bool slot_pool_is_lost(const struct slot_pool *pool, uint64_t ref)
{
    return slot_pool_header(pool, ref)->encoding == SLOT_LOST && slot_pool_is_sound(pool, ref);
}

void slot_pool_place(const struct slot_pool *pool, uint64_t ref, char *file, size_t cap,
                     uint64_t *slot)
{
    slot_pool_name(&pool->members[member_of(ref)].file, file, cap);
    *slot = slot_of(ref);
}

uint64_t slot_pool_used(const struct slot_pool *pool)
{
    return pool->used;
}

uint64_t slot_pool_used_bytes(const struct slot_pool *pool)
{
    return pool->used_bytes;
}

uint32_t slot_pool_charge(const struct slot_pool *pool, uint64_t ref)
{
    return size_class_charge(pool->members[member_of(ref)].size_class);
}
