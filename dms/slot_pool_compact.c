#include "slot_pool_parts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum {
    /* What a class takes on disk may be this part more than its pages need (the first while pages
     * are stored: what is free for those must not be worth it), and these bytes; if it is more than
     * that, pages are moved until it is no more than the last part. */
    BEGIN_PART = 8,
    IDLE_BEGIN_PART = 32,
    END_PART = 64,
    SPARE_BYTES = 8 << 10,
    /* A class is looked at when this part of its pages was freed since the last time (the second
     * while hardly anything is stored) and so many, and no more than the first part of them stored
     * in a while: what is stored fills free slots better than moving does. */
    CHANGED_PART = 16,
    IDLE_CHANGED_PART = 64,
    CHANGED_LEAST = SEGMENT_GROUP_SLOTS,
    IDLE_CHANGED_LEAST = 8,
    IDLE_PART = 64, /* of all pages, in a while: hardly anything */
    CHECK_MS = 2000,
    STEP_GROUPS = 1024, /* looked at in a step: some 50 us */
    BATCH_MS = 1,       /* from one batch of pages to the next: some 10 % of a processor */
    NEAR_MS = 5,        /* until bytes that were asked for may be in memory */
    MAX_WAITS = 200,
    MOST_WAITING = 4096, /* slots that wait for a round of syncing: they take room twice */
};

void slot_pool_set_compacting(struct slot_pool *pool, bool eagerly)
{
    pool->compact.eager = eagerly;
    pool->compact.never = !eagerly;
}

void slot_pool_note_freed(struct slot_pool *pool, uint32_t size_class, uint32_t nslots)
{
    pool->compact.freed[size_class] += nslots;
}

/* The segment of the class at PLACE; NULL: there is none. */
static struct segment *segment_at(const struct slot_pool *pool, struct slot_place place)
{
    if (place.member >= pool->nmembers)
        return NULL;
    const struct member *member = &pool->members[place.member];
    bool fits = member->segment != NULL && !member->lost &&
                member->size_class == pool->compact.size_class &&
                place.group < segment_shape(member->segment).nslots / SEGMENT_GROUP_SLOTS;
    return fits ? member->segment : NULL;
}

/* The group after PLACE, or the first of the next file where there is none. */
static void step_on(const struct slot_pool *pool, struct slot_place *place)
{
    place->group++;
    if (segment_at(pool, *place) == NULL)
        *place = (struct slot_place){place->member + 1, 0};
}

/* The group before PLACE. False: there is none. */
static bool step_back(const struct slot_pool *pool, struct slot_place *place)
{
    if (place->group > 0) {
        place->group--;
        return true;
    }
    if (place->member == 0)
        return false;
    place->member--;
    const struct segment *segment = pool->members[place->member].segment;
    if (segment != NULL)
        place->group = segment_shape(segment).nslots / SEGMENT_GROUP_SLOTS - 1;
    return true;
}

static bool is_before(struct slot_place a, struct slot_place b)
{
    return a.member != b.member ? a.member < b.member : a.group < b.group;
}

/* The blocks of a group, header included, once those of free slots are given back. */
static uint32_t count_blocks(uint32_t slot_bytes, uint64_t held)
{
    uint32_t count = 1, end = 0; /* blocks before END are counted */

    if (held == ~(uint64_t)0)
        return count + slot_bytes * SEGMENT_GROUP_SLOTS / SEGMENT_BLOCK_BYTES;
    for (; held != 0 && slot_bytes > 0; held &= held - 1) {
        uint32_t slot = (uint32_t)__builtin_ctzll(held);
        uint32_t from = slot * slot_bytes / SEGMENT_BLOCK_BYTES;
        uint32_t to = ((slot + 1) * slot_bytes - 1) / SEGMENT_BLOCK_BYTES + 1;
        from = from < end ? end : from;
        count += to > from ? to - from : 0;
        end = to;
    }
    return count;
}

static uint64_t need_bytes(const struct slot_pool *pool, uint64_t nslots)
{
    return nslots * slot_pool_slot_bytes(pool->compact.size_class);
}

/* The fewest slots in use that a group has which would be kept if all were moved that can be. */
static uint32_t fullest_limit(const struct slot_compact *compact, uint64_t nused)
{
    uint64_t needed = (nused + SEGMENT_GROUP_SLOTS - 1) / SEGMENT_GROUP_SLOTS;
    uint32_t nslots = SEGMENT_GROUP_SLOTS;

    for (uint64_t kept = compact->ngroups[nslots]; kept < needed && nslots > 1;)
        kept += compact->ngroups[--nslots];
    return nslots;
}

/* From the survey: up to how many slots in use a group is to be emptied; 0: it is not worth it. */
static uint32_t choose_limit(const struct slot_pool *pool)
{
    const struct slot_compact *compact = &pool->compact;
    uint64_t nused = 0, ngroups = 0, disk = 0;

    for (uint32_t n = 1; n <= SEGMENT_GROUP_SLOTS; n++) {
        nused += (uint64_t)n * compact->ngroups[n];
        ngroups += compact->ngroups[n];
        disk += compact->nblocks[n] * SEGMENT_BLOCK_BYTES;
    }
    uint32_t most = fullest_limit(compact, nused);
    if (ngroups <= (nused + SEGMENT_GROUP_SLOTS - 1) / SEGMENT_GROUP_SLOTS)
        return 0;
    if (compact->eager)
        return most;
    uint64_t need = need_bytes(pool, nused) + SPARE_BYTES;
    if (disk <= need + need / (compact->idle ? IDLE_BEGIN_PART : BEGIN_PART))
        return 0;
    uint32_t limit = 0;
    while (limit < most && disk > need + need / END_PART) {
        limit++;
        disk -= compact->nblocks[limit] * SEGMENT_BLOCK_BYTES;
        disk += need_bytes(pool, (uint64_t)limit * compact->ngroups[limit]);
    }
    return limit;
}

/* Counts on. Returns whether all groups of the class are counted. */
static bool survey(struct slot_pool *pool)
{
    struct slot_compact *compact = &pool->compact;

    for (unsigned i = 0; i < STEP_GROUPS && compact->at.member < pool->nmembers; i++) {
        const struct segment *segment = segment_at(pool, compact->at);
        uint64_t held = segment == NULL ? 0 : segment_held_in(segment, compact->at.group);
        if (held != 0) {
            uint32_t n = (uint32_t)__builtin_popcountll(held);
            compact->ngroups[n]++;
            compact->nblocks[n] += count_blocks(segment_shape(segment).slot_bytes, held);
        }
        step_on(pool, &compact->at);
    }
    return compact->at.member >= pool->nmembers;
}

static void begin_survey(struct slot_pool *pool, uint32_t size_class)
{
    struct slot_compact *compact = &pool->compact;

    compact->phase = COMPACT_SURVEY;
    compact->size_class = size_class;
    compact->freed[size_class] = 0;
    compact->at = (struct slot_place){0};
    memset(compact->ngroups, 0, sizeof(compact->ngroups));
    memset(compact->nblocks, 0, sizeof(compact->nblocks));
}

static void begin_moves(struct slot_pool *pool)
{
    struct slot_compact *compact = &pool->compact;

    compact->limit = choose_limit(pool);
    compact->later[compact->size_class] = !compact->idle;
    compact->phase = compact->limit == 0 ? COMPACT_IDLE : COMPACT_MOVE;
    compact->at = (struct slot_place){0};
    compact->to = (struct slot_place){pool->nmembers, 0};
    compact->done = 0;
    compact->nwaits = 0;
}

static uint64_t count_filled(const struct slot_compact *compact)
{
    uint64_t count = 0;

    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++)
        count += compact->filled[size_class];
    return count;
}

/* Notes which classes have been left alone for a while. */
static void look_for_quiet(struct slot_pool *pool, int64_t now_ms)
{
    struct slot_compact *compact = &pool->compact;

    if (compact->checked_ms == 0)
        compact->checked_ms = now_ms;
    if (now_ms - compact->checked_ms < CHECK_MS)
        return;
    compact->checked_ms = now_ms;
    compact->idle = count_filled(compact) <= pool->used / IDLE_PART;
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        compact->quiet[size_class] =
            compact->filled[size_class] <= pool->nused[size_class] / CHANGED_PART;
        compact->filled[size_class] = 0;
    }
}

static bool has_changed(const struct slot_pool *pool, uint32_t size_class)
{
    const struct slot_compact *compact = &pool->compact;
    uint64_t nused = pool->nused[size_class], freed = compact->freed[size_class];

    if (nused == 0)
        return false;
    if (compact->eager)
        return freed > 0;
    if (compact->idle)
        return compact->later[size_class] ||
               (freed >= IDLE_CHANGED_LEAST && freed >= nused / IDLE_CHANGED_PART);
    return freed >= CHANGED_LEAST && freed >= nused / CHANGED_PART;
}

/* Begins to look at a class that is worth it. *PAUSE_MS: when one may be. */
static void find_class(struct slot_pool *pool, int64_t now_ms, int *pause_ms)
{
    struct slot_compact *compact = &pool->compact;

    int next_ms = compact->eager ? -1 : (int)(compact->checked_ms + CHECK_MS - now_ms);
    if (count_filled(compact) > 0)
        *pause_ms = next_ms;
    for (uint32_t size_class = 0; size_class < SIZE_CLASSES; size_class++) {
        if (!compact->idle && compact->later[size_class])
            *pause_ms = next_ms;
        if (!has_changed(pool, size_class))
            continue;
        if (compact->eager || compact->quiet[size_class]) {
            begin_survey(pool, size_class);
            *pause_ms = 0;
            return;
        }
        *pause_ms = next_ms;
    }
}

static uint32_t count_held(const struct segment *segment, uint32_t group)
{
    return (uint32_t)__builtin_popcountll(segment_held_in(segment, group));
}

/* Groups are only ever filled that have pages, and from others that have no more: so the number of
 * groups falls, and moving comes to an end. */
static bool is_target(const struct slot_pool *pool, struct slot_place place)
{
    const struct segment *segment = segment_at(pool, place);

    return segment != NULL && segment_free_in(segment, place.group) != 0 &&
           count_held(segment, place.group) >= pool->compact.limit;
}

static bool is_sparse(const struct slot_pool *pool, struct slot_place place)
{
    const struct segment *segment = segment_at(pool, place);
    uint32_t held = segment == NULL ? 0 : count_held(segment, place.group);

    if (held == 0 || held > pool->compact.limit)
        return false;
    return held < pool->compact.limit || is_before(place, pool->compact.to);
}

/* Finds the group to be filled and the next to be emptied. Returns false if there are none, or (the
 * phase is as before) not yet. */
static bool find_groups(struct slot_pool *pool)
{
    struct slot_compact *compact = &pool->compact;
    unsigned looks = 0;

    for (; looks < STEP_GROUPS && !is_target(pool, compact->to); looks++) {
        if (!step_back(pool, &compact->to)) {
            compact->phase = COMPACT_IDLE;
            return false;
        }
    }
    for (; looks < STEP_GROUPS && !is_sparse(pool, compact->at); looks++) {
        step_on(pool, &compact->at);
        compact->done = 0;
        if (compact->at.member >= pool->nmembers) {
            compact->phase = COMPACT_IDLE;
            return false;
        }
    }
    return looks < STEP_GROUPS;
}

/* The next slots of the group to be emptied, as many as have room in the one to be filled. */
static uint32_t gather(struct slot_pool *pool, uint64_t *refs, uint32_t max)
{
    struct slot_compact *compact = &pool->compact;
    const struct segment *segment = segment_at(pool, compact->at);
    uint64_t held = segment_held_in(segment, compact->at.group) & ~compact->done;
    uint64_t room = segment_free_in(segment_at(pool, compact->to), compact->to.group);
    uint32_t first = compact->at.group * SEGMENT_GROUP_SLOTS, count = 0;

    max = max < (uint32_t)__builtin_popcountll(room) ? max : (uint32_t)__builtin_popcountll(room);
    for (; held != 0 && count < max; held &= held - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(held);
        compact->done |= (uint64_t)1 << i;
        refs[count++] = slot_pool_ref(compact->at.member, first + i);
    }
    if (held == 0) {
        step_on(pool, &compact->at);
        compact->done = 0;
    }
    return count;
}

/* Whether the bytes of the group to be emptied are in memory, or were waited for long enough. */
static bool is_near(struct slot_pool *pool)
{
    struct slot_compact *compact = &pool->compact;
    const struct segment *segment = segment_at(pool, compact->at);
    uint32_t first = compact->at.group * SEGMENT_GROUP_SLOTS;

    if (compact->nwaits < MAX_WAITS && !segment_is_near(segment, first, SEGMENT_GROUP_SLOTS)) {
        compact->nwaits++;
        return false;
    }
    compact->nwaits = 0;
    return true;
}

uint32_t slot_pool_choose(struct slot_pool *pool, int64_t now_ms, uint64_t *refs, uint32_t max,
                          int *pause_ms)
{
    struct slot_compact *compact = &pool->compact;

    *pause_ms = -1;
    if (compact->never)
        return 0;
    if (!compact->eager)
        look_for_quiet(pool, now_ms);
    if (pool->rounds_begun != pool->rounds_done || slot_pool_waiting(pool) > MOST_WAITING)
        return 0;
    if (!compact->eager && !compact->quiet[compact->size_class])
        compact->phase = COMPACT_IDLE;
    if (compact->phase == COMPACT_IDLE) {
        find_class(pool, now_ms, pause_ms);
        return 0;
    }
    *pause_ms = 0;
    if (compact->phase == COMPACT_SURVEY) {
        if (survey(pool))
            begin_moves(pool);
        return 0;
    }
    if (!compact->eager && now_ms < compact->due_ms) {
        *pause_ms = (int)(compact->due_ms - now_ms);
        return 0;
    }
    if (!find_groups(pool))
        return 0;
    if (!is_near(pool)) {
        *pause_ms = compact->eager ? 0 : NEAR_MS;
        return 0;
    }
    compact->due_ms = now_ms + BATCH_MS;
    return gather(pool, refs, max);
}

/* Makes sure that COUNT slots of the group to be filled are ready. */
static int reserve_target(struct slot_pool *pool, struct segment *segment, uint32_t count)
{
    struct slot_place to = pool->compact.to;
    uint64_t bytes = SEGMENT_GROUP_SLOTS * slot_pool_slot_bytes(pool->compact.size_class);

    if (segment_ready_in(segment, to.group) >= count)
        return 0;
    if (!slot_pool_may_grow(pool, bytes))
        return -ENOSPC;
    int made = segment_reserve_in(segment, to.group);
    if (made < 0)
        return made;
    slot_pool_account(pool, to.member, 0, made);
    return 0;
}

int slot_pool_fill_chosen(struct slot_pool *pool, uint32_t count, const struct slot_source *sources,
                          uint64_t *first)
{
    struct slot_compact *compact = &pool->compact;
    struct segment *segment = segment_at(pool, compact->to);
    uint32_t slot = 0;

    assert(segment != NULL && compact->phase != COMPACT_SURVEY);
    int err = reserve_target(pool, segment, count);
    if (err != 0) {
        compact->phase = COMPACT_IDLE;
        return err;
    }
    uint32_t taken = segment_take_in(segment, compact->to.group, count, &slot);
    int done = slot_pool_fill_taken(pool, compact->to.member, slot, taken, sources, first);
    if (done < 0)
        compact->phase = COMPACT_IDLE;
    return done;
}
