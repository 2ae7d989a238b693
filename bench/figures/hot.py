"""A program of which a part is in use, and that part fits the budget; after warming up, against itself without EDM."""
GOAL = 1.05
SHARE_S = 50
ROUNDS = 7
SIZE_MIB = 256
LOCAL_MIB = 64
HOT_MIB = 44
OPS = 1000000


def run(bench):
    size, local, hot = (bench.scaled(mib, least) for mib, least in ((SIZE_MIB, 48), (LOCAL_MIB, 20), (HOT_MIB, 8)))
    words = [bench.tool("work"), "hot", f"mib={size}", f"hot={hot}", f"ops={bench.scaled(OPS, 100000)}"]
    edm, native = [], []
    for turn in bench.turns():
        for side in (0, 1) if turn % 2 else (1, 0):
            if side:
                native.append(bench.run(words).json())
            else:
                with bench.dms() as dms:
                    edm.append(bench.client(words, local, dms).json())
    title = f"{hot} hot MiB of {size}, {local} local"
    bench.figure(title, "s", [one["seconds"] for one in edm], "native", [one["seconds"] for one in native], GOAL)
    bench.figure(f"{title}, processor time", "s", [one["program_cpu_s"] for one in edm], "native",
                 [one["program_cpu_s"] for one in native])
    bench.absolute(f"{title}, faults in 1000 uses", "faults",
                   [one["faults"] * 1000 / one["pages"] for one in edm])
