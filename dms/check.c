#include "check.h"

#include "check_names.h"
#include "data_dir.h"
#include "dry_disk.h"
#include "mapped_fault.h"
#include "store.h"
#include "../ini/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LINE_BYTES = 2048 };

static const char PART[] = "Check";

/* What all shards together have. */
struct totals {
    uint64_t regions, incomplete, pages, lost;
    uint64_t damaged[DAMAGE_NKINDS];
    uint64_t harm;
};

struct check {
    const char *path;
    const struct disk *disk;
    FILE *out;
    bool quiet; /* only the totals */
    bool repair;
    struct data_dir *data;
    struct totals totals;
};

static void say_damage(const struct check *check, const char *shard, const struct store *store,
                       const struct damage *damage)
{
    char text[MAX_LINE_BYTES];

    store_describe_damage(store, damage, text, sizeof(text));
    fprintf(check->out, "%s: %s\n", shard, text);
}

/* How much of each region is lost. */
static void say_regions(const struct check *check, const char *shard, const struct store *store,
                        const struct damage_list *list)
{
    const struct region *region = NULL;

    while ((region = store_after(store, region == NULL ? "" : region->name)) != NULL) {
        uint64_t lost = 0;
        for (size_t i = 0; i < list->count; i++)
            lost += list->at[i].ref != 0 && list->at[i].page < WIRE_MAX_PAGE &&
                    page_tree_get(region->pages, list->at[i].page) == list->at[i].ref;
        bool incomplete = (region->flags & REGION_DOUBTFUL) != 0;
        if (lost > 0 || incomplete)
            fprintf(check->out, "%s: region %s: %" PRIu64 " of %" PRIu64 " pages lost%s\n", shard,
                    region->name, lost, page_tree_count(region->pages),
                    incomplete ? ", and perhaps others: what is not known to be right is answered "
                                 "with DATA_LOSS"
                               : "");
    }
}

static void count(struct check *check, const struct store *store, const struct store_report *report,
                  const struct damage_list *list)
{
    const struct region *region = NULL;
    struct totals *totals = &check->totals;

    for (size_t i = 0; i < list->count; i++)
        totals->damaged[list->at[i].kind]++;
    totals->harm += damage_harm(list);
    totals->regions += report->regions;
    totals->pages += report->pages;
    totals->lost += report->lost_pages;
    while ((region = store_after(store, region == NULL ? "" : region->name)) != NULL)
        totals->incomplete += (region->flags & REGION_DOUBTFUL) != 0;
}

/* Why a shard cannot be opened at all. */
static void explain(const char *shard, const struct damage_list *list, int err)
{
    const char *file = "";

    for (size_t i = 0; i < list->count; i++) {
        if (list->at[i].kind == DAMAGE_FORMAT)
            file = list->at[i].file;
    }
    if (err == -EPROTONOSUPPORT)
        log_fatal(PART,
                  "%s/%s has a format that this EDM does not know: use the version that made it",
                  shard, file);
    else
        log_fatal(PART, "cannot read %s: %s", shard, strerror(-err));
}

static int check_store(struct check *check, const char *shard)
{
    struct damage_list list = {0};
    struct store_report report;
    struct store *store = NULL;
    long ncpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct store_options options = {
        .disk = check->disk,
        .dir = shard,
        .capacity_bytes = UINT64_MAX,
        .durability = check->repair ? STORE_INTERVAL : STORE_NONE,
        .scan_threads = ncpus > 1 ? (unsigned)ncpus : 1,
        .purpose = check->repair ? STORE_REPAIR : STORE_EXAMINE,
        .damage = &list,
    };
    int err = store_open(&store, &options, &report);

    if (err == 0 && check->repair)
        err = store_settle(store);
    if (err != 0) {
        explain(shard, &list, err);
        goto out;
    }
    count(check, store, &report, &list);
    if (!check->quiet) {
        for (size_t i = 0; i < list.count; i++)
            say_damage(check, shard, store, &list.at[i]);
        say_regions(check, shard, store, &list);
    }
out:
    store_close(&store);
    damage_clear(&list);
    return err;
}

static int check_shard(struct check *check, uint32_t number)
{
    const char *shard = data_dir_shard(check->data, number);
    struct stat st;

    if (stat(shard, &st) != 0 && errno == ENOENT) {
        if (!check->quiet)
            fprintf(check->out, "%s: the directory is missing: all its pages are lost\n", shard);
        check->totals.damaged[DAMAGE_FILE_MISSING]++;
        check->totals.harm++;
        return 0;
    }
    if (!check->quiet)
        check_names_say(shard, check->out);
    return check_store(check, shard);
}

/* One look through all of it, or one repair. */
static int go_through(struct check *check)
{
    char why[512];
    bool damaged;
    int err = data_dir_examine(&check->data, check->disk, check->path, &damaged, why, sizeof(why));

    check->totals = (struct totals){0};
    if (err != 0) {
        log_fatal(PART, "%s", why);
        return err;
    }
    if (damaged) {
        check->totals.damaged[DAMAGE_FILE_HEADER]++;
        check->totals.harm++;
        if (!check->quiet)
            fprintf(check->out,
                    "%s/edm-store: damaged or missing: its %" PRIu32 " shards are "
                    "those there are directories of\n",
                    check->path, data_dir_shards(check->data));
    }
    if (check->repair)
        err = data_dir_mend(check->data, damaged, why, sizeof(why));
    if (err != 0)
        log_fatal(PART, "%s", why);
    for (uint32_t i = 0; err == 0 && i < data_dir_shards(check->data); i++)
        err = check_shard(check, i);
    data_dir_close(&check->data);
    return err;
}

static int look(struct check *check, bool quiet)
{
    struct dry_disk *dry;
    int err = dry_disk_new(&dry);

    if (err != 0)
        return err;
    check->disk = dry_disk_ops(dry);
    check->quiet = quiet;
    check->repair = false;
    err = go_through(check);
    dry_disk_destroy(&dry);
    return err;
}

static void say_state(const struct check *check, const char *state)
{
    const struct totals *totals = &check->totals;

    fprintf(check->out, "%s %s: %" PRIu64 " regions, %" PRIu64 " pages", check->path, state,
            totals->regions, totals->pages);
    if (totals->lost > 0)
        fprintf(check->out, ", %" PRIu64 " of them lost and marked so", totals->lost);
    if (totals->incomplete > 0)
        fprintf(check->out, "; %" PRIu64 " regions incomplete", totals->incomplete);
    fputc('\n', check->out);
}

static void say_totals(const struct check *check, const char *state)
{
    const struct totals *totals = &check->totals;
    const uint64_t *damaged = totals->damaged;

    fprintf(check->out,
            "%s %s: %" PRIu64 " pages lost, %" PRIu64 " slots of unknown pages, %" PRIu64
            " manifest records, %" PRIu64 " regions without a record, %" PRIu64
            " files damaged, cut short or missing\n",
            check->path, state, damaged[DAMAGE_PAGE], damaged[DAMAGE_SLOT], damaged[DAMAGE_RECORD],
            damaged[DAMAGE_REGION],
            damaged[DAMAGE_FILE_HEADER] + damaged[DAMAGE_FILE_LENGTH] +
                damaged[DAMAGE_FILE_MISSING]);
}

static enum check_result repair(struct check *check)
{
    check->disk = &disk_real;
    check->quiet = true;
    check->repair = true;
    if (go_through(check) != 0)
        return CHECK_FAILED;
    if (look(check, true) != 0)
        return CHECK_FAILED;
    if (check->totals.harm > 0) {
        log_fatal(PART, "%s could not be repaired: see to the disk, then try again", check->path);
        return CHECK_FAILED;
    }
    say_state(check, "is repaired, what is lost is answered with DATA_LOSS");
    return CHECK_SOUND;
}

enum check_result check_run(const char *dir, bool repair_it, FILE *out)
{
    struct check check = {.path = dir, .out = out};
    int err = mapped_fault_install();

    if (err == 0)
        err = look(&check, false);
    if (err != 0)
        return CHECK_FAILED;
    if (check.totals.harm == 0) {
        say_state(&check, "is sound");
        return CHECK_SOUND;
    }
    say_totals(&check, "is damaged");
    if (repair_it)
        return repair(&check);
    fprintf(out, "to make it servable without what is lost: edm --mode=check --data=%s --repair\n",
            dir);
    return CHECK_DAMAGED;
}
