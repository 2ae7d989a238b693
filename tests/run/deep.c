/*
 * deep: a program whose first thread's stack is what needs memory.
 *
 *     deep MIB
 *
 * Calls itself until the stack has so many MiB, each frame filled with bytes of its own. Down there
 * a signal comes, a child is forked, and the arguments and the environment are looked at from
 * outside. On the way up each frame is checked, in the child too. Twice, so that memory which is
 * known is used again. Run with a limit of the stack that allows it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAME_WORDS = 1000, FRAMES_PER_MIB = 128, SEEN = 7 };

static const char *first_argument, *first_variable;
static volatile sig_atomic_t signals;

static void fail(const char *what)
{
    fprintf(stderr, "deep: %s\n", what);
    _exit(1);
}

static void on_signal(int number)
{
    volatile char block[100000];
    for (size_t i = 0; i < sizeof block; i += 512)
        block[i] = (char)number;
    signals++;
}

/* Others read them so; for them nobody waits for a page. */
static void look(const char *path, const char *first)
{
    char text[256];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (got <= 0)
        fail(path);
    text[got] = 0;
    if (strncmp(text, first, sizeof text - 1) != 0)
        fail(path);
    close(fd);
}

/* 0 in the child. */
static pid_t bottom(void)
{
    look("/proc/self/cmdline", first_argument);
    look("/proc/self/environ", first_variable);
    raise(SIGUSR1);
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    return child;
}

static pid_t descend(uint64_t depth) /* NOLINT(misc-no-recursion) */
{
    volatile uint64_t frame[FRAME_WORDS];
    for (uint64_t i = 0; i < FRAME_WORDS; i++)
        frame[i] = depth * FRAME_WORDS + i;
    pid_t child = depth > 0 ? descend(depth - 1) : bottom();
    for (uint64_t i = 0; i < FRAME_WORDS; i++)
        if (frame[i] != depth * FRAME_WORDS + i)
            fail("a frame is wrong");
    return child;
}

int main(int argc, char **argv)
{
    if (argc != 2 || !environ[0])
        fail("deep MIB");
    first_argument = argv[0];
    first_variable = environ[0];
    signal(SIGUSR1, on_signal);
    for (int round = 1; round <= 2; round++) {
        pid_t child = descend(strtoull(argv[1], NULL, 10) * FRAMES_PER_MIB);
        if (child == 0)
            _exit(SEEN);
        int status = 0;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
            WEXITSTATUS(status) != SEEN)
            fail("the child");
        if (signals != round)
            fail("signals");
    }
    puts("ok");
    return 0;
}
