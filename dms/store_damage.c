#include "store_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { MAX_NAMES = 8, INCOMPLETE_COUNT_ONLY = 1 };

static bool is_slot(const struct damage *damage)
{
    return damage->kind == DAMAGE_PAGE || damage->kind == DAMAGE_SLOT ||
           damage->kind == DAMAGE_LOST;
}

void store_find_damage(const struct store *store, uint64_t ref, enum damage_kind kind,
                       struct damage *damage)
{
    const struct slot_header *header = slot_pool_header(store->pool, ref);

    *damage = (struct damage){.kind = kind,
                              .hides = kind == DAMAGE_SLOT,
                              .ref = ref,
                              .region = header->region,
                              .page = header->page};
    slot_pool_place(store->pool, ref, damage->file, sizeof(damage->file), &damage->place);
}

struct manifest_record store_describe_doubt(const struct region *region)
{
    return (struct manifest_record){
        .type = MANIFEST_DOUBT, .region = region->id, .stamp = region->doubt_stamp};
}

/* Says of all regions that pages of them may be missing, for good, because of HIDDEN damages. Older
 * versions may be there for branches; or, where marks are MISSING, because nothing says yet that
 * they were replaced. Of which pages is known before it is noted that something is hidden. */
static int make_incomplete(struct store *store, uint64_t hidden, bool missing)
{
    struct manifest_record record;
    int err = 0;

    for (uint32_t i = 0; err == 0 && i < region_table_size(store->regions); i++) {
        struct region *region = region_table_at(store->regions, i);
        uint64_t stamp = missing ? store->stamp : region->last_branched;
        region->flags |= REGION_INCOMPLETE;
        if (stamp <= region->doubt_stamp)
            continue;
        region->doubt_stamp = stamp;
        record = store_describe_doubt(region);
        err = manifest_append(store->manifest, &record, 1, true);
    }
    if (err == 0)
        err = manifest_sync(store->manifest);
    record = (struct manifest_record){.type = MANIFEST_INCOMPLETE, .sequence = hidden};
    if (err == 0)
        err = manifest_append(store->manifest, &record, 1, true);
    return err != 0 ? err : manifest_sync(store->manifest);
}

/* Damage that is there for longer was noted when it was found: regions made since are whole. */
static bool hides_more(const struct store *store, const struct damage_list *list, uint64_t *hidden)
{
    bool mended;

    *hidden = damage_hidden(list, &mended);
    return mended || (*hidden != store->hidden && *hidden != 0);
}

bool store_hides_more(const struct store *store, const struct damage_list *list)
{
    uint64_t hidden;

    return hides_more(store, list, &hidden);
}

struct manifest_record store_describe_file(const struct slot_pool_file *file, bool there)
{
    return (struct manifest_record){.type = MANIFEST_SEGMENT,
                                    .sequence = file->number,
                                    .slot_bytes = file->slot_bytes,
                                    .flags = there ? 1 : 0};
}

int store_note_file(void *context, const struct slot_pool_file *file, bool there)
{
    struct store *store = context;
    struct manifest_record record = store_describe_file(file, there);

    return manifest_append(store->manifest, &record, 1, !there);
}

struct manifest_record store_describe_hidden(const struct store *store)
{
    return (struct manifest_record){
        .type = MANIFEST_INCOMPLETE, .flags = INCOMPLETE_COUNT_ONLY, .sequence = store->hidden};
}

void store_apply_incomplete(struct store *store, const struct manifest_record *record)
{
    store->hidden = record->sequence;
    if (record->flags == INCOMPLETE_COUNT_ONLY)
        return;
    for (uint32_t i = 0; i < region_table_size(store->regions); i++)
        region_table_at(store->regions, i)->flags |= REGION_INCOMPLETE;
}

static int note_hidden(struct store *store, const struct damage_list *list, bool missing)
{
    uint64_t hidden;
    bool more = hides_more(store, list, &hidden);
    bool same = hidden == store->hidden;

    store->hidden = hidden;
    if (more)
        return make_incomplete(store, hidden, missing);
    if (same)
        return 0;
    struct manifest_record record = store_describe_hidden(store);
    return manifest_append(store->manifest, &record, 1, true);
}

int store_settle_damage(struct store *store, struct damage_list *list, struct store_report *report)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++) {
        const struct damage *damage = &list->at[i];
        if (is_slot(damage) && slot_pool_refs(store->pool, damage->ref) == 0)
            continue;
        list->at[kept++] = *damage;
    }
    list->count = kept;
    report->damaged_headers = damage_count(list, DAMAGE_SLOT);
    report->damaged_pages = damage_count(list, DAMAGE_PAGE);
    report->lost_pages = damage_count(list, DAMAGE_LOST);
    report->damaged_records = damage_count(list, DAMAGE_RECORD);
    report->damaged_files = damage_count(list, DAMAGE_FILE_HEADER) +
                            damage_count(list, DAMAGE_FILE_LENGTH) +
                            damage_count(list, DAMAGE_FILE_MISSING);
    int err = note_hidden(store, list, report->power_cut || store->unmarked);
    for (uint32_t i = 0; i < region_table_size(store->regions); i++)
        store->any_incomplete = store->any_incomplete ||
                                (region_table_at(store->regions, i)->flags & REGION_DOUBTFUL) != 0;
    return err;
}

int store_lose_pages(struct store *store, const struct damage_list *list)
{
    int err = 0;

    for (size_t i = 0; err == 0 && i < list->count; i++) {
        const struct damage *damage = &list->at[i];
        if (damage->kind == DAMAGE_PAGE)
            err = slot_pool_lose(store->pool, damage->ref,
                                 slot_pool_header(store->pool, damage->ref));
    }
    return err;
}

void store_free_unknown(struct store *store, const struct damage_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->at[i].kind == DAMAGE_SLOT)
            slot_pool_release(store->pool, list->at[i].ref);
    }
    store->hidden = 0;
}

bool store_scrub(struct store *store, uint64_t *ref, uint32_t max, bool hurry, uint64_t *bytes,
                 bool *again, struct damage *damage)
{
    uint64_t found = slot_pool_scrub(store->pool, ref, max, hurry, bytes, again);
    struct slot_header header;

    if (found == 0)
        return false;
    bool known = slot_pool_identify(store->pool, found, &header);
    store_find_damage(store, found, known ? DAMAGE_PAGE : DAMAGE_SLOT, damage);
    return true;
}

struct text {
    char *at;
    size_t cap, len;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *text, const char *format, ...)
{
    va_list arguments;

    if (text->len >= text->cap)
        return;
    va_start(arguments, format);
    int len = vsnprintf(text->at + text->len, text->cap - text->len, format, arguments);
    va_end(arguments);
    text->len += len > 0 ? (size_t)len : 0;
}

/* The regions whose page tables point at the damaged slot. */
static void say_regions(const struct store *store, const struct damage *damage, struct text *text)
{
    uint32_t count = 0;

    for (const struct region *region = store_after(store, ""); region != NULL;
         region = store_after(store, region->name)) {
        if (page_tree_get(region->pages, damage->page) != damage->ref)
            continue;
        if (count++ < MAX_NAMES)
            say(text, "%s%s", count == 1 ? "" : ", ", region->name);
    }
    if (count > MAX_NAMES)
        say(text, " and %" PRIu32 " more", count - MAX_NAMES);
    if (count == 0)
        say(text, "region %016" PRIx64, damage->region);
}

static void say_slot(const struct store *store, const struct damage *damage, struct text *text)
{
    const struct region *region = region_table_find(store->regions, damage->region);

    if (damage->kind == DAMAGE_SLOT) {
        say(text, "its header is damaged: a page is lost, perhaps page %" PRIu64 " of %s",
            damage->page, region == NULL || region->removed ? "a region unknown" : region->name);
        return;
    }
    say(text, "page %" PRIu64 " of ", damage->page);
    say_regions(store, damage, text);
    say(text, damage->kind == DAMAGE_LOST ? " is lost, as a repair has noted" : " is damaged");
}

void store_describe_damage(const struct store *store, const struct damage *damage, char *buffer,
                           size_t cap)
{
    struct text text = {buffer, cap, 0};

    *buffer = '\0';
    if (damage->kind != DAMAGE_REGION)
        say(&text, "%s: ", damage->file);
    if (is_slot(damage) || damage->kind == DAMAGE_RECORD)
        say(&text, "%s %" PRIu64 ": ", is_slot(damage) ? "slot" : "record", damage->place);
    switch (damage->kind) {
    case DAMAGE_PAGE:
    case DAMAGE_SLOT:
    case DAMAGE_LOST:
        say_slot(store, damage, &text);
        break;
    case DAMAGE_RECORD:
        say(&text,
            "damaged: what it said of region %016" PRIx64
            " is lost (its name, an epoch, its removal, or pages dropped from it)",
            damage->region);
        break;
    case DAMAGE_REGION:
        say(&text,
            "the record of region %016" PRIx64
            " is lost: its name, epoch and the pages it shared with the region it came from",
            damage->region);
        break;
    case DAMAGE_FILE_HEADER:
        say(&text, "the file's header is damaged");
        break;
    case DAMAGE_FILE_LENGTH:
        say(&text, "the file was cut short, or cannot be read%s",
            damage->hides ? ": pages are lost of which nobody knows whose they were" : "");
        break;
    case DAMAGE_FILE_MISSING:
        say(&text, "the file is missing%s",
            damage->hides ? ": pages are lost of which nobody knows whose they were" : "");
        break;
    case DAMAGE_FORMAT:
        say(&text, "the file has a format that is not known");
        break;
    case DAMAGE_NKINDS:
        break;
    }
}
