"""Programs that fit their budget, against themselves without EDM: all of their lives, with EDM's start and end."""
from lib.bench import Failure, Missing
from lib.redis_server import ask, words_of

GOAL = 1.02
ROUNDS = 11
SHARE_S = 210
LOCAL_MIB = 1024
SORT_MIB = 96
OBJECTS = 400000
KEYS = 100000
REQUESTS = 600000


def compare(bench, one_run):
    """Both sides of each round, in turn the one or the other first: what else the machine does hits both."""
    edm, native = [], []
    for turn in bench.turns(share=1 / 3):
        sides = ((edm, True), (native, False))
        for results, below_edm in sides if turn % 2 else reversed(sides):
            results.append(one_run(below_edm))
    return edm, native


def compare_program(bench, title, words):
    outputs = set()

    def one_run(below_edm):
        done = bench.client(words, LOCAL_MIB) if below_edm else bench.run(words)
        if below_edm and done.stats["pages_evicted"]:
            raise Failure(f"{title} does not fit: {done.stats['pages_evicted']} pages have left")
        result = done.json()
        outputs.add(str({key: value for key, value in result.items() if not key.endswith("_s")}))
        if len(outputs) > 1:
            raise Failure(f"{title}: different results: {outputs}")
        return done

    edm, native = compare(bench, one_run)
    bench.figure(f"{title} within budget", "s", [done.wall_s for done in edm], "native",
                 [done.wall_s for done in native], GOAL)
    bench.figure(f"{title} within budget, processor time", "s", [done.cpu_s for done in edm], "native",
                 [done.cpu_s for done in native])


def compare_redis(bench):
    words = words_of(bench)
    keys, requests = bench.scaled(KEYS, 1000), bench.scaled(REQUESTS, 1000)
    edm, native = compare(bench, lambda below_edm: ask(
        bench, bench.client_words(words, LOCAL_MIB) if below_edm else words, keys, 0, 0, requests))
    for key, title in (("wall_s", ""), ("asked_s", ", requests alone")):
        bench.figure(f"Redis, {requests} GETs within budget{title}", "s", [done[key] for done in edm],
                     "native", [done[key] for done in native], GOAL if key == "wall_s" else None)


def run(bench):
    size = bench.scaled(SORT_MIB, 16)
    compare_program(bench, f"std::sort of {size} MiB", [bench.tool("stdsort"), str(size)])
    compare_program(bench, "Python, many objects",
                    ["/usr/bin/python3", bench.source("objects.py"), str(bench.scaled(OBJECTS, 20000))])
    try:
        compare_redis(bench)
    except Missing as missing:
        bench.missing("Redis within budget", missing)
