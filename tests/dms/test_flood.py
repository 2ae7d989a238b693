#!/usr/bin/python3
"""test_flood.py EDM [SECONDS]: a real DMS on which fifty connections break every rule (flood.py)
while another stores pages and reads them back: it keeps serving, every answer is right, its memory
stays bounded, and it ends in order in the middle of it."""
import ctypes
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire
import flood
from dms_process import DmsProcess

EDM = os.path.abspath(sys.argv.pop(1))
SECONDS = float(sys.argv.pop(1)) if len(sys.argv) > 1 else 15.0
MIB = 1 << 20
PROCESSES, CONNECTIONS = 2, 25 # of each
PAGES = 256
# What all connections may hold together is 256 MiB; the rest is the store, its files in memory, and
# what the heap has not given back. A message that nothing bounds would take this within seconds.
MOST_BYTES = 600 * MIB
LONGEST_ROUND_S = 60
LEAST_ROUNDS = 5


def free_port():
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        return plain.getsockname()[1]


def page_bytes(number, sequence):
    return struct.pack("<QQ", number, sequence) * 256


def attack(endpoint, frozen, seed, done, stop):
    """A process of attackers."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the test
    threads = [threading.Thread(target=flood.Attacks(endpoint, frozen, f"{seed} {i}").live,
                                args=(done, stop)) for i in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestFlood(unittest.TestCase):
    def setUp(self):
        self.dms = DmsProcess(EDM, "--log-level=info", "--capacity=64M")
        self.dms.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.addCleanup(self.dms.remove)
        self.dms.start()
        self.most_bytes = 0
        self.limit_bytes = 1 << 40 if self.dms.is_sanitized() else MOST_BYTES
        self.context = multiprocessing.get_context("fork")
        self.stop = self.context.Event()
        self.addCleanup(self.stop.set)

    def watch(self):
        while not self.stop.is_set():
            try:
                self.most_bytes = max(self.most_bytes, self.dms.resident_bytes())
            except OSError:
                return
            time.sleep(0.02)

    def prepare(self):
        """In a process of its own: this one has no ZeroMQ context before it forks. Its pages stay."""
        client = wire.Client(self.dms.endpoint, "prepare", timeout_s=60.0)
        region, epoch, _ = client.open("source")
        client.put(region, epoch, [(page, 1, wire.RAW, page_bytes(page, 1))
                                   for page in range(PAGES)])
        frozen = client.freeze(region, epoch, "frozen")
        client.close()
        return frozen

    def start_attackers(self):
        ours, theirs = self.context.Pipe()
        helper = self.context.Process(target=lambda: theirs.send(self.prepare()))
        helper.start()
        self.frozen = ours.recv()
        helper.join()
        self.done = self.context.Array("i", len(flood.Attacks("", 0, 0).all()), lock=False)
        for i in range(PROCESSES):
            arguments = (self.dms.endpoint, self.frozen, i, self.done, self.stop)
            process = self.context.Process(target=attack, daemon=True, args=arguments)
            process.start()
            self.addCleanup(process.join)
            self.addCleanup(process.kill)

    def serve_one_round(self, client, region, epoch, sequence):
        first = sequence * 37 % 5000
        client.put(region, epoch, [(page, sequence, wire.RAW, page_bytes(page, sequence))
                                   for page in range(first, first + 64)])
        for page in client.get(region, epoch, [(first, 64)]):
            self.assertEqual(page.bytes, page_bytes(page.page, sequence))
        for page in client.get(self.frozen, 0, [(sequence % PAGES, 1)]):
            self.assertEqual(page.bytes, page_bytes(page.page, 1))

    def test_flood(self):
        self.start_attackers()
        watcher = threading.Thread(target=self.watch)
        watcher.start()
        client = wire.Client(self.dms.endpoint, "verify", timeout_s=LONGEST_ROUND_S)
        self.addCleanup(client.close)
        region, epoch, _ = client.open("verify")
        begun = time.monotonic()
        rounds, longest = 0, 0.0
        # On a slow machine until all has been there.
        while ((time.monotonic() - begun < SECONDS or rounds <= LEAST_ROUNDS or min(self.done) == 0)
               and self.most_bytes < self.limit_bytes):
            before = time.monotonic()
            rounds += 1
            self.serve_one_round(client, region, epoch, rounds)
            longest = max(longest, time.monotonic() - before)
        status = self.dms.end()
        self.stop.set()
        watcher.join()
        self.sum_up(rounds, longest, time.monotonic() - begun)
        self.assertEqual(status, 0)
        self.check_after(region, rounds)

    def sum_up(self, rounds, longest, seconds):
        names = [method.__name__ for method in flood.Attacks("", 0, 0).all()]
        print(", ".join(f"{count} {name}" for name, count in zip(names, self.done)))
        print(f"{rounds} rounds of the verifying client, the longest {longest:.2f} s; at most "
              f"{self.most_bytes // MIB} MiB", flush=True)
        self.assertGreater(rounds, LEAST_ROUNDS)
        self.assertGreater(min(self.done), 0)
        self.assertLess(self.most_bytes, self.limit_bytes)
        log = self.dms.read_log()
        self.assertIn("stopped:", log)
        # One line in a while, for all there have been since: which of them is the last is chance.
        self.assertRegex(log, "[1-9][0-9]* connections closed, the last one for "
                              "(what is no ZMTP 3|being no DEALER|a message that does not end)")
        # However many come, the log does not grow with them.
        self.assertLess(log.count("\n"), 20 * (seconds + 10))

    def check_after(self, region, rounds):
        """What was stored before is there after a restart, and nothing of the attackers'."""
        self.dms.start()
        client = wire.Client(self.dms.endpoint, "after", timeout_s=60.0)
        self.addCleanup(client.close)
        self.assertEqual([entry.name for entry in client.list()], ["frozen", "source", "verify"])
        first = rounds * 37 % 5000
        for page in client.get(region, 1, [(first, 64)]):
            self.assertEqual(page.bytes, page_bytes(page.page, rounds))
        self.assertEqual(self.dms.end(), 0)
        self.assertNotIn("damaged:", self.dms.read_log())


if __name__ == "__main__":
    unittest.main(verbosity=2)
