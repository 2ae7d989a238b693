#include "random_number.h"

#include <errno.h>
#include <sys/random.h>

int random_number(uint64_t *out)
{
    uint64_t number = 0;

    while (number == 0) {
        ssize_t got = getrandom(&number, sizeof(number), 0);
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got != sizeof(number))
            number = 0;
    }
    *out = number;
    return 0;
}
