"""Random reads of remote pages, 1 and 8 threads, against the least pager there can be."""
GOAL_P50 = 1.25
GOAL_THREADS = 5
SIZE_MIB = 256
LOCAL_MIB = 64


def measure(bench, threads, seconds):
    """One round: EDM, then the floor; what work prints of each."""
    size, local = bench.scaled(SIZE_MIB, 64), bench.scaled(LOCAL_MIB, 16)
    words = [bench.tool("work"), "random", f"mib={size}", f"threads={threads}", f"seconds={seconds}"]
    with bench.dms() as dms:
        edm = bench.client(words, local, dms).json()
    return edm, bench.run([*words, f"floor={local}"]).json()


def run(bench):
    seconds = 0.2 if bench.quick else 2
    rounds = {1: [], 8: []}
    trips = []
    for _ in range(bench.rounds):
        for threads, results in rounds.items():
            results.append(measure(bench, threads, seconds))
        trips.append(bench.run([bench.tool("work"), "roundtrip", f"seconds={seconds / 4}"]).json())
    for percentile, goal in (("p50", GOAL_P50), ("p99", None)):
        edm, floor = ([result[side][f"{percentile}_us"] for result in rounds[1]] for side in (0, 1))
        bench.figure(f"random read, 1 thread, {percentile}", "us", edm, "floor", floor, goal)
    bench.figure("floor, 1 thread, p50", "us", [result[1]["p50_us"] for result in rounds[1]],
                 "raw TCP round trip", [trip["p50_us"] for trip in trips])
    for threads, results in rounds.items():
        edm, floor = ([result[side]["faults_per_s"] for result in results] for side in (0, 1))
        bench.figure(f"random read, {threads} threads", "faults/s", edm, "floor", floor)
    one, eight = ([result[0]["faults_per_s"] for result in rounds[threads]] for threads in (1, 8))
    bench.figure("random read, 8 threads against 1", "faults/s", eight, "EDM, 1 thread", one, GOAL_THREADS,
                 at_most=False)
