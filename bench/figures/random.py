"""Random reads of remote pages, 1 and 8 threads, against the least pager there can be; and against swap."""
import statistics

from lib.swap import swap_or_none

GOAL_P50 = 1.25
GOAL_THREADS = 5
SHARE_S = 130
SIZE_MIB = 256
LOCAL_MIB = 64


def measure(bench, threads, seconds, swap=None):
    """One round: EDM, then the floor, then swap; what work prints of each."""
    size, local = bench.scaled(SIZE_MIB, 40), bench.scaled(LOCAL_MIB, 16)
    words = [bench.tool("work"), "random", f"mib={size}", f"threads={threads}", f"seconds={seconds}"]
    with bench.dms() as dms:
        edm = bench.client(words, local, dms).json()
    floor = bench.run([*words, f"floor={local}"]).json()
    return {"edm": edm, "floor": floor, "swap": swap.run(words, local).json() if swap else None}


def distribution(results):
    """Percentiles 0 to 100: of each, the median of the rounds."""
    return [statistics.median(values) for values in zip(*(result["percentiles_us"] for result in results))]


def say_times(bench, one, yardstick, goal):
    """Of one thread: how long faults take, against a yardstick."""
    edm, other = ([result[side] for result in one] for side in ("edm", yardstick))
    for percentile in ("p50", "p99"):
        times = ([result[f"{percentile}_us"] for result in results] for results in (edm, other))
        more = {"distribution_us": distribution(edm), "yardstick_distribution_us": distribution(other)}
        ours, theirs = times
        bench.figure(f"random read, 1 thread, {percentile}", "us", ours, yardstick, theirs,
                     goal if percentile == "p50" else None, **(more if percentile == "p50" else {}))


def run(bench):
    seconds = 0.2 if bench.quick else 2
    rounds = {1: [], 8: []}
    trips = []
    with swap_or_none(bench, "random read against swap", 2 * SIZE_MIB) as swap:
        for _ in bench.turns():
            for threads, results in rounds.items():
                results.append(measure(bench, threads, seconds, swap if threads == 1 else None))
            trips.append(bench.run([bench.tool("work"), "roundtrip", f"seconds={seconds / 4}"]).json())
    say_times(bench, rounds[1], "floor", GOAL_P50)
    if swap:
        say_times(bench, rounds[1], "swap", None)
    bench.figure("floor, 1 thread, p50", "us", [result["floor"]["p50_us"] for result in rounds[1]],
                 "raw TCP round trip", [trip["p50_us"] for trip in trips])
    for threads, results in rounds.items():
        edm, floor = ([result[side]["faults_per_s"] for result in results] for side in ("edm", "floor"))
        bench.figure(f"random read, {threads} thread{'s' if threads > 1 else ''}", "faults/s", edm, "floor", floor)
    one, eight = ([result["edm"]["faults_per_s"] for result in rounds[threads]] for threads in (1, 8))
    bench.figure("random read, 8 threads against 1", "faults/s", eight, "EDM, 1 thread", one, GOAL_THREADS,
                 at_most=False)
