#!/usr/bin/python3
"""lines.py MEGABYTES [MEAN]: so many MB of text in lines that do not compress, of up to twice MEAN bytes,
the same every time."""
import base64
import random
import sys

BLOCK_BYTES = 750000  # a million bytes as text


def main():
    source = random.Random(1)
    mean = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    for _ in range(int(sys.argv[1])):
        text = base64.b64encode(source.randbytes(BLOCK_BYTES))
        at = 0
        while at < len(text):
            length = source.randrange(1, 2 * mean)
            sys.stdout.buffer.write(text[at:at + length] + b"\n")
            at += length


main()
