"""Throughput against budget: std::sort and reading in order, with all of their memory local down to a tenth."""
from lib.bench import Missing, TooLong
from lib.swap import swap_or_none

ROUNDS = 3
SHARE_S = 150
SIZE_MIB = 192
PERCENTS = (100, 90, 75, 50, 25, 10)
LIMIT_S = 60
LEAST_MIB = 16  # EDM takes no less


def sort_mb_per_s(size, run):
    return size * 1.048576 / run.wall_s


def read_mb_per_s(_, run):
    return run.json()["mb_per_s"]


def run(bench):
    size = bench.scaled(SIZE_MIB, 32)
    percents = PERCENTS if not bench.quick else PERCENTS[:1] + (50,)
    programs = {
        "std::sort": ([bench.tool("stdsort"), str(size)], sort_mb_per_s),
        "reading in order": ([bench.tool("work"), "seqread", f"mib={size}", "passes=2"], read_mb_per_s),
    }
    cases = [(name, percent) for name in programs for percent in percents]
    edm, kernel = ({case: [] for case in cases} for _ in range(2))
    native = {name: [] for name in programs}
    lacking = {}
    with swap_or_none(bench, "throughput against budget with swap", 2 * size + 64) as swap:
        for _ in bench.turns():
            for name, (words, rate) in programs.items():
                native[name].append(rate(size, bench.run(words)))
            for name, percent in cases:
                words, rate = programs[name]
                local = max(LEAST_MIB, size * percent // 100)
                with bench.dms() as dms:
                    edm[name, percent].append(rate(size, bench.client(words, local, dms)))
                try:
                    if swap and (name, percent) not in lacking:
                        kernel[name, percent].append(rate(size, swap.run(words, local, limit_s=LIMIT_S)))
                except (Missing, TooLong) as why:
                    lacking[name, percent] = why
    for name, percent in cases:
        more = {"program": name, "percent": percent}
        title = f"{name}, {size} MiB, {percent} % local"
        bench.figure(title, "MB/s", edm[name, percent], "native", native[name], at_most=False, **more)
        if (name, percent) in lacking:
            bench.missing(f"{title}, with swap", lacking[name, percent])
        elif swap:
            bench.figure(title, "MB/s", edm[name, percent], "swap", kernel[name, percent], at_most=False, **more)
