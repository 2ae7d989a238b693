#include "damage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int damage_add(struct damage_list *list, const struct damage *damage)
{
    if (list->count == list->cap) {
        size_t cap = list->cap == 0 ? 16 : 2 * list->cap;
        struct damage *at = realloc(list->at, cap * sizeof(*at));
        if (at == NULL)
            return -ENOMEM;
        list->at = at;
        list->cap = cap;
    }
    list->at[list->count++] = *damage;
    return 0;
}

void damage_clear(struct damage_list *list)
{
    free(list->at);
    *list = (struct damage_list){0};
}

size_t damage_count(const struct damage_list *list, enum damage_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < list->count; i++)
        count += list->at[i].kind == kind;
    return count;
}

size_t damage_harm(const struct damage_list *list)
{
    return list->count - damage_count(list, DAMAGE_LOST);
}

/* Whether opening the store makes the file whole: the next time it is not there any more. */
static bool is_mended(const struct damage *damage)
{
    return damage->kind == DAMAGE_FILE_LENGTH || damage->kind == DAMAGE_FILE_HEADER;
}

uint64_t damage_hidden(const struct damage_list *list, bool *mended)
{
    uint64_t sum = 0;

    *mended = false;
    for (size_t i = 0; i < list->count; i++) {
        const struct damage *damage = &list->at[i];
        if (!damage->hides)
            continue;
        if (is_mended(damage))
            *mended = true;
        else /* the order of the list does not matter */
            sum += XXH3_64bits_withSeed(damage->file, strlen(damage->file),
                                        damage->place * DAMAGE_NKINDS + damage->kind) |
                   1;
    }
    return sum;
}
