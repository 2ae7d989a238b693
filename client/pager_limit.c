/*
 * The budget, and that it can change while the program runs.
 *
 * A smaller one holds at once: until enough has left there is no room for any fault, and the brake
 * is on. A limit that went down with what is resident, so that the program could go on meanwhile,
 * was tried: see DESIGN.md.
 */
#include "space.h"

enum {
    PRESS_SHARE = 8,             /* managing begins an eighth of the budget, */
    PRESS_MOST_BYTES = 64 << 20, /* or this much if that is more, below the limit */
};

void limit_set(struct pager *pager, uint64_t bytes)
{
    const struct pager_config *config = &pager->config;
    pager->limit = bytes / PAGE_BYTES;
    pager->high = pager->limit * config->high_threshold / 100;
    pager->low = pager->limit * config->low_threshold / 100;
    uint64_t margin = pager->limit / PRESS_SHARE;
    if (margin < PRESS_MOST_BYTES / PAGE_BYTES)
        margin = PRESS_MOST_BYTES / PAGE_BYTES;
    pager->press = pager->limit > margin ? pager->limit - margin : 0;
    if (pager->press > pager->high)
        pager->press = pager->high;
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
    return pager->spaces && (resident <= pager->high ||
                             (resident <= pager->limit && reclaim_is_hopeless(pager, now_us)));
}

void limit_tick(struct pager *pager, uint64_t now_us)
{
    if (pager->limits.kept_change == pager->change)
        return;
    uint64_t resident = pager_resident(pager);
    if (!is_kept(pager, resident, now_us))
        return;
    pager->limits.kept_resident = resident;
    pager->limits.kept_change = pager->change;
    pager_tell_news(pager);
}
