"""Requests a second that one shard serves, of 1 to 64 pages, against ZeroMQ alone with messages of the same sizes."""
from lib.store import ask, ask_nobody

GOAL = 0.8
SHARE_S = 110
ROUNDS = 5
BATCHES = (1, 4, 16, 64)


def run(bench):
    cases = [(operation, npages) for operation in ("get", "put") for npages in BATCHES]
    edm, raw = ({case: [] for case in cases} for _ in range(2))
    for _ in bench.turns():
        for case in cases:
            done = ask(bench, *case)
            edm[case].append(done["requests_per_s"])
            raw[case].append(ask_nobody(bench, *case, done["header_bytes"])["requests_per_s"])
    for operation, npages in cases:
        bench.figure(f"{operation.upper()} of {npages} pages", "req/s", edm[operation, npages], "ZeroMQ alone",
                     raw[operation, npages], GOAL, at_most=False)
