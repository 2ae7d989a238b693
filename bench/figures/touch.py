"""First touch of new memory over the budget, one word a page, against what storing the pages that must go takes."""
import time

from lib.store import put_pages_per_s

GOAL = 1.2
SHARE_S = 60
SIZE_MIB = 512
LOCAL_MIB = 128


def write(bench, what, size, local):
    """Microseconds a page for a program that writes new pages."""
    with bench.dms() as dms:
        done = bench.client([bench.tool("work"), what, f"mib={size}", f"skip={local}"], local, dms)
    return done.json()["us_a_page"]


def write_back(bench, size, local):
    """The same for write-back alone: the budget is lowered while the program does nothing."""
    took = []

    def lower(mark, process):
        if mark == "end":
            begun = time.monotonic()
            bench.run([bench.edm, "--mode=limit", "--wait=600", str(process.pid), f"{local}M"])
            took.append(time.monotonic() - begun)

    with bench.dms() as dms:
        bench.client([bench.tool("work"), "hold", f"mib={size}", "skip=1"], 2 * size, dms, on_mark=lower)
    return took[0] * 1e6 / ((size - local) * 256)


def run(bench):
    size, local = bench.scaled(SIZE_MIB, 40), bench.scaled(LOCAL_MIB, 16)
    touched, written, stored, puts = [], [], [], []
    for _ in bench.turns():
        touched.append(write(bench, "touch", size, local))
        stored.append(write_back(bench, size, local))
        written.append(write(bench, "seqwrite", size, local))
        puts.append(1e6 / put_pages_per_s(bench))
    title = "first touch of a new page over the budget"
    bench.figure(title, "us", touched, "write-back alone", stored, GOAL)
    bench.figure(title, "us", touched, "writing all of it", written)
    bench.figure(title, "us", touched, "PUTs alone, 64 pages", puts)
