"""A Redis that is started, asked and ended, on either side."""
import os
import shutil
import time

from lib.bench import Failure, Missing

THETA = 0.99
PATIENCE_S = 20


def words_of(bench):
    if not shutil.which("redis-server"):
        raise Missing("redis-server is not installed")
    return [shutil.which("redis-server"), "--port", "0", "--unixsocket", bench.path("redis"), "--save", "",
            "--appendonly", "no", "--dir", bench.dir, "--daemonize", "no", "--logfile", bench.path("redis.log")]


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) // 1024
    raise Failure("no RssAnon")


def ask(bench, words, keys, *how, watch=None):
    """Starts a server with these words, has zipf ask it (how: seconds of warming up, seconds, and, if it
    is a number of requests that counts, that), ends it. Returns what zipf printed, with wall_s, all of it."""
    path = bench.path("redis")
    if os.path.exists(path):
        os.unlink(path)
    begun = time.monotonic()
    with open(bench.path("server.err"), "wb") as err:
        server = bench.start(words, stdout=err, stderr=err)
    try:
        while not os.path.exists(path):
            if server.poll() is not None or time.monotonic() > begun + PATIENCE_S:
                raise Failure("redis-server does not start")
            time.sleep(0.002)
        done = bench.run([bench.tool("zipf"), path, str(keys), str(THETA), *map(str, how)]).json()
        if watch:
            watch(server.pid)
        bench.run(["redis-cli", "-s", path, "shutdown", "nosave"])
        if server.wait(PATIENCE_S) != 0:
            raise Failure(f"redis-server ended with status {server.returncode}")
        return {**done, "wall_s": time.monotonic() - begun}
    finally:
        server.kill()
        server.wait()
