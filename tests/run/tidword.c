/* tidword: for a C library whose threads share one word that the kernel clears when a thread ends
 * (musl): however short memory is, the page of that word stays in memory. Were it outside when a
 * thread ends, the kernel could not write there and pthread_join() would wait for ever. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, BALLAST_BYTES = 96 << 20, ROUNDS = 3, GET_TID_ADDRESS = 40 };

static char filler[64 * PAGE_BYTES]; /* so that the library's word is not in a page of the file */

static int pagemap;

static uint64_t tid_address(void)
{
    uint64_t address = 0;
    prctl(GET_TID_ADDRESS, &address);
    return address;
}

static void *say_address(void *out)
{
    *(uint64_t *)out = tid_address();
    return NULL;
}

static int is_present(uint64_t address)
{
    uint64_t entry = 0;
    /* Past the library, whose own words lie beside that one: it would come in right before it is
     * looked at. For the same reason this is built without stack protector. */
    long got;
    register long offset __asm__("r10") = (long)(address / PAGE_BYTES * sizeof entry);
    __asm__ volatile("syscall"
                     : "=a"(got)
                     : "a"(SYS_pread64), "D"(pagemap), "S"(&entry), "d"(sizeof entry), "r"(offset)
                     : "rcx", "r11", "memory");
    if (got != sizeof entry)
        exit(2);
    return entry >> 63;
}

/* Whether it is in anonymous memory, which is managed. */
static int is_anonymous(uint64_t address)
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[512];
    uint64_t start, end;
    unsigned long inode = 1;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &inode) == 3 &&
            start <= address && address < end)
            break;
    if (file)
        fclose(file);
    return inode == 0;
}

int main(void)
{
    uint64_t own = tid_address(), others = 0;
    pthread_t thread;
    pagemap = open("/proc/self/pagemap", O_RDONLY);
    memset(filler, 1, sizeof filler);
    if (pthread_create(&thread, NULL, say_address, &others) || pthread_join(thread, NULL))
        return 2;
    if (own == 0 || own != others || !is_anonymous(own)) {
        fprintf(stderr, "tidword: %lx, of another thread %lx: not what this is about\n", own,
                others);
        return 2;
    }
    char *ballast = malloc(BALLAST_BYTES);
    int out = 0, filler_out = 0;
    for (int round = 0; ballast && round < ROUNDS; round++) {
        memset(ballast, round + 1, BALLAST_BYTES);
        out += !is_present(own);
        filler_out += !is_present((uint64_t)filler + 8 * PAGE_BYTES);
    }
    /* What a child has it has from its parent, which has most of it outside. */
    pid_t child = fork();
    if (child == 0) {
        for (size_t i = 0; i < BALLAST_BYTES; i += PAGE_BYTES)
            if (ballast[i] != ROUNDS)
                _exit(1);
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "tidword: the child has other memory\n");
        return 3;
    }
    printf("tidword: out %d times, what is beside it %d times\n", out, filler_out);
    return out > 0;
}
