#include "fork_moment.h"

static int touched(const struct change *change, struct agent_range ranges[2])
{
    const struct uffd_msg *message = &change->message;
    if (message->event == UFFD_EVENT_UNMAP || message->event == UFFD_EVENT_REMOVE) {
        ranges[0] = (struct agent_range){message->arg.remove.start / AGENT_PAGE_BYTES,
                                         message->arg.remove.end / AGENT_PAGE_BYTES};
        return 1;
    }
    if (message->event != UFFD_EVENT_REMAP)
        return 0;
    uint64_t npages = message->arg.remap.len / AGENT_PAGE_BYTES;
    uint64_t from = message->arg.remap.from / AGENT_PAGE_BYTES;
    uint64_t to = message->arg.remap.to / AGENT_PAGE_BYTES;
    ranges[0] = (struct agent_range){from, from + npages};
    ranges[1] = (struct agent_range){to, to + npages};
    return 2;
}

int change_ranges(const struct change *change, struct agent_range ranges[2])
{
    return change->message.event == UFFD_EVENT_REMOVE ? 0 : touched(change, ranges);
}

static bool meet(const struct change *a, const struct change *b)
{
    struct agent_range of_a[2], of_b[2];
    int na = touched(a, of_a), nb = touched(b, of_b);
    for (int i = 0; i < na; i++)
        for (int j = 0; j < nb; j++)
            if (of_a[i].start < of_b[j].end && of_b[j].start < of_a[i].end)
                return true;
    return false;
}

static void join(struct change *changes, uint32_t count, uint32_t one, uint32_t other)
{
    for (uint32_t i = 0; i < count; i++)
        if (changes[i].group == one || changes[i].group == other)
            changes[i].group = one < other ? one : other;
}

static void group(struct change *changes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        changes[i].group = i;
        for (uint32_t j = 0; j < i; j++)
            if (changes[i].group != changes[j].group && meet(&changes[i], &changes[j]))
                join(changes, i + 1, changes[i].group, changes[j].group);
    }
}

static int change_map(struct area_map *map, const struct change *change)
{
    struct agent_range ranges[2];
    int count = change_ranges(change, ranges);
    if (count == 0 || (count == 2 && ranges[0].start == ranges[1].start))
        return 0;
    int err = area_map_remove(map, ranges[count - 1].start, ranges[count - 1].end);
    if (!err && count == 2)
        err = area_map_move(map, ranges[0].start, ranges[1].start, ranges[0].end - ranges[0].start);
    return err;
}

static int change_maps(struct fork_maps *maps, const struct change *change)
{
    int err = change_map(maps->areas, change);
    return err ? err : change_map(maps->seals, change);
}

/* One group of changes. */
struct view {
    const struct change *changes;
    uint32_t count, group;
    struct fork_maps *parent;
    const struct fork_maps *child;
};

/* How unlike they are, in what the group is about. A seal is better evidence than a mapping: that
 * may be there for another reason, as where memory is moved from (MREMAP_DONTUNMAP), or where other
 * memory has grown since. */
static uint64_t differing(const struct view *view)
{
    enum { WEIGHT_OF_SEALS = 8 };
    uint64_t sum = 0;
    for (uint32_t i = view->group; i < view->count; i++) {
        struct agent_range ranges[2];
        if (view->changes[i].group != view->group)
            continue;
        int count = change_ranges(&view->changes[i], ranges);
        for (int r = 0; r < count; r++) {
            uint64_t start = ranges[r].start, end = ranges[r].end;
            sum += (r == count - 1 ? 2 : 1) *
                   area_map_differing(view->parent->areas, view->child->areas, start, end);
            sum += WEIGHT_OF_SEALS *
                   area_map_differing(view->parent->seals, view->child->seals, start, end);
        }
    }
    return sum;
}

static uint32_t distance(uint32_t a, uint32_t b)
{
    return a < b ? b - a : a - b;
}

/* After how many of all the changes those of the group that came by then make the parent most like
 * the child; of such that do so equally, the nearest to BEFORE. */
static int find_moment(const struct view *view, uint32_t certain, uint32_t before, uint32_t *moment)
{
    uint64_t least = UINT64_MAX, now = differing(view);
    *moment = view->count;
    for (uint32_t i = 0;; i++) {
        bool is_nearer = distance(i, before) < distance(*moment, before);
        if (i >= certain && (now < least || (now == least && is_nearer))) {
            least = now;
            *moment = i;
        }
        if (i == view->count)
            return 0;
        if (view->changes[i].group != view->group)
            continue;
        int err = change_maps(view->parent, &view->changes[i]);
        if (err)
            return err;
        now = differing(view);
    }
}

int fork_moment_find(struct change *changes, uint32_t count, uint32_t certain, uint32_t before,
                     struct fork_maps *parent, const struct fork_maps *child)
{
    group(changes, count);
    for (uint32_t first = 0; first < count; first++) {
        uint32_t moment;
        if (changes[first].group != first)
            continue;
        struct view view = {changes, count, first, parent, child};
        int err = find_moment(&view, certain, before, &moment);
        if (err)
            return err;
        for (uint32_t i = first; i < count; i++)
            if (changes[i].group == first)
                changes[i].has_come = i < moment;
    }
    return 0;
}
