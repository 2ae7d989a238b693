#include "readahead.h"

#include <stddef.h>
#include <string.h>

enum {
    FIRST_WINDOW = 4,
    NEAR_PAGES = 4,        /* this close to a single fault makes it a stream */
    AHEAD_FROM_WINDOW = 8, /* shorter streams are not worth a second request */
};

/* NPAGES pages from FROM in DIRECTION, as a range; stops at page 0. */
static struct readahead_range range_from(uint64_t from, uint32_t npages, int direction)
{
    if (direction >= 0)
        return (struct readahead_range){from, npages};
    if (from + 1 < npages)
        npages = (uint32_t)(from + 1);
    return (struct readahead_range){from + 1 - npages, npages};
}

static uint64_t step(uint64_t page, uint32_t npages, int direction)
{
    if (direction >= 0)
        return page + npages;
    return page >= npages ? page - npages : 0;
}

/* How far PAGE lies beyond where STREAM expects its next fault, in the stream's direction. */
static int64_t beyond(const struct readahead_stream *stream, uint64_t page)
{
    int64_t distance = (int64_t)(page - stream->next);
    return stream->direction < 0 ? -distance : distance;
}

/* Pages that have been asked for beyond the next fault. */
static uint64_t asked_ahead(const struct readahead_stream *stream)
{
    return stream->direction < 0 ? stream->next - stream->edge : stream->edge - stream->next;
}

static struct readahead_stream *find(struct readahead *readahead, uint64_t page)
{
    for (int i = 0; i < READAHEAD_STREAMS; i++) {
        struct readahead_stream *stream = &readahead->streams[i];
        if (stream->used_at == 0 || stream->direction == 0)
            continue;
        int64_t distance = beyond(stream, page);
        /* A stream faults where its window ended, or a little further on where pages in between
         * were still there. With more leeway random faults would find a stream by chance. Or it
         * faults on what was asked for ahead and not kept. */
        if (distance >= 0 &&
            distance <= NEAR_PAGES + (int64_t)stream->window / 2 + (int64_t)asked_ahead(stream))
            return stream;
    }
    for (int i = 0; i < READAHEAD_STREAMS; i++) {
        struct readahead_stream *stream = &readahead->streams[i];
        if (stream->used_at == 0 || stream->direction != 0)
            continue;
        int64_t distance = (int64_t)(page - stream->next);
        if (distance != 0 && distance >= -NEAR_PAGES && distance <= NEAR_PAGES) {
            stream->direction = distance > 0 ? 1 : -1;
            stream->window = FIRST_WINDOW / 2;
            return stream;
        }
    }
    return NULL;
}

static struct readahead_stream *oldest(struct readahead *readahead)
{
    struct readahead_stream *oldest = &readahead->streams[0];
    for (int i = 1; i < READAHEAD_STREAMS; i++)
        if (readahead->streams[i].used_at < oldest->used_at)
            oldest = &readahead->streams[i];
    return oldest;
}

static void widen(struct readahead_stream *stream)
{
    stream->window *= 2;
    if (stream->window > READAHEAD_MAX_PAGES)
        stream->window = READAHEAD_MAX_PAGES;
}

static void ask_ahead(struct readahead_stream *stream, struct readahead_plan *plan, uint32_t npages)
{
    plan->ahead = range_from(stream->edge, npages, stream->direction);
    stream->mark = stream->edge;
    stream->edge = step(stream->edge, npages, stream->direction);
}

/* That PAGE faults says whether the program has used the one before it. */
static void judge(struct readahead_stream *stream, struct readahead_fault fault)
{
    stream->sparse = stream->direction > 0 ? fault.out_below : fault.out_above;
}

struct readahead_plan readahead_miss(struct readahead *readahead, struct readahead_fault fault)
{
    uint64_t page = fault.page;
    struct readahead_plan plan = {{page, 1}, {page, 0}, 0, false, false};
    struct readahead_stream *stream = find(readahead, page);
    if (!stream) {
        stream = oldest(readahead);
        *stream = (struct readahead_stream){page, page, 0, 1, 0, page, ++readahead->clock, false};
        return plan;
    }
    stream->used_at = ++readahead->clock;
    judge(stream, fault);
    plan.sparse = stream->sparse;
    widen(stream);
    int direction = plan.direction = stream->direction;
    stream->reach = 0;
    plan.demand = range_from(page, stream->window, direction);
    stream->next = stream->edge = stream->mark = step(page, stream->window, direction);
    if (stream->sparse)
        stream->next = step(page, 1, direction); /* the rest of the demand is only at hand */
    if (stream->window >= AHEAD_FROM_WINDOW)
        ask_ahead(stream, &plan, stream->window);
    return plan;
}

/* The stream that asked for PAGE ahead. */
static struct readahead_stream *find_ahead(struct readahead *readahead, uint64_t page)
{
    for (int i = 0; i < READAHEAD_STREAMS; i++) {
        struct readahead_stream *stream = &readahead->streams[i];
        if (stream->used_at == 0 || stream->direction == 0)
            continue;
        uint64_t low = stream->direction > 0 ? stream->next : stream->edge;
        uint64_t high = stream->direction > 0 ? stream->edge : stream->next;
        if (page >= low && page <= high)
            return stream;
    }
    return NULL;
}

struct readahead_plan readahead_hit(struct readahead *readahead, struct readahead_fault fault,
                                    uint32_t most)
{
    uint64_t page = fault.page;
    struct readahead_plan plan = {{page, 0}, {page, 0}, 0, false, false};
    struct readahead_stream *stream = find_ahead(readahead, page);
    if (!stream)
        return plan;
    stream->used_at = ++readahead->clock;
    judge(stream, fault);
    plan.sparse = stream->sparse;
    if (stream->sparse) {
        stream->reach = 0;
        most = 0;
    }
    bool full = stream->window == READAHEAD_MAX_PAGES;
    widen(stream);
    plan.direction = stream->direction;
    plan.proven = stream->reach > READAHEAD_MAX_PAGES;
    stream->next = step(page, 1, stream->direction);
    if (stream->direction > 0 ? page < stream->mark : page > stream->mark)
        return plan;
    stream->reach = full ? 2 * stream->reach : stream->window;
    if (stream->reach + stream->window > most)
        stream->reach = most > stream->window ? most - stream->window : 0;
    if (stream->reach < stream->window)
        stream->reach = stream->window;
    plan.proven = stream->reach > READAHEAD_MAX_PAGES;
    uint64_t asked = asked_ahead(stream) + 1;
    uint64_t more = stream->window + stream->reach;
    more = more > asked + stream->window ? more - asked : stream->window;
    ask_ahead(stream, &plan, (uint32_t)more);
    return plan;
}
