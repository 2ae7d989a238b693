#!/usr/bin/python3
"""test_serve.py EDM: a real DMS among peers that misbehave, and what it says of damage."""
import glob
import os
import random
import resource
import struct
import sys
import threading
import time
import unittest

import msgpack
import zmq

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire
from dms_process import DmsProcess

EDM = os.path.abspath(sys.argv.pop(1))
MIB = 1 << 20


def page_bytes(number, sequence):
    return struct.pack("<QQ", number, sequence) * 256


class TestServe(unittest.TestCase):
    options = ()

    def setUp(self):
        self.dms = DmsProcess(EDM, "--log-level=info", *self.options)
        self.addCleanup(self.dms.remove)
        self.dms.start()
        self.client = self.connect()

    def connect(self, name="test"):
        client = wire.Client(self.dms.endpoint, name, timeout_s=60.0)
        self.addCleanup(client.close)
        return client

    def raw_socket(self):
        context = zmq.Context.instance()
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(self.dms.endpoint)
        self.addCleanup(dealer.close)
        return dealer

    def put(self, region, epoch, first, count, sequence):
        for begin in range(first, first + count, 256):
            self.client.put(region, epoch, [
                (page, sequence, wire.RAW, page_bytes(page, sequence))
                for page in range(begin, min(begin + 256, first + count))])

    def check(self, region, epoch, first, count, sequence):
        pages = []
        for begin in range(first, first + count, 256):
            pages += self.client.get(region, epoch, [(begin, min(256, first + count - begin))])
        for page in pages:
            self.assertEqual(page.bytes, page_bytes(page.page, sequence))

    def check_memory(self, before, more):
        if not self.dms.is_sanitized():
            self.assertLess(self.dms.resident_bytes() - before, more)

    def test_garbage_while_serving(self):
        region, epoch, _ = self.client.open("steady")
        stop = threading.Event()

        def disturb(seed):
            numbers = random.Random(seed)
            dealer = self.raw_socket()
            while not stop.is_set():
                frames = [numbers.randbytes(numbers.choice([0, 1, 30, 3000]))
                          for _ in range(numbers.randint(1, 5))]
                try:
                    dealer.send_multipart(frames, zmq.NOBLOCK)
                    while True:
                        dealer.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    time.sleep(0.0001)

        threads = [threading.Thread(target=disturb, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        sequence = 0
        try:
            while time.monotonic() - begun < 3:
                sequence += 1
                self.put(region, epoch, 0, 64, sequence)
                self.check(region, epoch, 0, 64, sequence)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertGreater(sequence, 5)
        # One line a second at most about what came.
        said = self.dms.read_log().count("no valid requests")
        self.assertGreaterEqual(said, 1)
        self.assertLessEqual(said, time.monotonic() - begun + 2)
        self.assertEqual(self.dms.end(), 0)

    def send_put(self, region, epoch, page, sequence, good=True):
        content = page_bytes(page, sequence)
        number = self.client.take_id()
        entry = [page, sequence, wire.RAW, len(content),
                 wire.checksum(page, content) ^ (0 if good else 1)]
        params = [region, epoch, [entry]]
        self.client.send_raw([
            msgpack.packb([wire.VERSION, wire.PAGE_PUT, number, 0, params]), content])
        return number

    def test_burst_of_small_puts(self):
        """Stored together or not: each has its own answer, and what follows sees them."""
        region, epoch, _ = self.client.open("small")
        other, _, _ = self.client.open("other")
        for turn in range(1, 40):
            expected = {}
            for page in range(20):
                expected[self.send_put(region, epoch, page, 3 * turn)] = 0
            # A page again; one that is not what it says; an old owner; another region.
            expected[self.send_put(region, epoch, 7, 3 * turn + 1)] = 0
            expected[self.send_put(region, epoch, 8, 3 * turn + 1, good=False)] = 3
            expected[self.send_put(region, epoch + 5, 9, 3 * turn + 1)] = 9
            expected[self.send_put(other, 1, 9, 3 * turn + 2)] = 0
            expected[self.send_put(region, epoch, 9, 3 * turn + 1)] = 0
            get = self.client.take_id()
            self.client.send_raw([msgpack.packb(
                [wire.VERSION, wire.PAGE_GET, get, 0, [region, epoch, [[0, 20]]]])])
            expected[get] = 0
            bodies = {}
            for _ in range(len(expected)):
                reply = self.client.receive(60)
                self.assertIsNotNone(reply)
                self.assertEqual(reply[2], expected.pop(reply[1]), reply)
                bodies[reply[1]] = reply[-1]
            self.assertEqual(expected, {})
            newer = {7, 9}
            self.assertEqual(bodies[get], b"".join(
                page_bytes(page, 3 * turn + (page in newer)) for page in range(20)))
        pages = self.client.get(other, 1, [(9, 1)])
        self.assertEqual(pages[0].bytes, page_bytes(9, 3 * 39 + 2))

    def test_peer_that_never_reads(self):
        """Asks for a megabyte a thousand times and takes none: memory stays bounded."""
        region, epoch, _ = self.client.open("large")
        self.put(region, epoch, 0, 256, 1)
        before = self.dms.resident_bytes()
        dealer = self.raw_socket()
        dealer.rcvhwm = 1
        header = wire.msgpack.packb([1, wire.PAGE_GET, 1, 0, [region, epoch, [[0, 256]]]])
        for _ in range(3000):
            try:
                dealer.send(header, zmq.NOBLOCK)
            except zmq.Again:
                time.sleep(0.001)
        self.check(region, epoch, 0, 256, 1)
        self.check_memory(before, 400 * MIB)

    def test_too_large_frames(self):
        region, epoch, _ = self.client.open("steady")
        self.put(region, epoch, 0, 4, 1)
        before = self.dms.resident_bytes()
        for _ in range(20):
            self.raw_socket().send(bytes(8 * MIB))
        time.sleep(0.5)
        self.check(region, epoch, 0, 4, 1)
        self.check_memory(before, 50 * MIB)

    def test_many_connections(self):
        """More than the number of descriptors it was started with."""
        self.client.hello()
        self.assertEqual(self.dms.end(), 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            self.dms.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        region, epoch, _ = self.client.open("steady")
        self.put(region, epoch, 0, 4, 1)
        clients = [self.raw_socket() for _ in range(300)]
        header = wire.msgpack.packb([1, wire.STAT, 1, 0, [0]])
        for dealer in clients:
            dealer.send(header)
        for dealer in clients:
            self.assertTrue(dealer.poll(20000))
        self.check(region, epoch, 0, 4, 1)

    def test_damaged_page(self):
        region, epoch, _ = self.client.open("a")
        self.put(region, epoch, 0, 64, 1)
        self.dms.kill()
        [path] = glob.glob(f"{self.dms.directory}/data/shard-0/segment-*")
        with open(path, "r+b") as file:
            content = file.read()
            file.seek(content.index(page_bytes(17, 1)) + 700)
            file.write(b"rot")
        self.dms.start()
        with self.assertRaises(wire.Refused) as refused:
            self.client.get(region, epoch, [(0, 64)])
        self.assertEqual(refused.exception.status, "DATA_LOSS")
        self.assertIn("17", refused.exception.detail)
        self.check(region, epoch, 0, 17, 1)
        self.check(region, epoch, 18, 46, 1)
        self.assertIn("1 damaged pages", self.dms.read_log())
        self.put(region, epoch, 17, 1, 2)
        self.check(region, epoch, 17, 1, 2)

    def test_header_that_says_nothing(self):
        """Nobody can tell whose slot it was: the version before it is not shown, and what is not there
        is not said to be absent."""
        region, epoch, _ = self.client.open("a")
        self.put(region, epoch, 0, 64, 1)
        self.put(region, epoch, 17, 1, 2)
        self.dms.kill()
        paths = glob.glob(f"{self.dms.directory}/data/shard-0/segment-*")
        self.assertEqual(self.wreck_header(paths, 17, 2), 1)
        for _ in range(2):
            self.dms.start()
            for page in (17, 64):
                with self.assertRaises(wire.Refused) as refused:
                    self.client.get(region, epoch, [(page, 1)])
                self.assertEqual(refused.exception.status, "DATA_LOSS")
                self.assertIn("may be lost", refused.exception.detail)
            self.check(region, epoch, 0, 17, 1)
            self.check(region, epoch, 18, 46, 1)
            self.dms.kill()
        self.dms.start()
        self.put(region, epoch, 17, 1, 3)
        self.check(region, epoch, 17, 1, 3)

    @staticmethod
    def wreck_header(paths, number, sequence):
        """Overwrites the slot headers with this page and sequence number. How many there were."""
        count = 0
        for path in paths:
            with open(path, "r+b") as file:
                content = file.read()
                at = content.find(struct.pack("<QQ", number, sequence))
                if at < 0 or content.startswith(page_bytes(number, sequence), at):
                    continue
                file.seek(at)
                file.write(b"\x5a" * 24)
                count += 1
        return count

    def get_each(self, region, epoch, count):
        """The pages that can be read, and the numbers of those that are damaged."""
        pages, damaged = [], []
        for number in range(count):
            try:
                pages += self.client.get(region, epoch, [(number, 1)])
            except wire.Refused as refused:
                self.assertEqual(refused.status, "DATA_LOSS")
                damaged.append(number)
        return pages, damaged

    def test_file_cut_short(self):
        """Somebody else truncates a segment file: what is lost is said to be, the rest goes on."""
        region, epoch, _ = self.client.open("a")
        self.put(region, epoch, 0, 64, 1)
        [path] = glob.glob(f"{self.dms.directory}/data/shard-0/segment-*")
        with open(path, "rb") as file:
            keep = file.read().index(page_bytes(20, 1))
        os.truncate(path, keep)
        pages, damaged = self.get_each(region, epoch, 64)
        self.assertEqual(damaged, list(range(20, 64)))
        for page in pages:
            self.assertEqual(page.bytes, page_bytes(page.page, 1))
        self.assertIn("cannot be read any more", self.dms.read_log())
        self.put(region, epoch, 10, 64, 2)
        self.check(region, epoch, 10, 64, 2)
        self.check(region, epoch, 0, 10, 1)
        # All of it, slot headers too.
        for path in glob.glob(f"{self.dms.directory}/data/shard-0/segment-*"):
            os.truncate(path, 0)
        self.assertEqual(self.get_each(region, epoch, 74)[1], list(range(74)))
        self.assertIsNone(self.dms.process.poll())
        self.put(region, epoch, 0, 74, 3)
        self.check(region, epoch, 0, 74, 3)
        self.assertEqual(self.dms.end(), 0)
        self.dms.start()
        self.check(region, epoch, 0, 74, 3)

    def test_large_region_goes_without_a_stall(self):
        """Removing 128 MiB is done beside other requests."""
        large, epoch, _ = self.client.open("large")
        steady, steady_epoch, _ = self.client.open("steady")
        self.put(steady, steady_epoch, 0, 4, 1)
        for first in range(0, 32768, 256):
            self.put(large, epoch, first, 256, 1)
        self.client.remove(large, epoch)
        longest = 0.0
        begun = time.monotonic()
        while self.client.stat()[0]["npages"] > 4:
            before = time.monotonic()
            self.check(steady, steady_epoch, 0, 4, 1)
            longest = max(longest, time.monotonic() - before)
            self.assertLess(time.monotonic() - begun, 30)
        self.assertLess(longest, 0.5)

    def test_branches_and_restart(self):
        """A checkpoint and a fork keep their pages whatever happens to the others."""
        region, epoch, _ = self.client.open("program")
        self.put(region, epoch, 0, 600, 1)
        frozen = self.client.freeze(region, epoch, "program@1")
        fork = self.client.branch(frozen, 0, "fork")
        self.put(region, epoch, 0, 100, 2)
        self.put(fork, 1, 500, 100, 2)
        self.client.drop(fork, 1, 2, [(0, 50)])
        self.assertEqual(self.client.stat()[0]["npages"], 800)
        self.client.remove(region, epoch)
        for _ in range(2):
            self.check(frozen, 9, 0, 600, 1)
            self.assertIsNone(self.client.get(fork, 1, [(49, 1)])[0].bytes)
            self.check(fork, 1, 50, 206, 1)
            self.check(fork, 1, 500, 100, 2)
            self.assertEqual([(r.name, r.npages, r.is_frozen) for r in self.client.list()],
                             [("fork", 550, False), ("program@1", 600, True)])
            self.dms.kill()
            self.dms.start()
        with self.assertRaises(wire.Refused) as refused:
            self.put(frozen, 1, 0, 1, 3)
        self.assertEqual(refused.exception.status, "FAILED_PRECONDITION")
        self.client.remove(frozen, 0)
        self.client.remove(fork, 1)
        self.assertEqual(self.client.list(), [])

    def test_log(self):
        region, epoch, _ = self.client.open("a")
        self.client.remove(region, epoch)
        self.assertEqual(self.dms.end(), 0)
        text = self.dms.read_log()
        for part in ("serving ipc://", "found 0 pages in 0 regions", "region a opened",
                     "region a removed", "ending: signal 15", "stopped: 2 requests answered"):
            self.assertIn(part, text)


class TestStartAddress(TestServe):
    """Only the pages at and above the start address are taken."""
    options = ("--start-addr=0x10000",)

    def test_pages_below(self):
        region, epoch, _ = self.client.open("a")
        with self.assertRaises(wire.Refused) as refused:
            self.put(region, epoch, 15, 1, 1)
        self.assertEqual(refused.exception.status, "INVALID_ARGUMENT")
        self.put(region, epoch, 16, 1, 1)
        self.check(region, epoch, 16, 1, 1)


def load_tests(loader, _tests, _pattern):
    suite = loader.loadTestsFromTestCase(TestServe)
    suite.addTest(TestStartAddress("test_pages_below"))
    return suite


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    unittest.main(verbosity=2)
