#!/usr/bin/python3
"""ended.py EDM BENCH: `bench/run`, ended at any moment by a signal, leaves nothing behind: no program, no
file, no swap, no loop device, no cgroup. Where there is no swap, without that part."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

EDM, BENCH = sys.argv[1:3]
# Bench.run(), and the signal at one moment of it.
WHILE_A_TIMER_STARTS = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
from lib.bench import Bench
from lib.ending import listen
class Timer(threading.Timer):
    def start(self):
        super().start()
        os.kill(os.getpid(), signal.SIGTERM)
threading.Timer = Timer
listen()
bench = Bench("edm", "name", 1, True, None)
try:
    bench.run(["sleep", "600"])
finally:
    bench.close()
"""
PATIENCE_S = 120


def processes_with(text):
    """Those that have it among their arguments or in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    if text.encode() in file.read() and int(pid) != os.getpid():
                        found.append(pid)
                        break
            except OSError:
                pass
    return found


def output(*words):
    return subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True).stdout


def groups(pid):
    """Cgroups that this run of the benchmarks has made."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        tops = [line.split()[1] for line in mounts if line.split()[2] in ("cgroup", "cgroup2")]
    return [top for top in tops if os.path.exists(f"{top}/edm-bench-{pid}")]


class Ended(unittest.TestCase):
    def setUp(self):
        # Swap must be on a disk: where /tmp is none, /var/tmp is.
        self.directory = tempfile.mkdtemp(prefix="edm-ended-", dir="/var/tmp")
        self.addCleanup(self.put_away)

    def put_away(self):
        """What a run should have done itself, too."""
        with open("/proc/swaps", encoding="ascii") as swaps:
            for path in (line.split()[0] for line in swaps if line.startswith(self.directory)):
                output("swapoff", path)
        shutil.rmtree(self.directory)

    def end_when(self, ready, names, number, send=os.kill):
        """Runs benchmarks, sends the signal when ready(what it printed, its pid) is true, and looks."""
        log = os.path.join(self.directory, "log")
        temporary = os.path.join(self.directory, "tmp")
        os.makedirs(temporary, exist_ok=True)
        with open(log, "wb") as file:
            run = subprocess.Popen(
                [f"{BENCH}/run", "--quick", f"--edm={EDM}", f"--results={self.directory}/results.json", *names],
                env=dict(os.environ, TMPDIR=temporary), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True)
        self.addCleanup(run.wait)
        self.addCleanup(run.kill)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with open(log, encoding="utf-8") as file:
                said = file.read()
            if ready(said, run.pid):
                break
            if "NOT MEASURED" in said:
                self.skipTest(said)
            self.assertIsNone(run.poll(), said)
            self.assertLess(time.monotonic(), deadline, said)
            time.sleep(0.01)
        # A second one changes nothing.
        for _ in range(2):
            send(run.pid, number)
        self.assertEqual(run.wait(PATIENCE_S), 128 + number)
        deadline = time.monotonic() + 10
        while (left := processes_with(self.directory)) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(left, [])
        self.assertEqual(os.listdir(temporary), [])
        self.assertNotIn(self.directory, output("cat", "/proc/swaps"))
        self.assertEqual(groups(run.pid), [])
        if os.geteuid() == 0:
            self.assertNotIn(self.directory, output("losetup", "--list", "--noheadings", "--output=BACK-FILE"))

    def test_while_a_timer_starts(self):
        done = subprocess.run(["/usr/bin/python3", "-B", "-c", WHILE_A_TIMER_STARTS, BENCH], timeout=PATIENCE_S,
                              env=dict(os.environ, TMPDIR=self.directory), stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 128 + signal.SIGTERM, done.stderr)
        self.assertEqual(os.listdir(self.directory), [])

    def test_while_programs_run(self):
        def ready(_, pid):
            words = output("ps", "-o", "args", "--ppid", str(pid), "--no-headers")
            return "--mode=dms" in words and "--mode=client" in words

        # As a terminal does: to all of them.
        self.end_when(ready, ["--no-swap", "sequential"], signal.SIGINT, os.killpg)

    def test_while_swap_is_used(self):
        def ready(_, pid):
            return f"edm-bench-{pid}" in output("ps", "-o", "cgroup", "--ppid", str(pid), "--no-headers")

        self.end_when(ready, ["redis"], signal.SIGTERM)

    def test_while_swap_is_used_at_a_terminal(self):
        self.end_when(lambda _, __: self.directory in output("cat", "/proc/swaps"), ["random"], signal.SIGINT,
                      os.killpg)

    def test_while_swap_is_made(self):
        def ready(_, __):
            return self.directory in output("cat", "/proc/swaps") or \
                "swap-file" in " ".join(name for _, _, names in os.walk(self.directory) for name in names)

        self.end_when(ready, ["budget"], signal.SIGHUP)


if __name__ == "__main__":
    result = unittest.main(argv=sys.argv[:1], exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if len(result.skipped) == result.testsRun else 0)
