#!/usr/bin/python3
"""test_kill_served.py EDM [KILLS]: a real DMS is killed with SIGKILL at random instants while clients
store pages in it over its socket; every acknowledged page reads back right after every restart."""
import os
import random
import struct
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire
from dms_process import DmsProcess

EDM = os.path.abspath(sys.argv.pop(1))
KILLS = int(sys.argv.pop(1)) if len(sys.argv) > 1 else 25
PAGES = 2000
MOST_PAGES = 64


def page_bytes(number, sequence):
    return struct.pack("<QQ", number, sequence) * 256


class Writer(threading.Thread):
    """Stores pages until it is stopped. ACKNOWLEDGED has the sequence of each page that is sure to
    be stored, PENDING what is on its way."""

    def __init__(self, dms, name):
        super().__init__()
        self.client = wire.Client(dms.endpoint, name, timeout_s=60.0, first_retry_s=0.05)
        self.region, self.epoch, _ = self.client.open(name)
        self.random = random.Random(name)
        self.acknowledged = [0] * PAGES
        self.sequence = 0
        self.batches = 0
        self.pausing = threading.Event()
        self.paused = threading.Event()
        self.going = threading.Event()
        self.ending = False
        self.failed = None

    def run(self):
        try:
            while not self.ending:
                self.put_batch()
                if self.pausing.is_set():
                    self.paused.set()
                    self.going.wait()
        except Exception as error:  # pylint: disable=broad-except
            self.failed = error
        self.paused.set()

    def put_batch(self):
        first = self.random.randrange(PAGES - MOST_PAGES)
        numbers = range(first, first + self.random.randint(1, MOST_PAGES))
        self.sequence += 1
        self.client.put(self.region, self.epoch, [
            (number, self.sequence, wire.RAW, page_bytes(number, self.sequence))
            for number in numbers])
        for number in numbers:
            self.acknowledged[number] = self.sequence
        self.batches += 1

    def check(self, test):
        """While paused: nothing is on its way."""
        for first in range(0, PAGES, 250):
            for page in self.client.get(self.region, self.epoch, [(first, 250)]):
                test.assertEqual(page.sequence, self.acknowledged[page.page])
                if page.sequence:
                    test.assertEqual(page.bytes, page_bytes(page.page, page.sequence))


class TestKillServed(unittest.TestCase):
    def test_kills(self):
        dms = DmsProcess(EDM)
        self.addCleanup(dms.remove)
        dms.start()
        writers = [Writer(dms, f"writer-{i}") for i in range(2)]
        for writer in writers:
            self.addCleanup(writer.client.close)
            writer.start()
        numbers = random.Random(5)
        try:
            for kill in range(KILLS):
                time.sleep(numbers.random() * 0.05)
                dms.kill()
                dms.start()
                if kill % 5 == 4:
                    self.pause_and_check(writers)
        finally:
            for writer in writers:
                writer.ending = True
                writer.going.set()
            for writer in writers:
                writer.join()
        for writer in writers:
            self.assertIsNone(writer.failed)
            self.assertGreater(writer.batches, KILLS)
            writer.check(self)
        self.assertNotIn("damaged:", dms.read_log())

    def pause_and_check(self, writers):
        for writer in writers:
            writer.going.clear()
            writer.pausing.set()
        for writer in writers:
            writer.paused.wait()
            self.assertIsNone(writer.failed)
            writer.check(self)
        for writer in writers:
            writer.paused.clear()
            writer.pausing.clear()
            writer.going.set()


if __name__ == "__main__":
    unittest.main(verbosity=2)
