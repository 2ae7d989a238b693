"""std::sort of 512 MiB at half the memory, against swap and against a throttled one."""
from lib.swap import swap_or_none

GOAL_SWAP = 1.0
GOAL_THROTTLED = 0.4
ROUNDS = 3
SIZE_MIB = 512


def compare(bench, words, size, rounds, throttled=False):
    """Wall times under EDM and with swap; the latter's are none where there is none."""
    edm, kernel = [], []
    name = f"std::sort against {'throttled ' if throttled else ''}swap"
    with swap_or_none(bench, name, size + 256, throttled) as swap:
        for _ in range(rounds):
            edm.append(bench.client(words, size // 2).wall_s)
            if swap:
                kernel.append(swap.run(words, size // 2, limit_s=240).wall_s)
    return edm, kernel


def run(bench):
    size = bench.scaled(SIZE_MIB, 64)
    words = [bench.tool("stdsort"), str(size)]
    native = [bench.run(words).wall_s for _ in range(bench.rounds)]
    edm, swap = compare(bench, words, size, bench.rounds)
    title = f"std::sort of {size} MiB at 50 %"
    bench.figure(title, "s", edm, "native", native)
    if swap:
        bench.figure(title, "s", edm, "swap", swap, GOAL_SWAP)
    edm, swap = compare(bench, words, size, 1, throttled=True)
    if swap:
        bench.figure(title, "s", edm, "throttled swap", swap, GOAL_THROTTLED)
