/*
 * The budget, and that it can change while the program runs.
 *
 * A smaller one holds at once: until enough has left there is no room for any fault, and the brake
 * is on. A limit that went down with what is resident, so that the program could go on meanwhile,
 * was tried: see DESIGN.md.
 */
#include "space.h"

#include "../ini/log.h"

enum {
    /* Managed memory has that share of the budget, and so much for each process, in any case. */
    FLOOR_SHARE = 4,
    FLOOR_PAGES = 64,
    UNMANAGED_US = 1000000,      /* what could not be managed for so long cannot be */
    PRESS_SHARE = 8,             /* managing begins an eighth of the budget, */
    PRESS_MOST_BYTES = 64 << 20, /* or this much if that is more, below the limit */
};

static uint64_t high_of(const struct pager *pager, uint64_t limit)
{
    return limit * pager->config.high_threshold / 100;
}

static void apply(struct pager *pager, uint64_t limit)
{
    const struct pager_config *config = &pager->config;
    pager->limit = limit;
    pager->high = high_of(pager, limit);
    pager->low = pager->limit * config->low_threshold / 100;
    uint64_t margin = pager->limit / PRESS_SHARE;
    if (margin < PRESS_MOST_BYTES / PAGE_BYTES)
        margin = PRESS_MOST_BYTES / PAGE_BYTES;
    pager->press = pager->limit > margin ? pager->limit - margin : 0;
    if (pager->press > pager->high)
        pager->press = pager->high;
}

void limit_set(struct pager *pager, uint64_t bytes)
{
    pager->budget = bytes / PAGE_BYTES;
    pager->unmanaged_us = 0;
    pager->floor_told = false;
    apply(pager, pager->budget);
}

/* What nothing can be done about in all processes together. What is not known yet is among it for a
 * moment. */
static uint64_t count_unmanaged(const struct pager *pager)
{
    uint64_t pages = 0;
    for (const struct space *space = pager->spaces; space; space = space->next)
        pages += space_unmanaged(space);
    return pages;
}

static void tell(struct pager *pager)
{
    if (!pager->floor_told)
        log_warn("Pager",
                 "%llu MiB of the program's memory cannot be managed (docs/memory.md), most of the "
                 "%llu MiB it may have: it is given %llu MiB, as long as that is so",
                 (unsigned long long)(pager->unmanaged * PAGE_BYTES >> 20),
                 (unsigned long long)(pager->budget * PAGE_BYTES >> 20),
                 (unsigned long long)(pager->limit * PAGE_BYTES >> 20));
    pager->floor_told = true;
}

/* Where what cannot be managed leaves no room for the rest, every page that comes in would throw
 * out another at once, and nothing would get on. The budget is exceeded then, or nearly so,
 * whatever we do. */
static uint64_t limit_with(const struct pager *pager, uint64_t unmanaged)
{
    uint64_t share = pager->budget / FLOOR_SHARE;
    if (unmanaged + share <= pager->budget)
        return pager->budget;
    uint64_t each = pager->processes * (uint64_t)FLOOR_PAGES;
    return unmanaged + (each > share ? each : share);
}

/* Has all be found that can be managed, however little it is in each process. */
static void rescan_all(struct pager *pager)
{
    for (struct space *space = pager->spaces; space; space = space->next)
        space->rescan_now = space->pressed && space->proc;
    pager->rescanned = true;
}

static bool is_rescanned(const struct pager *pager)
{
    for (const struct space *space = pager->spaces; space; space = space->next)
        if (space->rescan_now)
            return false;
    return pager->rescanned;
}

static void keep_floor(struct pager *pager, uint64_t now_us)
{
    uint64_t pages = count_unmanaged(pager);
    if (pages < pager->unmanaged)
        pager->unmanaged = pages;
    if (now_us < pager->unmanaged_us + UNMANAGED_US)
        return;
    uint64_t limit = pager->unmanaged_us ? limit_with(pager, pager->unmanaged) : pager->limit;
    /* Up only if it is so after another look, and not for little. */
    bool up = limit > pager->limit + (pager->limit > pager->budget ? pager->budget / 16 : 0);
    if (up && !is_rescanned(pager)) {
        rescan_all(pager);
    } else if (up || limit < pager->limit) {
        apply(pager, limit);
        pager->rescanned = false;
        if (limit > pager->budget)
            tell(pager);
    }
    if (!up)
        pager->rescanned = false;
    pager->unmanaged = pages;
    pager->unmanaged_us = now_us;
}

bool limit_take(struct pager *pager)
{
    uint32_t change = pager->limits.asked_change;
    if (change == pager->change)
        return false;
    pager->change = change;
    limit_set(pager, pager->limits.asked_bytes);
    return true;
}

/* Within the budget to a hair is not enough: the kernel counts what is resident to some hundred
 * KiB, and others will look too. With no process at all the program is between two images, or has
 * just ended. */
static bool is_kept(struct pager *pager, uint64_t resident, uint64_t now_us)
{
    return pager->spaces && (resident <= high_of(pager, pager->budget) ||
                             (resident <= pager->budget && reclaim_is_hopeless(pager, now_us)));
}

void limit_tick(struct pager *pager, uint64_t now_us)
{
    keep_floor(pager, now_us);
    if (pager->limits.kept_change == pager->change)
        return;
    uint64_t resident = pager_resident(pager);
    if (!is_kept(pager, resident, now_us))
        return;
    pager->limits.kept_resident = resident;
    pager->limits.kept_change = pager->change;
    pager_tell_news(pager);
}
