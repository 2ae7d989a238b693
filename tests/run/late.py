#!/usr/bin/python3
"""late.py EDM TOOLS: the DMS hears of things in another order than they were said: what goes over one
connection overtakes what goes over another."""
import heapq
import os
import sys
import threading
import time

import msgpack
import zmq

from harness import Case, main, tool

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire

LATE_S = 0.02


class LateGets:
    """Stands between clients and a DMS, and lets every PAGE_GET wait."""

    def __init__(self, port):
        self.dms = f"tcp://127.0.0.1:{port}"
        self.context = zmq.Context()
        self.front = self.context.socket(zmq.ROUTER)
        self.port = self.front.bind_to_random_port("tcp://127.0.0.1")
        self.clients = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def back(self, poller, identity):
        if identity not in self.clients:
            socket = self.context.socket(zmq.DEALER)
            socket.connect(self.dms)
            poller.register(socket, zmq.POLLIN)
            self.clients[identity] = socket
        return self.clients[identity]

    def serve(self):
        poller = zmq.Poller()
        poller.register(self.front, zmq.POLLIN)
        late = []
        count = 0
        while not self.ended.is_set():
            wait_s = late[0][0] - time.monotonic() if late else 0.1
            ready = dict(poller.poll(max(0, int(wait_s * 1000) + 1)))
            while late and late[0][0] <= time.monotonic():
                _, _, socket, frames = heapq.heappop(late)
                socket.send_multipart(frames)
            if self.front in ready:
                identity, *frames = self.front.recv_multipart()
                socket = self.back(poller, identity)
                if msgpack.unpackb(frames[0])[1] == wire.PAGE_GET:
                    count += 1
                    heapq.heappush(late, (time.monotonic() + LATE_S, count, socket, frames))
                else:
                    socket.send_multipart(frames)
            for identity, socket in self.clients.items():
                if socket in ready:
                    self.front.send_multipart([identity] + socket.recv_multipart())

    def close(self):
        self.ended.set()
        self.thread.join()
        self.context.destroy(linger=0)


class Late(Case):
    def test_pages_given_up_while_they_are_asked_for(self):
        """The DMS has dropped them when it is asked: that is no loss, and the others come."""
        _, port = self.start_dms()
        late = LateGets(port)
        self.addCleanup(late.close)
        done = self.run_client(tool("giveup"), options=[f"--dms=tcp://127.0.0.1:{late.port}"])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"giveup: ok\n", b""))
        figures = self.figures()
        self.assertGreater(figures["faults"]["remote"], 100)


if __name__ == "__main__":
    main()
