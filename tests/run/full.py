#!/usr/bin/python3
"""full.py EDM TOOLS: a DMS at one of its limits holds the program, which goes on when there is room, and
is ended when there is none in time."""
import os
import subprocess
import sys

from harness import EDM, Case, free_port, main, socket, tool, wait_until, WAIT_S

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire

MIB_PAGES = 256


class Full(Case):
    def start_limited(self, *options):
        port = free_port()
        dms = self.start(EDM, "--mode=dms", f"--listen=tcp://127.0.0.1:{port}",
                         f"--data={self.path('data')}", f"--log-file={self.path('dms.log')}", *options)

        def answers():
            self.assertIsNone(dms.poll(), "the DMS has ended")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        self.assertTrue(wait_until(answers))
        return f"tcp://127.0.0.1:{port}"

    def connect(self, endpoint):
        client = wire.Client(endpoint, "other", timeout_s=WAIT_S)
        self.addCleanup(client.close)
        return client

    def start_verify(self, endpoint, wait_s):
        return self.start_client(tool("verify"), "--size=64M", "--threads=2", "--seconds=3",
                                 options=[f"--dms={endpoint}", "--local=16M", f"--wait={wait_s}"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_log(self, client, text):
        def said():
            self.assertIsNone(client.poll(), "edm has ended")
            return os.path.exists(self.path("log")) and text in self.read("log")
        self.assertTrue(wait_until(said), f"the log does not say: {text}")

    def assert_right(self, client, says=""):
        """SAYS: what a line on standard error may say; without it there is none."""
        out, err = client.communicate(timeout=WAIT_S)
        others = [line for line in err.splitlines() if not says or says not in line]
        self.assertEqual((client.returncode, others), (0, []))
        self.assertIn("verify: ok", out)

    def assert_ended(self, client, text, nlines=1):
        out, err = client.communicate(timeout=WAIT_S)
        self.assertEqual(client.returncode, 125)
        self.assertNotIn("verify: ok", out)
        self.assertEqual(len(err.splitlines()), nlines, err)
        self.assertIn(text, err.splitlines()[-1])

    def fill(self, other, mib):
        """Takes room in the store for another region."""
        region, epoch, _ = other.open("other", 1)
        for first in range(0, mib * MIB_PAGES, MIB_PAGES):
            other.put(region, epoch, [(page, 1, wire.RAW, bytes([page % 250 + 1]) * wire.PAGE_BYTES)
                                      for page in range(first, first + MIB_PAGES)])
        return region, epoch

    def test_goes_on_when_there_is_room(self):
        endpoint = self.start_limited("--capacity=96M")
        other = self.connect(endpoint)
        region, epoch = self.fill(other, 80)
        client = self.start_verify(endpoint, WAIT_S)
        self.wait_for_log(client, "is full: the program waits for room (the store is full")
        other.remove(region, epoch)
        self.assert_right(client)

    def test_ended_when_there_is_none(self):
        endpoint = self.start_limited("--region-capacity=16M")
        self.assert_ended(self.start_verify(endpoint, 2), "the region is full (--region-capacity)")
        self.assertIn("--region-capacity", self.read("dms.log"))

    def test_too_many_regions(self):
        endpoint = self.start_limited("--max-regions=1")
        self.fill(self.connect(endpoint), 1)
        self.assert_ended(self.start_verify(endpoint, 2), "no further regions (--max-regions)")

    def test_too_many_connections(self):
        endpoint = self.start_limited("--max-connections=4")
        others = [self.connect(endpoint) for _ in range(4)]
        for other in others:
            other.hello()
        # The first line says that it tries.
        self.assert_ended(self.start_verify(endpoint, 1), "too many connections", 2)
        client = self.start_verify(endpoint, WAIT_S)
        self.wait_for_log(client, "too many connections")
        for other in others:
            other.close()
        self.assert_right(client, "yet: trying for")

    def test_small_requests(self):
        endpoint = self.start_limited("--max-request=256K")
        self.assert_right(self.start_verify(endpoint, WAIT_S))


if __name__ == "__main__":
    main()
