"""The load of test_kill_served.py: a process with a connection of its own and a family of regions in
which it stores, drops, freezes, branches and removes, several requests under way at once. It knows
what was acknowledged. After the server was killed it reads everything back."""
import ctypes
import random
import signal
import struct
import traceback

import edm_wire as wire
import zmq

PAGES = 200           # of a region, from page 0 and from FAR
FAR = (1 << 35) + 511 # an extent ends after the first
MOST_PAGES = 48       # of a request
LIVE, FROZEN, FORKS = 2, 3, 2
GET_PAGES = 200
STEADY_TIMEOUT_S = 60.0


def number_of(index):
    return index if index < PAGES // 2 else FAR + index


def length_code(length):
    """What follows a token of LZ4 whose four bits are not enough."""
    return b"" if length < 15 else b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])


def lz4(page, literals):
    """A block of the PAGE, which repeats after 32 bytes: so many as they are, a copy, the last 32."""
    copied = len(page) - literals - 32
    token = min(literals, 15) << 4 | min(copied - 4, 15)
    return (bytes([token]) + length_code(literals) + page[:literals] + struct.pack("<H", 32)
            + length_code(copied - 4) + bytes([15 << 4]) + length_code(32) + page[-32:])


def encode(family, number, sequence):
    """The page's encoding, its bytes encoded so, and as they are: slots of several sizes."""
    literals = (None, 560, None, 0, 2900, None, 40)[(number // 3 + sequence) % 7]
    if literals == 0:
        fill = struct.pack("<Q", (family << 56 ^ number << 28 ^ sequence) & wire.U64)
        return wire.FILL, fill, fill * 512
    whole = struct.pack("<QQQQ", family, number, sequence, ~sequence & wire.U64) * 128
    if literals is None:
        return wire.RAW, whole, whole
    return wire.LZ4, lz4(whole, literals), whole


class Wrong(Exception):
    """The server has something else than what it acknowledged."""


class Region:
    """What a region holds for sure: the sequence of each page, 0 where there is none."""

    def __init__(self, name, number, epoch, frozen, sequences):
        self.name = name
        self.number = number
        self.epoch = epoch
        self.frozen = frozen
        self.sequences = sequences
        self.busy = False


class Operation:
    """A request under way. It occupies its region, and the name it makes a region of."""

    def __init__(self, method, region, params, body=b"", **more):
        self.method = method
        self.region = region
        self.params = params
        self.body = body
        self.indexes = more.get("indexes", ())
        self.sequence = more.get("sequence", 0)
        self.name = more.get("name")
        self.number = 0

    def after(self, index):
        """The page's sequence when it is carried out."""
        if index not in self.indexes:
            return self.region.sequences[index]
        return self.sequence if self.method == wire.PAGE_PUT else 0


class Worker:
    def __init__(self, family, endpoint, seed):
        self.family = family
        self.endpoint = endpoint
        self.random = random.Random(f"{seed} {family}")
        self.regions = {}
        self.pending = {}
        self.sequence = 0
        self.names = 0
        self.acknowledged = {method: 0 for method in range(1, 11)}
        self.interrupted = 0
        self.client = None
        self.connect()
        for i in range(LIVE):
            name = f"{family}-live-{i}"
            number, _, _ = self.client.open(name, 1)
            self.regions[name] = Region(name, number, 1, False, [0] * PAGES)

    def connect(self):
        next_id = 1
        if self.client is not None:
            next_id = self.client.next_id
            self.client.close()
        self.client = wire.Client(self.endpoint, f"worker-{self.family}",
                                  timeout_s=STEADY_TIMEOUT_S, first_retry_s=0.25)
        self.client.next_id = next_id  # those of requests under way are not free

    # What to do next

    def choose_put_or_drop(self, region, is_put):
        first = self.random.randrange(PAGES)
        indexes = range(first, min(PAGES, first + self.random.randint(1, MOST_PAGES)))
        if not is_put:
            params = [region.number, region.epoch, self.sequence,
                      [[number_of(index), 1] for index in indexes]]
            return Operation(wire.PAGE_DROP, region, params, indexes=indexes)
        self.sequence += 1
        entries, body = [], []
        for index in indexes:
            encoding, encoded, _ = encode(self.family, number_of(index), self.sequence)
            entries.append([number_of(index), self.sequence, encoding, len(encoded),
                            wire.checksum(number_of(index), encoded)])
            body.append(encoded)
        return Operation(wire.PAGE_PUT, region, [region.number, region.epoch, entries],
                         b"".join(body), indexes=indexes, sequence=self.sequence)

    def choose_copy(self, region, frozen):
        self.names += 1
        name = f"{self.family}-{'frozen' if frozen else 'fork'}-{self.names}"
        return Operation(wire.FREEZE if frozen else wire.BRANCH, region,
                         [region.number, region.epoch, name], name=name)

    def count(self, kind):
        there = sum(f"-{kind}-" in name for name in self.regions)
        return there + sum(f"-{kind}-" in (operation.name or "")
                           for operation in self.pending.values())

    def choose(self):
        """An operation on a region that has none under way."""
        region = self.random.choice([r for r in self.regions.values() if not r.busy] or [None])
        if region is None:
            return None
        what = self.random.randrange(100)
        if what >= 92 and "-live-" not in region.name:
            return Operation(wire.REMOVE, region, [region.number, region.epoch])
        if what >= 86 and self.count("fork") < FORKS:
            return self.choose_copy(region, False)
        if region.frozen:
            return None
        if what >= 80 and self.count("frozen") < FROZEN:
            return self.choose_copy(region, True)
        return self.choose_put_or_drop(region, what < 65)

    # Sending and being answered

    def send(self, operation, number):
        operation.number = number
        operation.region.busy = True
        self.pending[number] = operation
        header = wire.msgpack.packb([wire.VERSION, operation.method, number, 0, operation.params])
        self.client.send_raw([header, operation.body] if operation.body else [header])

    def fill(self):
        """Keeps every region busy."""
        for _ in range(2 * len(self.regions)):
            operation = self.choose()
            if operation is not None:
                self.send(operation, self.client.take_id())

    def commit(self, operation, status, results):
        gone = operation.method == wire.REMOVE and status == 5
        if status != 0 and not gone:
            raise Wrong(f"method {operation.method} on {operation.region.name}: status {status}")
        region = operation.region
        region.busy = False
        self.acknowledged[operation.method] += 1
        if operation.method in (wire.PAGE_PUT, wire.PAGE_DROP):
            for index in operation.indexes:
                region.sequences[index] = operation.after(index)
        elif operation.method == wire.REMOVE:
            del self.regions[region.name]
        else:
            self.regions[operation.name] = Region(operation.name, results[0], 1,
                                                  operation.method == wire.FREEZE,
                                                  list(region.sequences))

    def take_replies(self, timeout_s):
        reply = self.client.receive(timeout_s)
        while reply is not None:
            method, number, status, detail, results, _ = reply
            operation = self.pending.pop(number, None)
            if operation is not None:
                if method != operation.method or (status != 0 and not detail):
                    raise Wrong(f"reply {reply}")
                self.commit(operation, status, results)
            reply = self.client.receive(0)

    # Reading everything back

    def check_region(self, number, region, pending):
        """PENDING: what was under way on it. Each page is as before or as after that."""
        for first in range(0, PAGES, GET_PAGES):
            indexes = range(first, min(PAGES, first + GET_PAGES))
            pages = self.client.get(number, region.epoch, [(number_of(i), 1) for i in indexes])
            for index, page in zip(indexes, pages):
                allowed = {region.sequences[index]}
                if pending is not None:
                    allowed.add(pending.after(index))
                if page.sequence not in allowed:
                    raise Wrong(f"page {page.page} of {region.name} has sequence {page.sequence}, "
                                f"not one of {sorted(allowed)}")
                encoding, _, right = encode(self.family, page.page, page.sequence)
                if page.sequence and (page.encoding, page.bytes) != (encoding, right):
                    raise Wrong(f"page {page.page} of {region.name} has other bytes")

    def check(self):
        """After a restart, before anything is repeated."""
        by_region = {operation.region.name: operation for operation in self.pending.values()}
        by_name = {operation.name: operation for operation in self.pending.values()
                   if operation.name}
        self.interrupted += len(self.pending)
        listed = {region.name: region for region in self.client.list()
                  if region.name.startswith(f"{self.family}-")}
        for name, region in self.regions.items():
            pending = by_region.get(name)
            if name not in listed:
                if pending is None or pending.method != wire.REMOVE:
                    raise Wrong(f"{name} is gone")
                continue
            if listed[name].region != region.number or listed[name].is_frozen != region.frozen:
                raise Wrong(f"{name} is another region")
            changes = pending is not None and pending.method in (wire.PAGE_PUT, wire.PAGE_DROP)
            try:
                self.check_region(region.number, region, pending if changes else None)
            except wire.Refused as refused:
                # The connection of before has found the new server, too: what it had still to
                # deliver may be carried out after the list was made.
                if (refused.status != "NOT_FOUND" or pending is None
                        or pending.method != wire.REMOVE):
                    raise Wrong(f"{name}, under way: {pending and pending.method}: "
                                f"{refused}") from refused
        for name, entry in listed.items():
            if name in self.regions:
                continue
            if name not in by_name:
                raise Wrong(f"{name} is there again")
            # Made, but not said so: all of it must be there.
            source = by_name[name].region
            copy = Region(name, entry.region, 1, entry.is_frozen, source.sequences)
            self.check_region(entry.region, copy, None)

    def repeat(self):
        again = list(self.pending.items())
        self.pending.clear()
        for number, operation in again:
            self.send(operation, number)

    def finish(self):
        """Waits for what is under way, reads all once more and removes it."""
        while self.pending:
            self.take_replies(1.0)
        self.check()
        for region in self.regions.values():
            self.client.remove(region.number, region.epoch)
        self.client.close()


def work(worker, pipe):
    """Until the server was killed. Returns what the test says."""
    poller = zmq.Poller()
    poller.register(worker.client.socket, zmq.POLLIN)
    poller.register(pipe.fileno(), zmq.POLLIN)
    while True:
        worker.fill()
        ready = dict(poller.poll(1000))
        worker.take_replies(0)
        if pipe.fileno() in ready:
            worker.take_replies(0.01)
            return pipe.recv()


def run(family, endpoint, seed, pipe):
    """The process. It says "ready" when all is as it must be, and works until it hears something."""
    # It ends with the test, however that ends.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    try:
        worker = Worker(family, endpoint, seed)
        pipe.send(("ready", None))
        while work(worker, pipe) == "killed":
            worker.connect()
            worker.check()
            pipe.send(("ready", None))
            worker.repeat()
        worker.finish()
        pipe.send(("done", (worker.acknowledged, worker.interrupted)))
    except Exception:  # pylint: disable=broad-except
        pipe.send(("failed", traceback.format_exc()))
