#!/usr/bin/python3
"""test_start.py EDM: a DMS that cannot start says why, in one line, and what to do; exit code 125."""
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

EDM = os.path.abspath(sys.argv.pop(1))
TIMEOUT_S = 60
CLONE_NEWNS = 0x20000
MS_REC_PRIVATE = 0x4000 | 0x40000
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
NOBODY = 65534
libc = ctypes.CDLL(None, use_errno=True)


def own_mounts():
    """In the child: mounts made from now on are its own."""
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None):
        os._exit(77)


def mount(source, target, kind, flags, data=None):
    if libc.mount(source.encode(), target.encode(), kind, flags, data):
        os._exit(77)


class TestStart(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="edm-start-")
        os.chmod(self.dir, 0o755)
        self.data = os.path.join(self.dir, "data")
        self.endpoint = f"ipc://{self.dir}/dms"
        self.running = []

    def tearDown(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait(TIMEOUT_S)
            process.stderr.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, *options, **more):
        command = [EDM, "--mode=dms", f"--data={self.data}", f"--listen={self.endpoint}", *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True, **more)
        self.running.append(process)
        return process

    def serve(self, *options):
        """A DMS that runs: it has a log file, and that says so."""
        log = os.path.join(self.dir, f"log{len(self.running)}")
        process = self.start(f"--log-file={log}", *options)
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self.assertIsNone(process.poll(), "it ended")
            if os.path.exists(log):
                with open(log, encoding="utf-8") as file:
                    if " serves " in file.read():
                        return process
            time.sleep(0.01)
        self.fail("it does not serve")

    def end(self, process, number=signal.SIGTERM):
        process.send_signal(number)
        self.assertEqual(process.wait(TIMEOUT_S), 0)

    def refused(self, *options, says, **more):
        """It ends with 125 and one line that has all of SAYS."""
        process = self.start(*options, **more)
        _, text = process.communicate(timeout=TIMEOUT_S)
        if process.returncode == 77:
            self.skipTest("no file system can be mounted here")
        self.assertEqual(process.returncode, 125, text)
        lines = text.splitlines()
        self.assertEqual(len(lines), 1, text)
        self.assertTrue(lines[0].startswith("edm: "), text)
        for part in says:
            self.assertIn(part, lines[0])

    def test_signals_end_it(self):
        for number in signal.SIGTERM, signal.SIGINT:
            self.end(self.serve(), number)

    def test_foreign_directory(self):
        os.mkdir(self.data)
        with open(os.path.join(self.data, "thesis.txt"), "w", encoding="utf-8") as file:
            file.write("precious")
        self.refused(says=[self.data, "not EDM's", "--data"])
        self.assertEqual(os.listdir(self.data), ["thesis.txt"])

    def test_empty_directory_of_a_fresh_file_system(self):
        os.makedirs(os.path.join(self.data, "lost+found"))
        self.end(self.serve())

    def test_not_a_directory(self):
        with open(self.data, "w", encoding="utf-8"):
            pass
        self.refused(says=[self.data, "not a directory"])

    def test_no_parent(self):
        self.data = os.path.join(self.dir, "a", "b")
        self.refused(says=[self.data, "make it first"])

    def test_in_use(self):
        running = self.serve()
        self.refused(f"--listen=ipc://{self.dir}/other",
                     says=[self.data, "in use by another DMS", str(running.pid)])
        self.end(running)
        self.end(self.serve())

    def test_other_number_of_shards(self):
        self.end(self.serve("--shards=2"))
        self.refused("--shards=3", says=["--shards=2", "--shards=3"])
        self.end(self.serve("--shards=2"))

    def store_file(self, text):
        with open(os.path.join(self.data, "edm-store"), "w", encoding="utf-8") as file:
            file.write(text)

    def test_other_format(self):
        self.end(self.serve())
        self.store_file("edm-store\nformat = 2\nshards = 1\n")
        self.refused(says=["format 2", "format 1"])
        self.store_file("edm-store\nformat = 1\nsha")
        self.refused(says=["edm-store", "damaged"])
        self.store_file("rubbish")
        self.refused(says=["edm-store", "damaged"])

    def test_damaged_shard_file(self):
        self.end(self.serve())
        with open(os.path.join(self.data, "shard-0", "shard"), "r+b") as file:
            file.seek(18)
            byte = file.read(1)[0]
            file.seek(18)
            file.write(bytes([byte ^ 0xff]))
        self.refused(says=["shard-0/shard", "damaged"])

    @unittest.skipIf(os.geteuid() != 0, "needs root to be another user")
    def test_no_permission(self):
        os.mkdir(self.data, 0o755)
        self.refused(says=[self.data, "no permission", str(NOBODY)], user=NOBODY, group=NOBODY)

    @unittest.skipIf(os.geteuid() != 0, "needs root to be another user")
    def test_ordinary_user(self):
        os.mkdir(self.data)
        os.chown(self.data, NOBODY, NOBODY)
        os.chown(self.dir, NOBODY, NOBODY)
        process = self.start(user=NOBODY, group=NOBODY)
        end = time.monotonic() + TIMEOUT_S
        while not os.path.exists(os.path.join(self.data, "shard-0", "manifest")):
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        self.end(process)

    @unittest.skipIf(os.geteuid() != 0, "needs root to mount")
    def test_read_only(self):
        os.mkdir(self.data)

        def prepare():
            own_mounts()
            mount(self.data, self.data, None, MS_BIND)
            mount(self.data, self.data, None, MS_BIND | MS_REMOUNT | MS_RDONLY)

        self.refused(says=[self.data, "read-only", "--data"], preexec_fn=prepare)

    @unittest.skipIf(os.geteuid() != 0, "needs root to mount")
    def test_full_disk(self):
        os.mkdir(self.data)

        def prepare():
            own_mounts()
            mount("tmpfs", self.data, b"tmpfs", 0, b"size=64k")

        self.refused(says=[self.data, "full", "--data"], preexec_fn=prepare)

    def test_capacity_too_small(self):
        self.refused("--capacity=1M", "--shards=8", says=["--capacity", "256 KiB"])

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            self.refused(f"--listen={endpoint}", says=[endpoint, "another process", "--listen"])

    def test_foreign_address(self):
        self.refused("--listen=tcp://192.0.2.1:7600", says=["192.0.2.1", "of this host"])
        self.refused("--listen=tcp://nosuchname.invalid:7600", says=["nosuchname", "of this host"])

    def test_too_many_ports(self):
        self.refused("--listen=tcp://127.0.0.1:65535", "--shards=2", says=["2", "65535"])

    def test_ipc_path_in_use(self):
        running = self.serve()
        self.data = os.path.join(self.dir, "other")
        self.refused(says=[self.endpoint, "another process", "--listen"])
        self.end(running)

    def test_ipc_path_is_a_file(self):
        with open(os.path.join(self.dir, "dms"), "w", encoding="utf-8") as file:
            file.write("precious")
        self.refused(says=["not a socket", "--listen"])
        with open(os.path.join(self.dir, "dms"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "precious")

    def test_ipc_directory_missing(self):
        self.refused(f"--listen=ipc://{self.dir}/no/dms", says=["cannot listen", "/no/dms"])

    def test_stale_socket_is_replaced(self):
        running = self.serve()
        running.kill()
        running.wait(TIMEOUT_S)
        self.assertTrue(os.path.exists(os.path.join(self.dir, "dms")))
        self.end(self.serve())


if __name__ == "__main__":
    unittest.main(verbosity=2)
