#include "spin.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_IN_VAIN = 10 /* then one time in a thousand */ };

void spin_begin(struct spin *spin)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    *spin = (struct spin){.loadavg = -1};
    if (sched_getaffinity(0, sizeof set, &set) || CPU_COUNT(&set) < 2)
        return;
    spin->processors = (uint32_t)CPU_COUNT(&set);
    spin->loadavg = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
}

void spin_end(struct spin *spin)
{
    if (spin->loadavg >= 0)
        close(spin->loadavg);
    spin->loadavg = -1;
}

uint32_t spin_parse(const char *text)
{
    /* "0.20 0.18 0.12 1/80 11206": after three averages, wanting to run / all there are. */
    for (int i = 0; i < 3; i++) {
        text = strchr(text, ' ');
        if (!text)
            return 0;
        text++;
    }
    return (uint32_t)strtoul(text, NULL, 10);
}

bool spin_is_free(const struct spin *spin)
{
    char text[64];
    ssize_t got = pread(spin->loadavg, text, sizeof text - 1, 0);
    if (got <= 0)
        return false;
    text[got] = '\0';
    uint32_t runnable = spin_parse(text);
    return runnable > 0 && runnable <= spin->processors;
}

bool spin_is_due(struct spin *spin)
{
    if (spin->loadavg < 0)
        return false;
    if (spin->skip > 0) {
        spin->skip--;
        return false;
    }
    return true;
}

void spin_learn(struct spin *spin, bool found)
{
    if (found) {
        spin->in_vain = 0;
        return;
    }
    if (spin->in_vain < MOST_IN_VAIN)
        spin->in_vain++;
    spin->skip = (1u << spin->in_vain) - 1;
}
