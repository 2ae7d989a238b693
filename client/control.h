/*
 * control: what a running client answers on its control socket (control_message.h): its state, and
 * requests for another budget, whose answer waits until the budget is kept.
 *
 * Thread: main. Nothing here blocks.
 */
#ifndef EDM_CLIENT_CONTROL_H
#define EDM_CLIENT_CONTROL_H

#include "control_server.h"
#include "pager.h"

struct control;

/* All of it the caller's; it must stay. */
struct control_config {
    int listen_fd;
    struct pager *pager;
    const char *region;
    const char *program;
    uint64_t limit_bytes;
};

/* 0 or -errno. */
int control_new(struct control **out, const struct control_config *config)
    __attribute__((warn_unused_result));

/* Who still waits is told that the program has ended. */
void control_end(struct control **control);

void control_poll_fds(const struct control *control, struct pollfd out[CONTROL_POLL_FDS]);
/* Takes requests in, by what poll() found, and answers those that have waited for long enough or
 * for what has come about. */
void control_process(struct control *control, const struct pollfd polled[CONTROL_POLL_FDS]);

/* When control_process() has something to do of itself, in ticks_us()'s time; UINT64_MAX: never.
 */
uint64_t control_due_us(const struct control *control);

/* The budget as it was last set. */
uint64_t control_limit_bytes(const struct control *control);

#endif
