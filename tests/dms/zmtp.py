"""ZMTP 3.0 by hand, for peers that break its rules: a socket of the kernel and the bytes on it."""
import socket
import struct

MORE, LONG, COMMAND = 1, 2, 4


def connect(endpoint, timeout_s=5.0):
    """A connection to tcp://HOST:PORT or ipc://PATH on which nothing was said yet."""
    kind, place = endpoint.split("://")
    if kind == "ipc":
        family, address = socket.AF_UNIX, place
    else:
        host, port = place.rsplit(":", 1)
        family, address = socket.AF_INET, (host, int(port))
    plain = socket.socket(family)
    try:
        plain.settimeout(timeout_s)
        plain.connect(address)
    except OSError:
        plain.close()
        raise
    return plain


def greeting(major=3, mechanism=b"NULL"):
    return (b"\xff" + bytes(8) + b"\x7f" + bytes([major, 0]) + mechanism.ljust(20, b"\0")
            + b"\0" + bytes(31))


def frame(body, flags=0):
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body


def ready(kind=b"DEALER", identity=b""):
    def put(name, value):
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return frame(b"\x05READY" + put(b"Socket-Type", kind) + put(b"Identity", identity), COMMAND)


def take(plain, length):
    got = b""
    while len(got) < length:
        more = plain.recv(length - len(got))
        if not more:
            raise ConnectionError("closed")
        got += more
    return got


def shake_hands(endpoint):
    """A connection that is a DEALER's, as far as the server can see."""
    plain = connect(endpoint)
    try:
        plain.sendall(greeting())
        take(plain, 64)
        plain.sendall(ready())
        flags, length = take(plain, 2)
        if flags != COMMAND or not take(plain, length).startswith(b"\x05READY"):
            raise ConnectionError("no READY")
    except OSError:
        plain.close()
        raise
    return plain
