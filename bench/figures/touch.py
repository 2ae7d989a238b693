"""First touch of new memory over the budget, one word a page, against what storing the pages that must go takes."""
from lib.store import put_pages_per_s

GOAL = 1.2
SHARE_S = 60
SIZE_MIB = 512
LOCAL_MIB = 128


def run(bench):
    size, local = bench.scaled(SIZE_MIB, 40), bench.scaled(LOCAL_MIB, 16)
    results = {"touch": [], "seqwrite": []}
    puts = []
    for _ in bench.turns():
        for name, times in results.items():
            with bench.dms() as dms:
                done = bench.client([bench.tool("work"), name, f"mib={size}", f"skip={local}"], local, dms)
            times.append(done.json()["us_a_page"])
        puts.append(1e6 / put_pages_per_s(bench))
    title = "first touch of a new page over the budget"
    bench.figure(title, "us", results["touch"], "write-back, sustained", results["seqwrite"], GOAL)
    bench.figure(title, "us", results["touch"], "PUTs alone, 64 pages", puts)
