#include "private_dms.h"

#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void be_dms(const struct private_dms *dms, pid_t parent)
{
    char listen[160], data[160], log[160];
    snprintf(listen, sizeof listen, "--listen=%s", dms->endpoint);
    snprintf(data, sizeof data, "--data=%s", dms->data);
    snprintf(log, sizeof log, "--log-file=%s", dms->log);
    /* Its pages are of no use after a power cut. */
    char *const argv[] = {
        (char *)"edm", (char *)"--mode=dms", (char *)"--durability=none", listen, data, log, NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(125);
    setsid(); /* the terminal's signals end the program, not us */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* The caller's streams are not ours to hold open. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3 && null >= 0; i++)
        dup2(null, i);
    execv(dms->self, argv);
    _exit(125);
}

int private_dms_start(struct private_dms *dms, const char *self, const char *directory,
                      int guard_fd)
{
    dms->self = self;
    snprintf(dms->endpoint, sizeof dms->endpoint, "ipc://%s/dms.sock", directory);
    snprintf(dms->data, sizeof dms->data, "%s/pages", directory);
    snprintf(dms->log, sizeof dms->log, "%s/dms.log", directory);
    pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0)
        be_dms(dms, parent);
    if (child < 0)
        return -errno;
    dms->pid = child;
    dms->starts++;
    guard_end_with_us(guard_fd, child);
    return 0;
}

void private_dms_last_words(const struct private_dms *dms, char *line, size_t cap)
{
    char text[2048];
    snprintf(line, cap, "it said nothing");
    int fd = open(dms->log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t got = pread(fd, text, sizeof text - 1, size > 2047 ? size - 2047 : 0);
    close(fd);
    while (got > 0 && text[got - 1] == '\n')
        got--;
    if (got <= 0)
        return;
    text[got] = 0;
    const char *last = strrchr(text, '\n');
    snprintf(line, cap, "%s", last ? last + 1 : text);
}
