"""Redis, values of 1 KiB, GETs as Zipf has it (theta 0.99), at 50 % and 25 % of its memory, against swap."""
from lib.redis_server import ask, resident_mib, words_of
from lib.swap import swap_or_none

GOAL = 1.0
ROUNDS = 3
SHARE_S = 150
KEYS = 200000


def load(bench, words, keys, watch=None):
    seconds = 0.2 if bench.quick else 4
    return ask(bench, words, keys, seconds / 2, seconds, watch=watch)["requests_per_s"]


def run(bench):
    keys = bench.scaled(KEYS, 60000)
    words, sizes = words_of(bench), []
    native = [load(bench, words, keys, lambda pid: sizes.append(resident_mib(pid)))
              for _ in bench.turns(share=0.2)]
    with swap_or_none(bench, "Redis against swap", 2 * sizes[0] + 64) as swap:
        for percent in (50, 25):
            local = sizes[0] * percent // 100
            edm, kernel = [], []
            for _ in bench.turns(share=0.4):
                edm.append(load(bench, bench.client_words(words, local), keys))
                if swap:
                    with swap.survived():
                        kernel.append(load(bench, swap.words(words, local), keys))
            title = f"Redis, zipfian GET at {percent} % of {sizes[0]} MiB"
            bench.figure(title, "requests/s", edm, "native", native, at_most=False)
            if swap:
                bench.figure(title, "requests/s", edm, "swap", kernel, GOAL, at_most=False)
