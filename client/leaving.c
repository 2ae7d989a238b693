#include "leaving.h"

#include <stddef.h>
#include <string.h>

static void take_out(struct leaving *leaving, uint32_t at)
{
    leaving->count--;
    memmove(&leaving->ranges[at], &leaving->ranges[at + 1],
            (leaving->count - at) * sizeof leaving->ranges[0]);
}

static void put_in(struct leaving *leaving, uint32_t at, struct leaving_range range)
{
    memmove(&leaving->ranges[at + 1], &leaving->ranges[at],
            (leaving->count - at) * sizeof leaving->ranges[0]);
    leaving->ranges[at] = range;
    leaving->count++;
}

/* Joins the two neighbours with the least between them. */
static void make_room(struct leaving *leaving)
{
    struct leaving_range *ranges = leaving->ranges;
    uint32_t best = 0;
    for (uint32_t i = 1; i + 1 < leaving->count; i++)
        if (ranges[i + 1].start - ranges[i].end < ranges[best + 1].start - ranges[best].end)
            best = i;
    ranges[best].end = ranges[best + 1].end;
    if (ranges[best].stamp < ranges[best + 1].stamp)
        ranges[best].stamp = ranges[best + 1].stamp;
    take_out(leaving, best + 1);
}

static uint32_t first_after(const struct leaving *leaving, uint64_t page)
{
    uint32_t i = 0;
    while (i < leaving->count && leaving->ranges[i].end <= page)
        i++;
    return i;
}

void leaving_add(struct leaving *leaving, uint64_t start, uint64_t end)
{
    struct leaving_range range = {start, end, ++leaving->stamp};
    if (start >= end)
        return;
    uint32_t i = first_after(leaving, start);
    while (i < leaving->count && leaving->ranges[i].start < end) {
        /* What was being given up before is given up once more: the later one counts. */
        if (leaving->ranges[i].start < range.start)
            range.start = leaving->ranges[i].start;
        if (leaving->ranges[i].end > range.end)
            range.end = leaving->ranges[i].end;
        take_out(leaving, i);
    }
    put_in(leaving, i, range);
    if (leaving->count > LEAVING_RANGES)
        make_room(leaving);
}

void leaving_cut(struct leaving *leaving, uint64_t start, uint64_t end)
{
    uint32_t i = first_after(leaving, start);
    while (start < end && i < leaving->count && leaving->ranges[i].start < end) {
        struct leaving_range *range = &leaving->ranges[i];
        struct leaving_range rest = {end, range->end, range->stamp};
        if (range->start < start) {
            range->end = start;
            i++;
        } else {
            take_out(leaving, i);
        }
        if (rest.start < rest.end) {
            put_in(leaving, i, rest);
            break;
        }
    }
    if (leaving->count > LEAVING_RANGES)
        make_room(leaving);
}

void leaving_end(struct leaving *leaving, uint64_t stamp)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < leaving->count; i++)
        if (leaving->ranges[i].stamp > stamp)
            leaving->ranges[kept++] = leaving->ranges[i];
    leaving->count = kept;
}

const struct leaving_range *leaving_after(const struct leaving *leaving, uint64_t page)
{
    uint32_t i = first_after(leaving, page);
    return i < leaving->count ? &leaving->ranges[i] : NULL;
}

bool leaving_has(const struct leaving *leaving, uint64_t page)
{
    const struct leaving_range *range = leaving_after(leaving, page);
    return range && range->start <= page;
}
