#include "damage.h"

#include <errno.h>
#include <stdlib.h>

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

size_t damage_hidden(const struct damage_list *list)
{
    size_t count = 0;

    for (size_t i = 0; i < list->count; i++)
        count += list->at[i].hides;
    return count;
}
