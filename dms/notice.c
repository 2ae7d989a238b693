#include "notice.h"

#include <time.h>

enum { SAY_MS = 10000 };

uint64_t notice_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + 1;
}

bool notice_is_due(struct notice *notice, uint64_t *count)
{
    uint64_t now = notice_now_ms();

    notice->count++;
    if (notice->said_ms != 0 && now - notice->said_ms < SAY_MS)
        return false;
    *count = notice->count;
    notice->said_ms = now;
    notice->count = 0;
    return true;
}
