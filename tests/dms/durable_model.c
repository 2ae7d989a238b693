#include "durable_model.h"

#include "test.h"
#include "store_copy.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint32_t below(struct durable_model *model, uint32_t bound)
{
    return (uint32_t)(test_random(&model->random) % bound);
}

static void make_name(uint32_t i, char name[16])
{
    snprintf(name, 16, "r%u", (unsigned)i);
}

static const struct region *find(struct store *store, uint32_t i)
{
    char name[16];

    make_name(i, name);
    for (const struct region *at = store_after(store, ""); at != NULL;
         at = store_after(store, at->name)) {
        if (strcmp(at->name, name) == 0)
            return at;
    }
    return NULL;
}

/* A copy of the last state, to be changed. */
static struct durable_state *begin_state(struct durable_model *model)
{
    assert(model->nstates < DURABLE_STATES);
    model->states[model->nstates] = model->states[model->nstates - 1];
    return &model->states[model->nstates++];
}

/* Pages of a version are of one length, whole ones most of all. */
static uint32_t length_of(uint64_t version)
{
    static const uint32_t lengths[] = {
        WIRE_PAGE_BYTES, 520, WIRE_PAGE_BYTES, 8, WIRE_PAGE_BYTES, 520, 3000, WIRE_PAGE_BYTES};

    return lengths[version % 8];
}

static int put(struct durable_model *model, struct store *store, struct durable_region *region)
{
    static uint64_t body[DURABLE_PAGES * WIRE_PAGE_BYTES / 8];
    struct wire_page pages[DURABLE_PAGES];
    uint32_t count = 1 + below(model, below(model, 2) == 0 ? 3 : DURABLE_PAGES);
    uint32_t first = below(model, DURABLE_PAGES - count + 1);
    uint64_t *bytes = body;
    uint64_t bad;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t version = ++model->version;
        uint32_t len = length_of(version);
        /* Now and then a late one, which only counts where nothing is. */
        uint64_t sequence = below(model, 4) == 0 ? 1 + below(model, (uint32_t)version) : version;
        for (uint32_t k = 0; k < len / 8; k++)
            bytes[k] = version;
        pages[i] = (struct wire_page){
            .page = first + i,
            .sequence = sequence,
            .length_bytes = len,
            .encoding = len == WIRE_PAGE_BYTES ? WIRE_RAW
                        : len == 8             ? WIRE_FILL
                                               : WIRE_LZ4,
            .checksum = wire_checksum(first + i, bytes, len),
        };
        bytes += len / 8;
        if (region->pages[first + i] == 0 || region->sequences[first + i] < sequence) {
            region->pages[first + i] = version;
            region->sequences[first + i] = sequence;
        }
    }
    return store_put(store, region->id, region->epoch, pages, count, body, &bad);
}

static int drop(struct durable_model *model, struct store *store, struct durable_region *region)
{
    struct wire_range range = {.first = below(model, DURABLE_PAGES)};

    range.npages = 1 + below(model, DURABLE_PAGES - (uint32_t)range.first);
    for (uint64_t i = 0; i < range.npages; i++)
        region->pages[range.first + i] = 0;
    return store_drop(store, region->id, region->epoch, model->version, &range, 1);
}

/* In all states in which it was there the region has the last epoch; one that is no branch was
 * there in all. */
static void make_claim_sure(struct durable_model *model, uint32_t i)
{
    const struct durable_region *now = &model->states[model->nstates - 1].regions[i];

    for (uint32_t s = 0; s + 1 < model->nstates; s++) {
        struct durable_region *region = &model->states[s].regions[i];
        if (region->used && region->id == now->id)
            region->epoch = now->epoch;
        else if (!now->branched)
            *region = *now;
    }
}

static int claim(struct durable_model *model, struct store *store, struct durable_region *region,
                 uint32_t i)
{
    const struct region *made;
    char name[16];

    make_name(i, name);
    if (!region->used)
        *region = (struct durable_region){.used = true};
    region->epoch++;
    int err = store_claim(store, name, region->epoch, 1, &made);
    if (err == 0)
        region->id = made->id;
    if (err == 0 && model->claims_are_sure)
        make_claim_sure(model, i);
    return err;
}

static int branch(struct store *store, const struct durable_region *source,
                  struct durable_region *copy, uint32_t i, bool frozen)
{
    const struct region *made;
    char name[16];

    make_name(i, name);
    *copy = *source;
    copy->id = 0;
    copy->epoch = 1;
    copy->frozen = frozen;
    copy->branched = true;
    int err = store_branch(store, source->id, source->epoch, name, frozen, &made);
    if (err == 0)
        copy->id = made->id;
    return err;
}

int durable_model_step(struct durable_model *model, struct store *store)
{
    struct durable_state *state = begin_state(model);
    uint32_t i = below(model, DURABLE_REGIONS);
    struct durable_region *region = &state->regions[i];
    struct durable_region *source = &state->regions[below(model, DURABLE_REGIONS)];
    uint32_t what = below(model, 100);

    if (!region->used && source->used && what < 60)
        return branch(store, source, region, i, !source->frozen && what < 40);
    if (!region->used)
        return claim(model, store, region, i);
    if (what < 12) {
        region->used = false;
        return store_remove(store, region->id, region->epoch);
    }
    if (what < 22 && !region->frozen)
        return claim(model, store, region, i);
    if (what < 45 && !region->frozen)
        return drop(model, store, region);
    if (!region->frozen)
        return put(model, store, region);
    store_work(store);
    return 0;
}

void durable_model_undo(struct durable_model *model)
{
    model->nstates--;
}

void durable_model_make_sure(struct durable_model *model, uint32_t first)
{
    memmove(model->states, &model->states[first],
            (model->nstates - first) * sizeof(model->states[0]));
    model->nstates -= first;
}

/* What the store has of a region: its pages' versions. */
static void read_region(struct durable_model *model, struct store *store,
                        const struct region *there, const struct durable_region *last,
                        struct durable_region *out)
{
    static uint64_t body[WIRE_PAGE_BYTES / 8];

    *out = (struct durable_region){
        .used = true,
        .frozen = (there->flags & REGION_FROZEN) != 0,
        .id = there->id,
        .epoch = there->epoch,
        .branched = there->parent != 0,
    };
    for (uint32_t i = 0; i < DURABLE_PAGES; i++) {
        struct wire_page page = {.page = i};
        struct store_found found;
        uint64_t bad;
        assert_int_equal(store_locate(store, there->id, there->epoch, &page, 1, &found, &bad), 0);
        if (page.encoding == WIRE_ABSENT)
            continue;
        int err = store_copy(store, &page, 1, &found, body, &bad);
        if (err == -EBADMSG && model->may_be_damaged) {
            model->ndamaged++;
            out->pages[i] = last->pages[i];
            out->sequences[i] = last->sequences[i];
            continue;
        }
        assert_int_equal(err, 0);
        assert_int_equal(page.length_bytes, length_of(body[0]));
        for (uint32_t k = 1; k < page.length_bytes / 8; k++)
            assert_int_equal(body[k], body[0]);
        out->pages[i] = body[0];
        out->sequences[i] = page.sequence;
    }
}

/* Whether the region may be THERE (which may be none), by the states from FIRST on. */
static bool may_exist(const struct durable_model *model, uint32_t first, uint32_t i,
                      const struct region *there)
{
    for (uint32_t s = first; s < model->nstates; s++) {
        const struct durable_region *region = &model->states[s].regions[i];
        if (there == NULL ? !region->used
                          : region->used && (region->id == there->id || region->id == 0) &&
                                region->epoch == there->epoch)
            return true;
    }
    return false;
}

static bool may_hold(const struct durable_model *model, uint32_t first, uint32_t i,
                     const struct durable_region *there, uint32_t page)
{
    for (uint32_t s = first; s < model->nstates; s++) {
        const struct durable_region *region = &model->states[s].regions[i];
        if (region->used && (region->id == there->id || region->id == 0) &&
            region->pages[page] == there->pages[page] &&
            (there->pages[page] == 0 || region->sequences[page] == there->sequences[page]))
            return true;
    }
    return false;
}

void durable_model_check(struct durable_model *model, struct store *store, bool exact)
{
    struct durable_state found = {0};
    uint32_t first = exact && model->nstates > 2 ? model->nstates - 2 : 0;
    uint32_t nfound = 0, nregions = 0;

    for (uint32_t i = 0; i < DURABLE_REGIONS; i++) {
        const struct region *there = find(store, i);
        assert_true(may_exist(model, first, i, there));
        if (there == NULL)
            continue;
        nfound++;
        read_region(model, store, there, &model->states[model->nstates - 1].regions[i],
                    &found.regions[i]);
        for (uint32_t page = 0; page < DURABLE_PAGES; page++) {
            if (!may_hold(model, first, i, &found.regions[i], page))
                fail_msg("region r%u page %u: version %llu is none it may have", (unsigned)i,
                         (unsigned)page, (unsigned long long)found.regions[i].pages[page]);
        }
    }
    for (const struct region *at = store_after(store, ""); at != NULL;
         at = store_after(store, at->name))
        nregions++;
    assert_int_equal(nregions, nfound);
    model->states[0] = found;
    model->nstates = 1;
}
