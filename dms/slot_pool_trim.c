#include "slot_pool_parts.h"

#include <limits.h>

enum {
    /* Empty files that are kept: making one costs as much as many pages. */
    SPARE_SEGMENTS = 1,
    /* One step: some 100 us. The file system writes what is dirty before it gives it back. */
    STEP_GROUPS = 1024,
    STEP_CALLS = 1,
    /* Blocks of free slots are kept for the next pages as long as they are no more than this part
     * of those in use, and the group that each class is filling; it stops at half that part. While
     * hardly anything is stored they are kept up to the second and the third part. */
    BEGIN_PART = 20,
    END_PART = 40,
    IDLE_END_PART = 80,
};

/* What is left in the groups being filled. */
static uint64_t open_bytes(const struct slot_pool *pool)
{
    uint64_t bytes = 0;

    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        if (pool->nused[size_class] > 0 && !pool->compact.idle)
            bytes += SEGMENT_GROUP_SLOTS * slot_pool_slot_bytes(size_class);
    }
    if (pool->compact.phase == COMPACT_MOVE)
        bytes += SEGMENT_GROUP_SLOTS * slot_pool_slot_bytes(pool->compact.size_class);
    return bytes;
}

static bool is_removable(const struct member *member)
{
    return member->segment != NULL && !member->lost && !member->kept &&
           slot_pool_is_empty(member->segment);
}

/* Unlinks an empty file. One that cannot be removed stays in use, and is not tried again: that
 * would be noted each time. Returns whether there was something to do. */
static bool remove_empty(struct slot_pool *pool)
{
    char path[PATH_MAX];
    uint32_t i = pool->nmembers;

    while (i > 0 && !is_removable(&pool->members[i - 1]))
        i--;
    if (i-- == 0)
        return false;
    struct member *member = &pool->members[i];
    if (slot_pool_path(pool, member, "", path, sizeof(path)) != 0 ||
        slot_pool_note(pool, member, false) != 0)
        return false;
    if (disk_unlink(pool->disk, path) != 0) {
        member->kept = true;
        int err = slot_pool_note(pool, member, true);
        (void)err; /* the next start notes what is there */
        return true;
    }
    pool->dir_changed = true;
    pool->nempty--;
    pool->nunsure -= segment_is_unsure(member->segment);
    slot_pool_forget(pool, i);
    pool->dying = member->segment;
    member->segment = NULL;
    return true;
}

/* Ready bytes at which giving back blocks ends. */
static uint64_t end_of_trim(const struct slot_pool *pool, bool all)
{
    uint32_t part = pool->compact.idle ? IDLE_END_PART : END_PART;

    return all ? 0 : pool->used_bytes / part + open_bytes(pool);
}

/* And those at which it begins. */
static uint64_t begin_of_trim(const struct slot_pool *pool)
{
    uint32_t part = pool->compact.idle ? END_PART : BEGIN_PART;

    return pool->used_bytes / part + open_bytes(pool);
}

static bool is_enough(const struct slot_pool *pool, bool all)
{
    return pool->nunsure == 0 && pool->ready_bytes <= end_of_trim(pool, all);
}

/* Whether to look at the segments (again). */
static bool wants_holes(struct slot_pool *pool, bool all)
{
    struct slot_trim *trim = &pool->trim;

    if (trim->impossible || is_enough(pool, all)) {
        trim->left = 0;
        return false;
    }
    if (trim->left > 0 || pool->nunsure > 0)
        return true;
    if (trim->stuck > pool->ready_bytes)
        trim->stuck = pool->ready_bytes;
    uint64_t fresh = pool->ready_bytes - trim->stuck;
    if (all)
        return fresh > 0;
    return pool->ready_bytes > begin_of_trim(pool) && fresh > end_of_trim(pool, false) / 2;
}

static void next_member(struct slot_pool *pool)
{
    struct slot_trim *trim = &pool->trim;
    struct segment *segment = pool->members[trim->member].segment;

    if (segment != NULL && segment_is_unsure(segment)) {
        segment_be_sure(segment);
        pool->nunsure--;
    }
    trim->member = (trim->member + 1) % pool->nmembers;
    trim->slot = 0;
    trim->left--;
}

/* Whether the segment the trim has got to has slots left to look at. */
static bool has_slots(const struct slot_pool *pool)
{
    const struct segment *segment = pool->members[pool->trim.member].segment;

    return segment != NULL && !pool->members[pool->trim.member].lost &&
           pool->trim.slot < segment_shape(segment).nslots &&
           (segment_ready_slots(segment) > 0 || segment_is_unsure(segment));
}

static bool make_holes(struct slot_pool *pool, bool all)
{
    struct slot_trim *trim = &pool->trim;
    unsigned calls = STEP_CALLS;

    if (!wants_holes(pool, all))
        return false;
    if (trim->left == 0) {
        trim->left = pool->nmembers;
        trim->slot = 0;
        trim->seen = pool->ready_bytes;
    }
    for (unsigned i = 0; i < STEP_GROUPS && calls > 0 && trim->left > 0; i++) {
        if (!has_slots(pool)) {
            next_member(pool);
            continue;
        }
        struct segment *segment = pool->members[trim->member].segment;
        uint32_t before = segment_ready_slots(segment);
        uint64_t before_bytes = pool->ready_bytes;
        int err = segment_punch(segment, &trim->slot, &calls);
        slot_pool_account(pool, trim->member, 0, (int64_t)segment_ready_slots(segment) - before);
        uint64_t punched = before_bytes - pool->ready_bytes;
        trim->seen -= punched < trim->seen ? punched : trim->seen;
        if (err != 0) {
            trim->impossible = true;
            return false;
        }
        if (is_enough(pool, all)) {
            trim->left = 0;
            return false;
        }
    }
    if (trim->left > 0)
        return true;
    /* What was freed where it had been already is for the next time. */
    trim->stuck = trim->seen;
    return wants_holes(pool, all);
}

bool slot_pool_trim(struct slot_pool *pool, bool all)
{
    /* It may be about to sync a file that would be closed here. And what is punched out may hold
     * marks that it is to write: they would be on disk neither way. */
    if (pool->rounds_begun != pool->rounds_done)
        return false;
    uint32_t keep = all || pool->used == 0 ? 0 : SPARE_SEGMENTS;

    if (pool->dying != NULL) {
        if (segment_shrink(pool->dying))
            segment_close(&pool->dying);
        return true;
    }
    if (pool->nempty > keep && remove_empty(pool))
        return true;
    return make_holes(pool, all);
}
