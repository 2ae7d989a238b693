"""What the tests of EDM's life and death share. Each is called TEST EDM TOOLS.

Processes started here end with the test, whatever ends it; files are in a directory of the test's own.
"""
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

EDM = os.path.realpath(sys.argv[1])
TOOLS = os.path.realpath(sys.argv[2])
# Sanitized builds are slow.
WAIT_S = 60
END_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]
# For when the test is killed and cannot remove its files: a process that is not its child.
JANITOR = """(setsid sh -c 'tail --pid=$1 -f /dev/null; sleep 3; rm -rf "$2"' sh $1 "$2" \\
    </dev/null >/dev/null 2>&1 &)"""
# For programs in Python: a block of memory in which every page is another, and the check of it.
FILL = """
import os
def fill(seed, mib=64):
    block = bytearray(mib << 20)
    for at in range(0, len(block), 4096):
        block[at:at + 8] = (seed * 1000003 + at).to_bytes(8, "little")
    return block
def check(block, seed):
    for at in range(0, len(block), 4096):
        found = int.from_bytes(block[at:at + 8], "little")
        assert found == seed * 1000003 + at, f"{os.getpid()}: {at:#x}: {found} for seed {seed}"
"""


def make_root():
    root = tempfile.mkdtemp(prefix="edm-run-")
    os.chmod(root, 0o755)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    subprocess.run(["sh", "-c", JANITOR, "sh", str(os.getpid()), root], check=True)
    return root


ROOT = make_root()


def tool(name):
    return os.path.join(TOOLS, name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds=WAIT_S):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    return condition()


def parent_and_state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None, "gone"
    return int(fields[1]), fields[0]


def is_alive(pid):
    return parent_and_state(pid)[1] not in ("gone", "Z", "X")


def stop(pid):
    """SIGSTOP, and waits until it holds: each thread goes on until it gets a processor to stop on."""
    os.kill(pid, signal.SIGSTOP)
    tasks = f"/proc/{pid}/task"
    assert wait_until(lambda: all(parent_and_state(f"{pid}/task/{tid}")[1] in "TZ" for tid in os.listdir(tasks)))


def children_of(pid):
    return [int(name) for name in os.listdir("/proc")
            if name.isdigit() and parent_and_state(name)[0] == pid]


def family_of(pid):
    """All descendants."""
    found = children_of(pid)
    for child in list(found):
        found += family_of(child)
    return found


def exe_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def program_of(edm_pid):
    """The program that an edm runs: its child that is not edm itself, or None."""
    for pid in children_of(edm_pid):
        exe = exe_of(pid)
        if exe and exe != exe_of(edm_pid) and is_alive(pid):
            return pid
    return None


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(dir=ROOT)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        os.chmod(self.dir, 0o755)
        # EDM's own temporary files, and nothing else.
        self.tmp = self.path("tmp")
        os.mkdir(self.tmp)
        os.chmod(self.tmp, 0o1777)
        self.environ = dict(os.environ, TMPDIR=self.tmp, LC_ALL="C")

    def path(self, name):
        return os.path.join(self.dir, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8", errors="replace") as file:
            return file.read()

    def start(self, *words, **options):
        options.setdefault("env", self.environ)
        process = subprocess.Popen(END_WITH_US + list(words), **options)
        self.addCleanup(self.stop, process)
        return process

    @staticmethod
    def stop(process):
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    def client_words(self, *words, options=()):
        return [EDM, "--mode=client", f"--log-file={self.path('log')}", f"--stats={self.path('stats')}",
                *([] if any(o.startswith("--local") for o in options) else ["--local=64M"]),
                *options, "--", *words]

    def start_client(self, *words, options=(), **more):
        return self.start(*self.client_words(*words, options=options), **more)

    def run_client(self, *words, options=(), **more):
        """Runs to the end; nothing may be left of it."""
        more.setdefault("env", self.environ)
        more.setdefault("stdin", subprocess.DEVNULL)
        if "input" in more:
            del more["stdin"]
        if isinstance(more.get("input"), str):
            more["text"] = True
        more.setdefault("timeout", WAIT_S)
        done = subprocess.run(END_WITH_US + self.client_words(*words, options=options),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **more)
        self.assert_no_files()
        return done

    def start_dms(self, name="dms", port=None):
        port = port or free_port()
        dms = self.start(EDM, "--mode=dms", f"--listen=tcp://127.0.0.1:{port}",
                         f"--data={self.path(name)}", f"--log-file={self.path(name + '.log')}")

        def answers():
            self.assertIsNone(dms.poll(), "the DMS has ended")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        self.assertTrue(wait_until(answers), "the DMS does not answer")
        return dms, port

    def figures(self):
        with open(self.path("stats"), encoding="utf-8") as file:
            return json.load(file)

    def wait_for_program(self, client, needs_paging=False):
        """Waits until the program runs (and pages went out, if asked) and returns its pid."""
        def runs():
            self.assertIsNone(client.poll(), "edm has ended")
            return program_of(client.pid)
        pid = wait_until(runs)
        self.assertTrue(pid, "no program was started")
        if needs_paging:
            def paged():
                self.assertIsNone(client.poll(), "edm has ended")
                return os.path.exists(self.path("stats")) and self.figures()["pages_put"] > 1000
            self.assertTrue(wait_until(paged), "no pages went out")
        return pid

    def files(self):
        return os.listdir(self.tmp)

    def assert_no_files(self):
        self.assertEqual(self.files(), [])

    def assert_all_gone(self, pids, seconds):
        """The processes end and the files go within so many seconds."""
        def gone():
            return not any(is_alive(pid) for pid in pids) and not self.files()
        begun = time.monotonic()
        if not wait_until(gone, seconds):
            alive = {pid: exe_of(pid) for pid in pids if is_alive(pid)}
            later = wait_until(gone, 10)
            self.fail(f"after {seconds} s there were still {alive} and {self.files()}; "
                      f"{'gone' if later else 'not gone'} after {time.monotonic() - begun:.1f} s")


def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)


__all__ = ["EDM", "FILL", "TOOLS", "WAIT_S", "Case", "children_of", "exe_of", "family_of", "free_port", "is_alive", "main",
           "program_of", "signal", "stop", "tool", "wait_until"]
