/* Faults, and the fetches they start. */
#include "space.h"

#include "page_code.h"
#include "uffd.h"
#include "../ini/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_ZERO_RUN = 8, /* never-used pages mapped around a first touch */
    MOST_ZERO_RUN = 512,
    FETCH_ATTEMPTS = 3,
    READY_MOST = SPACE_FETCHES / 2, /* fetches kept ahead; each holds up to 256 KiB */
    MOST_AHEAD = 8 * READAHEAD_MAX_PAGES,
    AHEAD_SHARE = 64, /* of the budget, for one stream */
};

static void send_fetch(struct fetch *fetch);

void fault_list_add(struct fault_list *list, struct fault fault)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        struct fault *faults = realloc(list->faults, capacity * sizeof *faults);
        if (!faults) {
            /* The thread that faulted would wait for ever. */
            log_fatal("Pager", "out of memory");
            abort();
        }
        list->faults = faults;
        list->capacity = capacity;
    }
    list->faults[list->count++] = fault;
}

/* It left so lately that with a little more memory it would still be there. */
static bool left_lately(const struct space *space, uint64_t page)
{
    uint16_t at = page_table_evicted_at(space->table, page);
    uint16_t now = (uint16_t)(space->evict_clock / 256);
    return at != 0 && space->evict_clock > 0 && (uint16_t)(now - at) < space->pager->limit / 256;
}

/* FAULTED: the program has asked for this very page. What merely comes along, read ahead or mapped
 * with others, proves nothing: else a reader of every few pages would have what it passes over put
 * among the hot ones, in place of what it uses. */
static void came_in(struct space *space, uint64_t page, bool faulted)
{
    page_table_set(space->table, page, PAGE_RESIDENT);
    reclaim_push(space, page, faulted && left_lately(space, page));
}

static void answered(struct space *space, uint64_t at_us)
{
    if (at_us == 0)
        return;
    space->pager->faulted_us = ticks_us();
    histogram_add(&space->pager->counters.fault_us, space->pager->faulted_us - at_us);
}

/* ---- zero pages ---- */

static bool is_untouched(const struct space *space, uint64_t page)
{
    enum page_state state = page_table_state(space->table, page);
    return state == PAGE_NATIVE || state == PAGE_ZERO;
}

/* How many pages from PAGE on to map at once: more when first touches follow each other. */
static uint64_t zero_run(struct space *space, uint64_t page, uint64_t room)
{
    const struct area *area = area_map_find(space->areas, page);
    if (!area)
        return 1;
    if (page == space->zero_next && space->zero_run < MOST_ZERO_RUN)
        space->zero_run *= 2;
    else if (page != space->zero_next)
        space->zero_run = FIRST_ZERO_RUN;
    uint64_t most = space->zero_run < room ? space->zero_run : room;
    if (most > area->end - page)
        most = area->end - page;
    uint64_t npages = 1;
    while (npages < most && is_untouched(space, page + npages))
        npages++;
    return npages;
}

bool fault_has_seal(const struct space *space, uint64_t page)
{
    return space->proc && uffd_page_is(proc_map_pagemap(space->proc), page * PAGE_BYTES,
                                       UFFD_SEAL_IS, UFFD_SEAL_IS_NOT) == 1;
}

void fault_lost(struct space *space, uint64_t page)
{
    if (!space->pager->failed)
        log_fatal("Pager", "%d: page %#llx was outside, and is not known: the program is ended",
                  (int)space->pid, (unsigned long long)page);
    pager_fail(space->pager);
}

/* UFFDIO_ZEROPAGE has said EEXIST. What was outside and is zero now may have its seal still.
 * Anything else that has one ought to be known: its content is lost, and the program must not find
 * zeros. */
static long zero_sealed(struct space *space, uint64_t page, uint64_t npages)
{
    if (space->proc && !fault_has_seal(space, page))
        return -EEXIST;
    if (space->proc && page_table_state(space->table, page) != PAGE_ZERO) {
        if (!uffd_is_quiet(space->uffd))
            return -EAGAIN; /* events may tell how it has come there */
        fault_lost(space, page);
        return -ENOENT;
    }
    int err = uffd_unseal(space->uffd, page * PAGE_BYTES, npages);
    return err ? err : uffd_zero(space->uffd, page * PAGE_BYTES, npages);
}

static void handle_zero(struct space *space, struct fault fault, uint64_t room)
{
    uint64_t npages = zero_run(space, fault.page, room > 0 ? room : 1);
    long done = uffd_zero(space->uffd, fault.page * PAGE_BYTES, npages);
    if (done == -EEXIST)
        done = zero_sealed(space, fault.page, npages);
    if (done == -EAGAIN) {
        fault_list_add(&space->again, fault);
        return;
    }
    if (done == -EEXIST) {
        if (is_untouched(space, fault.page) && area_map_find(space->areas, fault.page) &&
            !leaving_has(&space->leaving, fault.page))
            came_in(space, fault.page, true); /* it was there, and nobody had told us */
        return;
    }
    if (done < 0) {
        /* The mapping is gone. If it has been replaced by one that is not registered, the thread
         * will find that on its own. */
        space->look_again = true;
        uffd_wake(space->uffd, fault.page * PAGE_BYTES, 1);
        return;
    }
    if (!area_map_find(space->areas, fault.page)) {
        /* Registered, but unknown: memory that was grown in place. Nothing of it can be out. */
        space->look_again = true;
        done = 0;
    }
    if (done > 0 && space->proc && !is_untouched(space, fault.page))
        reclaim_note_gone(space, fault.page);
    for (long i = 0; i < done; i++)
        /* The first may be RESIDENT by the table: the kernel has dropped it since (madvise). */
        if (is_untouched(space, fault.page + (uint64_t)i))
            came_in(space, fault.page + (uint64_t)i, i == 0);
    space->zero_next = fault.page + (uint64_t)done;
    space->pager->counters.faults_zero++;
    answered(space, fault.at_us);
}

/* ---- pages that were given up unseen ---- */

/* How many of the NPAGES pages from PAGE on, which are out, are still to be put in where they were:
 * up to the first that the program has given up by a call that the kernel does not tell of. That
 * shows in its seal being gone. */
static uint64_t count_kept(const struct space *space, uint64_t page, uint64_t npages)
{
    uint64_t empty, kept = 0, sealed = 0;
    if (npages > UFFD_AT_ONCE)
        npages = UFFD_AT_ONCE;
    for (uint64_t i = 0; i < npages; i++)
        if (page_table_sealed(space->table, page + i))
            sealed |= 1ull << i;
    /* Where a change is under way nothing can be put in, and looking would wait for a fork's end.
     */
    if (!sealed || !space->proc || !uffd_is_quiet(space->uffd) ||
        !uffd_find_empty(proc_map_pagemap(space->proc), page, npages, &empty))
        return npages;
    while (kept < npages && !((empty & sealed) >> kept & 1))
        kept++;
    return kept;
}

/* Of such a page. False: events have to be read first. They may tell where it has gone. */
static bool note_emptied(struct space *space, uint64_t page)
{
    if (!uffd_is_quiet(space->uffd))
        return false;
    log_debug("Pager", "page %#llx was given up unseen", (unsigned long long)page);
    space->pager->counters.pages_given_up_unseen++;
    events_empty(space, page);
    return true;
}

/* ---- pages in the pool ---- */

static void handle_staged(struct space *space, struct fault fault)
{
    uint32_t at;
    struct batch *batch = reclaim_find_staged(space, fault.page, &at);
    if (!batch) {
        log_fatal("Pager", "page %#llx is staged but in no batch", (unsigned long long)fault.page);
        pager_fail(space->pager);
        return;
    }
    if (batch == space->moving) {
        /* The agent has not copied it into the pool yet. */
        fault_list_add(&space->again, fault);
        return;
    }
    if (count_kept(space, fault.page, 1) == 0) {
        if (!note_emptied(space, fault.page))
            fault_list_add(&space->again, fault);
        return;
    }
    long done =
        uffd_copy(space->uffd, fault.page * PAGE_BYTES, batch->bytes + (size_t)at * PAGE_BYTES, 1);
    if (done == -EAGAIN) {
        fault_list_add(&space->again, fault);
        return;
    }
    if (done == 1) {
        /* What the store will have of it, and when, is not known any more. */
        page_table_clear_stored(space->table, fault.page);
        batch->page[at] = NO_PAGE;
        came_in(space, fault.page, true);
        space->pager->counters.faults_staged++;
        answered(space, fault.at_us);
        return;
    }
    space->look_again = true;
    uffd_wake(space->uffd, fault.page * PAGE_BYTES, 1);
}

/* ---- fetches ---- */

static struct fetch *find_fetch(struct space *space, uint64_t page, uint32_t *at)
{
    for (int f = 0; f < SPACE_FETCHES; f++) {
        struct fetch *fetch = &space->fetches[f];
        for (uint32_t i = 0; fetch->state != FETCH_FREE && i < fetch->npages; i++)
            if (fetch->page[i] == page) {
                *at = i;
                return fetch;
            }
    }
    return NULL;
}

/* Its pages one after the other; NO_PAGE ones too. */
static const char *fetched_bytes(const struct fetch *fetch)
{
    return fetch->decoded ? fetch->decoded : rpc_body_bytes(fetch->body);
}

void fetch_free(struct fetch *fetch)
{
    rpc_body_destroy(&fetch->body);
    free(fetch->decoded);
    fetch->decoded = NULL;
    fetch->state = FETCH_FREE;
}

/* Pages that were read ahead and not used: the store has them still. */
static void forget_ready(struct fetch *fetch)
{
    struct space *space = fetch->space;
    for (uint32_t i = 0; i < fetch->npages; i++)
        if (fetch->page[i] != NO_PAGE) {
            page_table_set(space->table, fetch->page[i], PAGE_REMOTE);
            space->pager->counters.readahead_wasted++;
        }
    fetch_free(fetch);
}

/* How many pages may be on their way or at hand ahead of a stream: not so many that they push each
 * other out. */
static uint32_t most_ahead(const struct space *space)
{
    uint64_t share = space->pager->limit / AHEAD_SHARE;
    return share < MOST_AHEAD ? (uint32_t)share : MOST_AHEAD;
}

void fetch_free_all(struct space *space)
{
    for (int i = 0; i < SPACE_FETCHES; i++)
        if (space->fetches[i].state != FETCH_FREE)
            fetch_free(&space->fetches[i]);
}

/* A free one; the oldest that was read ahead in vain has to go when there are too many. */
static struct fetch *new_fetch(struct space *space, bool ahead)
{
    struct fetch *found = NULL, *oldest = NULL;
    uint32_t nahead = 0;
    for (int i = 0; i < SPACE_FETCHES; i++) {
        struct fetch *fetch = &space->fetches[i];
        if (fetch->state == FETCH_FREE) {
            found = fetch;
            continue;
        }
        nahead += fetch->ahead;
        if (fetch->state == FETCH_READY && (!oldest || fetch->age < oldest->age))
            oldest = fetch;
    }
    if ((!found || (ahead && nahead >= READY_MOST)) && oldest) {
        forget_ready(oldest);
        found = oldest;
    } else if (ahead && nahead >= READY_MOST) {
        return NULL;
    }
    if (found) {
        memset(found->wanted_us, 0, sizeof found->wanted_us);
        found->state = FETCH_SENT;
        found->space = space;
        found->npages = 0;
        found->attempts = 0;
        found->ahead = ahead;
        found->early = false;
        found->sparse = false;
        found->marker = NO_PAGE;
        found->age = ++space->fetch_clock;
    }
    return found;
}

/* Installs as much as there is of a run of pages [at, end) that follow each other. False: events
 * have to be read first. */
static bool install_run(struct fetch *fetch, uint32_t at, uint32_t end)
{
    struct space *space = fetch->space;
    while (at < end) {
        uint64_t kept = count_kept(space, fetch->page[at], end - at);
        if (kept == 0) {
            if (!note_emptied(space, fetch->page[at]))
                return false;
            at++;
            continue;
        }
        long done = uffd_copy(space->uffd, fetch->page[at] * PAGE_BYTES,
                              fetched_bytes(fetch) + (size_t)at * PAGE_BYTES, kept);
        if (done == -EAGAIN)
            return false;
        if (done == -EEXIST) {
            log_warn("Pager", "page %#llx was there already", (unsigned long long)fetch->page[at]);
            done = 1;
        } else if (done < 0) {
            /* Gone, or replaced by a mapping of which we have not heard yet. */
            space->look_again = true;
            uffd_wake(space->uffd, fetch->page[at] * PAGE_BYTES, 1);
            page_table_set(space->table, fetch->page[at], PAGE_REMOTE);
            fetch->page[at++] = NO_PAGE;
            continue;
        }
        for (long i = 0; i < done; i++, at++) {
            came_in(space, fetch->page[at], fetch->wanted_us[at] != 0);
            answered(space, fetch->wanted_us[at]);
            fetch->page[at] = NO_PAGE;
        }
    }
    return true;
}

/* The oldest of what is at hand has to go when there is too much. */
static void bound_ready(struct space *space)
{
    struct fetch *oldest = NULL;
    uint32_t nready = 0;
    for (int i = 0; i < SPACE_FETCHES; i++) {
        struct fetch *fetch = &space->fetches[i];
        if (fetch->state != FETCH_READY)
            continue;
        nready++;
        if (!oldest || fetch->age < oldest->age)
            oldest = fetch;
    }
    if (nready > READY_MOST)
        forget_ready(oldest);
}

/* What has not been put in stays at hand. */
static void keep_ready(struct fetch *fetch)
{
    struct page_table *table = fetch->space->table;
    uint32_t left = 0;
    for (uint32_t i = 0; i < fetch->npages; i++) {
        if (fetch->page[i] == NO_PAGE)
            continue;
        if (page_table_state(table, fetch->page[i]) != PAGE_READY)
            page_table_set(table, fetch->page[i], PAGE_READY);
        left++;
    }
    fetch->state = FETCH_READY;
    fetch->ahead = true;
    if (left == 0)
        fetch_free(fetch);
    else
        bound_ready(fetch->space);
}

/* First the pages somebody waits for, then the others as far as there is room. */
static void install(struct fetch *fetch)
{
    struct space *space = fetch->space;
    fetch->state = FETCH_INSTALLING;
    if (events_are_pending(space))
        return;
    for (uint32_t i = 0; i < fetch->npages; i++)
        if (fetch->page[i] != NO_PAGE && fetch->wanted_us[i] && !install_run(fetch, i, i + 1))
            return;
    if (fetch->sparse && !fork_is_prepared(space)) { /* else all has to come in */
        keep_ready(fetch);
        return;
    }
    uint64_t room = pager_room(space->pager);
    for (uint32_t i = 0; i < fetch->npages;) {
        if (fetch->page[i] == NO_PAGE) {
            i++;
            continue;
        }
        uint32_t end = i + 1;
        while (end < fetch->npages && fetch->page[end] == fetch->page[end - 1] + 1)
            end++;
        if (room < end - i) {
            /* No room: back to being remote only. */
            for (; i < end; i++) {
                page_table_set(space->table, fetch->page[i], PAGE_REMOTE);
                fetch->page[i] = NO_PAGE;
            }
            continue;
        }
        room -= end - i;
        if (!install_run(fetch, i, end))
            return;
        i = end;
    }
    fetch_free(fetch);
}

void fetch_install_pending(struct space *space)
{
    for (int i = 0; i < SPACE_FETCHES; i++)
        if (space->fetches[i].state == FETCH_INSTALLING)
            install(&space->fetches[i]);
}

static bool came_whole(const struct wire_reply *reply)
{
    for (uint32_t i = 0; i < reply->npages; i++)
        if (reply->pages[i].encoding != WIRE_RAW)
            return false;
    return true;
}

/* False: no memory for pages that did not come whole. */
static bool make_room_to_decode(struct fetch *fetch, const struct wire_reply *reply)
{
    free(fetch->decoded);
    fetch->decoded = NULL;
    if (came_whole(reply))
        return true;
    fetch->decoded = malloc((size_t)reply->npages * PAGE_BYTES);
    return fetch->decoded;
}

static bool decode_pages(struct fetch *fetch, const struct rpc_answer *answer)
{
    const char *code = answer->body;
    for (uint32_t i = 0; i < answer->reply->npages; i++) {
        const struct wire_page *page = &answer->reply->pages[i];
        if (!page_decode(page->encoding, code, page->length_bytes,
                         fetch->decoded + (size_t)i * PAGE_BYTES))
            return false;
        code += page->length_bytes;
    }
    return true;
}

/* True when every page is the one that was stored. */
static bool check_pages(struct fetch *fetch, const struct rpc_answer *answer)
{
    struct space *space = fetch->space;
    const struct wire_reply *reply = answer->reply;
    if (reply->npages != fetch->npages || (fetch->decoded && !decode_pages(fetch, answer)))
        return false;
    const char *bytes = fetch->decoded ? fetch->decoded : answer->body;
    for (uint32_t i = 0; i < fetch->npages; i++, bytes += PAGE_BYTES) {
        const struct wire_page *page = &reply->pages[i];
        struct page_hash stored;
        if (page->page != fetch->key[i])
            return false;
        if (fetch->page[i] != NO_PAGE &&
            (!page_table_stored(space->table, fetch->page[i], &stored) ||
             !page_hash_equal(stored, page_hash_of(bytes)))) {
            log_error("Pager", "page %#llx, stored as %llu, is another than was stored",
                      (unsigned long long)fetch->key[i], (unsigned long long)page->sequence);
            return false;
        }
    }
    return true;
}

static void fail_fetch(struct fetch *fetch, const char *what, const char *detail)
{
    struct pager *pager = fetch->space->pager;
    log_fatal("Pager", "page %#llx: %s %s%s%s; the program is ended, for it would see wrong memory",
              (unsigned long long)fetch->key[0], pager->set->endpoints[fetch->shard], what,
              detail[0] ? ": " : "", detail);
    pager_fail(pager);
}

/* Takes out of a fetch the pages nobody wants any more. Returns whether there were any. */
static bool forget_unwanted(struct fetch *fetch)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < fetch->npages; i++) {
        if (fetch->page[i] == NO_PAGE)
            continue;
        fetch->page[kept] = fetch->page[i];
        fetch->key[kept] = fetch->key[i];
        fetch->wanted_us[kept++] = fetch->wanted_us[i];
    }
    bool any = kept < fetch->npages;
    fetch->npages = kept;
    return any;
}

/* What a proven stream will use is put in while it is in the processor's cache, and the program
 * does not have to ask for each window: but for the marker, and as far as there is room for more
 * than that. */
static void install_early(struct fetch *fetch)
{
    struct space *space = fetch->space;
    if (events_are_pending(space) || pager_room_ahead(space->pager) < 2ull * fetch->npages)
        return;
    for (uint32_t i = 0; i < fetch->npages;) {
        if (fetch->page[i] == NO_PAGE || fetch->page[i] == fetch->marker) {
            i++;
            continue;
        }
        uint32_t end = i + 1;
        while (end < fetch->npages && fetch->page[end] == fetch->page[end - 1] + 1 &&
               fetch->page[end] != fetch->marker)
            end++;
        if (!install_run(fetch, i, end))
            return; /* what is left is only ready */
        space->pager->counters.readahead_used += end - i;
        i = end;
    }
}

static void on_pages(void *arg, struct rpc_answer *answer)
{
    struct fetch *fetch = arg;
    struct space *space = fetch->space;
    struct pager *pager = space->pager;
    if (space->dead) {
        fetch_free(fetch);
        return;
    }
    if (answer->status == WIRE_UNAVAILABLE) {
        fail_fetch(fetch,
                   answer->put_off ? "has put us off for too long" : "did not answer in time",
                   answer->put_off ? answer->detail : "");
        return;
    }
    if (answer->status != WIRE_OK && answer->status != WIRE_DATA_LOSS) {
        fail_fetch(fetch, wire_status_name(answer->status), answer->detail);
        return;
    }
    if (answer->status == WIRE_OK && !make_room_to_decode(fetch, answer->reply)) {
        fail_fetch(fetch, "out of memory", "");
        return;
    }
    bool good = answer->status == WIRE_OK && check_pages(fetch, answer);
    if (!good && forget_unwanted(fetch)) {
        /* The program has given pages up meanwhile, and the shard may have heard of that before it
         * saw this request: what it says of them is no fault. */
        if (fetch->npages > 0)
            send_fetch(fetch);
        else
            fetch_free(fetch);
        return;
    }
    if (!good) {
        pager->counters.bad_pages++;
        log_error("Pager", "%s gave back a page that is not what was stored%s%s",
                  pager->set->endpoints[fetch->shard], answer->detail[0] ? ": " : "",
                  answer->detail);
        if (++fetch->attempts < FETCH_ATTEMPTS)
            send_fetch(fetch);
        else
            fail_fetch(fetch, "has lost it (DATA_LOSS)", answer->detail);
        return;
    }
    pager->counters.pages_got += fetch->npages;
    write_back_note_rate(pager->write_back, fetch->shard,
                         rpc_receive_rate(pager->rpc, fetch->shard));
    if (!fetch->decoded)
        fetch->body = rpc_keep_body(answer);
    if (!fetch->decoded && !fetch->body) {
        fail_fetch(fetch, "out of memory", "");
        return;
    }
    bool wanted = !fetch->ahead;
    bool any = false;
    for (uint32_t i = 0; i < fetch->npages; i++) {
        if (fetch->page[i] == NO_PAGE)
            continue;
        any = true;
        wanted = wanted || fetch->wanted_us[i] != 0;
    }
    if (!any) {
        fetch_free(fetch);
    } else if (wanted) {
        install(fetch);
    } else {
        if (fetch->early)
            install_early(fetch);
        keep_ready(fetch);
    }
}

static void send_fetch(struct fetch *fetch)
{
    struct space *space = fetch->space;
    struct pager *pager = space->pager;
    struct wire_request *request = &pager->request;
    memset(request, 0, offsetof(struct wire_request, pages));
    request->method = WIRE_PAGE_GET;
    request->region = space->region.ids[fetch->shard];
    request->epoch = space->region.epoch;
    request->npages = fetch->npages;
    request->nranges = 0;
    for (uint32_t i = 0; i < fetch->npages; i++)
        request->pages[i] = (struct wire_page){.page = fetch->key[i]};
    int err = rpc_call(pager->rpc, fetch->shard, request, NULL, 0, on_pages, fetch);
    if (err)
        fail_fetch(fetch, "cannot be asked", strerror(-err));
}

/* Asks for the remote pages of RANGE: the part of it around WANTED (NO_PAGE: any) that lies in one
 * area and one extent of keys. Returns NULL when nothing was asked for. */
static struct fetch *start_fetch(struct space *space, struct readahead_range range, uint64_t wanted,
                                 uint64_t wanted_us, bool sparse)
{
    bool ahead = wanted == NO_PAGE;
    uint64_t anchor = wanted != NO_PAGE ? wanted : range.first;
    const struct area *area = area_map_find(space->areas, anchor);
    if (!area || range.npages == 0)
        return NULL;
    uint64_t extent = area_key(area, anchor) / WIRE_EXTENT_PAGES;
    uint64_t first = range.first > area->start ? range.first : area->start;
    uint64_t end = range.first + range.npages < area->end ? range.first + range.npages : area->end;
    struct fetch *fetch = NULL;
    for (uint64_t page = first; page < end; page++) {
        uint64_t key = area_key(area, page);
        if (key / WIRE_EXTENT_PAGES != extent ||
            page_table_state(space->table, page) != PAGE_REMOTE)
            continue;
        if (!fetch && !(fetch = new_fetch(space, ahead)))
            return NULL;
        if (page == wanted)
            fetch->wanted_us[fetch->npages] = wanted_us;
        fetch->page[fetch->npages] = page;
        fetch->key[fetch->npages++] = key;
        page_table_set(space->table, page, PAGE_FETCHING);
        if (fetch->npages == FETCH_PAGES)
            break;
    }
    if (!fetch)
        return NULL;
    fetch->sparse = sparse;
    fetch->shard = shard_set_place(space->pager->set, fetch->key[0]);
    if (ahead)
        space->pager->counters.readahead_issued += fetch->npages;
    else
        space->pager->counters.readahead_issued += fetch->npages - 1;
    send_fetch(fetch);
    return fetch;
}

/* The part of RANGE that is nearest to the program and can be one request: a window at most, and
 * not across two extents, which may be on two shards. It is taken out of RANGE. */
static struct readahead_range take_part(struct readahead_range *range, int direction)
{
    uint64_t end = range->first + range->npages;
    uint64_t most = direction >= 0 ? WIRE_EXTENT_PAGES - range->first % WIRE_EXTENT_PAGES
                                   : (end - 1) % WIRE_EXTENT_PAGES + 1;
    if (most > FETCH_PAGES)
        most = FETCH_PAGES;
    uint32_t npages = most < range->npages ? (uint32_t)most : range->npages;
    struct readahead_range part = {direction >= 0 ? range->first : end - npages, npages};
    range->npages -= npages;
    if (direction >= 0)
        range->first += npages;
    return part;
}

static void start_ahead(struct space *space, const struct readahead_plan *plan)
{
    struct readahead_range left = plan->ahead;
    bool marked = false;
    while (left.npages > 0) {
        struct readahead_range part = take_part(&left, plan->direction);
        struct fetch *fetch = start_fetch(space, part, NO_PAGE, 0, plan->sparse);
        if (!fetch)
            continue;
        fetch->early = plan->proven;
        if (!marked)
            fetch->marker = fetch->page[plan->direction < 0 ? fetch->npages - 1 : 0];
        marked = true;
    }
}

static void send_gathered(struct space *space, uint32_t shard)
{
    struct fetch *fetch = space->gathered[shard];
    space->gathered[shard] = NULL;
    space->ngathered--;
    fetch->state = FETCH_SENT;
    send_fetch(fetch);
}

void fetch_send_gathered(struct space *space)
{
    for (uint32_t i = 0; space->ngathered > 0 && i < space->pager->set->nshards; i++)
        if (space->gathered[i])
            send_gathered(space, i);
}

/* One page that stands alone: whatever else is asked of its shard in this turn of the loop goes in
 * the same request. Many threads that fault at once cost one message, not one each. */
static bool gather(struct space *space, struct fault fault)
{
    uint64_t key = area_key(area_map_find(space->areas, fault.page), fault.page);
    uint32_t shard = shard_set_place(space->pager->set, key);
    struct fetch *fetch = space->gathered[shard];
    if (!fetch) {
        fetch = new_fetch(space, false);
        if (!fetch)
            return false;
        fetch->state = FETCH_GATHERED;
        fetch->shard = shard;
        space->gathered[shard] = fetch;
        space->ngathered++;
    }
    fetch->page[fetch->npages] = fault.page;
    fetch->key[fetch->npages] = key;
    fetch->wanted_us[fetch->npages++] = fault.at_us;
    page_table_set(space->table, fault.page, PAGE_FETCHING);
    if (fetch->npages == FETCH_PAGES)
        send_gathered(space, shard);
    return true;
}

/* The program has not used it lately, as far as we know. */
static bool is_out(struct space *space, uint64_t page)
{
    uint32_t at;
    enum page_state state = page_table_state(space->table, page);
    if (state != PAGE_FETCHING)
        return state == PAGE_REMOTE || state == PAGE_READY;
    const struct fetch *fetch = find_fetch(space, page, &at);
    return fetch && fetch->wanted_us[at] == 0;
}

static struct readahead_fault around(struct space *space, uint64_t page)
{
    return (struct readahead_fault){page, page > 0 && is_out(space, page - 1),
                                    is_out(space, page + 1)};
}

static void handle_remote(struct space *space, struct fault fault, uint64_t room)
{
    struct readahead_plan plan = readahead_miss(&space->readahead, around(space, fault.page));
    if (room < plan.demand.npages)
        plan.demand = (struct readahead_range){fault.page, 1};
    bool alone = plan.demand.npages == 1 && area_map_find(space->areas, fault.page);
    if (alone ? !gather(space, fault)
              : !start_fetch(space, plan.demand, fault.page, fault.at_us, plan.sparse)) {
        /* Every fetch is under way: this one waits for the first to come back. */
        fault_list_add(&space->held, fault);
        return;
    }
    space->pager->counters.faults_remote++;
    start_ahead(space, &plan);
}

/* A fault on what was read ahead shows that the stream goes on. What came, or comes, for one that
 * has turned out to use all of it goes in after all. */
static struct readahead_plan on_hit(struct space *space, struct fetch *fetch, uint32_t at)
{
    struct readahead_plan plan =
        readahead_hit(&space->readahead, around(space, fetch->page[at]), most_ahead(space));
    if (plan.direction != 0 && !plan.sparse)
        fetch->sparse = false;
    fetch->age = ++space->fetch_clock;
    for (uint32_t i = 0; i < fetch->npages; i++)
        space->pager->counters.readahead_used +=
            fetch->page[i] != NO_PAGE && (i == at || !fetch->sparse);
    return plan;
}

/* Asked for already: say that somebody waits. */
static void handle_fetching(struct space *space, struct fault fault)
{
    uint32_t at;
    struct fetch *fetch = find_fetch(space, fault.page, &at);
    if (!fetch || fetch->wanted_us[at] != 0)
        return;
    fetch->wanted_us[at] = fault.at_us;
    if (!fetch->ahead)
        return;
    space->pager->counters.faults_remote++;
    struct readahead_plan plan = on_hit(space, fetch, at);
    start_ahead(space, &plan);
}

static void handle_ready(struct space *space, struct fault fault)
{
    uint32_t at;
    struct fetch *fetch = find_fetch(space, fault.page, &at);
    if (!fetch)
        return;
    fetch->wanted_us[at] = fault.at_us;
    space->pager->counters.faults_remote++;
    struct readahead_plan plan = on_hit(space, fetch, at);
    install(fetch);
    start_ahead(space, &plan);
}

/* ---- all of them ---- */

void fault_handle(struct space *space, struct fault fault)
{
    if (space->dead)
        return;
    if (events_are_pending(space)) {
        fault_list_add(&space->again, fault);
        return;
    }
    enum page_state state = page_table_state(space->table, fault.page);
    uint64_t room = pager_room(space->pager);
    bool needs_room = state != PAGE_RESIDENT && state != PAGE_FETCHING;
    /* The agent may fault too, while it populates pages, and a child's thread before its agent can
     * begin: if they had to wait for room, nobody could make any. Who is left alone has no part in
     * the budget. */
    bool makes_room = fault.tid == space->agent_own_tid || fault.page == space->mark ||
                      (space->agent >= 0 && !space->serving) || space_is_left_alone(space);
    if (needs_room && room == 0 && !makes_room &&
        !reclaim_is_hopeless(space->pager, fault.at_us ? ticks_us() : 0)) {
        fault_list_add(&space->held, fault);
        return;
    }
    switch (state) {
    case PAGE_NATIVE:
    case PAGE_ZERO:
    case PAGE_RESIDENT:
        handle_zero(space, fault, room);
        break;
    case PAGE_STAGED:
        handle_staged(space, fault);
        break;
    case PAGE_REMOTE:
        handle_remote(space, fault, room);
        break;
    case PAGE_FETCHING:
        handle_fetching(space, fault);
        break;
    case PAGE_READY:
        handle_ready(space, fault);
        break;
    case PAGE_MOVING:
        /* None is read while the agent moves pages. One that has waited since before, for room, may
         * be about a page that came in with others meanwhile and is about to leave again. */
        fault_list_add(&space->again, fault);
        break;
    case PAGE_NSTATES:
        abort();
    }
}

static void handle_all(struct space *space, struct fault_list *list)
{
    struct fault_list now = *list;
    *list = (struct fault_list){0};
    for (size_t i = 0; i < now.count; i++)
        fault_handle(space, now.faults[i]);
    free(now.faults);
}

void fault_retry(struct space *space)
{
    if (space->again.count > 0)
        handle_all(space, &space->again);
}

void fault_retry_held(struct space *space)
{
    if (space->held.count > 0)
        handle_all(space, &space->held);
}
