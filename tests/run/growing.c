/* growing [--calls=N]: four threads grow mappings in place, step by step, all the time. Natively no
 * mremap() of memory that is one mapping fails with EFAULT. Says how many did. */
#include "pages.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { THREADS = 4, MOST_PAGES = 256, MOST_STEP = 8, BALLAST_BYTES = 40 << 20 };

static atomic_ulong calls, failed;
static unsigned long most_calls = 200000;

/* Grows one mapping into the hole behind it. Somebody else may come into that first: then it ends.
 */
static void grow_one(unsigned *seed)
{
    char *at = pages_map(MOST_PAGES);
    size_t npages = 1 + (size_t)rand_r(seed) % MOST_STEP;
    munmap(at + npages * PAGE_BYTES, (MOST_PAGES - npages) * PAGE_BYTES);
    at[0] = 1;
    while (npages < MOST_PAGES - MOST_STEP) {
        size_t more = npages + 1 + (size_t)rand_r(seed) % MOST_STEP;
        calls++;
        if (mremap(at, npages * PAGE_BYTES, more * PAGE_BYTES, 0) == MAP_FAILED) {
            if (errno != EFAULT)
                break;
            failed++;
            continue;
        }
        npages = more;
        if (at[0] != 1 || at[(npages - 1) * PAGE_BYTES] != 0) {
            fprintf(stderr, "growing: a wrong byte\n");
            exit(1);
        }
        at[0] = 1;
    }
    munmap(at, npages * PAGE_BYTES);
}

static void *grow(void *seed)
{
    while (calls < most_calls)
        grow_one(seed);
    return NULL;
}

int main(int argc, char **argv)
{
    pages_name("growing");
    if (argc > 1 && sscanf(argv[1], "--calls=%lu", &most_calls) != 1)
        return 2;
    memset(pages_map(BALLAST_BYTES / PAGE_BYTES), 1, BALLAST_BYTES);
    pthread_t threads[THREADS];
    unsigned seeds[THREADS] = {1, 2, 3, 4};
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, grow, &seeds[i]))
            pages_fail("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("growing: ok %lu calls, %lu failed\n", calls, failed);
    return 0;
}
