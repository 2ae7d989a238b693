"""A client of EDM's wire protocol, written from proto/PROTOCOL.md alone.

    client = Client("ipc:///run/edm/dms", "example")
    client.hello()
    region, epoch, sequence = client.open("sort-1")
    client.put(region, epoch, [(page, sequence + 1, RAW, bytes_of_page)])
    client.get(region, epoch, [(page, 1)])

Everything a server sends is checked before it is used. A request is sent again, with the same id,
until it is answered or its time is over.
"""
import struct
import time

import msgpack
import xxhash
import zmq

VERSION = 1
PAGE_BYTES = 4096
MAX_PAGE = 1 << 52
MAX_PAGES = 256
MAX_HEADER_BYTES = 32768
MAX_BODY_BYTES = 1048576
EXTENT_PAGES = 512
U64 = (1 << 64) - 1
U32 = (1 << 32) - 1

HELLO, OPEN, PAGE_GET, PAGE_PUT, PAGE_DROP, FREEZE, BRANCH, LIST, STAT, REMOVE = range(1, 11)
RAW, FILL, LZ4, ABSENT = 0, 1, 2, 255
FROZEN = 1

STATUS = {
    0: "OK", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED",
    12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}


class Refused(Exception):
    """A reply whose status is not OK."""

    def __init__(self, status, detail):
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class NoAnswer(Exception):
    """No reply in time: whether the request was carried out is not known."""


class BadReply(Exception):
    """The server sent something that is no reply of this protocol."""


def check(condition, what):
    if not condition:
        raise BadReply(what)


def is_number(value, most=U64):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def is_printable(char):
    point = ord(char)
    return not (point < 0x20 or 0x7f <= point <= 0x9f or 0x2028 <= point <= 0x202e)


def is_name(text):
    return (isinstance(text, str) and 1 <= len(text.encode()) <= 128 and "/" not in text
            and all(is_printable(char) for char in text))


def checksum(page, encoded):
    return xxhash.xxh3_64_intdigest(encoded, seed=page)


def place(page, stores):
    """Which of the shards with these store numbers holds the page."""
    extent = page // EXTENT_PAGES
    return max(stores, key=lambda store: (
        xxhash.xxh3_64_intdigest(struct.pack("<QQ", extent, store)), store))


def decode_lz4(block):
    """One LZ4 block: tokens of literals and copies of what came before."""
    out = bytearray()
    at = 0

    def length(first):
        nonlocal at
        total = first
        while first == 15:
            total += block[at]
            at += 1
            if block[at - 1] != 255:
                break
        return total

    try:
        while True:
            token = block[at]
            at += 1
            literals = length(token >> 4)
            check(at + literals <= len(block), "LZ4 literals beyond the block")
            out += block[at:at + literals]
            at += literals
            if at == len(block):
                break
            offset = block[at] | block[at + 1] << 8
            at += 2
            check(1 <= offset <= len(out), "LZ4 offset")
            copied = length(token & 15) + 4
            check(len(out) + copied <= PAGE_BYTES, "LZ4 block too long")
            for _ in range(copied):
                out.append(out[-offset])
    except IndexError as error:
        raise BadReply("LZ4 block cut off") from error
    check(len(out) == PAGE_BYTES, "LZ4 block of another length")
    return bytes(out)


def decode(encoding, encoded):
    if encoding == RAW:
        return bytes(encoded)
    if encoding == FILL:
        return bytes(encoded) * (PAGE_BYTES // 8)
    return decode_lz4(encoded)


class Page:
    """A page of a PAGE_GET: number, sequence, encoding, and the 4096 bytes (None: absent)."""

    def __init__(self, entry, body, at):
        check(isinstance(entry, list) and len(entry) == 5, "page entry")
        self.page, self.sequence, self.encoding, self.length, summed = entry
        check(is_number(self.page, MAX_PAGE - 1) and is_number(self.sequence)
              and is_number(self.length, PAGE_BYTES) and is_number(summed), "page entry")
        self.bytes = None
        if self.encoding == ABSENT:
            check(self.sequence == self.length == summed == 0, "absent page")
            return
        check(self.encoding == RAW and self.length == PAGE_BYTES
              or self.encoding == FILL and self.length == 8
              or self.encoding == LZ4 and 1 <= self.length < PAGE_BYTES, "length of a page")
        check(self.sequence >= 1, "sequence of a page")
        encoded = body[at:at + self.length]
        check(len(encoded) == self.length, "body too short")
        check(checksum(self.page, encoded) == summed, f"checksum of page {self.page}")
        self.bytes = decode(self.encoding, encoded)


class Region:
    """A region as LIST and STAT show it."""

    def __init__(self, entry):
        check(isinstance(entry, list) and len(entry) == 7, "region")
        self.name, self.region, self.parent, self.epoch, self.sequence, self.npages, flags = entry
        check(is_name(self.name) and all(is_number(value) for value in entry[1:6])
              and is_number(flags, U32), "region")
        self.is_frozen = bool(flags & FROZEN)


class Client:
    """One connection to one shard."""

    def __init__(self, endpoint, peer, timeout_s=20.0, first_retry_s=1.0):
        self.peer = peer
        self.timeout_s = timeout_s
        self.first_retry_s = first_retry_s
        self.strays = 0
        self.next_id = 1
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BODY_BYTES)
        self.socket.connect(endpoint)

    def close(self):
        self.socket.close()

    def send_raw(self, frames):
        """Any frames, right or wrong."""
        self.socket.send_multipart(frames)

    def take_id(self):
        self.next_id += 1
        return self.next_id - 1

    @staticmethod
    def parse(frames):
        """Of a reply's frames: method, id, status, detail, results, body."""
        check(1 <= len(frames) <= 2, "number of frames")
        check(len(frames[0]) <= MAX_HEADER_BYTES, "header too long")
        try:
            header = msgpack.unpackb(frames[0], raw=False)
        except ValueError as error:
            raise BadReply("not MessagePack") from error
        check(isinstance(header, list) and len(header) >= 3, "header")
        check(header[0] == VERSION, f"version {header[0]}")
        check(len(header) == 6, "header")
        _, method, number, status, detail, results = header
        check(is_number(method, 255) and is_number(number) and is_number(status, 16)
              and isinstance(detail, str) and isinstance(results, list), "header")
        check(status == 0 and detail == "" or status != 0 and results == [], "refusal with results")
        return method, number, status, detail, results, frames[1] if len(frames) == 2 else b""

    def receive(self, timeout_s):
        """The next reply, whatever it answers; None when there is none in time."""
        if not self.socket.poll(max(0, int(timeout_s * 1000)), zmq.POLLIN):
            return None
        return self.parse(self.socket.recv_multipart())

    def call(self, method, params, body=b"", timeout_s=None, number=None):
        """Sends a request until it is answered. Returns results and body."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        number = self.take_id() if number is None else number
        header = msgpack.packb([VERSION, method, number, int(timeout_s * 1000), params])
        frames = [header, body] if body else [header]
        end = time.monotonic() + timeout_s
        wait = self.first_retry_s
        while time.monotonic() < end:
            self.socket.send_multipart(frames)
            again = min(end, time.monotonic() + wait)
            wait = min(2 * wait, 4.0)
            while time.monotonic() < again:
                reply = self.receive(again - time.monotonic())
                if reply is None:
                    break
                if reply[1] != number:
                    self.strays += 1
                    continue
                check(reply[0] == method, "method of the reply")
                if reply[2] != 0:
                    raise Refused(STATUS.get(reply[2], "INTERNAL"), reply[3])
                return reply[4], reply[5]
        raise NoAnswer(f"method {method} for {timeout_s} s")

    def call_plain(self, method, params, nresults, **options):
        """A call whose results are NRESULTS elements, and no body."""
        results, body = self.call(method, params, **options)
        check(len(results) == nresults and not body, "results")
        return results

    def hello(self, version_min=VERSION, version_max=VERSION, features=0):
        results = self.call_plain(HELLO, [version_min, version_max, features, self.peer], 7)
        names = ("version", "features", "store", "instance", "shard", "nshards", "max_pages")
        check(all(is_number(value) for value in results), "results of HELLO")
        hello = dict(zip(names, results))
        check(version_min <= hello["version"] <= version_max, "version chosen")
        check(hello["shard"] < hello["nshards"], "shard")
        check(1 <= hello["max_pages"] <= MAX_PAGES, "max_pages")
        return hello

    def open(self, name, epoch=0, **options):
        results = self.call_plain(OPEN, [name, epoch], 3, **options)
        check(all(is_number(value) for value in results) and results[0] and results[1],
              "results of OPEN")
        return tuple(results)

    def get(self, region, epoch, ranges):
        """The pages of the ranges (first, count)."""
        params = [region, epoch, [list(item) for item in ranges]]
        results, body = self.call(PAGE_GET, params)
        wanted = [first + i for first, count in ranges for i in range(count)]
        check(len(results) == 1 and isinstance(results[0], list)
              and len(results[0]) == len(wanted), "results of PAGE_GET")
        pages = []
        at = 0
        for entry, page in zip(results[0], wanted):
            pages.append(Page(entry, body, at))
            check(pages[-1].page == page, "another page")
            at += pages[-1].length
        check(at == len(body), "body too long")
        return pages

    def put(self, region, epoch, pages, **options):
        """Stores pages (number, sequence, encoding, encoded bytes)."""
        entries = [[page, sequence, encoding, len(encoded), checksum(page, encoded)]
                   for page, sequence, encoding, encoded in pages]
        body = b"".join(encoded for _, _, _, encoded in pages)
        self.call_plain(PAGE_PUT, [region, epoch, entries], 0, body=body, **options)

    def drop(self, region, epoch, sequence, ranges):
        params = [region, epoch, sequence, [list(item) for item in ranges]]
        self.call_plain(PAGE_DROP, params, 0)

    def freeze(self, region, epoch, name):
        return self.call_plain(FREEZE, [region, epoch, name], 1)[0]

    def branch(self, region, epoch, name):
        return self.call_plain(BRANCH, [region, epoch, name], 1)[0]

    def list(self):
        """All regions."""
        regions = []
        after = ""
        while True:
            entries, = self.call_plain(LIST, [after], 1)
            check(isinstance(entries, list) and len(entries) <= 64, "results of LIST")
            if not entries:
                return regions
            for entry in entries:
                region = Region(entry)
                check(region.name.encode() > after.encode(), "order of LIST")
                after = region.name
                regions.append(region)

    def stat(self, region=0):
        """The shard's counters, and the region (None for region 0)."""
        counters, entries = self.call_plain(STAT, [region], 2)
        names = ("npages", "used_bytes", "capacity_bytes", "nregions", "requests")
        check(isinstance(counters, list) and len(counters) == len(names)
              and all(is_number(value) for value in counters), "counters")
        check(isinstance(entries, list) and len(entries) == (1 if region else 0), "regions of STAT")
        return dict(zip(names, counters)), Region(entries[0]) if entries else None

    def remove(self, region, epoch):
        """Removes the region; one that is gone already is fine."""
        try:
            self.call_plain(REMOVE, [region, epoch], 0)
        except Refused as refused:
            if refused.status != "NOT_FOUND":
                raise
