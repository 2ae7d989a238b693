"""Memory of EDM's own for each page that is managed, and that is stored: how it grows with their number."""
import time

from lib.bench import Failure

GOAL_PAGER = 32
GOAL_DMS = 24
ROUNDS = 3
SHARE_S = 40
SIZES_MIB = (256, 2048)
LOCAL_MIB = 64
PAGE_BYTES = 4096
SETTLES_S = 0.3


def own_bytes(pid, kind="RssAnon"):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) * 1024
    raise Failure(f"no {kind} of process {pid}")


def measure(bench, sizes, local):
    """What pager and DMS have when so much is written, and when so much more is. In one run: the buffers
    that both keep once they have needed them are there before, and not counted."""
    found = {}
    with bench.dms() as dms:
        def mark(name, process):
            time.sleep(SETTLES_S)
            found[name] = {"pager": own_bytes(process.pid), "shared": own_bytes(process.pid, "RssShmem"),
                           "dms": own_bytes(dms.process.pid)}

        bench.client([bench.tool("work"), "hold", f"mib={sizes[1]}", f"skip={sizes[0]}"], local, dms, on_mark=mark)
    return found["begin"], found["end"]


def run(bench):
    local = bench.scaled(LOCAL_MIB, 16)
    sizes = [bench.scaled(size, least) for size, least in zip(SIZES_MIB, (48, 96))]
    growth = {"pager": [], "dms": []}
    for _ in bench.turns():
        small, large = measure(bench, sizes, local)
        for what, values in growth.items():
            values.append((large[what] - small[what]) * PAGE_BYTES / ((sizes[1] - sizes[0]) << 20))
    bench.absolute("pager memory for a managed page", "bytes", growth["pager"], GOAL_PAGER)
    bench.absolute("DMS memory for a stored page", "bytes", growth["dms"], GOAL_DMS)
    bench.say(f"beside that, with {sizes[0]} MiB: pager {small['pager'] >> 10} KiB and {small['shared'] >> 10} KiB "
              f"that it shares with the program; DMS {small['dms'] >> 10} KiB")
