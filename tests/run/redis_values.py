#!/usr/bin/python3
"""redis_values.py write MEGABYTES          prints SET commands, for redis-cli --pipe
redis_values.py read MEGABYTES SOCKET    reads all values back, at random, and compares each

Values of 100 to 8000 bytes that do not compress. The same every time."""
import hashlib
import random
import socket
import sys

MEAN_BYTES = 4050
AT_ONCE = 64


def value_of(number):
    source = random.Random(number)
    return source.randbytes(source.randrange(100, 8001))


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def write(count):
    for number in range(count):
        sys.stdout.buffer.write(command(b"SET", b"key:%d" % number, value_of(number)))


def read_value(stream):
    line = stream.readline()
    if not line.startswith(b"$") or line == b"$-1\r\n":
        sys.exit(f"redis: expected a value, got {line!r}")
    return stream.read(int(line[1:]) + 2)[:-2]


def read(count, path):
    order = list(range(count))
    random.Random(5).shuffle(order)
    digest = hashlib.sha256()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    stream = connection.makefile("rb", 1 << 20)
    for start in range(0, count, AT_ONCE):
        numbers = order[start:start + AT_ONCE]
        connection.sendall(command(b"MGET", *(b"key:%d" % number for number in numbers)))
        if stream.readline() != b"*%d\r\n" % len(numbers):
            sys.exit("redis: no answer to MGET")
        for number in numbers:
            value = read_value(stream)
            if value != value_of(number):
                sys.exit(f"redis: key:{number}: expected {value_of(number)[:20].hex()}..., "
                         f"got {value[:20].hex()}... ({len(value)} bytes)")
            digest.update(value)
    print(count, digest.hexdigest())


def main():
    count = int(sys.argv[2]) * 1000000 // MEAN_BYTES
    if sys.argv[1] == "write":
        write(count)
    else:
        read(count, sys.argv[3])


main()
