"""What test_flood.py sends: each attack is one connection's life, from connecting to its end."""
import random
import socket
import struct
import time

import edm_wire as wire
import zmtp

LONGEST_S = 1.0


def send_for(plain, data, seconds=LONGEST_S):
    """The same bytes again and again, taking no answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        plain.sendall(data)


def request(method, params, number=1, version=wire.VERSION):
    return wire.msgpack.packb([version, method, number, 0, params])


def message(*frames):
    return b"".join(zmtp.frame(frame, zmtp.MORE if i + 1 < len(frames) else 0)
                    for i, frame in enumerate(frames))


class Attacks:
    def __init__(self, endpoint, frozen, seed):
        self.endpoint = endpoint
        self.frozen = frozen
        self.random = random.Random(seed)

    # Before ZMTP

    def connect_and_go(self):
        for _ in range(self.random.randrange(1, 20)):
            zmtp.connect(self.endpoint).close()

    def raw_garbage(self):
        with zmtp.connect(self.endpoint) as plain:
            for _ in range(20):
                plain.sendall(self.random.randbytes(self.random.choice([1, 64, 5000, 200000])))

    def silence(self):
        with zmtp.connect(self.endpoint) as plain:
            plain.sendall(zmtp.greeting()[:self.random.randrange(64)])
            time.sleep(self.random.random() * LONGEST_S)

    def strange_greeting(self):
        with zmtp.connect(self.endpoint) as plain:
            plain.sendall(zmtp.greeting(self.random.randrange(256),
                                        self.random.choice([b"NULL", b"PLAIN", b"CURVE", b"X"])))
            plain.sendall(self.random.randbytes(3000))
            time.sleep(0.05)

    def old_peer(self):
        """ZMTP 1.0 and 2.0: a length and flags."""
        with zmtp.connect(self.endpoint) as plain:
            plain.sendall(b"\xff" + bytes(7) + b"\x01\x7f" + bytes([1, 5]) + b"\0\0")
            send_for(plain, b"\x01\x05" + b"\0\x01x" * 100, 0.2)

    # ZMTP, but not what it is for

    def random_frames(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            for _ in range(200):
                body = self.random.randbytes(self.random.choice([0, 1, 40, 300, 70000]))
                plain.sendall(zmtp.frame(body, self.random.choice([0, 0, 1, 1, 4, 8, 0xf0])))

    def huge_frame(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            length = self.random.choice([2 << 20, 1 << 32, 1 << 62, (1 << 64) - 1])
            plain.sendall(bytes([zmtp.LONG]) + struct.pack(">Q", length))
            send_for(plain, bytes(65536), 0.2)

    def large_frames_cut_off(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            plain.sendall(bytes([zmtp.LONG]) + struct.pack(">Q", 1 << 20) + bytes(500000))
            time.sleep(self.random.random() * 0.2)

    def endless_small(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            send_for(plain, zmtp.frame(b"", zmtp.MORE) * 30000)

    def endless_large(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            send_for(plain, zmtp.frame(bytes(60000), zmtp.MORE))

    def many_frames(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            send_for(plain, zmtp.frame(b"x", zmtp.MORE) * 3000 + zmtp.frame(b"end"))

    def commands(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            ping = zmtp.frame(b"\x04PING\0\0" + self.random.randbytes(16), zmtp.COMMAND)
            send_for(plain, ping * 100, 0.2)
            plain.sendall(zmtp.frame(b"\x05ERROR\xff" + bytes(60), zmtp.COMMAND))

    def pings_unread(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ping = zmtp.frame(b"\x04PING\0\0" + self.random.randbytes(16), zmtp.COMMAND)
            send_for(plain, ping * 1000)

    # Messages that are no requests, and requests that are not right

    def garbage_messages(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            for _ in range(300):
                frames = [self.random.randbytes(self.random.choice([0, 1, 30, 3000, 40000]))
                          for _ in range(self.random.randint(1, 4))]
                plain.sendall(message(*frames))

    def truncated_requests(self):
        whole = request(wire.PAGE_GET, [self.frozen, 1, [[0, 64], [100, 3]]])
        with zmtp.shake_hands(self.endpoint) as plain:
            for end in range(len(whole)):
                plain.sendall(message(whole[:end]))

    def wrong_versions(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            for version in (0, 2, 3, 255, 1 << 40):
                plain.sendall(message(request(wire.STAT, [0], version=version)))
                plain.sendall(message(request(self.random.randrange(256), [0])))

    def out_of_order(self):
        body = bytes(wire.PAGE_BYTES)
        put = request(wire.PAGE_PUT, [self.frozen, 1,
                                      [[1, 9, wire.RAW, len(body), wire.checksum(1, body)]]])
        reply = wire.msgpack.packb([1, wire.PAGE_GET, 1, 0, "", [[]]])
        with zmtp.shake_hands(self.endpoint) as plain:
            for frames in ((body, put), (put,), (put, body + body), (put, b""), (reply,),
                           (put, body, body), (b"", put, body), (put, body)) * 20:
                plain.sendall(message(*frames))

    def twice_the_same(self):
        with zmtp.shake_hands(self.endpoint) as plain:
            send_for(plain, message(request(wire.LIST, [""])) * 20, 0.3)

    def never_reads(self):
        """A megabyte in answer to each."""
        with zmtp.shake_hands(self.endpoint) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            get = message(request(wire.PAGE_GET, [self.frozen, 1, [[0, 256]]]))
            for _ in range(int(LONGEST_S / 0.01)):
                plain.sendall(get * 5)
                time.sleep(0.01)

    def all(self):
        return [getattr(self, name) for name in sorted(vars(Attacks))
                if not name.startswith("_") and name not in ("all", "live")]

    def live(self, done, stop):
        """One connection after the other until STOP; counts in DONE by the place in all()."""
        attacks = self.all()
        while not stop.is_set():
            which = self.random.randrange(len(attacks))
            try:
                attacks[which]()
            except OSError:
                pass  # The server has closed the connection: it may.
            done[which] += 1
