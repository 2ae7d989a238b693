#include "control.h"

#include "ticks.h"
#include "../ini/config.h"
#include "../ini/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    WAIT_MS = 60000, /* where nothing else is asked for */
    MOST_WAIT_MS = 86400000,
    STATUS_LINE_BYTES = 256,
};

/* A connection whose request for a budget is still to be answered. */
struct waiter {
    uint64_t connection; /* 0: none */
    uint32_t change;
    uint64_t due_us;
};

struct control {
    struct control_config config;
    struct control_server *server;
    struct waiter waiters[CONTROL_CONNECTIONS];
};

static struct pager_counters counters; /* large */

/* ---- budget ---- */

static void answer(struct control *control, struct waiter *waiter, struct control_text *text)
{
    control_put_number(text, "limit", control->config.limit_bytes);
    control_server_reply(control->server, waiter->connection, text);
    control_server_hold(control->server, waiter->connection, false);
    *waiter = (struct waiter){0};
}

static void answer_word(struct control *control, struct waiter *waiter, const char *word)
{
    struct control_text text;
    control_begin(&text, word);
    answer(control, waiter, &text);
}

static void answer_ok(struct control *control, struct waiter *waiter, uint64_t resident_bytes)
{
    struct control_text text;
    control_begin(&text, "ok");
    control_put_number(&text, "resident", resident_bytes);
    answer(control, waiter, &text);
}

/* Adds what process PID has locked, and says whether it is stopped. */
static bool look_why(pid_t pid, uint64_t *locked_bytes)
{
    char line[STATUS_LINE_BYTES];
    unsigned long long kib;
    char state;
    bool stopped = false;
    snprintf(line, sizeof line, "/proc/%d/status", (int)pid);
    FILE *file = fopen(line, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "VmLck: %llu kB", &kib) == 1)
            *locked_bytes += kib * 1024;
        else if (sscanf(line, "State: %c", &state) == 1)
            stopped = state == 'T';
    }
    if (file)
        fclose(file);
    return stopped;
}

/* What is resident is still above the budget: with what can be seen of the reasons. */
static void answer_late(struct control *control, struct waiter *waiter)
{
    struct control_text text;
    uint64_t locked_bytes = 0;
    control_begin(&text, "late");
    pager_counters(control->config.pager, &counters);
    control_put_number(&text, "resident", counters.resident_pages * PAGE);
    for (int i = 0; i < PAGER_IMAGES; i++) {
        const struct image_figures *image = &counters.by_image[i];
        if (image->pid != 0 && !image->ended && look_why(image->pid, &locked_bytes))
            control_put_number(&text, "stopped", (uint64_t)image->pid);
    }
    control_put_number(&text, "locked", locked_bytes);
    answer(control, waiter, &text);
}

/* There is one for each connection. */
static struct waiter *free_waiter(struct control *control)
{
    for (int i = 0; i < CONTROL_CONNECTIONS; i++)
        if (!control_server_is_open(control->server, control->waiters[i].connection))
            return &control->waiters[i];
    abort();
}

/* Nobody waits for a budget that is not aimed at any more, nor twice on one connection. */
static void replace_others(struct control *control, uint64_t connection, bool same_budget)
{
    for (int i = 0; i < CONTROL_CONNECTIONS; i++) {
        struct waiter *waiter = &control->waiters[i];
        if (waiter->connection && (!same_budget || waiter->connection == connection))
            answer_word(control, waiter, "replaced");
    }
}

static void on_limit(struct control *control, uint64_t connection, pid_t peer,
                     const struct control_message *request)
{
    uint64_t bytes, before = control->config.limit_bytes;
    const char *size = control_get(request, "size");
    char why[CONFIG_REASON_BYTES];
    if (config_parse_local(size ? size : "", &bytes, why, sizeof why)) {
        control_server_refuse(control->server, connection, "bad", why);
        return;
    }
    uint64_t wait_ms = control_get_number(request, "wait_ms", WAIT_MS);
    control->config.limit_bytes = bytes;
    replace_others(control, connection, bytes == before);
    *free_waiter(control) = (struct waiter){
        .connection = connection,
        .change = pager_set_limit(control->config.pager, bytes),
        .due_us = ticks_us() + 1000 * (wait_ms < MOST_WAIT_MS ? wait_ms : MOST_WAIT_MS),
    };
    control_server_hold(control->server, connection, true);
    log_info("Control", "the budget is %llu MiB now, it was %llu MiB: asked for by process %d",
             (unsigned long long)(bytes >> 20), (unsigned long long)(before >> 20), (int)peer);
}

static void look_at_waiter(struct control *control, struct waiter *waiter, uint64_t now_us)
{
    uint64_t resident_bytes;
    if (waiter->connection == 0)
        return;
    if (!control_server_is_open(control->server, waiter->connection))
        *waiter = (struct waiter){0};
    else if (pager_limit_kept(control->config.pager, waiter->change, &resident_bytes))
        answer_ok(control, waiter, resident_bytes);
    else if (now_us >= waiter->due_us)
        answer_late(control, waiter);
}

/* ---- status ---- */

static void on_status(struct control *control, uint64_t connection)
{
    struct control_text text;
    const struct control_config *config = &control->config;
    pager_counters(config->pager, &counters);
    control_begin(&text, "ok");
    control_put(&text, "region", config->region);
    control_put_number(&text, "pid", (uint64_t)getpid());
    control_put_number(&text, "limit", config->limit_bytes);
    control_put_number(&text, "resident", counters.resident_pages * PAGE);
    control_put_number(&text, "managed", counters.managed_pages * PAGE);
    control_put_number(&text, "processes", pager_processes(config->pager));
    control_put(&text, "program", config->program);
    control_server_reply(control->server, connection, &text);
}

/* ---- the whole ---- */

static void on_request(void *arg, uint64_t connection, pid_t peer,
                       const struct control_message *request)
{
    struct control *control = arg;
    if (strcmp(request->word, "status") == 0)
        on_status(control, connection);
    else if (strcmp(request->word, "limit") == 0)
        on_limit(control, connection, peer, request);
    else
        control_server_refuse(control->server, connection, "unknown",
                              "this edm knows no such request");
}

int control_new(struct control **out, const struct control_config *config)
{
    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return -ENOMEM;
    control->config = *config;
    int err = control_server_new(&control->server, config->listen_fd, on_request, control);
    if (err) {
        free(control);
        return err;
    }
    *out = control;
    return 0;
}

void control_end(struct control **control)
{
    struct control *c = *control;
    if (!c)
        return;
    for (int i = 0; i < CONTROL_CONNECTIONS; i++)
        if (c->waiters[i].connection)
            answer_word(c, &c->waiters[i], "ended");
    control_server_destroy(&c->server);
    free(c);
    *control = NULL;
}

void control_poll_fds(const struct control *control, struct pollfd out[CONTROL_POLL_FDS])
{
    control_server_poll_fds(control->server, out);
}

void control_process(struct control *control, const struct pollfd polled[CONTROL_POLL_FDS])
{
    control_server_process(control->server, polled);
    for (int i = 0; i < CONTROL_CONNECTIONS; i++)
        look_at_waiter(control, &control->waiters[i], ticks_us());
}

uint64_t control_due_us(const struct control *control)
{
    uint64_t due_us = UINT64_MAX;
    for (int i = 0; i < CONTROL_CONNECTIONS; i++)
        if (control->waiters[i].connection && control->waiters[i].due_us < due_us)
            due_us = control->waiters[i].due_us;
    return due_us;
}

uint64_t control_limit_bytes(const struct control *control)
{
    return control->config.limit_bytes;
}
