"""std::sort of 512 MiB at half the memory, against swap and against a throttled one."""
from lib.bench import Missing, TooLong
from lib.swap import swap_or_none

GOAL_SWAP = 1.0
GOAL_THROTTLED = 0.4
ROUNDS = 3
SHARE_S = 90  # and one run against a throttled disk
SIZE_MIB = 512
LIMIT_S = 120


def sort_below_swap(bench, swap, words, local):
    """Its wall time; that of one that is ended is longer than it says, which is not in EDM's favour."""
    try:
        return swap.run(words, local, limit_s=LIMIT_S).wall_s
    except TooLong:
        bench.say(f"{swap.about}: ended after {LIMIT_S} s, which is taken for its time")
        return LIMIT_S


def compare(bench, words, size, rounds, throttled=False):
    """Wall times under EDM and with swap; the latter's are none where there is none."""
    edm, kernel = [], []
    name = f"std::sort against {'throttled ' if throttled else ''}swap"
    with swap_or_none(bench, name, size + 256, throttled) as swap:
        for _ in bench.turns(rounds, share=0.8) if swap or not throttled else ():
            edm.append(bench.client(words, size // 2).wall_s)
            try:
                if swap:
                    kernel.append(sort_below_swap(bench, swap, words, size // 2))
            except Missing as missing:
                bench.missing(name, missing)
                return edm, []
    return edm, kernel


def run(bench):
    size = bench.scaled(SIZE_MIB, 40)
    words = [bench.tool("stdsort"), str(size)]
    native = [bench.run(words).wall_s for _ in bench.turns(share=0.2)]
    edm, swap = compare(bench, words, size, bench.rounds)
    title = f"std::sort of {size} MiB at 50 %"
    bench.figure(title, "s", edm, "native", native)
    if swap:
        bench.figure(title, "s", edm, "swap", swap, GOAL_SWAP)
    edm, swap = compare(bench, words, size, 1, throttled=True)
    if swap:
        bench.figure(title, "s", edm, "throttled swap", swap, GOAL_THROTTLED)
