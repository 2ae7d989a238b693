/* Finding memory: how large the program is, which of its mappings to manage, what is resident. */
#include "space.h"

#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <string.h>

enum {
    SLOWEST_US = 10000, /* between two looks at the size */
    FASTEST_US = 500,
    /* No program fills memory faster than this; the time until it could have used up what is left
     * decides when to look again. */
    FILL_BYTES_PER_US = 8192,
    TOLERANCE_BYTES = 8 * 1024 * 1024,
    UNKNOWN_MOST_BYTES = 4 * 1024 * 1024, /* resident, but not in the table: worth a scan */
    RESCAN_US = 100000,
    RESCAN_MOST_US = 3000000,
    BRAKE_DENIED_US = 1000000,
    THREADS_US = 20000,
    REGIONS_AT_ONCE = 256,
    CHANGES_MOST = 4,       /* of one mapping while it is being registered */
    SETTLE_MOST_US = 20000, /* threads stop within a millisecond, where they get a processor */
    PROBE_US = 20000,
    SLOW_AGENT_US = 20000, /* it answers within a millisecond, where it gets a processor */
    LOOKS_MOST_US = 4000,
    SMALL_PAGES = 256, /* a process with less is not managed: a shell, say */
};

static uint64_t table_resident(const struct space *space)
{
    return page_table_count(space->table, PAGE_RESIDENT) +
           page_table_count(space->table, PAGE_MOVING);
}

uint64_t pager_resident(const struct pager *pager)
{
    if (pager->current)
        return pager->others_resident + (pager->current->dead ? 0 : space_resident(pager->current));
    uint64_t resident = 0;
    for (const struct space *space = pager->spaces; space; space = space->next)
        resident += space_resident(space);
    return resident;
}

uint64_t space_resident(const struct space *space)
{
    if (!space->pressed)
        return space->anonymous_pages;
    if (space_is_left_alone(space))
        return 0;
    if (!space->proc) {
        /* A child of which only the userfaultfd is known: what it has got since the fork. */
        uint64_t resident = table_resident(space);
        return resident > space->fork_base ? resident - space->fork_base : 0;
    }
    /* The sample, carried forward by what has come and gone since by our own hand. The table counts
     * pages that are mapped but not written yet, and so may be ahead; the sample sees memory that
     * is not registered yet. The larger one counts. */
    uint64_t resident = table_resident(space);
    uint64_t carried = space->anonymous_pages + resident;
    carried = carried > space->sampled_resident ? carried - space->sampled_resident : 0;
    return resident > carried ? resident : carried;
}

uint64_t space_unmanaged(const struct space *space)
{
    if (!space->pressed)
        return space->anonymous_pages < SMALL_PAGES ? space->anonymous_pages : 0;
    uint64_t resident = space_resident(space), known = table_resident(space);
    return resident > known ? resident - known : 0;
}

int look_interval_us(const struct pager *pager)
{
    uint64_t limit = pager->limit * PAGE_BYTES + TOLERANCE_BYTES;
    uint64_t used = pager_resident(pager) * PAGE_BYTES;
    uint64_t left_us = used < limit ? (limit - used) / FILL_BYTES_PER_US : 0;
    return left_us > SLOWEST_US ? SLOWEST_US : left_us < FASTEST_US ? FASTEST_US : (int)left_us;
}

void look_at_threads(struct space *space, uint64_t now_us)
{
    if (now_us - space->threads_us < THREADS_US)
        return;
    space->threads_us = now_us;
    int err = proc_map_look_at_threads(space->proc);
    if (err && err != -ESRCH)
        log_warn("Pager", "cannot look at the threads: %s", strerror(-err));
}

/* Ends the ranges that are being given up of which every thread is known to be done with it. True:
 * nothing is being given up any more. */
static bool settle(struct space *space)
{
    if (space->leaving.count > 0)
        leaving_end(&space->leaving,
                    proc_map_passed(space->proc, space->leaving.stamp, space->agent_tid));
    return space->leaving.count == 0;
}

/* Takes [start, end), pages that are in memory, into the table. */
static void adopt_pages(struct space *space, uint64_t start, uint64_t end)
{
    for (uint64_t page = start; page < end; page++) {
        enum page_state state = page_table_state(space->table, page);
        if (state != PAGE_NATIVE && state != PAGE_ZERO)
            continue;
        page_table_set(space->table, page, PAGE_RESIDENT);
        reclaim_push(space, page, false);
        space->sampled_resident++;
    }
}

/* The same, but for what is being given up: that may go at any moment, and must not leave before.
 */
static void adopt_staying(struct space *space, uint64_t start, uint64_t end)
{
    const struct leaving_range *leaving;
    while (start < end && (leaving = leaving_after(&space->leaving, start))) {
        if (leaving->start >= end)
            break;
        if (start < leaving->start)
            adopt_pages(space, start, leaving->start);
        start = leaving->end;
    }
    if (start < end)
        adopt_pages(space, start, end);
}

/* Takes pages that are there already into the table: in registered memory only, for only from there
 * will we hear when the program wants them back. */
static void adopt(struct space *space, uint64_t start, uint64_t end)
{
    uint64_t at = start;
    while (at < end) {
        struct kpage_region regions[REGIONS_AT_ONCE];
        uint64_t next = end;
        int count =
            uffd_scan(proc_map_pagemap(space->proc), at, end, KPAGE_IS_PRESENT | KPAGE_IS_WPALLOWED,
                      KPAGE_IS_PFNZERO, regions, REGIONS_AT_ONCE, &next);
        if (count < 0)
            return;
        for (int i = 0; i < count; i++)
            adopt_staying(space, regions[i].start / PAGE_BYTES, regions[i].end / PAGE_BYTES);
        if (next <= at)
            return;
        at = next;
    }
}

/* Calls EACH for the parts of [start, end) that are in no area. Returns their number. */
static int each_gap(struct space *space, uint64_t start, uint64_t end,
                    void (*each)(struct space *space, uint64_t start, uint64_t end))
{
    int count = 0;
    while (start < end) {
        const struct area *area = area_map_after(space->areas, start / PAGE_BYTES);
        uint64_t gap_end = area && area->start * PAGE_BYTES < end ? area->start * PAGE_BYTES : end;
        uint64_t next = area ? area->end * PAGE_BYTES : end;
        if (start < gap_end) {
            count++;
            if (each)
                each(space, start, gap_end);
        }
        start = gap_end == end ? end : next;
    }
    return count;
}

static void add_area(struct space *space, uint64_t start, uint64_t end)
{
    if (area_map_add(space->areas, start / PAGE_BYTES, end / PAGE_BYTES)) {
        log_fatal("Pager", "out of memory for the program's mappings");
        pager_fail(space->pager);
        return;
    }
    adopt(space, start, end);
}

/* What may be managed of RANGE around its page AT: not what is the agent's own, nor what is outside
 * of the window. */
static struct proc_range cut(const struct space *space, struct proc_range range, uint64_t at)
{
    const struct pager_config *config = &space->pager->config;
    if (range.start < config->start_addr)
        range.start = config->start_addr;
    if (range.end > config->end_addr)
        range.end = config->end_addr;
    for (int i = 0; i < AGENT_OWN_RANGES; i++) {
        const struct agent_range *own = &space->own[i];
        if (own->end <= at && own->end > range.start)
            range.start = own->end;
        if (own->end > at && own->start < range.end)
            range.end = own->start > at ? own->start : at;
    }
    return range;
}

/* Where the mapping at RANGE's start, by the list, begins and ends now. Empty: it is gone. */
static struct proc_range by_now(const struct space *space, struct proc_range range)
{
    struct proc_range now;
    int err = proc_map_at(space->proc, range.start, &now);
    if (err == -ENOENT)
        return (struct proc_range){range.start, range.start};
    return err ? range : cut(space, now, range.start);
}

/* Up to where what ends at END can grow in place, if nothing behind it goes: END where the kernel
 * cannot say. -EAGAIN: it has grown beyond END. */
static int room_after(const struct space *space, uint64_t end, uint64_t *reach)
{
    int err = proc_map_room_after(space->proc, end, reach);
    if (err == -EAGAIN)
        return err;
    if (err || *reach < end)
        *reach = end;
    return 0;
}

/* How far a mapping can have grown by the time it is registered: into the hole behind it (near),
 * and, if what is behind that goes meanwhile, over its place and the next hole (far). */
struct reach {
    uint64_t near, far;
};

/* *RANGE as it is now, and how far it reaches. */
static struct reach reach_by_now(const struct space *space, struct proc_range *range)
{
    struct reach reach;
    int err = -EAGAIN;
    for (int i = 0; i < CHANGES_MOST && err == -EAGAIN; i++) {
        *range = by_now(space, *range);
        err = room_after(space, range->end, &reach.near);
    }
    if (err)
        reach.near = range->end;
    struct proc_range behind;
    if (proc_map_at(space->proc, reach.near, &behind) || room_after(space, behind.end, &reach.far))
        reach.far = reach.near;
    reach.near = cut(space, (struct proc_range){range->start, reach.near}, range->start).end;
    reach.far = cut(space, (struct proc_range){range->start, reach.far}, range->start).end;
    return reach;
}

/* Registers RANGE and as much of what it reaches as can be. 0: it cannot be, or not now; or up to
 * where. */
static uint64_t take_range(struct space *space, struct proc_range range, struct reach reach)
{
    if (!uffd_is_quiet(space->uffd)) {
        /* It may have grown in place, or it may be new where we still believe an older one to be.
         * The events that are on their way will tell. And a mapping that is registered in part
         * could not be made whole before them. */
        space->look_again = true;
        return 0;
    }
    /* Something that cannot be registered may be there, or have come. */
    const uint64_t ends[] = {reach.far, reach.near, range.end};
    uint64_t end = 0;
    int err = -EINVAL;
    for (int i = 0; i < 3 && err; i++)
        if (ends[i] != end) {
            end = ends[i];
            err = uffd_register(space->uffd, range.start, end);
        }
    if (err) {
        /* -EBUSY: the program has a userfaultfd of its own there. Others: it changed under us. */
        log_debug("Pager", "%#llx-%#llx cannot be registered: %s", (unsigned long long)range.start,
                  (unsigned long long)range.end, strerror(-err));
        return 0;
    }
    const struct leaving_range *leaving = leaving_after(&space->leaving, range.start / PAGE_BYTES);
    if (leaving && leaving->start < range.end / PAGE_BYTES)
        settle(space);
    each_gap(space, range.start, range.end, add_area);
    space->registered++;
    return end;
}

/* Registers one mapping if there is something in it that we do not know, always as a whole: a part
 * would split it in two, and the program could not mremap() it any more. The list of mappings is
 * older than the time it took to read: so the kernel is asked for this one just before, and just
 * after for what has become of it between the two. And it is registered together with the hole
 * behind it, for it may be growing into that at this very moment, and with what is behind that,
 * which may be going; holes may be registered. */
static void take_over(struct space *space, struct proc_range range)
{
    for (int i = 0; i < CHANGES_MOST && each_gap(space, range.start, range.end, NULL) > 0; i++) {
        struct reach reach = reach_by_now(space, &range);
        uint64_t end = range.start < range.end ? take_range(space, range, reach) : 0;
        if (end == 0)
            return;
        range = by_now(space, range);
        /* What has grown farther is two mappings until the rest is registered too. */
        struct proc_range last;
        if (!proc_map_at(space->proc, end - 1, &last) && last.end == end)
            range = by_now(space, (struct proc_range){end, end});
    }
}

static void consider(void *arg, struct proc_range range)
{
    struct space *space = arg;
    const struct pager_config *config = &space->pager->config;
    if (range.start < config->start_addr)
        range.start = config->start_addr;
    if (range.end > config->end_addr)
        range.end = config->end_addr;
    /* What is the agent's own is cut out; the pieces before and after it are ordinary memory. */
    while (range.start < range.end) {
        uint64_t end = range.end;
        uint64_t next = range.end;
        for (int i = 0; i < AGENT_OWN_RANGES; i++) {
            const struct agent_range *own = &space->own[i];
            if (own->end > range.start && own->start < end) {
                end = own->start > range.start ? own->start : range.start;
                next = own->end;
            }
        }
        if (range.start < end)
            take_over(space, (struct proc_range){range.start, end});
        range.start = next;
    }
}

/* The end of what is registered around ADDRESS; itself if that is not. */
static uint64_t past_known(void *arg, uint64_t address)
{
    const struct space *space = arg;
    const struct area *area;
    while ((area = area_map_find(space->areas, address / PAGE_BYTES)))
        address = area->end * PAGE_BYTES;
    return address;
}

static void look_at_maps(struct space *space)
{
    struct pager *pager = space->pager;
    uint64_t begun = ticks_us();
    space->look_again = space->look_barren = false;
    uint64_t registered = space->registered;
    int err = proc_map_walk(space->proc, past_known, consider, space);
    /* Where the kernel cannot be asked for one mapping: what grew between the look and its
     * registration is two now, which the program cannot mremap() as one. The rest follows at once.
     */
    if (!err && space->registered != registered)
        err = proc_map_walk(space->proc, past_known, consider, space);
    if (err && err != -ESRCH)
        log_warn("Pager", "cannot read the memory map: %s", strerror(-err));
    space->looked_us = ticks_us();
    space->look_cost_us = space->looked_us - begun;
    pager->counters.looks++;
    pager->counters.looks_us += space->look_cost_us;
}

/* Ranges we believe to be registered and that are not: they were replaced in the moment between
 * our look and the registration. Nothing of them has been taken out. */
static void drop_unregistered(struct space *space)
{
    const struct area *area = area_map_after(space->areas, 0);
    while (area) {
        uint64_t end = area->end;
        uint64_t start = area->start * PAGE_BYTES;
        struct kpage_region region;
        uint64_t next = 0;
        int count = uffd_scan(proc_map_pagemap(space->proc), start, end * PAGE_BYTES,
                              KPAGE_IS_PRESENT, KPAGE_IS_WPALLOWED, &region, 1, &next);
        /* Quiet: else the range may be waiting for the event that says where its pages went. Nor
         * while pages are on their way out: what becomes of them the agent says first. */
        if (count == 1 && space->work != AGENT_MOVING && uffd_is_quiet(space->uffd)) {
            events_unmap(space, region.start / PAGE_BYTES, region.end / PAGE_BYTES);
            space->look_again = true;
            end = region.end / PAGE_BYTES;
        }
        area = area_map_after(space->areas, end);
    }
}

/* There is more resident than we know of: find it. */
static void rescan(struct space *space)
{
    settle(space);
    drop_unregistered(space);
    look_at_maps(space);
    const struct area *area = area_map_after(space->areas, 0);
    while (area) {
        uint64_t end = area->end;
        adopt(space, area->start * PAGE_BYTES, end * PAGE_BYTES);
        area = area_map_after(space->areas, end);
    }
}

/* An earlier image's brake is still letting go of the program: it can have one tracer. */
static bool is_held_already(const struct pager *pager)
{
    for (const struct space *dying = pager->dying; dying; dying = dying->next)
        if (brake_is_busy(&dying->brake))
            return true;
    return false;
}

static void note_denied(struct space *space, int err, uint64_t now_us)
{
    if (err != -ESRCH)
        log_warn("Pager", "the program cannot be held back while it grows: %s", strerror(-err));
    space->brake_denied_us = now_us + BRAKE_DENIED_US;
}

static void hold(struct space *space, uint64_t now_us)
{
    /* Held now it could not let its agent begin. */
    if (!space->serving || implant_is_under_way(space->pager, space->pid))
        return;
    int err = brake_stop(&space->brake, space->proc, space->pid, space->agent_tid);
    if (err == -EPERM && is_held_already(space->pager))
        return;
    if (err)
        note_denied(space, err, now_us);
    else
        space->pager->counters.brakes++;
}

/* A look at the mappings costs more than all else here, and of many processes that are held in turn
 * most have mapped nothing since the last one. */
static bool may_have_mapped(const struct space *space, const struct proc_size *size)
{
    return space->look_again || size->virtual_pages != space->virtual_pages;
}

/* The program has filled memory we had not seen, faster than pages can leave: let it wait. Half of
 * what lies between the threshold and the limit is kept for what it does until it stops. The same
 * when it has grown by so much since the last look that by the next it could be over. */
static void brake(struct space *space, uint64_t now_us)
{
    const struct pager *pager = space->pager;
    uint64_t grown = space->grown;
    bool soon =
        grown > UNKNOWN_MOST_BYTES / PAGE_BYTES && pager_resident(pager) + 2 * grown > pager->limit;
    if (space->brake.on || !(soon || pager_is_crowded(pager, 0)) ||
        now_us < space->brake_denied_us || reclaim_is_hopeless(space->pager, now_us))
        return;
    hold(space, now_us);
    space->just_held |= space->brake.on;
}

static bool must_be_pressed(const struct space *space)
{
    return !space->pressed && space->size.anonymous_pages >= SMALL_PAGES &&
           pager_resident(space->pager) >= space->pager->press;
}

/* By this a child will show that it has a userfaultfd from birth. */
static void register_mark(struct space *space)
{
    uint64_t start = space->mark * PAGE_BYTES;
    int err = uffd_register(space->uffd, start, start + PAGE_BYTES);
    if (err && err != -ESRCH) {
        log_fatal("Pager", "%d: the mark cannot be registered: %s", (int)space->pid,
                  strerror(-err));
        pager_fail(space->pager);
    }
}

static void press(struct space *space)
{
    space->pressed = true;
    space->sampled_resident = 0;
    region_open(space);
    register_mark(space);
    look_at_maps(space);
    log_info("Pager", "%d: %llu MiB resident, near the budget of %llu MiB: managing %zu areas",
             (int)space->pid, (unsigned long long)(space->anonymous_pages * PAGE_BYTES >> 20),
             (unsigned long long)(space->pager->limit * PAGE_BYTES >> 20),
             area_map_count(space->areas));
}

/* Pages that the program has given up and that stay all the same (MADV_FREE) are counted, and none
 * of them can leave before every thread was seen to be done with that. One that is always busy is
 * stopped for it, when there is no room. */
static void await_leaving(struct space *space, uint64_t now_us)
{
    if (space->brake.on || pager_resident(space->pager) <= space->pager->high ||
        now_us < space->brake_denied_us)
        return;
    hold(space, now_us);
    if (space->brake.on)
        space->settle_until_us = now_us + SETTLE_MOST_US;
}

static bool may_go_on(const struct space *space, uint64_t now_us)
{
    if (now_us < space->settle_until_us && space->leaving.count > 0)
        return false;
    if (must_be_pressed(space))
        return false; /* it is the next thing that happens */
    return pager_resident(space->pager) <= space->pager->high ||
           reclaim_is_hopeless(space->pager, now_us);
}

void look_release(struct space *space, uint64_t now_us)
{
    if (brake_is_busy(&space->brake))
        brake_poll(&space->brake);
    if (!space->brake.on)
        return;
    if (may_go_on(space, now_us)) {
        brake_release(&space->brake);
        return;
    }
    int err = brake_watch(&space->brake, space->proc, now_us);
    if (err) {
        note_denied(space, err, now_us);
        brake_release(&space->brake);
    }
}

static void note_peaks(const struct space *space, uint64_t outside)
{
    struct image_figures *figures = space->figures;
    if (!figures)
        return;
    if (space->anonymous_pages > figures->peak_resident_pages)
        figures->peak_resident_pages = space->anonymous_pages;
    if (space->anonymous_pages + outside > figures->peak_managed_pages)
        figures->peak_managed_pages = space->anonymous_pages + outside;
}

void look_note_peaks(struct pager *pager)
{
    struct pager_counters *counters = &pager->counters;
    uint64_t resident = 0, out = 0;
    counters->table_bytes = 0;
    for (const struct space *space = pager->spaces; space; space = space->next) {
        uint64_t outside = space_pages_out(space) - page_table_count(space->table, PAGE_MOVING);
        note_peaks(space, outside);
        resident += space->anonymous_pages;
        out += outside;
        counters->table_bytes += page_table_bytes(space->table);
    }
    counters->resident_pages = resident;
    counters->managed_pages = resident + out;
    if (resident > counters->peak_resident_pages)
        counters->peak_resident_pages = resident;
    if (resident + out > counters->peak_managed_pages)
        counters->peak_managed_pages = resident + out;
}

/* Of a child that has not reported nobody tells when it ends. */
static void probe(struct space *space, uint64_t now_us)
{
    if (now_us - space->probed_us < PROBE_US)
        return;
    space->probed_us = now_us;
    if (uffd_is_gone(space->uffd))
        space_end(space);
}

/* A process that is stopped gives nothing up: nobody may wait for that. */
static void look_at_agent(struct space *space, uint64_t now_us)
{
    bool is_awaited = space->work != AGENT_IDLE || !space->serving;
    bool slow = is_awaited && now_us > space->work_us + SLOW_AGENT_US;
    space->agent_stopped =
        (slow || space->agent_stopped) && proc_map_thread_stopped(space->proc, space->agent_tid);
}

static uint64_t longer_wait(uint64_t us)
{
    us = 2 * us + RESCAN_US;
    return us < RESCAN_MOST_US ? us : RESCAN_MOST_US;
}

void look_sample(struct space *space, uint64_t now_us)
{
    space->sampled = false;
    if (!space->proc && !space->dead)
        probe(space, now_us);
    if (space->dead || !space->proc || proc_map_size(space->proc, &space->size))
        return;
    space->sampled = true;
    look_at_agent(space, now_us);
    uint64_t before = space->anonymous_pages, now = space->size.anonymous_pages;
    space->grown = now > before ? now - before : 0;
    space->anonymous_pages = now;
    space->sampled_resident = table_resident(space);
    /* Registering takes the program's mapping lock, for which it may be fighting with itself: let
     * it not grow meanwhile. */
    if (must_be_pressed(space) && !space->brake.on && now_us >= space->brake_denied_us)
        hold(space, now_us);
    else if (space->pressed && !events_are_pending(space))
        brake(space, now_us);
}

static void look_at(struct space *space, uint64_t now_us)
{
    const struct proc_size *size = &space->size;
    if (space->dead || !space->sampled)
        return;
    if (!space->pressed) {
        if (must_be_pressed(space))
            press(space);
        space->virtual_pages = size->virtual_pages;
        return;
    }
    if (events_are_pending(space))
        return;
    if (space->just_held && may_have_mapped(space, size)) {
        space->virtual_pages = size->virtual_pages;
        look_at_maps(space); /* nothing grows now: all there is gets registered */
    }
    space->just_held = false;
    uint64_t known = table_resident(space);
    bool unknown = size->anonymous_pages > known + UNKNOWN_MOST_BYTES / PAGE_BYTES;
    /* With thousands of mappings a look is not free: it may take a tenth of the time. */
    bool affordable = now_us > space->looked_us + 9 * space->look_cost_us;
    bool due = may_have_mapped(space, size) && (affordable || unknown);
    /* Nothing of it could be taken: there may be memory that we do not know. Of a process that has
     * only what must stay that is so all the time. */
    bool barren = space->look_barren && now_us > space->looked_us + space->barren_wait_us;
    if (due || barren) {
        uint64_t registered = space->registered;
        space->virtual_pages = size->virtual_pages;
        look_at_maps(space);
        space->barren_wait_us =
            space->registered != registered ? 0 : longer_wait(space->barren_wait_us);
        known = table_resident(space);
        unknown = size->anonymous_pages > known + UNKNOWN_MOST_BYTES / PAGE_BYTES;
    }
    /* Held for that: as soon as it is known, and not only after the usual time. */
    bool settled = now_us < space->settle_until_us && settle(space);
    bool wanted = space->rescan_now && space->size.anonymous_pages > known;
    if (wanted || (unknown && (settled || now_us - space->rescanned_us > space->rescan_wait_us))) {
        rescan(space);
        space->settle_until_us = 0;
        if (space->leaving.count > 0)
            await_leaving(space, now_us);
        /* What cannot be found (it cannot be managed) is looked for less and less often. */
        bool found = table_resident(space) > known + UNKNOWN_MOST_BYTES / PAGE_BYTES / 4;
        space->rescan_wait_us = found ? RESCAN_US : longer_wait(space->rescan_wait_us);
        space->rescanned_us = ticks_us();
    }
    space->rescan_now = false;
}

/* A look takes a while: that of many is left off when the others have to be sampled again, and goes
 * on with those that have not had their turn. */
void look_tick(struct space *space, uint64_t now_us)
{
    struct pager *pager = space->pager;
    if (space->look_turn == pager->look_turn)
        return;
    if (ticks_us() > now_us + LOOKS_MOST_US) {
        pager->look_left = true;
        return;
    }
    space->look_turn = pager->look_turn;
    look_at(space, now_us);
}
