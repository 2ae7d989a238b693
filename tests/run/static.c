/*
 * static: a statically linked program, which EDM refuses.
 *
 *     static [SECONDS]
 *
 * Waits so long, and exits with 7.
 */
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_AS_EXPECTED = 7 };

int main(int argc, char **argv)
{
    if (argc > 1)
        sleep((unsigned)strtoul(argv[1], NULL, 10));
    return EXIT_AS_EXPECTED;
}
