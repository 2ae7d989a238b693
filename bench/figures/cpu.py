"""Processor time that a page takes on its way, read or written in order: client and DMS together, by thread."""
import statistics

from lib.threads import of_client, of_dms

GOAL_US = 8
ROUNDS = 5
SHARE_S = 80
SIZE_MIB = 512
LOCAL_MIB = 128
# What is measured: the program, and which of its figures says how many pages went that way.
DIRECTIONS = {
    "read": (["seqread", "passes=2"], "pages_out"),
    "written": (["seqwrite"], "pages"),
    "read and written": (["rewrite", "passes=1"], "pages_out"),
}


def measure(bench, words, count):
    """Microseconds a page, by thread."""
    size, local = bench.scaled(SIZE_MIB, 40), bench.scaled(LOCAL_MIB, 16)
    at = {}
    with bench.dms() as dms:
        def mark(name, process):
            at[name] = {**of_client(process.pid), **of_dms(dms.process.pid)}

        done = bench.client([bench.tool("work"), *words, f"mib={size}", f"skip={local}", "marks=1"], local, dms,
                            on_mark=mark).json()
    return {what: (seconds - at["begin"].get(what, 0)) * 1e6 / done[count] for what, seconds in at["end"].items()}


def run(bench):
    rounds = {direction: [] for direction in DIRECTIONS}
    for _ in bench.turns():
        for direction, (words, count) in DIRECTIONS.items():
            rounds[direction].append(measure(bench, words, count))
    for direction, results in rounds.items():
        parts = {what: statistics.median(one.get(what, 0) for one in results) for what in results[0]}
        # The program's own work is not EDM's. (Its waiting for pages is in it: the kernel's part of a fault.)
        program = parts.pop("program")
        bench.absolute(f"processor time, a page {direction} in order", "us",
                       [sum(one.values()) - one["program"] for one in results],
                       None if direction == "read and written" else GOAL_US, parts_us=parts, program_us=program)
        bench.say(", ".join(f"{what} {used:.2f}" for what, used in parts.items() if used >= 0.005) +
                  f"; beside it the program {program:.2f}")
