#!/usr/bin/python3
"""test_limits.py EDM: what a DMS does at its limits: it refuses with a status and a reason, changes
nothing, says so in the log (not each time), and goes on when there is room again."""
import os
import random
import resource
import socket
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire
import zmtp
from dms_process import DmsProcess

EDM = os.path.abspath(sys.argv.pop(1))
WAIT_S = 60


def page_bytes(number, sequence):
    return bytes([number % 251, sequence % 251]) * (wire.PAGE_BYTES // 2)


class Limits(unittest.TestCase):
    def start(self, *options, tcp=False):
        self.dms = DmsProcess(EDM, "--log-level=info", *options)
        if tcp:
            with socket.socket() as plain:
                plain.bind(("127.0.0.1", 0))
                self.dms.endpoint = f"tcp://127.0.0.1:{plain.getsockname()[1]}"
        self.addCleanup(self.dms.remove)
        self.begun = time.monotonic()
        self.dms.start()

    def connect(self, timeout_s=WAIT_S):
        client = wire.Client(self.dms.endpoint, "test", timeout_s=timeout_s, first_retry_s=0.2)
        self.addCleanup(client.close)
        return client

    def refused(self, status, call, *arguments):
        with self.assertRaises(wire.Refused) as refused:
            call(*arguments)
        self.assertEqual(refused.exception.status, status)
        return refused.exception.detail

    def wait_for(self, condition):
        end = time.monotonic() + WAIT_S
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def assert_said_rarely(self, text):
        """Of the lines of a kind there is one in ten seconds."""
        seconds = time.monotonic() - self.begun
        count = self.dms.read_log().count(text)
        self.assertGreaterEqual(count, 1)
        self.assertLessEqual(count, 1 + seconds // 10)


class Space(Limits):
    def disk_bytes(self):
        total = 0
        for path, _, names in os.walk(os.path.join(self.dms.directory, "data")):
            for name in names:
                if name.startswith("segment-"):
                    try:
                        total += os.stat(os.path.join(path, name)).st_blocks * 512
                    except FileNotFoundError:
                        pass
        return total

    def fill(self, client):
        region, epoch, _ = client.open("a")
        rng = random.Random(1)
        for first in range(0, 4096, 64):
            pages = []
            for page in range(first, first + 64):
                length = rng.choice((8, 4096, rng.randrange(200, 3900)))
                encoding = {8: wire.FILL, 4096: wire.RAW}.get(length, wire.LZ4)
                pages.append((page, 1, encoding, rng.randbytes(length)))
            client.put(region, epoch, pages)
        return region, epoch

    def test_emptied_store_takes_no_disk(self):
        """Without anybody asking for anything meanwhile."""
        for durability in ("none", "interval", "always"):
            with self.subTest(durability=durability):
                self.start(f"--durability={durability}", "--capacity=64M")
                client = self.connect()
                region, epoch = self.fill(client)
                self.assertGreater(self.disk_bytes(), 4 << 20)
                client.drop(region, epoch, 1, [(0, 4096)])
                self.wait_for(lambda: self.disk_bytes() == 0)
                region, epoch = self.fill(client)
                client.remove(region, epoch)
                self.wait_for(lambda: self.disk_bytes() == 0)
                self.assertEqual(client.stat()[0]["used_bytes"], 0)
                self.dms.remove()


class Connections(Limits):
    def is_served(self, client):
        try:
            client.hello()
            return True
        except wire.Refused as refused:
            self.assertEqual(refused.status, "UNAVAILABLE")
            return False

    def test_told_so(self):
        for tcp in (False, True):
            with self.subTest(tcp=tcp):
                self.start("--max-connections=3", tcp=tcp)
                clients = [self.connect() for _ in range(3)]
                for client in clients:
                    client.hello()
                late = self.connect()
                for _ in range(50):
                    detail = self.refused("UNAVAILABLE", late.open, "late")
                self.assertIn("connections", detail)
                self.assertEqual(clients[0].list(), [])
                self.assert_said_rarely("--max-connections")
                clients.pop().close()
                self.wait_for(lambda late=late: self.is_served(late))
                self.assertTrue(all(self.is_served(client) for client in clients))

    def test_closed(self):
        """Far beyond the limit nobody is told anything."""
        for tcp in (False, True):
            with self.subTest(tcp=tcp):
                self.start("--max-connections=8", tcp=tcp)
                client = self.connect()
                client.hello()
                plain = []
                for _ in range(100):
                    plain.append(zmtp.connect(self.dms.endpoint))
                    self.addCleanup(plain[-1].close)
                # 8, an eighth, and 16: with the client's 25.
                self.wait_for(lambda plain=plain: sum(map(self.is_open, plain)) <= 24)
                self.assertTrue(self.is_served(client))
                self.assertEqual(sum(map(self.is_open, plain)), 24)
                self.assert_said_rarely(" closed")
                for each in plain:
                    each.close()
                self.assertTrue(self.is_served(client))
                late = self.connect()
                self.wait_for(lambda late=late: self.is_served(late))
                self.assertEqual(self.dms.end(), 0)

    @staticmethod
    def is_open(plain):
        """ZeroMQ's greeting is there at once; then nothing, or the end."""
        plain.settimeout(0.01)
        try:
            while plain.recv(100):
                pass
            return False
        except TimeoutError:
            return True
        except OSError:
            return False


class Descriptors(Limits):
    def test_none_left(self):
        """Who connects then is turned away; who is there is served, and others later."""
        self.start("--max-connections=500", tcp=True)
        client = self.connect()
        client.hello()
        soft = len(os.listdir(f"/proc/{self.dms.process.pid}/fd")) + 10
        resource.prlimit(self.dms.process.pid, resource.RLIMIT_NOFILE, (soft, soft))
        plain = []
        for _ in range(40):
            plain.append(zmtp.connect(self.dms.endpoint))
            self.addCleanup(plain[-1].close)
        self.wait_for(lambda: "ulimit -n" in self.dms.read_log())
        self.assert_said_rarely("turned away")
        before = self.processor_s()
        time.sleep(0.5)
        self.assertLess(self.processor_s() - before, 0.25)
        client.hello()
        for each in plain:
            each.close()
        late = self.connect()
        late.hello()
        self.assertEqual(self.dms.end(), 0)

    def processor_s(self):
        with open(f"/proc/{self.dms.process.pid}/stat", encoding="ascii") as stat:
            words = stat.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Store(Limits):
    def put(self, client, region, first, count, sequence):
        client.put(region, 1, [(page, sequence, wire.RAW, page_bytes(page, sequence))
                               for page in range(first, first + count)])

    def check(self, client, region, first, count, sequence):
        for page in client.get(region, 1, [(first, count)]):
            self.assertEqual(page.bytes, page_bytes(page.page, sequence) if sequence else None)

    def fill(self, client, region, option):
        """To 1 MiB, where OPTION says that it ends. Nothing of what is refused is done."""
        self.put(client, region, 0, 256, 1)
        for _ in range(50):
            detail = self.refused("RESOURCE_EXHAUSTED", self.put, client, region, 250, 10, 2)
        self.assertIn(option, detail)
        self.assert_said_rarely(option)
        self.check(client, region, 0, 256, 1)
        self.check(client, region, 256, 4, 0)

    def test_capacity(self):
        self.start("--capacity=1M")
        client = self.connect()
        region, _, _ = client.open("a", 1)
        self.fill(client, region, "--capacity")
        client.drop(region, 1, 1, [(0, 4)])
        self.put(client, region, 250, 10, 2)
        self.check(client, region, 250, 10, 2)

    def test_region_capacity(self):
        self.start("--capacity=64M", "--region-capacity=1M")
        client = self.connect()
        region, _, _ = client.open("a", 1)
        other, _, _ = client.open("b", 1)
        self.fill(client, region, "--region-capacity")
        self.put(client, region, 0, 256, 2)
        self.put(client, other, 0, 256, 1)

    def test_regions(self):
        self.start("--max-regions=3")
        client = self.connect()
        region, _, _ = client.open("a", 1)
        client.open("b", 1)
        frozen = client.freeze(region, 1, "frozen")
        for _ in range(50):
            detail = self.refused("RESOURCE_EXHAUSTED", client.open, "c", 1)
        self.assertIn("--max-regions", detail)
        self.refused("RESOURCE_EXHAUSTED", client.freeze, region, 1, "more")
        self.refused("RESOURCE_EXHAUSTED", client.branch, frozen, 0, "more")
        self.assert_said_rarely("--max-regions")
        self.assertEqual([entry.name for entry in client.list()], ["a", "b", "frozen"])
        client.remove(frozen, 0)
        client.open("c", 1)

    def test_request(self):
        self.start("--max-request=256K")
        client = self.connect()
        self.assertEqual(client.hello()["max_pages"], 64)
        region, _, _ = client.open("a", 1)
        self.put(client, region, 0, 64, 1)
        self.check(client, region, 0, 64, 1)
        self.assertIn("64", self.refused("INVALID_ARGUMENT", client.get, region, 1, [(0, 65)]))
        few = [(page, 2, wire.FILL, bytes(8)) for page in range(65)]
        self.assertIn("64", self.refused("INVALID_ARGUMENT", client.put, region, 1, few))
        # A frame that is too large ends the connection; the client gets no answer.
        with self.assertRaises(wire.NoAnswer):
            client.put(region, 1, [(page, 2, wire.RAW, page_bytes(page, 2)) for page in range(65)],
                       timeout_s=1.0)
        self.check(self.connect(), region, 0, 64, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
