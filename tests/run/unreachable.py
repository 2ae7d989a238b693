#!/usr/bin/python3
"""unreachable.py EDM TOOLS: what a client does when its DMS is not there, is no DMS, or goes for good."""
import os
import random
import re
import socket
import subprocess
import threading
import time

from harness import Case, free_port, main, signal, tool, wait_until, WAIT_S


class Garbage:
    """A server that answers each connection with bytes that mean nothing, or with nothing."""

    def __init__(self, bytes_to_say):
        self.bytes_to_say = bytes_to_say
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.connections = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                connection, _ = self.server.accept()
                self.connections.append(connection)
                connection.sendall(self.bytes_to_say)
        except OSError:
            pass  # closed, or the peer went

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for connection in self.connections:
            connection.close()


class Unreachable(Case):
    def start_timed(self, port, wait_s):
        self.begun = time.monotonic()
        return self.start_client("sh", "-c", f"echo ran >{self.path('ran')}",
                                 options=[f"--dms=tcp://127.0.0.1:{port}", f"--wait={wait_s}"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def assert_ends(self, client, wait_s, place):
        """It ends with 125 after the wait, with a line that names the place; no program was run."""
        self.assertEqual(client.wait(WAIT_S), 125)
        took = time.monotonic() - self.begun
        self.assertGreater(took, wait_s * 0.8)
        self.assertLess(took, wait_s + 10)
        self.assertEqual(client.stdout.read(), "")
        lines = client.stderr.read().splitlines()
        self.assertTrue(lines and all(line.startswith("edm: ") for line in lines), lines)
        self.assertIn(place, lines[-1])
        self.assertFalse(os.path.exists(self.path("ran")))
        self.assert_no_files()

    def test_says_so_at_once(self):
        port = free_port()
        client = self.start_timed(port, 4)
        pattern = re.compile(rf"\[(Warn|Error)\].*tcp://127\.0\.0\.1:{port}")
        self.assertTrue(wait_until(lambda: os.path.exists(self.path("log")) and
                                   pattern.search(self.read("log")), 3), "it does not say so at once")
        self.assertIsNone(client.poll())
        self.assert_ends(client, 4, f"tcp://127.0.0.1:{port}")

    def test_one_of_three(self):
        others = [self.start_dms(f"dms{i}")[1] for i in range(2)]
        port = free_port()
        self.begun = time.monotonic()
        endpoints = ",".join(f"tcp://127.0.0.1:{p}" for p in (others[0], port, others[1]))
        client = self.start_client("true", options=[f"--dms={endpoints}", "--wait=2"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assert_ends(client, 2, f"tcp://127.0.0.1:{port}")

    def test_comes_up_in_time(self):
        port = free_port()
        client = self.start_timed(port, 30)
        self.assertFalse(wait_until(lambda: client.poll() is not None, 1))
        self.start_dms(port=port)
        self.assertEqual(client.wait(WAIT_S), 0, client.stderr.read())
        self.assertTrue(os.path.exists(self.path("ran")))

    def test_no_such_host(self):
        client = self.start_client("true", options=["--dms=tcp://no-such-host.invalid:7600", "--wait=1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(client.wait(WAIT_S), 125)
        self.assertIn("no-such-host.invalid", client.stderr.read())

    def test_interrupted_while_it_waits(self):
        client = self.start_timed(free_port(), 60)
        time.sleep(1)
        client.send_signal(signal.SIGTERM)
        self.assertNotEqual(client.wait(10), 0)
        self.assert_no_files()

    def wrong_peer(self, bytes_to_say):
        server = Garbage(bytes_to_say)
        self.addCleanup(server.close)
        client = self.start_timed(server.port, 2)
        self.assert_ends(client, 2, f"tcp://127.0.0.1:{server.port}")

    def test_wrong_peer(self):
        self.wrong_peer(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)

    def test_peer_that_talks_garbage(self):
        self.wrong_peer(random.Random(1).randbytes(100000))

    def test_silent_peer(self):
        self.wrong_peer(b"")


class Gone(Case):
    def test_for_good(self):
        """The program is held, not fed wrong bytes, and ended when the wait is over."""
        dms, port = self.start_dms()
        client = self.start_client(tool("verify"), "--size=256M", "--threads=2", "--seconds=60",
                                   options=[f"--dms=tcp://127.0.0.1:{port}", "--wait=2",
                                            "--stats-interval=50"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.wait_for_program(client, needs_paging=True)
        dms.kill()
        self.assertEqual(client.wait(WAIT_S), 125)
        self.assertEqual(client.stdout.read(), "")
        lines = client.stderr.read().splitlines()
        self.assertTrue(lines and all(line.startswith("edm: ") for line in lines), lines)
        self.assertIn(f"tcp://127.0.0.1:{port}", lines[-1])
        self.assert_no_files()

    def test_lost_its_pages(self):
        """A DMS that comes back without the pages: they are missed, and no zeros take their place."""
        dms, port = self.start_dms()
        client = self.start_client(tool("verify"), "--size=256M", "--threads=2", "--seconds=60",
                                   options=[f"--dms=tcp://127.0.0.1:{port}", "--wait=5",
                                            "--stats-interval=50"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.wait_for_program(client, needs_paging=True)
        dms.kill()
        dms.wait()
        self.start_dms("empty", port=port)
        status, errors = client.wait(WAIT_S), client.stderr.read()
        self.assertEqual((status, client.stdout.read()), (125, ""), errors)
        self.assertNotIn("expected", errors)
        self.assert_no_files()


if __name__ == "__main__":
    main()
