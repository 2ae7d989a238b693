#!/usr/bin/python3
"""objects.py MEGABYTES [--collect]: builds about so many MB of small objects that refer to each other,
changes some, goes through them in order and at random, and prints a hash of all it saw. Any Python 3
prints the same. --collect leaves Python's cyclic garbage collector on: it goes through all memory a dozen
times while that grows, and writes to it."""
import gc
import hashlib
import random
import sys

BYTES_A_RECORD = 620


def build(count):
    records = []
    for number in range(count):
        records.append({
            "number": number,
            "name": "record-%d" % (number * 7919),
            "score": number * 0.5,
            "pair": (number ^ 0x5555, str(number)),
            "links": [number // 2, number // 3],
        })
    return records


def change(records, order):
    for _ in range(len(records) // 200):
        record = records[order.randrange(len(records))]
        record["links"].append(record["number"] % 1000)
        record["name"] += "*"


def add(digest, record):
    digest.update(("%(number)d %(name)s %(score).1f %(pair)r %(links)r\n" % record).encode())


def main():
    count = int(sys.argv[1]) * 1000000 // BYTES_A_RECORD
    if "--collect" not in sys.argv:
        gc.disable()
    order = random.Random(3)
    records = build(count)
    change(records, order)
    digest = hashlib.sha256()
    for record in records:
        add(digest, record)
    for _ in range(count // 400):
        record = records[order.randrange(count)]
        add(digest, records[record["links"][0]])
    print(count, digest.hexdigest())


main()
