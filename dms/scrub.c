#include "scrub.h"

#include "../ini/log.h"

#include <inttypes.h>

enum {
    STEP_PAGES = 16,   /* 64 KiB: some 10 us once they are in memory */
    EMPTY_STEPS = 256, /* looked past at once where nothing is stored */
    WAIT_US = 5000,
    MAX_WAITS = 200, /* then it is read, come what may: the disk is slow or does not answer */
    MAX_LINE_BYTES = 1024,
};

static void report(struct scrub *scrub, const struct damage *damage)
{
    char text[MAX_LINE_BYTES];

    store_describe_damage(scrub->store, damage, text, sizeof(text));
    log_error(scrub->part, "scrub: %s", text);
    scrub->found++;
}

static void end_pass(struct scrub *scrub, int64_t now_us)
{
    log_debug(scrub->part,
              "scrub: read %" PRIu64 " KiB in %" PRId64 " ms, %" PRIu64 " damaged slots",
              scrub->bytes / 1024, (now_us - scrub->begun_us) / 1000, scrub->found);
    int64_t next_us = scrub->begun_us + (int64_t)SCRUB_PASS_MS * 1000;
    if (scrub->due_us < next_us)
        scrub->due_us = next_us;
    scrub->begun_us = 0;
    scrub->bytes = scrub->found = 0;
    scrub->npasses++;
}

/* Reads on until there was something to read. */
static void step(struct scrub *scrub, int64_t now_us)
{
    struct damage damage;
    uint64_t bytes = 0;
    bool again = false;

    if (scrub->begun_us == 0)
        scrub->begun_us = now_us;
    for (int i = 0; i < EMPTY_STEPS && bytes == 0 && !again; i++) {
        if (store_scrub(scrub->store, &scrub->ref, STEP_PAGES, scrub->waits >= MAX_WAITS, &bytes,
                        &again, &damage))
            report(scrub, &damage);
        if (scrub->ref == 0)
            break;
    }
    scrub->waits = again ? scrub->waits + 1 : 0;
    scrub->bytes += bytes;
    /* From when it was due: a step that came late does not make the rate lower. */
    int64_t from_us = now_us - scrub->due_us < 1000000 ? scrub->due_us : now_us;
    scrub->due_us = again ? now_us + WAIT_US : from_us + (int64_t)(bytes * 1000000 / scrub->rate);
    if (scrub->ref == 0 && !again)
        end_pass(scrub, now_us);
}

int scrub_turn(struct scrub *scrub, int64_t now_us)
{
    if (scrub->rate == 0)
        return -1;
    if (now_us >= scrub->due_us)
        step(scrub, now_us);
    int64_t left_us = scrub->due_us - now_us;
    return left_us <= 0 ? 0 : (int)((left_us + 999) / 1000);
}
