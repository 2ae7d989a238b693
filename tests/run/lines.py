#!/usr/bin/python3
"""lines.py MEGABYTES: so many MB of text lines that do not compress, the same every time."""
import base64
import random
import sys

BLOCK_BYTES = 750000  # a million bytes of text, less the line ends

source = random.Random(1)
for _ in range(int(sys.argv[1])):
    sys.stdout.buffer.write(base64.encodebytes(source.randbytes(BLOCK_BYTES)))
