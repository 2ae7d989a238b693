"""Pages one after the other: read, written, rewritten, against a raw TCP stream."""
GOAL_READ = 0.6
GOAL_WRITE = 0.5
SHARE_S = 110
SIZE_MIB = 512
LOCAL_MIB = 128


def run(bench):
    size, local = bench.scaled(SIZE_MIB, 40), bench.scaled(LOCAL_MIB, 16)
    work = bench.tool("work")
    workloads = {
        "read": ["seqread", f"mib={size}", "passes=2"],
        "write": ["seqwrite", f"mib={size}", f"skip={local}"],
        "rewrite": ["rewrite", f"mib={size}", "passes=1"],
    }
    results = {name: [] for name in workloads}
    streams, floors = [], []
    for _ in bench.turns():
        for name, words in workloads.items():
            with bench.dms() as dms:
                results[name].append(bench.client([work, *words], local, dms).json())
            streams.append(bench.run([work, "stream", f"mib={2 * size}"]).json()["mb_per_s"])
        floors.append(bench.run([work, "seqread", f"mib={size // 2}", f"floor={local // 2}",
                                 "passes=1"]).json()["out_mb_per_s"])
    count = len(workloads)
    for at, (name, rate, goal) in enumerate((("read", "out_mb_per_s", GOAL_READ),
                                             ("write", "mb_per_s", GOAL_WRITE),
                                             ("rewrite", "out_mb_per_s", None))):
        bench.figure(f"sequential {name} beyond the budget", "MB/s", [one[rate] for one in results[name]],
                     "raw TCP stream", streams[at::count], goal, at_most=False)
    bench.figure("sequential read beyond the budget", "MB/s", [one["out_mb_per_s"] for one in results["read"]],
                 "floor", floors)
