"""A Redis that is started, asked and ended, on either side."""
import contextlib
import os
import shutil
import time

from lib.bench import Failure, Missing

THETA = 0.99
PATIENCE_S = 20


def words_of(bench, name="redis"):
    if not shutil.which("redis-server"):
        raise Missing("redis-server is not installed")
    return [shutil.which("redis-server"), "--port", "0", "--unixsocket", bench.path(name), "--save", "",
            "--appendonly", "no", "--dir", bench.dir, "--daemonize", "no", "--logfile", bench.path(f"{name}.log")]


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) // 1024
    raise Failure("no RssAnon")


@contextlib.contextmanager
def serving(bench, words, name="redis"):
    """A server that is started with these words, which name its socket as words_of(bench, name) does, and
    is ended in the end."""
    path = bench.path(name)
    if os.path.exists(path):
        os.unlink(path)
    begun = time.monotonic()
    with open(bench.path(f"{name}.err"), "wb") as err:
        server = bench.start(words, stdout=err, stderr=err)
    try:
        while not os.path.exists(path):
            if server.poll() is not None or time.monotonic() > begun + PATIENCE_S:
                raise Failure("redis-server does not start")
            time.sleep(0.002)
        yield server
        bench.run(["redis-cli", "-s", path, "shutdown", "nosave"])
        if server.wait(PATIENCE_S) != 0:
            raise Failure(f"redis-server ended with status {server.returncode}")
    finally:
        server.kill()
        server.wait()


def zipf(bench, keys, *how, name="redis"):
    """Puts so many values into a server and asks for them; what zipf printed. How: seconds of warming up,
    seconds, and, if it is a number of requests that counts, that."""
    return bench.run([bench.tool("zipf"), bench.path(name), str(keys), str(THETA), *map(str, how)]).json()


def ask(bench, words, keys, *how, watch=None):
    """The same with a server of its own; watch(PID) is called before it ends."""
    with serving(bench, words) as server:
        done = zipf(bench, keys, *how)
        if watch:
            watch(server.pid)
    return done
