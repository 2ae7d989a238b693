/*
 * traced: a program for debuggers. It fills MIB of memory with words that it knows, calls full(),
 * and
 *
 *     traced MIB check          checks every word, and exits with 7
 *     traced MIB wait FILE      does so when FILE is there
 *     traced MIB abort          dumps core
 *     traced MIB child          has a child that dumps core, and says "core" if it did
 *
 * peek(i) is what word i holds, i * 7919 + 1.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AS_EXPECTED = 7, FACTOR = 7919, POLL_US = 10000 };

static volatile uint64_t *words;
static uint64_t nwords;

__attribute__((noinline, used)) static uint64_t peek(uint64_t i)
{
    return words[i];
}

__attribute__((noinline)) static void full(void)
{
    __asm__ volatile("" ::: "memory");
}

static int check(void)
{
    for (uint64_t i = 0; i < nwords; i++)
        if (words[i] != i * FACTOR + 1) {
            fprintf(stderr, "traced: word %llu is not as expected\n", (unsigned long long)i);
            return 1;
        }
    return AS_EXPECTED;
}

static int have_child(void)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        abort();
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    puts(WIFSIGNALED(status) && WCOREDUMP(status) ? "core" : "no core");
    fflush(stdout);
    return check();
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    nwords = strtoull(argv[1], NULL, 10) * (1 << 20) / sizeof *words;
    words = malloc(nwords * sizeof *words);
    if (!words)
        return 2;
    for (uint64_t i = 0; i < nwords; i++)
        words[i] = i * FACTOR + 1;
    full();
    if (strcmp(argv[2], "abort") == 0)
        abort();
    if (strcmp(argv[2], "child") == 0)
        return have_child();
    while (argc > 3 && access(argv[3], F_OK))
        usleep(POLL_US);
    return check();
}
