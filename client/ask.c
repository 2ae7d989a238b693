#include "ask.h"

#include "control_find.h"
#include "../ini/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    LATE_MS = 10000, /* a client answers by itself in time, unless it is stopped */
    WORDS_BYTES = 256,
    KIB = 1024,
};

static uint64_t number(const struct control_message *message, const char *key)
{
    return control_get_number(message, key, 0);
}

static uint64_t kib(const struct control_message *message, const char *key)
{
    return number(message, key) / KIB;
}

static const char *text(const struct control_message *message, const char *key)
{
    const char *value = control_get(message, key);
    return value ? value : "";
}

/* ---- which run ---- */

static void append(char words[WORDS_BYTES], const char *format, long value)
{
    size_t at = strlen(words);
    snprintf(words + at, WORDS_BYTES - at, format, value);
}

static enum ask_result say_none(const struct control_finding *found, const char *name)
{
    char words[WORDS_BYTES] = "";
    if (found->nsilent > 0 && found->silent_pid != 0)
        append(words, "; process %ld, which runs one, does not answer", (long)found->silent_pid);
    else if (found->nsilent > 0)
        append(words, "; %ld that run one do not answer", (long)found->nsilent);
    if (found->nforeign > 0)
        append(words, "; %ld directories of other users' runs were not looked at",
               (long)found->nforeign);
    log_fatal("Ask", "no region %s is running%s", name, words);
    return ASK_NO_REGION;
}

static enum ask_result say_several(const struct control_finding *found, const char *name)
{
    char words[WORDS_BYTES] = "";
    for (const struct control_run *run = found->runs; run; run = run->next)
        append(words, run == found->runs ? "%ld" : ", %ld", (long)run->pid);
    log_fatal("Ask", "region %s is running more than once: give one of the process ids %s instead",
              name, words);
    return ASK_NO_REGION;
}

static enum ask_result find_one(const char *name, struct control_finding *found)
{
    int err = control_find(found, name);
    if (err) {
        log_fatal("Ask", "cannot look for running clients: %s", strerror(-err));
        return ASK_FAILED;
    }
    if (!found->runs)
        return say_none(found, name);
    return found->runs->next ? say_several(found, name) : ASK_DONE;
}

/* ---- limit ---- */

static enum ask_result say_late(const char *name, const struct control_message *answer,
                                uint32_t wait_s)
{
    char words[WORDS_BYTES] = "";
    if (number(answer, "stopped"))
        append(words, "; process %ld is stopped", (long)number(answer, "stopped"));
    if (number(answer, "locked"))
        append(words, "; %ld KiB are locked", (long)kib(answer, "locked"));
    if (!*words)
        append(words, "; a DMS may be away, or slow", 0);
    log_fatal("Ask",
              "region %s: the budget is %" PRIu64 " KiB, but after %" PRIu32 " s %" PRIu64
              " KiB are still resident%s",
              name, kib(answer, "limit"), wait_s, kib(answer, "resident"), words);
    return ASK_NOT_KEPT;
}

static enum ask_result say_outcome(const char *name, const struct control_message *answer,
                                   const struct ask_config *config, FILE *out)
{
    const char *word = answer->word;
    if (strcmp(word, "ok") == 0) {
        fprintf(out, "region %s: budget %" PRIu64 " KiB, resident %" PRIu64 " KiB\n", name,
                kib(answer, "limit"), kib(answer, "resident"));
        return ASK_DONE;
    }
    if (strcmp(word, "late") == 0)
        return say_late(name, answer, config->wait_s);
    if (strcmp(word, "replaced") == 0) {
        log_fatal("Ask", "region %s: another budget, %" PRIu64 " KiB, was set meanwhile", name,
                  kib(answer, "limit"));
        return ASK_NOT_KEPT;
    }
    if (strcmp(word, "ended") == 0) {
        log_fatal("Ask", "region %s: the program has ended", name);
        return ASK_ENDED;
    }
    log_fatal("Ask", "region %s: refused: %s: %s", name, text(answer, "code"),
              text(answer, "text"));
    return ASK_FAILED;
}

static enum ask_result request_limit(const struct control_run *run, const struct ask_config *config,
                                     FILE *out)
{
    struct control_message answer;
    struct control_text request;
    const char *name = text(&run->status, "region");
    uint64_t wait_ms = 1000ull * config->wait_s;
    control_begin(&request, "limit");
    control_put(&request, "size", config->size);
    control_put_number(&request, "wait_ms", wait_ms);
    int err = control_ask(run->fd, &request, wait_ms + LATE_MS, &answer);
    if (!err)
        return say_outcome(name, &answer, config, out);
    if (err == -ECONNRESET) {
        log_fatal("Ask", "region %s: its client has ended", name);
        return ASK_ENDED;
    }
    log_fatal("Ask", "region %s: process %d, which runs it, does not answer: %s", name,
              (int)run->pid, strerror(-err));
    return ASK_FAILED;
}

enum ask_result ask_limit(const struct ask_config *config, FILE *out)
{
    struct control_finding found;
    enum ask_result result = find_one(config->region, &found);
    if (result == ASK_DONE)
        result = request_limit(found.runs, config, out);
    control_finding_free(&found);
    return result;
}

/* ---- status ---- */

static void print_plain(FILE *out, const char *words)
{
    for (; *words; words++)
        fputc((unsigned char)*words < ' ' || *words == 0x7f ? '?' : *words, out);
}

static void print_run(FILE *out, const struct control_run *run)
{
    const struct control_message *status = &run->status;
    fprintf(out, "%7d %5u %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %9" PRIu64 " ", (int)run->pid,
            (unsigned)run->uid, kib(status, "limit"), kib(status, "resident"),
            kib(status, "managed"), number(status, "processes"));
    print_plain(out, text(status, "region"));
    fputc(' ', out);
    print_plain(out, text(status, "program"));
    fputc('\n', out);
}

enum ask_result ask_status(const struct ask_config *config, FILE *out)
{
    struct control_finding found;
    enum ask_result result = ASK_DONE;
    int err = control_find(&found, config->region);
    if (err) {
        log_fatal("Ask", "cannot look for running clients: %s", strerror(-err));
        result = ASK_FAILED;
    } else if (!found.runs && config->region) {
        result = say_none(&found, config->region);
    } else {
        fprintf(out, "%7s %5s %12s %12s %12s %9s %s\n", "PID", "UID", "BUDGET_KIB", "RESIDENT_KIB",
                "MANAGED_KIB", "PROCESSES", "REGION PROGRAM");
        for (const struct control_run *run = found.runs; run; run = run->next)
            print_run(out, run);
        if (found.nsilent > 0)
            log_error("Ask", "%u more that run one do not answer, process %d among them",
                      found.nsilent, (int)found.silent_pid);
    }
    control_finding_free(&found);
    return result;
}
