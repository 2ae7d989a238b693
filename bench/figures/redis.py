"""Redis, values of 1 KiB, GETs as Zipf has it (theta 0.99), at 50 % and 25 % of its memory, against swap."""
import os
import shutil
import time

from lib.bench import Failure, Missing
from lib.swap import swap_or_none

GOAL = 1.0
ROUNDS = 3
KEYS = 200000
THETA = 0.99
PATIENCE_S = 20


def words_of(bench):
    return [shutil.which("redis-server"), "--port", "0", "--unixsocket", bench.path("redis"), "--save", "",
            "--appendonly", "no", "--dir", bench.dir, "--daemonize", "no", "--logfile", bench.path("redis.log")]


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) // 1024
    raise Failure("no RssAnon")


def load(bench, words, keys, seconds, watch=None):
    """Starts a server, asks it, ends it; requests a second."""
    path = bench.path("redis")
    if os.path.exists(path):
        os.unlink(path)
    with open(bench.path("server.err"), "wb") as err:
        server = bench.start(words, stdout=err, stderr=err)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not os.path.exists(path):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failure("redis-server does not start")
            time.sleep(0.02)
        done = bench.run([bench.tool("zipf"), path, str(keys), str(THETA), str(seconds / 2), str(seconds)])
        if watch:
            watch(server.pid)
        bench.run(["redis-cli", "-s", path, "shutdown", "nosave"])
        if server.wait(PATIENCE_S) != 0:
            raise Failure(f"redis-server ended with status {server.returncode}")
        return done.json()["requests_per_s"]
    finally:
        server.kill()
        server.wait()


def run(bench):
    if not shutil.which("redis-server"):
        raise Missing("redis-server is not installed")
    keys, seconds = bench.scaled(KEYS, 60000), 0.3 if bench.quick else 4
    words, sizes = words_of(bench), []
    native = [load(bench, words, keys, seconds, lambda pid: sizes.append(resident_mib(pid)))
              for _ in range(bench.rounds)]
    with swap_or_none(bench, "Redis against swap", 2 * sizes[0] + 64) as swap:
        for percent in (50, 25):
            local = sizes[0] * percent // 100
            edm, kernel = [], []
            for _ in range(bench.rounds):
                edm.append(load(bench, bench.client_words(words, local), keys, seconds))
                if swap:
                    kernel.append(load(bench, swap.words(words, local), keys, seconds))
            title = f"Redis, zipfian GET at {percent} % of {sizes[0]} MiB"
            bench.figure(title, "requests/s", edm, "native", native, at_most=False)
            if swap:
                bench.figure(title, "requests/s", edm, "swap", kernel, GOAL, at_most=False)
