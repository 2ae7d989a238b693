#!/usr/bin/python3
"""test_edm.py EDM: exit codes and error lines of the real binary."""
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

EDM = sys.argv[1]
WAIT_S = 60
LOG_LINE = (r"\[(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d\d "
            r"\d{4} \d\d:\d\d:\d\d\.\d{3}\]:\[(Debug|Info|Warn|Error|Fatal)\]-\[[^]]+\] - .*")


def edm(*words, **options):
    return subprocess.run([EDM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=WAIT_S, check=False, **options)


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="edm-test-")
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def fails(self, line, *words):
        """EDM ends with 125, LINE on standard error and nothing else."""
        done = edm(*words)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (125, "", line + "\n"))


class CommandLine(Case):
    def test_help_and_version(self):
        done = edm("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("Usage:\n"))
        done = edm("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^edm \d+\.\d+\.\d+\n$")

    def test_help_that_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([EDM, "--help"], stdout=full, timeout=WAIT_S, check=False)
        self.assertEqual(done.returncode, 125)

    def test_bad_options(self):
        self.fails("edm: no --mode: client, dms, check, limit or status (see edm --help)")
        self.fails("edm: bad value 'evacuate' for --mode: client, dms, check, limit or status", "--mode=evacuate")
        self.fails("edm: unknown option --locl: see edm --help",
                   "--mode=client", "--locl=1G", "--", "true")
        self.fails("edm: bad value '12Q' for --local: a size such as 256M, 2G or 50%, at least 16M",
                   "--mode=client", "--local", "12Q", "--", "true")
        for size in ("255K", "1025K"):
            self.fails(f"edm: bad value '{size}' for --max-request: a size from 256K to 1M",
                       "--mode=dms", f"--max-request={size}")
        self.fails("edm: no program to run: edm --mode=client [options] -- PROG ARGS",
                   "--mode=client")
        self.fails("edm: bad value 'tcp://127.0.0.1' for --listen: no port: tcp://HOST:PORT or "
                   "ipc://PATH", "--mode=dms", "--listen=tcp://127.0.0.1")

    def test_bad_file(self):
        ini = self.path("edm.ini")
        with open(ini, "w", encoding="utf-8") as file:
            file.write("[client]\nlow_threshold = 90\n\n[dms]\nshard = 3\n")
        self.fails(f"edm: {ini}:5: unknown key 'shard' in [dms]: known keys are listen, data, "
                   "capacity, shards, start_addr, max_connections, max_regions, region_capacity, "
                   "max_request, durability, sync_interval, scrub_rate",
                   "--mode=client", f"--config={ini}", "--", "true")
        self.fails(f"edm: cannot read {ini}x: No such file or directory",
                   "--mode=dms", "--config", ini + "x")

    def test_log_that_cannot_be_written(self):
        self.fails(f"edm: cannot write the log to {self.dir.name}: Is a directory", "--mode=client",
                   f"--log-file={self.dir.name}", "--", "true")

    def test_line_breaks(self):
        """What is wrong is said in one line, whatever is in the value."""
        self.fails("edm: bad value 'a b' for --region: 1 to 128 letters, digits or any of . _ : @ + -",
                   "--mode=client", "--region=a\nb", "--", "true")
        self.fails("edm: cannot write the log to /no/such dir/x: No such file or directory",
                   "--mode=client", "--log-file=/no/such\ndir/x", "--", "true")
        self.fails("edm: cannot write /no/such dir/x (--stats): No such file or directory",
                   "--mode=client", "--stats=/no/such\ndir/x", "--", "true")
        self.fails("edm: cannot read /no/such dir/x: No such file or directory",
                   "--mode=client", "--config=/no/such\ndir/x", "--", "true")

    def test_statistics_that_cannot_be_written(self):
        self.fails("edm: cannot write /no/such/dir/x (--stats): No such file or directory",
                   "--mode=client", "--stats=/no/such/dir/x", "--", "true")
        self.fails(f"edm: cannot write {self.dir.name} (--stats): Is a directory",
                   "--mode=client", f"--stats={self.dir.name}", "--", "true")


class Client(Case):
    def run_client(self, *words, **options):
        return edm("--mode=client", "--local=64M", f"--log-file={self.path('log')}", "--", *words,
                   **options)

    def test_status_of_the_program(self):
        for status in (0, 1, 7, 125, 255):
            self.assertEqual(self.run_client("/bin/sh", "-c", f"exit {status}").returncode, status)

    def test_program_ended_by_a_signal(self):
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV):
            done = self.run_client("/bin/sh", "-c", f"kill -{int(number)} $$")
            self.assertEqual(done.returncode, 128 + number)

    def test_standard_streams_are_the_programs(self):
        done = self.run_client("/bin/sh", "-c", "cat; echo err >&2", input="in\n")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "in\n", "err\n"))

    def test_program_that_cannot_be_run(self):
        done = self.run_client(self.path("none"))
        self.assertEqual((done.returncode, done.stdout), (127, ""))
        self.assertRegex(done.stderr, rf"^edm: .*{self.path('none')}.*\n$")
        with open(self.path("plain"), "w", encoding="utf-8"):
            pass
        done = self.run_client(self.path("plain"))
        self.assertEqual((done.returncode, done.stdout), (126, ""))
        self.assertRegex(done.stderr, rf"^edm: .*{self.path('plain')}.*\n$")

    def test_terminal_has_the_log(self):
        """Where standard error is a terminal and no file is given, the log goes there."""
        master, slave = pty.openpty()
        try:
            done = subprocess.run([EDM, "--mode=client", "--local=64M", "--log-level=debug", "--",
                                   "true"], stderr=slave, timeout=WAIT_S, check=False)
            os.close(slave)
            text = read_all(master)
        finally:
            os.close(master)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(text, LOG_LINE)


def read_all(fd):
    text = b""
    try:
        while data := os.read(fd, 65536):
            text += data
    except OSError:
        pass  # the other side of a terminal is closed
    return text.decode()


class Dms(Case):
    def start(self, *words):
        dms = subprocess.Popen([EDM, "--mode=dms", f"--log-file={self.path('log')}", *words],
                               stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop, dms)
        return dms

    @staticmethod
    def stop(dms):
        dms.kill()
        dms.wait()
        dms.stderr.close()

    def test_orderly_end(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            endpoint = self.path(f"ep-{int(number)}")
            dms = self.start(f"--listen=ipc://{endpoint}", f"--data={self.path('data')}",
                             "--shards=2", "--capacity=64M")
            deadline = time.monotonic() + WAIT_S
            while (not os.path.exists(endpoint + ".1") and dms.poll() is None
                   and time.monotonic() < deadline):
                time.sleep(0.02)
            dms.send_signal(number)
            self.assertEqual(dms.wait(WAIT_S), 0)
            self.assertEqual(dms.stderr.read(), "")
        with open(self.path("log"), encoding="utf-8") as log:
            lines = log.read().splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertTrue(re.fullmatch(LOG_LINE, line), line)

    def test_bad_data_directory(self):
        with open(self.path("file"), "w", encoding="utf-8"):
            pass
        dms = self.start(f"--listen=ipc://{self.path('ep')}", f"--data={self.path('file')}")
        self.assertEqual(dms.wait(WAIT_S), 125)
        self.assertRegex(dms.stderr.read(), rf"^edm: .*{self.path('file')}.*\n$")


unittest.main(argv=sys.argv[:1])
