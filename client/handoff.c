#include "handoff.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct handoff {
    _Alignas(64) atomic_uint given;
    _Alignas(64) atomic_uint taken;
    uint32_t capacity;
    int event;
    void **items;
};

int handoff_new(struct handoff **out, uint32_t capacity)
{
    assert(capacity > 0 && (capacity & (capacity - 1)) == 0);
    struct handoff *handoff = aligned_alloc(64, sizeof *handoff);
    if (!handoff)
        return -ENOMEM;
    atomic_init(&handoff->given, 0);
    atomic_init(&handoff->taken, 0);
    handoff->capacity = capacity;
    handoff->items = calloc(capacity, sizeof *handoff->items);
    handoff->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!handoff->items || handoff->event < 0) {
        int err = handoff->items ? -errno : -ENOMEM;
        handoff_destroy(&handoff);
        return err;
    }
    *out = handoff;
    return 0;
}

void handoff_destroy(struct handoff **handoff)
{
    if (!*handoff)
        return;
    if ((*handoff)->event >= 0)
        close((*handoff)->event);
    free((*handoff)->items);
    free(*handoff);
    *handoff = NULL;
}

bool handoff_give(struct handoff *handoff, void *item)
{
    uint32_t given = atomic_load_explicit(&handoff->given, memory_order_relaxed);
    assert(item);
    if (given - atomic_load_explicit(&handoff->taken, memory_order_acquire) == handoff->capacity)
        return false;
    handoff->items[given & (handoff->capacity - 1)] = item;
    atomic_store_explicit(&handoff->given, given + 1, memory_order_release);
    uint64_t one = 1;
    /* Fails only when the counter is full: then it is readable anyway. */
    ssize_t written = write(handoff->event, &one, sizeof one);
    (void)written;
    return true;
}

void *handoff_take(struct handoff *handoff)
{
    uint32_t taken = atomic_load_explicit(&handoff->taken, memory_order_relaxed);
    if (taken == atomic_load_explicit(&handoff->given, memory_order_acquire))
        return NULL;
    void *item = handoff->items[taken & (handoff->capacity - 1)];
    atomic_store_explicit(&handoff->taken, taken + 1, memory_order_release);
    return item;
}

int handoff_fd(const struct handoff *handoff)
{
    return handoff->event;
}

void handoff_calm(struct handoff *handoff)
{
    uint64_t count;
    ssize_t got = read(handoff->event, &count, sizeof count);
    (void)got;
}
