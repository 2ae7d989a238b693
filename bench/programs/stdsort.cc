// stdsort MIB: std::sort of so much memory, 64-bit numbers in no order; checks what comes out. Exit
// status 3 if it is not what went in, in order.
#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "clock.h"

static uint64_t scatter(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: stdsort MIB\n");
        return 2;
    }
    std::vector<uint64_t> numbers((strtoul(argv[1], nullptr, 10) << 20) / sizeof(uint64_t));
    uint64_t before = 0, after = 0;
    for (size_t i = 0; i < numbers.size(); i++) {
        numbers[i] = scatter(i + 1);
        before += scatter(numbers[i]);
    }
    uint64_t begun = clock_ns();
    std::sort(numbers.begin(), numbers.end());
    double seconds = static_cast<double>(clock_ns() - begun) / 1e9;
    for (size_t i = 0; i < numbers.size(); i++) {
        after += scatter(numbers[i]);
        if (i > 0 && numbers[i - 1] > numbers[i]) {
            fprintf(stderr, "stdsort: number %zu is out of order\n", i);
            return 3;
        }
    }
    if (before != after) {
        fprintf(stderr, "stdsort: other numbers came out than went in\n");
        return 3;
    }
    printf("{\"what\":\"stdsort\",\"numbers\":%zu,\"sort_s\":%.4f}\n", numbers.size(), seconds);
    return 0;
}
