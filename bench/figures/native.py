"""Programs that fit their budget, against themselves without EDM: all of their lives, with EDM's start and end;
of Redis, which has no end of its own, the requests."""
from lib.bench import Failure, Missing
from lib.redis_server import serving, words_of, zipf

GOAL = 1.02
ROUNDS = 11
SHARE_S = 160
LOCAL_MIB = 1024
SORT_MIB = 96
OBJECTS = 250000
KEYS = 100000
REQUESTS = 100000
REDIS_ROUNDS = 31


def compare(bench, one_run, rounds=None):
    """Both sides of each round, in turn the one or the other first: what else the machine does hits both."""
    edm, native = [], []
    for turn in bench.turns(rounds, share=1 / 3):
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
    """Two servers that live as long as each other are asked in turn, for less than a second each: what else
    the machine does hits both."""
    keys, requests = bench.scaled(KEYS, 1000), bench.scaled(REQUESTS, 1000)

    def one_run(below_edm):
        done = zipf(bench, keys, 0, 0, requests, name="below" if below_edm else "beside")
        return done["load_s"] + done["asked_s"]

    below_edm = bench.client_words(words_of(bench, "below"), LOCAL_MIB)
    with serving(bench, below_edm, "below"), serving(bench, words_of(bench, "beside"), "beside"):
        edm, native = compare(bench, one_run, REDIS_ROUNDS)
    bench.figure(f"Redis, {keys} SETs and {requests} GETs within budget", "s", edm, "native", native, GOAL)


def run(bench):
    size = bench.scaled(SORT_MIB, 16)
    compare_program(bench, f"std::sort of {size} MiB", [bench.tool("stdsort"), str(size)])
    compare_program(bench, "Python, many objects",
                    ["/usr/bin/python3", bench.source("objects.py"), str(bench.scaled(OBJECTS, 20000))])
    try:
        compare_redis(bench)
    except Missing as missing:
        bench.missing("Redis within budget", missing)
