#!/usr/bin/python3
"""compress.py EDM TOOLS: pages that are sent in fewer bytes come back as they were, and they are where that is told,
or where it is faster."""
import os
import subprocess
import unittest

from harness import Case, EDM, END_WITH_US, main

# A third of the pages is the same 8 bytes again and again, a third text, a third noise. All of them are written
# twice, and looked at in another order than they were written.
KINDS = """
import mmap, os, random, struct
PAGES = 24 << 8
memory = mmap.mmap(-1, PAGES * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
noise = random.Random(1).randbytes(1 << 20)
def page(i, turn):
    if i % 3 == 0:
        return struct.pack("<q", -1 - i - turn) * 512
    if i % 3 == 1:
        return (b"page %d of turn %d, " % (i, turn) * 300)[:4096]
    at = i * 37 % ((1 << 20) - 4096)
    return struct.pack("<qq", i, turn) + noise[at:at + 4080]
for turn in range(2):
    for i in range(PAGES):
        memory[i * 4096:i * 4096 + 4096] = page(i, turn)
    order = list(range(PAGES))
    random.Random(turn).shuffle(order)
    for i in order:
        assert memory[i * 4096:i * 4096 + 4096] == page(i, turn), (i, turn)
print("ok")
"""
# What a slow connection is about: text, written in order.
TEXT = """
import mmap
PAGES = 40 << 8
memory = mmap.mmap(-1, PAGES * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
def page(i):
    return b"".join(b"%d and %d; " % (i * 7919 + j * 104729, j) for j in range(300))[:4096]
for i in range(PAGES):
    memory[i * 4096:i * 4096 + 4096] = page(i)
for i in range(PAGES):
    assert memory[i * 4096:i * 4096 + 4096] == page(i), i
print("ok")
"""


def can_be_slow():
    """Whether a network namespace with a slow loopback can be made."""
    words = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "sh", "-c", "tc qdisc add dev lo root tbf rate 1mbit burst 70k latency 50ms"]
    try:
        return subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


class Compress(Case):
    def run_over(self, program, *options):
        _, port = self.start_dms()
        done = self.run_client("/usr/bin/python3", "-c", program,
                               options=["--local=16M", f"--dms=tcp://127.0.0.1:{port}", *options], timeout=300)
        self.assertEqual((done.returncode, done.stdout), (0, b"ok\n"), done.stderr)
        figures = self.figures()
        self.assertEqual(figures["pages_bad"], 0)
        self.assertGreater(figures["pages_got"], 1000)
        return figures

    def test_yes(self):
        figures = self.run_over(KINDS, "--compress=yes")
        kinds = figures["compress"]
        self.assertGreater(kinds["filled"], figures["pages_put"] / 5)
        self.assertGreater(kinds["lz4"], figures["pages_put"] / 5)
        self.assertLess(kinds["filled"] + kinds["lz4"], figures["pages_put"] * 4 / 5)
        self.assertGreater(kinds["bytes_saved"], kinds["lz4"] * 3000)
        self.assertLess(figures["bytes_sent"], figures["pages_put"] * 4096 * 2 / 3)

    def test_no(self):
        kinds = self.run_over(KINDS, "--compress=no")["compress"]
        self.assertEqual((kinds["lz4"], kinds["bytes_saved"]), (0, 0))
        self.assertGreater(kinds["filled"], 1000)

    def test_own_dms(self):
        """A Unix socket is memory: nothing is compressed."""
        done = self.run_client("/usr/bin/python3", "-c", KINDS, options=["--local=16M"], timeout=300)
        self.assertEqual((done.returncode, done.stdout), (0, b"ok\n"), done.stderr)
        self.assertEqual(self.figures()["compress"]["lz4"], 0)

    @unittest.skipUnless(can_be_slow(), "no right to make a slow connection")
    def test_slow_connection(self):
        """200 Mbit/s: compressing text is many times as fast as sending it."""
        script = f"""set -e
            ip link set lo up
            tc qdisc add dev lo root tbf rate 200mbit burst 70k latency 50ms
            {EDM} --mode=dms --listen=tcp://127.0.0.1:7600 --data={self.path("slow")} --log-file={self.path("dms")} &
            dms=$!
            {EDM} --mode=client --dms=tcp://127.0.0.1:7600 --local=16M --stats={self.path("stats")} \\
                --log-file={self.path("log")} -- /usr/bin/python3 -c '{TEXT}'
            kill $dms
            wait $dms"""
        done = subprocess.run([*END_WITH_US, "unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c", script],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environ, timeout=300,
                              check=False)
        self.assertEqual((done.returncode, done.stdout), (0, b"ok\n"), done.stderr)
        figures = self.figures()
        self.assertGreater(figures["compress"]["lz4"], figures["pages_put"] / 2)


if __name__ == "__main__":
    os.umask(0o022)
    main()
