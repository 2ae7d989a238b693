#include "store_model.h"

#include "test.h"
#include "store_copy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t model_number(uint32_t i)
{
    if (i < MODEL_PAGES / 2)
        return 34152235008U + i;
    if (i < MODEL_PAGES - 20)
        return ((uint64_t)1 << 40) + i;
    return (uint64_t)i * 104729 * 7919;
}

struct wire_page model_page(uint64_t page, uint64_t sequence, uint64_t seed, uint8_t *bytes)
{
    struct wire_page out = {.page = page, .sequence = sequence};
    uint64_t random = seed;

    if (seed / 2 % 8 < 3) {
        out.encoding = WIRE_RAW;
        out.length_bytes = WIRE_PAGE_BYTES;
    } else if (seed / 2 % 8 == 3) {
        out.encoding = WIRE_FILL;
        out.length_bytes = 8;
    } else {
        out.encoding = WIRE_LZ4;
        out.length_bytes = 1 + (uint32_t)(seed / 16 % (WIRE_PAGE_BYTES - 1));
    }
    for (uint32_t i = 0; i < out.length_bytes; i += 8) {
        uint64_t word = test_random(&random);
        uint32_t len = out.length_bytes - i < 8 ? out.length_bytes - i : 8;
        memcpy(bytes + i, &word, len);
    }
    out.checksum = wire_checksum(page, bytes, out.length_bytes);
    return out;
}

static uint32_t below(struct model *model, uint32_t bound)
{
    return (uint32_t)(test_random(&model->random) % bound);
}

static struct model_region *pick(struct model *model)
{
    struct model_region *region = &model->regions[below(model, MODEL_REGIONS)];

    return region->used ? region : NULL;
}

static struct model_region *pick_unused(struct model *model)
{
    for (uint32_t i = 0; i < MODEL_REGIONS; i++) {
        if (!model->regions[i].used)
            return &model->regions[i];
    }
    return NULL;
}

static void make_name(struct model *model, char *name, size_t cap)
{
    /* Names come again after they were removed. */
    snprintf(name, cap, "region-%u", (unsigned)(model->names++ % 37));
}

static bool is_taken(const struct model *model, const char *name)
{
    for (uint32_t i = 0; i < MODEL_REGIONS; i++) {
        if (model->regions[i].used && strcmp(model->regions[i].name, name) == 0)
            return true;
    }
    return false;
}

static void step_claim(struct model *model, struct store *store)
{
    struct model_region *region = pick(model);
    const struct region *found;

    if (region != NULL && below(model, 4) != 0) {
        uint64_t wish = below(model, 2) == 0 ? 0 : region->epoch + below(model, 2);
        assert_int_equal(store_claim(store, region->name, wish, 1 + below(model, 1000000), &found),
                         0);
        if (!region->frozen)
            region->epoch = wish == 0 ? region->epoch + 1 : wish;
        assert_true(found->id == region->id && found->epoch == region->epoch);
        assert_int_equal(found->sequence, region->sequence);
        return;
    }
    region = pick_unused(model);
    char name[64];
    make_name(model, name, sizeof(name));
    if (region == NULL || is_taken(model, name))
        return;
    assert_int_equal(store_claim(store, name, 0, 1, &found), 0);
    memset(region, 0, sizeof(*region));
    region->used = true;
    region->id = found->id;
    region->epoch = 1;
    memcpy(region->name, name, sizeof(name));
    assert_int_equal(found->epoch, 1);
}

static void step_put(struct model *model, struct store *store)
{
    static uint8_t body[WIRE_MAX_BODY_BYTES];
    static struct wire_page pages[WIRE_MAX_PAGES];
    struct model_page fresh[WIRE_MAX_PAGES];
    struct model_region *region = pick(model);
    uint32_t count = 1 + below(model, below(model, 20) == 0 ? WIRE_MAX_PAGES : 30);
    uint32_t first = below(model, MODEL_PAGES - WIRE_MAX_PAGES);
    size_t used = 0;
    uint64_t bad;

    if (region == NULL)
        return;
    uint64_t next = region->sequence + 1;
    for (uint32_t i = 0; i < count; i++) {
        /* Now and then a late copy of something old. */
        bool late = below(model, 10) == 0 && region->sequence > 0;
        fresh[i].sequence = late ? 1 + test_random(&model->random) % region->sequence : next++;
        fresh[i].seed = test_random(&model->random) | 1;
        pages[i] =
            model_page(model_number(first + i), fresh[i].sequence, fresh[i].seed, body + used);
        used += pages[i].length_bytes;
    }
    int err = store_put(store, region->id, region->epoch, pages, count, body, &bad);
    if (region->frozen) {
        assert_int_equal(err, -EROFS);
        return;
    }
    assert_int_equal(err, 0);
    for (uint32_t i = 0; i < count; i++) {
        struct model_page *page = &region->pages[first + i];
        if (fresh[i].sequence > page->sequence)
            *page = fresh[i];
        if (page->sequence > region->sequence)
            region->sequence = page->sequence;
    }
}

static void step_drop(struct model *model, struct store *store)
{
    struct model_region *region = pick(model);
    struct wire_range ranges[3];

    if (region == NULL)
        return;
    uint64_t sequence = below(model, 3) == 0 ? region->sequence / 2 : region->sequence;
    for (uint32_t i = 0; i < 3; i++) {
        ranges[i].first = model_number(below(model, MODEL_PAGES));
        ranges[i].npages = 1 + below(model, 60);
    }
    int err = store_drop(store, region->id, region->epoch, sequence, ranges, 3);
    if (region->frozen) {
        assert_int_equal(err, -EROFS);
        return;
    }
    assert_int_equal(err, 0);
    for (uint32_t i = 0; i < MODEL_PAGES; i++) {
        uint64_t number = model_number(i);
        for (uint32_t k = 0; k < 3; k++) {
            if (number - ranges[k].first < ranges[k].npages &&
                region->pages[i].sequence <= sequence)
                region->pages[i].sequence = 0;
        }
    }
}

static void step_branch(struct model *model, struct store *store)
{
    struct model_region *source = pick(model);
    struct model_region *branch = pick_unused(model);
    bool frozen = below(model, 2) == 0;
    const struct region *made;
    char name[64];

    make_name(model, name, sizeof(name));
    if (source == NULL || branch == NULL || is_taken(model, name))
        return;
    int err = store_branch(store, source->id, source->epoch, name, frozen, &made);
    if (frozen && source->frozen) {
        assert_int_equal(err, -EROFS);
        return;
    }
    assert_int_equal(err, 0);
    *branch = *source;
    branch->id = made->id;
    branch->parent = source->id;
    branch->epoch = 1;
    branch->frozen = frozen;
    memcpy(branch->name, name, sizeof(name));
    uint64_t id = made->id;
    /* Asked for again it is the same one. */
    assert_int_equal(store_branch(store, source->id, source->epoch, name, frozen, &made), 0);
    assert_int_equal(made->id, id);
    assert_int_equal(store_branch(store, source->id, source->epoch, name, !frozen, &made),
                     !frozen && source->frozen ? -EROFS : -EEXIST);
}

static void step_remove(struct model *model, struct store *store)
{
    struct model_region *region = pick(model);

    if (region == NULL)
        return;
    if (!region->frozen)
        assert_int_equal(store_remove(store, region->id, region->epoch + 1), -ESTALE);
    assert_int_equal(store_remove(store, region->id, region->epoch), 0);
    assert_int_equal(store_remove(store, region->id, region->epoch), -ENOENT);
    region->used = false;
}

static void compare_pages(const struct model_region *region, struct store *store, uint32_t first,
                          uint32_t count)
{
    static uint8_t body[WIRE_MAX_BODY_BYTES], expected[WIRE_PAGE_BYTES];
    static struct wire_page pages[WIRE_MAX_PAGES];
    struct store_found found;
    size_t used = 0;
    uint64_t bad;

    for (uint32_t i = 0; i < count; i++)
        pages[i].page = model_number(first + i);
    assert_int_equal(store_locate(store, region->id, region->epoch, pages, count, &found, &bad), 0);
    assert_int_equal(store_copy(store, pages, count, &found, body, &bad), 0);
    for (uint32_t i = 0; i < count; i++) {
        const struct model_page *page = &region->pages[first + i];
        assert_int_equal(pages[i].sequence, page->sequence);
        if (page->sequence == 0) {
            assert_int_equal(pages[i].encoding, WIRE_ABSENT);
            assert_int_equal(pages[i].length_bytes, 0);
            continue;
        }
        struct wire_page right = model_page(pages[i].page, page->sequence, page->seed, expected);
        assert_int_equal(pages[i].encoding, right.encoding);
        assert_int_equal(pages[i].length_bytes, right.length_bytes);
        assert_int_equal(pages[i].checksum, right.checksum);
        assert_memory_equal(body + used, expected, right.length_bytes);
        used += right.length_bytes;
    }
    assert_int_equal(found.body_bytes, used);
}

void model_step(struct model *model, struct store *store)
{
    uint32_t what = below(model, 1000);

    if (what < 500) {
        step_put(model, store);
    } else if (what < 700) {
        const struct model_region *region = pick(model);
        if (region != NULL)
            compare_pages(region, store, below(model, MODEL_PAGES - 40), 1 + below(model, 40));
    } else if (what < 850) {
        step_drop(model, store);
    } else if (what < 900) {
        step_claim(model, store);
    } else if (what < 925) {
        step_branch(model, store);
    } else if (what < 935) {
        step_remove(model, store);
    } else {
        store_work(store);
    }
}

void model_compare(const struct model *model, struct store *store)
{
    struct wire_shard_info info;
    uint64_t nregions = 0;

    for (uint32_t i = 0; i < MODEL_REGIONS; i++) {
        const struct model_region *region = &model->regions[i];
        uint64_t npages = 0;
        if (!region->used)
            continue;
        nregions++;
        const struct region *there = store_find(store, region->id);
        assert_non_null(there);
        assert_string_equal(there->name, region->name);
        assert_int_equal(there->epoch, region->epoch);
        assert_int_equal(there->sequence, region->sequence);
        assert_int_equal(there->parent, region->parent);
        assert_int_equal((there->flags & REGION_FROZEN) != 0, region->frozen);
        for (uint32_t k = 0; k < MODEL_PAGES; k++)
            npages += region->pages[k].sequence != 0;
        assert_int_equal(page_tree_count(there->pages), npages);
        for (uint32_t k = 0; k < MODEL_PAGES; k += 100)
            compare_pages(region, store, k, 100);
    }
    store_stat(store, &info);
    assert_int_equal(info.nregions, nregions);
}
