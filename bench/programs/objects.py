"""objects.py COUNT: builds so many small objects that refer to each other, sorts, indexes and changes them,
and prints a hash of all it saw: the same wherever it runs."""
import hashlib
import json
import random
import sys


def build(count):
    return [{"number": number, "name": f"record-{number * 7919 % count}", "score": number * 0.5,
             "links": [number // 2, number // 3]} for number in range(count)]


def main():
    count = int(sys.argv[1])
    records = build(count)
    by_name = {record["name"]: record for record in records}
    order = random.Random(3)
    for _ in range(count // 2):
        record = by_name[f"record-{order.randrange(count)}"]
        record["links"].append(len(by_name[f"record-{order.randrange(count)}"]["links"]))
        record["score"] += 1
    records.sort(key=lambda record: (record["score"], record["name"]))
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record['number']} {record['name']} {record['score']} {record['links']}\n".encode())
    print(json.dumps({"what": "objects", "count": count, "sha256": digest.hexdigest()}))


main()
