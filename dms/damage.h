/*
 * damage: what was found to be wrong with the files of a shard, as a list.
 *
 * Thread: one owner.
 */
#ifndef EDM_DMS_DAMAGE_H
#define EDM_DMS_DAMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum damage_kind {
    DAMAGE_PAGE,         /* a slot whose page is damaged, or its header, but it is known whose */
    DAMAGE_SLOT,         /* a slot whose header is damaged: nobody knows which page it held */
    DAMAGE_RECORD,       /* a record of the manifest */
    DAMAGE_REGION,       /* a region whose record is gone */
    DAMAGE_FILE_HEADER,  /* a file's header */
    DAMAGE_FILE_LENGTH,  /* a file was cut short */
    DAMAGE_FILE_MISSING, /* a file that was there */
    DAMAGE_FORMAT,       /* a file of a format that is not known, of which nothing can be said */
    DAMAGE_LOST,         /* a page that a repair marked as lost: no damage any more */
    DAMAGE_NKINDS
};

struct damage {
    enum damage_kind kind;
    bool hides;     /* pages may be missing of which nobody knows whose they were */
    char file[32];  /* its name in the shard's directory */
    uint64_t place; /* number of the slot or record */
    uint64_t ref;   /* slots: the pool's reference, otherwise 0 */
    /* DAMAGE_SLOT: what the header says, true or not. A page is also that of all branches that
     * share it: see store_describe_damage(). */
    uint64_t region, page;
};

/* All zero: empty. */
struct damage_list {
    struct damage *at;
    size_t count, cap;
};

/* Returns 0 or -ENOMEM. */
int damage_add(struct damage_list *list, const struct damage *damage)
    __attribute__((warn_unused_result));

/* Empties the list and frees what it took. */
void damage_clear(struct damage_list *list);

/* How many of one kind there are. */
size_t damage_count(const struct damage_list *list, enum damage_kind kind);

/* How many are damage at all. */
size_t damage_harm(const struct damage_list *list);

/* A number that stands for all those that hide pages and stay until they are repaired: other ones,
 * another number; none, 0. *MENDED: there are others, in files that opening the store makes whole.
 */
uint64_t damage_hidden(const struct damage_list *list, bool *mended);

#endif
