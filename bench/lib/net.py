"""A slow network: the loopback of a network namespace of its own, with a token bucket."""
import ctypes
import os
import shutil
import subprocess

from lib.bench import Missing

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def call(function, *words):
    if function(*words) != 0:
        raise Missing(f"{function.__name__}: {os.strerror(ctypes.get_errno())}")


class SlowNetwork:
    """While it is entered this thread, and every program it starts, has no other network. It is gone when the
    last of them has ended."""

    def __init__(self, mbit):
        self.mbit = mbit
        self.own = None

    def __enter__(self):
        if not shutil.which("tc"):
            raise Missing("no tc (package iproute2)")
        self.own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            call(LIBC.unshare, CLONE_NEWNET)
            rate = f"tc qdisc add dev lo root tbf rate {self.mbit}mbit burst 70k latency 50ms"
            done = subprocess.run(["sh", "-c", f"ip link set lo up && {rate}"], stderr=subprocess.PIPE, text=True,
                                  check=False)
            if done.returncode != 0:
                raise Missing(f"no slow network: {done.stderr.strip()}")
        except Missing:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        call(LIBC.setns, self.own, CLONE_NEWNET)
        os.close(self.own)
