#include "page_table.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 57-bit addresses: 45 bits of page number = 9 bits inside an extent + three levels of 12. */
enum {
    EXTENT_BITS = 9,
    EXTENT_PAGES = 1 << EXTENT_BITS,
    LEVEL_BITS = 12,
    LEVEL_SLOTS = 1 << LEVEL_BITS,
    STORED = 0x80, /* in the state byte: a hash is kept, */
    SEALED = 0x40, /* page_table_seal() */
    STATE_MASK = 0x0f,
};

struct extent {
    uint8_t state[EXTENT_PAGES];
    uint8_t generation[EXTENT_PAGES];
    uint16_t evicted_at[EXTENT_PAGES];
    struct page_hash *hash; /* EXTENT_PAGES of them, or NULL */
};

struct leaf {
    struct extent *extents[LEVEL_SLOTS];
};

struct branch {
    struct leaf *leaves[LEVEL_SLOTS];
};

struct page_table {
    struct branch *branches[LEVEL_SLOTS];
    uint64_t count[PAGE_NSTATES];
    size_t bytes;
};

static void *allocate(struct page_table *table, size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory) {
        fputs("edm: out of memory for the page table\n", stderr);
        abort();
    }
    table->bytes += bytes;
    return memory;
}

int page_table_new(struct page_table **out)
{
    struct page_table *table = calloc(1, sizeof *table);
    if (!table)
        return -ENOMEM;
    table->bytes = sizeof *table;
    *out = table;
    return 0;
}

static void free_leaf(struct leaf *leaf)
{
    for (int i = 0; i < LEVEL_SLOTS; i++)
        if (leaf->extents[i]) {
            free(leaf->extents[i]->hash);
            free(leaf->extents[i]);
        }
    free(leaf);
}

void page_table_destroy(struct page_table **table)
{
    if (!*table)
        return;
    for (int i = 0; i < LEVEL_SLOTS; i++) {
        struct branch *branch = (*table)->branches[i];
        for (int j = 0; branch && j < LEVEL_SLOTS; j++)
            if (branch->leaves[j])
                free_leaf(branch->leaves[j]);
        free(branch);
    }
    free(*table);
    *table = NULL;
}

static unsigned slot_of(uint64_t page, int level)
{
    return (unsigned)(page >> (EXTENT_BITS + level * LEVEL_BITS)) & (LEVEL_SLOTS - 1);
}

static struct extent *find(const struct page_table *table, uint64_t page)
{
    if (page >> (EXTENT_BITS + 3 * LEVEL_BITS))
        return NULL;
    const struct branch *branch = table->branches[slot_of(page, 2)];
    const struct leaf *leaf = branch ? branch->leaves[slot_of(page, 1)] : NULL;
    return leaf ? leaf->extents[slot_of(page, 0)] : NULL;
}

static struct extent *need(struct page_table *table, uint64_t page)
{
    assert(page >> (EXTENT_BITS + 3 * LEVEL_BITS) == 0);
    struct branch **branch = &table->branches[slot_of(page, 2)];
    if (!*branch)
        *branch = allocate(table, sizeof **branch);
    struct leaf **leaf = &(*branch)->leaves[slot_of(page, 1)];
    if (!*leaf)
        *leaf = allocate(table, sizeof **leaf);
    struct extent **extent = &(*leaf)->extents[slot_of(page, 0)];
    if (!*extent)
        *extent = allocate(table, sizeof **extent);
    return *extent;
}

static unsigned index_of(uint64_t page)
{
    return (unsigned)(page & (EXTENT_PAGES - 1));
}

enum page_state page_table_state(const struct page_table *table, uint64_t page)
{
    const struct extent *extent = find(table, page);
    return extent ? (enum page_state)(extent->state[index_of(page)] & STATE_MASK) : PAGE_NATIVE;
}

bool page_table_may(enum page_state from, enum page_state to)
{
#define BIT(state) (1u << PAGE_##state)
    /* Every page may be unmapped at any time (NATIVE), and be dropped (ZERO) except while the agent
     * has it: no event is read then. */
    static const unsigned legal[PAGE_NSTATES] = {
        [PAGE_NATIVE] = BIT(RESIDENT) | BIT(ZERO),
        [PAGE_RESIDENT] = BIT(NATIVE) | BIT(ZERO) | BIT(MOVING),
        [PAGE_MOVING] = BIT(NATIVE) | BIT(RESIDENT) | BIT(STAGED) | BIT(ZERO),
        [PAGE_STAGED] = BIT(NATIVE) | BIT(ZERO) | BIT(RESIDENT) | BIT(REMOTE),
        [PAGE_REMOTE] = BIT(NATIVE) | BIT(ZERO) | BIT(FETCHING),
        [PAGE_FETCHING] = BIT(NATIVE) | BIT(ZERO) | BIT(RESIDENT) | BIT(READY) | BIT(REMOTE),
        [PAGE_READY] = BIT(NATIVE) | BIT(ZERO) | BIT(RESIDENT) | BIT(REMOTE),
        [PAGE_ZERO] = BIT(NATIVE) | BIT(RESIDENT),
    };
#undef BIT
    return from < PAGE_NSTATES && to < PAGE_NSTATES && (legal[from] >> to & 1u);
}

static bool is_out(enum page_state state)
{
    return state != PAGE_NATIVE && state != PAGE_RESIDENT && state != PAGE_ZERO;
}

void page_table_set(struct page_table *table, uint64_t page, enum page_state state)
{
    struct extent *extent = need(table, page);
    uint8_t *byte = &extent->state[index_of(page)];
    enum page_state old = (enum page_state)(*byte & STATE_MASK);
    if (!page_table_may(old, state)) {
        fprintf(stderr, "edm: page %#llx cannot go from %s to %s\n", (unsigned long long)page,
                page_state_name(old), page_state_name(state));
        abort();
    }
    *byte = (uint8_t)((*byte & ~STATE_MASK) | state);
    if (!is_out(state))
        *byte &= (uint8_t)~SEALED;
    if (old != PAGE_NATIVE)
        table->count[old]--;
    if (state != PAGE_NATIVE)
        table->count[state]++;
}

uint64_t page_table_count(const struct page_table *table, enum page_state state)
{
    return table->count[state];
}

uint8_t page_table_generation(const struct page_table *table, uint64_t page)
{
    const struct extent *extent = find(table, page);
    return extent ? extent->generation[index_of(page)] : 0;
}

uint8_t page_table_renew(struct page_table *table, uint64_t page)
{
    return ++need(table, page)->generation[index_of(page)];
}

bool page_table_stored(const struct page_table *table, uint64_t page, struct page_hash *out)
{
    const struct extent *extent = find(table, page);
    if (!extent || !(extent->state[index_of(page)] & STORED))
        return false;
    *out = extent->hash[index_of(page)];
    return true;
}

void page_table_set_stored(struct page_table *table, uint64_t page, struct page_hash hash)
{
    struct extent *extent = need(table, page);
    if (!extent->hash)
        extent->hash = allocate(table, EXTENT_PAGES * sizeof *extent->hash);
    extent->hash[index_of(page)] = hash;
    extent->state[index_of(page)] |= STORED;
}

void page_table_clear_stored(struct page_table *table, uint64_t page)
{
    struct extent *extent = find(table, page);
    if (extent)
        extent->state[index_of(page)] &= (uint8_t)~STORED;
}

uint16_t page_table_evicted_at(const struct page_table *table, uint64_t page)
{
    const struct extent *extent = find(table, page);
    return extent ? extent->evicted_at[index_of(page)] : 0;
}

void page_table_set_evicted_at(struct page_table *table, uint64_t page, uint16_t time)
{
    need(table, page)->evicted_at[index_of(page)] = time;
}

bool page_table_sealed(const struct page_table *table, uint64_t page)
{
    const struct extent *extent = find(table, page);
    return extent && (extent->state[index_of(page)] & SEALED);
}

void page_table_seal(struct page_table *table, uint64_t page)
{
    assert(is_out(page_table_state(table, page)));
    need(table, page)->state[index_of(page)] |= SEALED;
}

/* The first page after PAGE that lies in another slot of LEVEL. */
static uint64_t skip(uint64_t page, int level)
{
    int bits = EXTENT_BITS + level * LEVEL_BITS;
    return ((page >> bits) + 1) << bits;
}

uint64_t page_table_next(const struct page_table *table, uint64_t from, uint64_t end)
{
    uint64_t page = from;
    while (page < end) {
        const struct branch *branch = table->branches[slot_of(page, 2)];
        const struct leaf *leaf = branch ? branch->leaves[slot_of(page, 1)] : NULL;
        const struct extent *extent = leaf ? leaf->extents[slot_of(page, 0)] : NULL;
        if (!extent) {
            page = skip(page, !branch ? 2 : !leaf ? 1 : 0);
            continue;
        }
        for (uint64_t last = skip(page, 0); page < last && page < end; page++)
            if ((extent->state[index_of(page)] & STATE_MASK) != PAGE_NATIVE)
                return page;
    }
    return end;
}

void page_table_rename(struct page_table *table, uint64_t from, uint64_t to)
{
    struct extent *source = find(table, from);
    if (!source)
        return;
    unsigned i = index_of(from);
    struct extent *target = need(table, to);
    unsigned j = index_of(to);
    assert((target->state[j] & STATE_MASK) == PAGE_NATIVE);
    target->state[j] = source->state[i];
    target->generation[j]++;
    target->evicted_at[j] = source->evicted_at[i];
    if (source->state[i] & STORED)
        page_table_set_stored(table, to, source->hash[i]);
    source->state[i] = PAGE_NATIVE;
    source->generation[i]++;
}

static void copy_extent(struct page_table *table, uint64_t first, const struct extent *from)
{
    struct extent *extent = need(table, first);
    struct page_hash *hash = from->hash ? allocate(table, EXTENT_PAGES * sizeof *hash) : NULL;
    if (hash)
        memcpy(hash, from->hash, EXTENT_PAGES * sizeof *hash);
    *extent = *from;
    extent->hash = hash;
    for (int i = 0; i < EXTENT_PAGES; i++) {
        enum page_state state = (enum page_state)(extent->state[i] & STATE_MASK);
        assert(state != PAGE_MOVING && state != PAGE_STAGED);
        if (state == PAGE_FETCHING || state == PAGE_READY)
            state = PAGE_REMOTE;
        extent->state[i] = (uint8_t)((extent->state[i] & ~STATE_MASK) | state);
        if (state != PAGE_NATIVE)
            table->count[state]++;
    }
}

int page_table_copy(struct page_table **out, const struct page_table *from)
{
    int err = page_table_new(out);
    for (uint64_t i = 0; !err && i < LEVEL_SLOTS; i++)
        for (uint64_t j = 0; from->branches[i] && j < LEVEL_SLOTS; j++) {
            const struct leaf *leaf = from->branches[i]->leaves[j];
            for (uint64_t k = 0; leaf && k < LEVEL_SLOTS; k++)
                if (leaf->extents[k])
                    copy_extent(*out, ((i << LEVEL_BITS | j) << LEVEL_BITS | k) << EXTENT_BITS,
                                leaf->extents[k]);
        }
    return err;
}

size_t page_table_bytes(const struct page_table *table)
{
    return table->bytes;
}

const char *page_state_name(enum page_state state)
{
    static const char *const names[PAGE_NSTATES] = {"NATIVE", "RESIDENT", "MOVING", "STAGED",
                                                    "REMOTE", "FETCHING", "READY",  "ZERO"};
    return state < PAGE_NSTATES ? names[state] : "?";
}
