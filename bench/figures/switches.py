"""Throughput against the value of each switch: std::sort at half its memory, against the same with all as it is by default."""
import subprocess

ROUNDS = 3
SHARE_S = 90
SIZE_MIB = 96
# Side, option, values, the default, and what else has to be said with it. Those that say who, where or
# how much (--dms, --region, --listen, --data, ...), and limits that nothing comes near, are not here.
SWITCHES = (
    ("client", "--high-threshold", (50, 75, 85, 99), 95, lambda value: [f"--low-threshold={value - 5}"]),
    ("client", "--low-threshold", (50, 75, 85, 94), 90, None),
    ("client", "--stats-interval", (10, 100), 0, None),
    ("client", "--log-level", ("debug",), "info", None),
    ("client", "--follow", ("no",), "yes", None),
    ("client", "--compress", ("yes", "no"), "auto", None),
    ("dms", "--shards", (2, 4), 1, None),
    ("dms", "--durability", ("interval", "always"), "none", None),
    ("dms", "--sync-interval", (10, 1000), 100, lambda _: ["--durability=interval"]),
    ("dms", "--scrub-rate", ("0", "64M"), None, None),
)


def has(bench, side, option):
    done = subprocess.run([bench.edm, f"--mode={side}", "--help"], check=True, stdout=subprocess.PIPE, text=True)
    return f"  {option}=" in done.stdout


def measure(bench, words, size, side="client", options=(), shards=1):
    with bench.dms(*(options if side == "dms" else ()), shards=shards) as dms:
        run = bench.client(words, size // 2, dms, options if side == "client" else ())
    return size * 1.048576 / run.wall_s


def cases_of(bench):
    for side, option, values, default, also in SWITCHES:
        if not has(bench, side, option):
            bench.missing(f"{option} of the {side}", "this EDM has no such switch")
            continue
        for value in values[:1] if bench.quick else values:
            yield side, option, value, default, also(value) if also else []


def run(bench):
    size = bench.scaled(SIZE_MIB, 32)
    words = [bench.tool("stdsort"), str(size)]
    cases = list(cases_of(bench))[::3 if bench.quick else 1]
    results, default = [[] for _ in cases], []
    for _ in bench.turns():
        default.append(measure(bench, words, size))
        for (side, option, value, _, also), values in zip(cases, results):
            shards = value if option == "--shards" else 1
            options = also if option == "--shards" else [f"{option}={value}", *also]
            values.append(measure(bench, words, size, side, options, shards))
    for (side, option, value, by_default, _), values in zip(cases, results):
        bench.figure(f"{side}, {option}={value}", "MB/s", values, "by default", default, at_most=False,
                     option=option, setting=str(value), default=None if by_default is None else str(by_default))
