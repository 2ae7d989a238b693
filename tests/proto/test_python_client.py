#!/usr/bin/python3
"""test_python_client.py EDM: the Python client, written from PROTOCOL.md, talks to a real DMS."""
import os
import random
import struct
import sys
import time
import unittest

import msgpack
import zmq

import edm_wire as wire
from dms_process import DmsProcess

EDM = ""
FAR = wire.MAX_PAGE - 300
# As in the last section of PROTOCOL.md.
LZ4_BLOCK = bytes.fromhex("3f45444d0300" + "ff" * 15 + "f4504d45444d45")
LZ4_PAGE = (b"EDM" * 1366)[:wire.PAGE_BYTES]
FILL_BYTES = struct.pack("<d", 1.0)


def raw(page, sequence, seed=None):
    """A page for Client.put() whose bytes follow from its number and the seed."""
    maker = random.Random(f"{page}.{sequence if seed is None else seed}")
    return page, sequence, wire.RAW, maker.randbytes(wire.PAGE_BYTES)


class DmsTest(unittest.TestCase):
    options = ()

    def setUp(self):
        self.dms = DmsProcess(EDM, *self.options)
        self.addCleanup(self.dms.remove)
        self.dms.start()
        self.client = self.connect("test")
        self.hello = self.client.hello()

    def tearDown(self):
        """The server is still there, and ends as it should."""
        status = self.dms.end()
        self.assertEqual(status, 0, self.dms.read_log())

    def connect(self, peer, endpoint=None, **options):
        client = wire.Client(endpoint or self.dms.endpoint, peer, **options)
        self.addCleanup(client.close)
        return client

    def assert_refused(self, status, call, *args, **options):
        with self.assertRaises(wire.Refused) as caught:
            call(*args, **options)
        self.assertEqual(caught.exception.status, status, caught.exception.detail)
        self.assertTrue(caught.exception.detail)
        return caught.exception.detail

    def assert_fenced(self, call, *args):
        detail = self.assert_refused("FAILED_PRECONDITION", call, *args)
        self.assertTrue(detail.startswith("FENCED"), detail)

    def assert_holds(self, region, epoch, pages):
        """The server has just these pages (as for put()), RAW ones byte by byte."""
        for first in range(0, len(pages), wire.MAX_PAGES):
            batch = pages[first:first + wire.MAX_PAGES]
            got = self.client.get(region, epoch, [(page[0], 1) for page in batch])
            for there, (_, sequence, encoding, encoded) in zip(got, batch):
                self.assertEqual((there.sequence, there.encoding), (sequence, encoding))
                self.assertEqual(there.bytes, wire.decode(encoding, encoded))


class TestMethods(DmsTest):
    def test_hello(self):
        self.assertEqual(self.hello["version"], 1)
        self.assertEqual((self.hello["shard"], self.hello["nshards"]), (0, 1))
        self.assertNotEqual(self.hello["store"], 0)
        self.assertEqual(self.client.hello(version_max=wire.U32), self.hello)
        self.assertEqual(self.client.hello(features=wire.U64)["features"], 0)
        detail = self.assert_refused("FAILED_PRECONDITION", self.client.hello, 7, 9)
        for version in "179":
            self.assertIn(version, detail)
        self.assertEqual(self.client.hello(), self.hello)

    def test_pages_of_every_encoding(self):
        region, epoch, sequence = self.client.open("encodings")
        self.assertEqual((epoch, sequence), (1, 0))
        pages = [(10, 1, wire.FILL, FILL_BYTES), (11, 2, wire.LZ4, LZ4_BLOCK), raw(12, 3),
                 (FAR, 3, wire.FILL, bytes(8)), raw(0, 4)]
        self.client.put(region, epoch, pages)
        self.assert_holds(region, epoch, pages)
        got = self.client.get(region, epoch, [(11, 1), (9, 3), (FAR, 2), (10, 1)])
        self.assertEqual([page.page for page in got], [11, 9, 10, 11, FAR, FAR + 1, 10])
        self.assertEqual([page.encoding for page in got],
                         [wire.LZ4, wire.ABSENT, wire.FILL, wire.LZ4, wire.FILL, wire.ABSENT,
                          wire.FILL])
        self.assertEqual(got[0].bytes, LZ4_PAGE)
        self.assertEqual(got[2].bytes, FILL_BYTES * 512)
        self.assertIsNone(got[1].bytes)
        self.assertEqual(self.client.open("encodings", epoch), (region, epoch, 4))

    def test_largest_batches(self):
        most = self.hello["max_pages"]
        region, epoch, _ = self.client.open("large")
        pages = [raw(wire.MAX_PAGE - 1 - i * 1000, 1) for i in range(most)]
        self.client.put(region, epoch, pages)
        self.assert_holds(region, epoch, pages)
        consecutive = [raw(5000 + i, 2) for i in range(most)]
        self.client.put(region, epoch, consecutive)
        got = self.client.get(region, epoch, [(5000, most)])
        self.assertEqual([page.bytes for page in got], [page[3] for page in consecutive])
        absent = self.client.get(region, epoch, [(1 << 40, most)])
        self.assertTrue(all(page.encoding == wire.ABSENT for page in absent))

    def test_old_sequences_change_nothing(self):
        region, epoch, _ = self.client.open("sequences")
        self.client.put(region, epoch, [raw(1, 5), raw(2, 5)])
        self.client.put(region, epoch, [raw(1, 5, "other"), raw(2, 4), raw(3, 1)])
        self.assert_holds(region, epoch, [raw(1, 5), raw(2, 5), raw(3, 1)])
        self.client.put(region, epoch, [raw(1, 6), raw(2, 3)])
        self.assert_holds(region, epoch, [raw(1, 6), raw(2, 5), raw(3, 1)])
        self.assertEqual(self.client.open("sequences", epoch)[2], 6)

    def test_repeated_requests(self):
        number = self.client.take_id()
        first = self.client.open("repeated", number=number)
        self.assertEqual(self.client.open("repeated", number=number), first)
        region, epoch, _ = first
        number = self.client.take_id()
        for _ in range(2):
            self.client.put(region, epoch, [raw(1, 1)], number=number)
        self.assert_holds(region, epoch, [raw(1, 1)])
        # A copy that comes in late, after a newer one.
        self.client.put(region, epoch, [raw(1, 2)])
        self.client.put(region, epoch, [raw(1, 1)], number=number)
        self.assert_holds(region, epoch, [raw(1, 2)])

    def test_many_under_way(self):
        region, epoch, _ = self.client.open("many")
        self.client.put(region, epoch, [raw(i, 1) for i in range(64)])
        numbers = {self.client.take_id(): i for i in range(64)}
        for number, page in numbers.items():
            self.client.send_raw([msgpack.packb(
                [1, wire.PAGE_GET, number, 0, [region, epoch, [[page, 1]]]])])
        while numbers:
            reply = self.client.receive(20)
            self.assertIsNotNone(reply, f"{len(numbers)} replies are missing")
            page = numbers.pop(reply[1])
            got = wire.Page(reply[4][0][0], reply[5], 0)
            self.assertEqual((got.page, got.bytes), (page, raw(page, 1)[3]))

    def test_drop(self):
        region, epoch, _ = self.client.open("drop")
        kept = [raw(1, 9), raw(70000, 1)]
        self.client.put(region, epoch, kept + [raw(2, 1), raw(3, 2), raw(600, 2), raw(FAR, 2)])
        self.client.drop(region, epoch, 2, [(0, 601), (FAR - 5, 100)])
        for _ in range(2):
            self.assert_holds(region, epoch, kept)
            gone = self.client.get(region, epoch, [(2, 2), (600, 1), (FAR, 1)])
            self.assertEqual([page.encoding for page in gone], [wire.ABSENT] * 4)
            self.client.drop(region, epoch, 2, [(0, 601), (FAR - 5, 100)])
        self.client.put(region, epoch, [raw(2, 10)])
        self.assert_holds(region, epoch, kept + [raw(2, 10)])
        self.client.drop(region, epoch, 10, [(0, wire.MAX_PAGE)])
        self.assertEqual(self.client.stat(region)[1].npages, 0)

    def test_list_and_stat(self):
        names = sorted({f"region {i * 7919 % 1000}\u00e4" for i in range(70)}, key=str.encode)
        numbers = {name: self.client.open(name)[0] for name in names}
        listed = self.client.list()
        self.assertEqual([region.name for region in listed], names)
        self.assertEqual({region.name: region.region for region in listed}, numbers)
        self.assertEqual(len(set(numbers.values())), 70)
        self.client.put(numbers[names[3]], 1, [raw(1, 4), raw(2, 8)])
        counters, region = self.client.stat(numbers[names[3]])
        self.assertEqual((region.name, region.npages, region.sequence, region.epoch,
                          region.parent, region.is_frozen), (names[3], 2, 8, 1, 0, False))
        self.assertEqual((counters["npages"], counters["nregions"]), (2, 70))
        self.assertGreaterEqual(counters["used_bytes"], 2 * wire.PAGE_BYTES)
        self.assertGreaterEqual(counters["capacity_bytes"], counters["used_bytes"])
        self.assertGreater(counters["requests"], 70)
        self.assertIsNone(self.client.stat()[1])

    def test_remove(self):
        region, epoch, _ = self.client.open("gone")
        other, other_epoch, _ = self.client.open("stays")
        self.client.put(region, epoch, [raw(1, 1)])
        self.client.put(other, other_epoch, [raw(1, 1, "other")])
        for _ in range(2):
            self.client.remove(region, epoch)
        self.assert_refused("NOT_FOUND", self.client.get, region, epoch, [(1, 1)])
        self.assert_holds(other, other_epoch, [raw(1, 1, "other")])
        self.assertEqual([item.name for item in self.client.list()], ["stays"])
        again, epoch, sequence = self.client.open("gone")
        self.assertNotEqual(again, region)
        self.assertEqual((epoch, sequence), (1, 0))
        self.assertEqual(self.client.get(again, epoch, [(1, 1)])[0].encoding, wire.ABSENT)


class TestRefusals(DmsTest):
    def test_fencing(self):
        region, old, _ = self.client.open("owned")
        self.client.put(region, old, [raw(1, 1)])
        other = self.connect("other")
        self.assertEqual(other.open("owned"), (region, old + 1, 1))
        self.assert_fenced(self.client.get, region, old, [(1, 1)])
        self.assert_fenced(self.client.put, region, old, [raw(1, 2)])
        self.assert_fenced(self.client.drop, region, old, 9, [(0, 100)])
        self.assert_fenced(self.client.remove, region, old)
        self.assert_fenced(self.client.open, "owned", old)
        self.assert_fenced(self.client.put, region, old + 2, [raw(1, 2)])
        self.assert_holds(region, old + 1, [raw(1, 1)])
        self.assertEqual(other.open("owned", old + 1), (region, old + 1, 1))
        self.assertEqual(self.client.open("owned", 77), (region, 77, 1))
        self.assert_fenced(other.get, region, old + 1, [(1, 1)])
        self.assertEqual(self.client.open("new", 1234)[1], 1234)

    def test_unknown_region(self):
        region = self.client.open("known")[0] ^ 1
        self.assert_refused("NOT_FOUND", self.client.get, region, 1, [(1, 1)])
        self.assert_refused("NOT_FOUND", self.client.put, region, 1, [raw(1, 1)])
        self.assert_refused("NOT_FOUND", self.client.drop, region, 1, 1, [(1, 1)])
        self.assert_refused("NOT_FOUND", self.client.stat, region)
        self.assert_refused("NOT_FOUND", self.client.call, wire.REMOVE, [region, 1])
        self.assert_refused("NOT_FOUND", self.client.get, 0, 1, [(1, 1)])

    def test_wrong_checksum(self):
        region, epoch, _ = self.client.open("checksum")
        _, _, _, good = raw(1, 1)
        entries = [[1, 1, wire.RAW, 4096, wire.checksum(1, good)],
                   [2, 1, wire.RAW, 4096, wire.checksum(3, good)]]
        self.assert_refused("INVALID_ARGUMENT", self.client.call, wire.PAGE_PUT,
                            [region, epoch, entries], good + good)
        got = self.client.get(region, epoch, [(1, 2)])
        self.assertEqual([page.encoding for page in got], [wire.ABSENT] * 2)

    def test_invalid_requests(self):
        region, epoch, _ = self.client.open("invalid")
        page = bytes(wire.PAGE_BYTES)
        summed = wire.checksum(1, page)
        entry = [1, 1, wire.RAW, 4096, summed]
        cases = [
            (wire.HELLO, [], b""),
            (wire.HELLO, [0, 1, 0, "x"], b""),
            (wire.OPEN, ["", 0], b""),
            (wire.OPEN, ["a/b", 0], b""),
            (wire.OPEN, ["a\nb", 0], b""),
            (wire.OPEN, ["n" * 129, 0], b""),
            (wire.OPEN, ["n", -1], b""),
            (wire.OPEN, ["n", 0, 0], b""),
            (wire.OPEN, ["n", 0], b"body"),
            (wire.OPEN, [b"n", 0], b""),
            (wire.PAGE_GET, [region, epoch, []], b""),
            (wire.PAGE_GET, [region, epoch, [[0, 257]]], b""),
            (wire.PAGE_GET, [region, epoch, [[0, 0]]], b""),
            (wire.PAGE_GET, [region, epoch, [[wire.MAX_PAGE, 1]]], b""),
            (wire.PAGE_GET, [region, epoch, [[0, 128], [0, 129]]], b""),
            (wire.PAGE_PUT, [region, epoch, []], b""),
            (wire.PAGE_PUT, [region, epoch, [entry]], b""),
            (wire.PAGE_PUT, [region, epoch, [entry]], page[1:]),
            (wire.PAGE_PUT, [region, epoch, [entry]], page + b"x"),
            (wire.PAGE_PUT, [region, epoch, [entry, entry]], page + page),
            (wire.PAGE_PUT, [region, epoch, [[1, 0, wire.RAW, 4096, summed]]], page),
            (wire.PAGE_PUT, [region, epoch, [[1, 1, wire.ABSENT, 0, 0]]], b""),
            (wire.PAGE_PUT, [region, epoch, [[1, 1, 3, 4096, summed]]], page),
            (wire.PAGE_DROP, [region, epoch, 1, [[0, wire.MAX_PAGE + 1]]], b""),
            (wire.PAGE_DROP, [region, epoch, 1, [[i, 1] for i in range(257)]], b""),
            (wire.STAT, ["1"], b""),
            (wire.LIST, {}, b""),
        ]
        for method, params, body in cases:
            with self.subTest(method=method, params=str(params)[:60]):
                self.assert_refused("INVALID_ARGUMENT", self.client.call, method, params, body)
        self.assertEqual(self.client.stat(region)[1].npages, 0)

    def test_other_versions_and_methods(self):
        self.client.send_raw([msgpack.packb([2, wire.STAT, 55, {"a": None}])])
        method, number, status, detail, _, _ = self.client.receive(20)
        self.assertEqual((method, number, wire.STATUS[status]),
                         (wire.STAT, 55, "FAILED_PRECONDITION"))
        self.assertIn("1", detail)
        self.assert_refused("UNIMPLEMENTED", self.client.call, 11, [])
        self.assert_refused("UNIMPLEMENTED", self.client.call, 255, [1, 2, 3])
        self.assertEqual(self.client.hello(), self.hello)

    def test_garbage(self):
        """The server answers with a refusal or not at all; server and connection go on."""
        good = msgpack.packb([1, wire.STAT, 9, 0, [0]])
        frames = [[b""], [b"", good], [b"\xc1"], [b"\xdd\xff\xff\xff\xff"], [b"\x95\x01"],
                  [good + b"\x00"], [good[:-1]], [b"\x91" * 32768], [b"\x91" * 32769],
                  [b"\xff" * 1048576], [good, b"body"], [good, b"", b""], [good, good, good],
                  [good] * 50, [msgpack.packb({"version": 1})], [b"\xdb\xff\xff\xff\xff" + good]]
        maker = random.Random(7)
        frames += [[maker.randbytes(maker.randrange(100))] for _ in range(300)]
        for changed in range(300):
            bits = bytearray(good)
            at = changed % (len(bits) * 8)
            bits[at // 8] ^= 1 << at % 8
            frames.append([bytes(bits)])
        for message in frames:
            self.client.send_raw(message)
        # Replies to the garbage may carry any number, also those of good requests to come.
        self.client.next_id = 1 << 40
        region, epoch, _ = self.client.open("after garbage")
        self.client.put(region, epoch, [raw(1, 1)])
        self.assert_holds(region, epoch, [raw(1, 1)])
        self.assertEqual(self.client.hello(), self.hello)

    def test_too_large_frames(self):
        flood = self.connect("flood")
        flood.send_raw([bytes(16 << 20)])
        flood.send_raw([msgpack.packb([1, wire.STAT, 1, 0, [0]]), bytes(2 << 20)])
        self.assertEqual(self.client.hello(), self.hello)
        late = self.connect("late")
        self.assertEqual(late.hello(), self.hello)

    def test_other_sockets(self):
        """A REQ socket puts an empty frame before its messages: no answer, no harm."""
        context = zmq.Context.instance()
        socket = context.socket(zmq.REQ)
        socket.linger = 0
        self.addCleanup(socket.close)
        socket.connect(self.dms.endpoint)
        socket.send(msgpack.packb([1, wire.STAT, 1, 0, [0]]))
        self.assertEqual(self.client.hello(), self.hello)


class TestRestart(DmsTest):
    def write(self, names):
        """Some thousand pages in some regions, some changed, some dropped; what must be there."""
        expected = {}
        for name in names:
            region, epoch, _ = self.client.open(name, 5)
            sequence = 0
            pages = {}
            for first in range(0, 1500, 100):
                sequence += 1
                batch = [raw(first * 7 + i, sequence, name) for i in range(100)]
                self.client.put(region, epoch, batch)
                pages.update({page[0]: page for page in batch})
            sequence += 1
            changed = [raw(page, sequence, name + "2") for page in sorted(pages)[::9]][:150]
            self.client.put(region, epoch, changed)
            pages.update({page[0]: page for page in changed})
            self.client.drop(region, epoch, sequence, [(2800, 150)])
            pages = {number: page for number, page in pages.items()
                     if not 2800 <= number < 2950}
            expected[name] = (region, epoch, sequence, list(pages.values()))
        return expected

    def check(self, expected):
        for name, (region, epoch, sequence, pages) in expected.items():
            self.assert_holds(region, epoch, pages)
            self.assertEqual(self.client.stat(region)[1].npages, len(pages))
            self.assertEqual(self.client.open(name, epoch), (region, epoch, sequence))

    def restart(self):
        """The client's socket stays: it finds the new server by itself."""
        self.dms.start()
        hello = self.client.hello()
        self.assertEqual(hello["store"], self.hello["store"])
        self.assertNotEqual(hello["instance"], self.hello["instance"])

    def test_kill(self):
        expected = self.write(["a", "b"])
        gone = self.client.open("gone")
        self.client.put(gone[0], gone[1], [raw(1, 1)])
        self.client.remove(gone[0], gone[1])
        self.dms.kill()
        self.restart()
        self.check(expected)
        self.assertEqual([region.name for region in self.client.list()], ["a", "b"])
        self.assert_fenced(self.client.put, expected["a"][0], 4, [raw(1, 99)])
        # And again, after it took more.
        region, epoch, sequence, pages = expected["a"]
        more = [raw((1 << 30) + i, sequence + 1) for i in range(200)]
        self.client.put(region, epoch, more)
        expected["a"] = (region, epoch, sequence + 1, pages + more)
        self.dms.kill()
        self.restart()
        self.check(expected)

    def test_orderly_end(self):
        expected = self.write(["a"])
        self.assertEqual(self.dms.end(), 0)
        self.restart()
        self.check(expected)

    def test_kill_under_way(self):
        """What was acknowledged before the kill is there; what was not may be."""
        region, epoch, _ = self.client.open("busy")
        sent = {}
        for i in range(100):
            number = self.client.take_id()
            page = raw(i, 1)
            entry = [page[0], page[1], page[2], 4096, wire.checksum(page[0], page[3])]
            sent[number] = page
            self.client.send_raw(
                [msgpack.packb([1, wire.PAGE_PUT, number, 0, [region, epoch, [entry]]]), page[3]])
        acknowledged = []
        while len(acknowledged) < 30:
            reply = self.client.receive(20)
            self.assertIsNotNone(reply)
            self.assertEqual(reply[2], 0, reply[3])
            acknowledged.append(sent[reply[1]])
        self.dms.kill()
        self.restart()
        self.assert_holds(region, epoch, acknowledged)
        for page in self.client.get(region, epoch, [(0, 100)]):
            if page.encoding != wire.ABSENT:
                self.assertEqual(page.bytes, raw(page.page, 1)[3])

    def test_request_waits_for_the_server(self):
        """A request sent while there is none is answered by the next one."""
        region, epoch, _ = self.client.open("patient")
        self.dms.kill()
        patient = self.connect("patient", first_retry_s=0.2)
        began = time.monotonic()
        with self.assertRaises(wire.NoAnswer):
            patient.call(wire.STAT, [0], timeout_s=0.5)
        self.assertGreaterEqual(time.monotonic() - began, 0.5)
        self.restart()
        patient.put(region, epoch, [raw(1, 1)])
        self.assert_holds(region, epoch, [raw(1, 1)])


class TestBranches(DmsTest):
    def make(self):
        """A region with 600 pages, a checkpoint of it, and a branch of that."""
        self.source, self.epoch, _ = self.client.open("source")
        self.pages = [raw(i * 13, 1) for i in range(600)]
        for first in range(0, 600, 200):
            self.client.put(self.source, self.epoch, self.pages[first:first + 200])
        self.frozen = self.client.freeze(self.source, self.epoch, "source@1")
        self.branch = self.client.branch(self.frozen, 0, "second run")
        self.assertEqual(len({self.source, self.frozen, self.branch}), 3)

    def change(self):
        """Changes both sides; what each of them then has."""
        source = [raw(0, 2, "source")] + self.pages[2:]
        self.client.put(self.source, self.epoch, source[:1])
        self.client.drop(self.source, self.epoch, 2, [(13, 1)])
        opened, epoch, sequence = self.client.open("second run")
        self.assertEqual((opened, epoch, sequence), (self.branch, 2, 1))
        branch = [raw(0, 2, "branch")] + self.pages[1:-1]
        self.client.put(self.branch, epoch, branch[:1])
        self.client.drop(self.branch, epoch, 2, [(599 * 13, 1)])
        return source, branch

    def check(self, source, branch):
        # What is frozen may be read with any epoch.
        self.assert_holds(self.frozen, 99, self.pages)
        self.assert_holds(self.source, self.epoch, source)
        self.assert_holds(self.branch, 2, branch)
        regions = {region.name: region for region in self.client.list()}
        self.assertEqual({name: (region.region, region.parent, region.npages, region.is_frozen)
                          for name, region in regions.items()},
                         {"source": (self.source, 0, 599, False),
                          "source@1": (self.frozen, self.source, 600, True),
                          "second run": (self.branch, self.frozen, 599, False)})

    def test_branches_do_not_touch_each_other(self):
        self.make()
        source, branch = self.change()
        self.check(source, branch)
        # Each of the 600 pages is there once, and one more for each side's own.
        self.assertEqual(self.client.stat()[0]["npages"], 602)
        self.dms.kill()
        self.dms.start()
        self.check(source, branch)

    def test_source_removed(self):
        self.make()
        _, branch = self.change()
        self.client.remove(self.source, self.epoch)
        self.assert_holds(self.frozen, 0, self.pages)
        self.assert_holds(self.branch, 2, branch)
        self.dms.kill()
        self.dms.start()
        self.assert_holds(self.frozen, 0, self.pages)
        self.client.remove(self.frozen, 0)
        self.assert_holds(self.branch, 2, branch)
        self.assertEqual([region.name for region in self.client.list()], ["second run"])

    def test_frozen_regions_refuse_changes(self):
        self.make()
        for call in (lambda: self.client.put(self.frozen, 1, [raw(0, 9)]),
                     lambda: self.client.drop(self.frozen, 1, 9, [(0, 10)])):
            detail = self.assert_refused("FAILED_PRECONDITION", call)
            self.assertNotIn("FENCED", detail)
        self.assertEqual(self.client.open("source@1", 50), (self.frozen, 1, 1))
        self.assert_holds(self.frozen, 1, self.pages)

    def test_names_and_epochs(self):
        self.make()
        self.assert_fenced(self.client.freeze, self.source, self.epoch + 1, "late")
        self.assert_fenced(self.client.branch, self.source, self.epoch + 1, "late")
        self.assert_refused("NOT_FOUND", self.client.freeze, self.source ^ 1, 1, "late")
        self.assert_refused("ALREADY_EXISTS", self.client.freeze, self.source, 1, "second run")
        self.assert_refused("ALREADY_EXISTS", self.client.branch, self.source, 1, "source@1")
        # Repetitions.
        self.assertEqual(self.client.freeze(self.source, 1, "source@1"), self.frozen)
        self.assertEqual(self.client.branch(self.frozen, 7, "second run"), self.branch)
        fork = self.client.branch(self.source, self.epoch, "fork")
        self.assert_holds(fork, 1, self.pages)
        # No repetitions any more: what stands under the names is not what the source is now.
        self.client.put(self.source, self.epoch, [raw(0, 5)])
        self.assert_refused("ALREADY_EXISTS", self.client.freeze, self.source, 1, "source@1")
        self.client.open("second run")
        self.assert_refused("ALREADY_EXISTS", self.client.branch, self.frozen, 0, "second run")


class TestShards(DmsTest):
    options = ("--shards=3",)

    def test_region_on_all_shards(self):
        clients = [self.client] + [self.connect("test", endpoint=f"{self.dms.endpoint}.{i}")
                                   for i in (1, 2)]
        hellos = [client.hello() for client in clients]
        self.assertEqual([(hello["shard"], hello["nshards"]) for hello in hellos],
                         [(0, 3), (1, 3), (2, 3)])
        shards = {hello["store"]: client for hello, client in zip(hellos, clients)}
        self.assertEqual(len(shards), 3)
        clients[1].open("spread")
        opened = [client.open("spread") for client in clients]
        epoch = max(item[1] for item in opened)
        self.assertEqual(epoch, 2)
        regions = {client: client.open("spread", epoch)[0] for client in clients}
        pages = [raw(extent * wire.EXTENT_PAGES + extent % 512, 1) for extent in range(90)]
        placed = {client: [] for client in clients}
        for page in pages:
            placed[shards[wire.place(page[0], list(shards))]].append(page)
        for client, there in placed.items():
            self.assertGreater(len(there), 5)
            client.put(regions[client], epoch, there)
            self.assertEqual(client.stat(regions[client])[1].npages, len(there))
        self.dms.kill()
        self.dms.start()
        for client, there in placed.items():
            got = client.get(regions[client], epoch, [(page[0], 1) for page in there])
            self.assertEqual([page.bytes for page in got], [page[3] for page in there])


class TestFull(DmsTest):
    options = ("--capacity=1M",)

    def test_full(self):
        region, epoch, _ = self.client.open("full")
        capacity = self.client.stat()[0]["capacity_bytes"]
        room = capacity // wire.PAGE_BYTES
        pages = [raw(i, 1) for i in range(room)]
        for first in range(0, room, 200):
            self.client.put(region, epoch, pages[first:first + 200])
        batch = [raw(0, 2), raw(room, 2), raw(1, 2)]
        self.assert_refused("RESOURCE_EXHAUSTED", self.client.put, region, epoch, batch)
        self.assert_holds(region, epoch, pages)
        self.assertEqual(self.client.get(region, epoch, [(room, 1)])[0].encoding, wire.ABSENT)
        # What needs no more room than there is still works.
        self.client.put(region, epoch, [raw(5, 3)])
        pages[5] = raw(5, 3)
        self.client.drop(region, epoch, 1, [(10, 2)])
        self.client.put(region, epoch, batch)
        pages = batch + [page for page in pages[2:] if page[0] not in (10, 11)]
        self.assert_holds(region, epoch, pages)
        self.dms.kill()
        self.dms.start()
        self.assert_holds(region, epoch, pages)


class TestDocument(unittest.TestCase):
    """What the client computes by itself."""

    def test_placement(self):
        self.assertEqual(wire.place(7 * 512 + 511, [1, 2, 3]), 1)
        self.assertEqual(wire.place(8 * 512, [3, 1, 2]), 2)

    def test_checksums(self):
        self.assertEqual(wire.checksum(34152235008, FILL_BYTES), 4101326469998493892)
        self.assertEqual(wire.checksum(34152235009, LZ4_BLOCK), 1040552480626076321)

    def test_lz4(self):
        self.assertEqual(wire.decode_lz4(LZ4_BLOCK), LZ4_PAGE)
        for end in range(len(LZ4_BLOCK)):
            with self.assertRaises(wire.BadReply):
                wire.decode_lz4(LZ4_BLOCK[:end])

    def test_names(self):
        self.assertTrue(wire.is_name("\u00e4 b"))
        for bad in ("", "a/b", "\x1b", "\x85", "\u202e", "n" * 129, "\u00e4" * 65):
            self.assertFalse(wire.is_name(bad))


if __name__ == "__main__":
    EDM = os.path.abspath(sys.argv[1])
    unittest.main(argv=[sys.argv[0]] + sys.argv[2:], verbosity=2)
