#!/usr/bin/python3
"""bgsave_load.py SOCKET                fills a Redis server, and writes to it while it saves itself
bgsave_load.py SOCKET --check-saved    all values are as they were when BGSAVE began
bgsave_load.py SOCKET --check-aof      all values are as they were in the end"""
import random
import socket
import sys

COUNT, TIMES, AT_ONCE = 40000, 150, 250


def value_of(number, generation):
    return b"%d:%d:" % (number, generation) * TIMES


class Redis:
    def __init__(self, path):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        self.connection, self.stream = connection, connection.makefile("rb", 1 << 20)

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.connection.sendall(b"*%d\r\n" % len(words)
                                + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def receive(self):
        line = self.stream.readline()
        if line[:1] == b"+":
            return line[1:-2]
        if line[:1] == b"*":
            return [self.receive() for _ in range(int(line[1:]))]
        if line[:1] != b"$":
            sys.exit(f"redis: {line!r}")
        return self.stream.read(int(line[1:]) + 2)[:-2] if line != b"$-1\r\n" else None

    def ask(self, *words):
        self.send(*words)
        return self.receive()

    def write(self, generation, numbers):
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start:start + AT_ONCE]
            self.ask("MSET", *(word for number in part
                               for word in (b"key:%d" % number, value_of(number, generation))))

    def persistence(self, key):
        info = self.ask("INFO", "persistence").decode()
        return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)[key]

    def check(self, generation_of):
        for start in range(0, COUNT, AT_ONCE):
            part = range(start, start + AT_ONCE)
            for number, found in zip(part, self.ask("MGET", *(b"key:%d" % number for number in part))):
                if found != value_of(number, generation_of(number)):
                    sys.exit(f"redis: key:{number}: {found and found[:30]!r}, not of generation "
                             f"{generation_of(number)}")


def generations():
    """What the load writes: the same numbers every time, as often as there is time for it."""
    source = random.Random(7)
    return [source.sample(range(COUNT), COUNT // 4) for _ in range(2)]


def load(redis):
    first, second = generations()
    redis.write(0, range(COUNT))
    print(redis.ask("BGSAVE").decode())
    redis.write(1, first)
    while redis.persistence("rdb_bgsave_in_progress") != "0":
        redis.write(1, first[:1000])
    if redis.persistence("rdb_last_bgsave_status") != "ok":
        sys.exit("BGSAVE has failed")
    redis.ask("CONFIG", "SET", "appendonly", "yes")  # forks for the first file
    redis.write(2, second)
    while {redis.persistence("aof_rewrite_in_progress"), redis.persistence("aof_rewrite_scheduled")} != {"0"}:
        redis.write(2, second[:1000])
    if redis.persistence("aof_last_bgrewrite_status") != "ok":
        sys.exit("BGREWRITEAOF has failed")
    redis.check(final)


def final(number):
    return 2 if number in SECOND else 1 if number in FIRST else 0


FIRST, SECOND = map(frozenset, generations())
if sys.argv[2:] == ["--check-saved"]:
    Redis(sys.argv[1]).check(lambda number: 0)
elif sys.argv[2:] == ["--check-aof"]:
    Redis(sys.argv[1]).check(final)
else:
    load(Redis(sys.argv[1]))
