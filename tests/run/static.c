/*
 * static: a statically linked program.
 *
 *     static [SECONDS]             waits so long
 *     static verify MIB THREADS    threads that fill memory from malloc() and check it, again and
 * again static fork MIB              a child and a grandchild by fork(), each with its own memory
 *     static spawn MIB PROG ARGS   fills MIB, runs PROG, and checks what it has filled
 *
 * Exits with 7, or with another status and a line that says what was wrong.
 */
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_AS_EXPECTED = 7, EXIT_WRONG = 3, ROUNDS = 2, THREADS_MOST = 64, BLOCK_WORDS = 12345 };

extern char **environ;

struct share {
    uint64_t **blocks;
    size_t nblocks;
    uint64_t seed;
};

static uint64_t word_of(uint64_t seed, uint64_t at)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + at;
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    return x ^ x >> 33;
}

static void fail(const char *what)
{
    printf("%d: %s\n", (int)getpid(), what);
    fflush(stdout);
    _exit(EXIT_WRONG);
}

static void fill(struct share *share, uint64_t seed)
{
    share->seed = seed;
    for (size_t b = 0; b < share->nblocks; b++)
        for (size_t i = 0; i < BLOCK_WORDS; i++)
            share->blocks[b][i] = word_of(seed + b, i);
}

static void check(const struct share *share, const char *who)
{
    for (size_t b = 0; b < share->nblocks; b++)
        for (size_t i = 0; i < BLOCK_WORDS; i++)
            if (share->blocks[b][i] != word_of(share->seed + b, i))
                fail(who);
}

/* Blocks that are no whole number of pages, from malloc()'s arenas or mappings of their own. */
static void take(struct share *share, size_t bytes)
{
    share->nblocks = bytes / (BLOCK_WORDS * sizeof(uint64_t));
    share->blocks = malloc(share->nblocks * sizeof *share->blocks);
    for (size_t b = 0; share->blocks && b < share->nblocks; b++) {
        share->blocks[b] = malloc(BLOCK_WORDS * sizeof(uint64_t));
        if (!share->blocks[b])
            fail("no memory");
    }
    if (!share->blocks)
        fail("no memory");
}

static void give_back(struct share *share)
{
    for (size_t b = 0; b < share->nblocks; b++)
        free(share->blocks[b]);
    free(share->blocks);
}

static void *work(void *arg)
{
    struct share *share = arg;
    size_t bytes = share->seed;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        take(share, bytes);
        fill(share, (uint64_t)arg + round);
        check(share, "a thread's memory");
        fill(share, ~(uint64_t)arg + round);
        check(share, "a thread's memory, the second time");
        give_back(share);
    }
    return NULL;
}

static void verify(size_t bytes, size_t nthreads)
{
    static struct share shares[THREADS_MOST];
    pthread_t threads[THREADS_MOST];
    if (nthreads > THREADS_MOST)
        fail("too many threads");
    for (size_t i = 0; i < nthreads; i++) {
        shares[i].seed = bytes / nthreads;
        if (pthread_create(&threads[i], NULL, work, &shares[i]))
            fail("no thread");
    }
    for (size_t i = 0; i < nthreads; i++)
        pthread_join(threads[i], NULL);
}

static void wait_for(pid_t pid, int expected)
{
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
        WEXITSTATUS(status) != expected)
        fail("a child ended otherwise than it should");
}

static void descend(struct share *share, int generations)
{
    pid_t pid = fork();
    if (pid == 0) {
        check(share, "a child has other memory than its parent had");
        fill(share, 100 + (uint64_t)generations);
        if (generations > 1)
            descend(share, generations - 1);
        check(share, "a child's own memory");
        _exit(EXIT_AS_EXPECTED);
    }
    for (uint64_t round = 0; round < 2; round++) {
        fill(share, 200 + round);
        check(share, "a parent's own memory");
    }
    wait_for(pid, EXIT_AS_EXPECTED);
}

static void run(char **argv)
{
    pid_t pid;
    if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ))
        fail("it cannot be run");
    int status;
    if (waitpid(pid, &status, 0) != pid || status)
        fail("what was run ended otherwise than it should");
}

int main(int argc, char **argv)
{
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 10) << 20 : 0;
    struct share share;
    if (argc == 2) {
        sleep((unsigned)strtoul(argv[1], NULL, 10));
    } else if (argc == 4 && strcmp(argv[1], "verify") == 0) {
        verify(bytes, strtoul(argv[3], NULL, 10));
    } else if (argc == 3 && strcmp(argv[1], "fork") == 0) {
        take(&share, bytes);
        fill(&share, 1);
        descend(&share, 2);
    } else if (argc > 3 && strcmp(argv[1], "spawn") == 0) {
        take(&share, bytes);
        fill(&share, 1);
        run(argv + 3);
        check(&share, "memory after a child has been run");
    } else if (argc != 1) {
        fail("usage: see static.c");
    }
    return EXIT_AS_EXPECTED;
}
