/* Regions other than the program's first: every later image and every child has one of its own,
 * made anew or as a branch of its parent's, and removed when it ends. */
#include "space.h"

#include "../ini/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void name_region(struct space *space)
{
    struct pager *pager = space->pager;
    char mark[32];
    int len = snprintf(mark, sizeof mark, ".%u", ++pager->nregions);
    snprintf(space->region_name, sizeof space->region_name, "%.*s%s", WIRE_MAX_NAME_BYTES - len,
             pager->config.region, mark);
}

/* Asks every shard for the same; SOURCE: the region it is about, if any. */
static int ask_all(struct space *space, uint8_t method, const struct store_region *source,
                   rpc_callback *callback)
{
    struct pager *pager = space->pager;
    struct wire_request *request = &pager->request;
    for (uint32_t shard = 0; shard < pager->set->nshards; shard++) {
        if (method == WIRE_REMOVE && source->ids[shard] == 0)
            continue; /* it has not answered when it was to be made */
        memset(request, 0, sizeof *request);
        request->method = method;
        request->region = source ? source->ids[shard] : 0;
        request->epoch = source ? source->epoch : space->region.epoch;
        if (method != WIRE_REMOVE)
            memcpy(request->name, space->region_name, sizeof space->region_name);
        int err = rpc_call(pager->rpc, shard, request, NULL, 0, callback, space);
        if (err)
            return err;
        space->region_answers++;
    }
    return 0;
}

static void fail(struct space *space, const char *what, const char *detail)
{
    log_fatal("Pager", "region %s cannot be %s (%s): the program is ended", space->region_name,
              what, detail);
    pager_fail(space->pager);
}

static void open_named(struct space *space);

static void on_opened(struct space *space)
{
    space->region_state = REGION_READY;
    space->being_made = false;
    if (space->dead)
        region_remove(space);
}

static void on_region(void *arg, struct rpc_answer *answer)
{
    struct space *space = arg;
    space->region_answers--;
    if (answer->status == WIRE_OK) {
        space->region.ids[answer->shard] = answer->reply->region;
    } else if (!space->dead) {
        fail(space, space->region_opened ? "opened" : "branched", answer->detail);
        return;
    }
    if (space->region_answers > 0 || (space->pager->failed && !space->dead))
        return;
    if (space->region_opened) {
        on_opened(space);
    } else {
        fork_branched(space);
        open_named(space);
    }
}

static void open_named(struct space *space)
{
    /* A branch begins with epoch 1: taking it over is the next. */
    space->region_opened = true;
    space->region.epoch = 2;
    space->region_state = REGION_OPENING;
    int err = ask_all(space, WIRE_OPEN, NULL, on_region);
    if (err)
        fail(space, "opened", strerror(-err));
}

void region_open(struct space *space)
{
    if (space->region_state != REGION_NONE)
        return;
    space->owns_region = true;
    name_region(space);
    open_named(space);
}

int region_branch(struct space *space, const struct space *parent)
{
    space->owns_region = true;
    space->region_state = REGION_OPENING;
    name_region(space);
    return ask_all(space, WIRE_BRANCH, &parent->region, on_region);
}

static void on_remove(void *arg, struct rpc_answer *answer)
{
    struct space *space = arg;
    space->region_answers--;
    if (answer->status == WIRE_OK || answer->status == WIRE_NOT_FOUND)
        space->region_removed++;
    else
        log_warn("Pager", "region %s: removing it: %s %s", space->region_name,
                 wire_status_name(answer->status), answer->detail);
}

void region_remove(struct space *space)
{
    if (space->region_state != REGION_READY)
        return; /* never made, or being made: on_opened() comes back to it */
    space->region_state = REGION_NONE;
    int err = ask_all(space, WIRE_REMOVE, &space->region, on_remove);
    if (err)
        log_warn("Pager", "region %s cannot be removed: %s", space->region_name, strerror(-err));
}

/* ---- the end ---- */

static bool is_left(const struct space *space)
{
    return space->owns_region && (space->region_state != REGION_NONE || space->region_answers > 0);
}

static bool any_is_left(struct pager *pager)
{
    bool any = false;
    for (struct space *space = pager->dying; space; space = space->next) {
        /* Some shard has refused it, or has not answered for too long. */
        if (is_left(space) && space->region_answers == 0) {
            space->region_state = REGION_READY;
            if (!space->region_opened)
                space->region.epoch = 1;
            region_remove(space);
        }
        any = any || is_left(space);
    }
    return any;
}

void regions_end(struct pager *pager)
{
    enum { LOOK_MS = 20 };
    uint64_t begun = ticks_us();
    while (any_is_left(pager) && ticks_us() - begun < 1000ull * pager->config.remove_ms) {
        struct pollfd fds[CONFIG_MAX_SHARDS];
        if (rpc_process(pager->rpc) == 0 && poll(fds, rpc_poll_fds(pager->rpc, fds), LOOK_MS) < 0 &&
            errno != EINTR)
            break;
    }
    for (const struct space *space = pager->dying; space; space = space->next)
        if (is_left(space))
            log_warn("Pager", "region %s could be removed from %u of %u shards only",
                     space->region_name, space->region_removed, pager->set->nshards);
}
