#include "slot_pool_parts.h"

#include <stdio.h>

void slot_pool_name(const struct slot_pool_file *file, char *name, size_t cap)
{
    snprintf(name, cap, "segment-%06u-%04u", file->number, file->slot_bytes);
}

void slot_pool_skip(struct slot_pool *pool, uint32_t number)
{
    /* One that is larger nobody gave to a file. */
    if (number >= pool->next_number && number < SLOT_POOL_MAX_NUMBER / 2)
        pool->next_number = number + 1;
}

int slot_pool_note(const struct slot_pool *pool, const struct member *member, bool there)
{
    return pool->note == NULL ? 0 : pool->note(pool->note_context, &member->file, there);
}

void slot_pool_on_file(struct slot_pool *pool,
                       int (*note)(void *context, const struct slot_pool_file *file, bool there),
                       void *context)
{
    pool->note = note;
    pool->note_context = context;
}

uint32_t slot_pool_files(const struct slot_pool *pool)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < pool->nmembers; i++)
        count += pool->members[i].segment != NULL;
    return count;
}

bool slot_pool_next_file(const struct slot_pool *pool, uint32_t *i, struct slot_pool_file *file)
{
    while (*i < pool->nmembers && pool->members[*i].segment == NULL)
        ++*i;
    if (*i == pool->nmembers)
        return false;
    *file = pool->members[(*i)++].file;
    return true;
}
