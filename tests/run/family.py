#!/usr/bin/python3
"""family.py EDM TOOLS: programs that start others, which are managed with them: shells, make, Python's
subprocess and multiprocessing, daemons; what a child has from its parent; deaths in any order."""
import collections
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

from harness import FILL, Case, children_of, exe_of, family_of, is_alive, main, stop, tool, wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "proto"))
import edm_wire as wire  # noqa: E402

PYTHON = "/usr/bin/python3"
GONE_S = 5  # bench/deaths measures how long it takes; here nothing may depend on how busy the machine is
LONG_S = 240  # many processes on few processors
LOCAL = "--local=24M"
# Most of such a block has to be outside.
BLOCK = FILL + """
import random, signal, subprocess, sys, time
def say(path, words):
    with open(path + ".new", "w") as file:
        file.write(words)
    os.rename(path + ".new", path)
"""


class Family(Case):
    def run_python(self, code, *words, options=(), timeout=LONG_S):
        done = self.run_client(PYTHON, "-c", BLOCK + code, *words, options=[LOCAL, *options], text=True,
                               timeout=timeout, cwd=self.dir)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def start_python(self, code, *words, options=()):
        return self.start_client(PYTHON, "-c", BLOCK + code, *words, options=[LOCAL, *options], cwd=self.dir,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_for_file(self, name):
        self.assertTrue(wait_until(lambda: os.path.exists(self.path(name)), LONG_S), f"no {name}")
        return self.read(name)


class Programs(Family):
    def same_as_natively(self, *words, options=()):
        natively = subprocess.run(words, stdout=subprocess.PIPE, cwd=self.dir, check=True, text=True)
        done = self.run_client(*words, options=[LOCAL, *options], text=True, cwd=self.dir,
                               timeout=LONG_S)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, natively.stdout)
        return self.figures()

    def test_pipeline(self):
        figures = self.same_as_natively(
            "sh", "-c", "seq 400000 | sed 's/$/ some words on a line/' | sort -S 64M --parallel=1 -r |"
            " (cat; echo end) | tee copy | cksum; cksum <copy; cat /no/such/file 2>/dev/null || echo none")
        self.assertGreaterEqual(figures["images"], 5)
        by_name = {process["name"]: process for process in figures["processes"]}
        self.assertGreaterEqual(set(by_name), {"sh", "seq", "sed", "sort", "cat", "tee", "cksum"})
        self.assertGreater(by_name["sort"]["pages_evicted"], 1000)
        self.assertEqual(by_name["seq"]["pages_evicted"], 0)
        self.assertGreater(figures["pages_put"], 1000)

    def test_make(self):
        with open(self.path("Makefile"), "w", encoding="utf-8") as file:
            file.write("all: $(patsubst %,p%,1 2 3 4 5 6)\n\t@for p in $^; do ./$$p; done\n"
                       "p%: p%.c\n\t@$(CC) -O2 -g -o $@ $<\n")
        for number in range(1, 7):
            with open(self.path(f"p{number}.c"), "w", encoding="utf-8") as file:
                file.write('#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n')
                for i in range(150):
                    file.write(f"int f{i}(int x) {{ char b[64]; snprintf(b, 64, \"%d\", x * {i}); "
                               f"return atoi(b) % {number + i + 1} + (int)strlen(b); }}\n")
                calls = " + ".join(f"f{i}({i * number})" for i in range(150))
                file.write(f'int main(void) {{ printf("%d\\n", {calls}); return 0; }}\n')
        figures = self.same_as_natively("sh", "-c", "make -s clean 2>/dev/null; rm -f p?; make -s -j4")
        self.assertGreater(figures["images"], 18)

    def test_multiprocessing(self):
        code = """
import multiprocessing
block = bytearray()
def work(number):
    check(block, 1)
    own = fill(100 + number, 16)
    check(own, 100 + number)
    return number
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    if sys.argv[1] == "fork":
        block = fill(1)
    with multiprocessing.Pool(3) as pool:
        assert sorted(pool.map(work, range(6), 1)) == list(range(6))
    check(block, 1)
    print("ok")
"""
        with open(self.path("pool.py"), "w", encoding="utf-8") as file:
            file.write(BLOCK + code)
        for method in ("fork", "forkserver", "spawn"):
            done = self.run_client(PYTHON, self.path("pool.py"), method, options=[LOCAL], text=True,
                                   timeout=LONG_S)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "ok\n", ""), method)
            self.assertGreater(self.figures()["pages_put"], 1000)

    def test_ways_to_start(self):
        """Each, while most of the program is outside."""
        self.assertEqual(self.run_python("""
block = fill(1)
assert subprocess.run(["echo", "run"], stdout=subprocess.PIPE).stdout == b"run\\n"
assert subprocess.run(["true"], preexec_fn=lambda: None, close_fds=True).returncode == 0
assert os.system("exit 3") == 3 << 8
assert os.popen("echo popen").read() == "popen\\n"
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], os.environ)
assert os.waitpid(pid, 0)[1] == 5 << 8
pid = os.fork()
if pid == 0:
    os.execv("/bin/sh", ["sh", "-c", "exit 6"])
assert os.waitpid(pid, 0)[1] == 6 << 8
check(block, 1)
print("ok")
"""), "ok\n")


    @unittest.skipUnless(os.getuid() == 0, "chroot is root's")
    def test_in_another_root(self):
        """From where EDM's socket cannot be reached: what is forked there goes on."""
        self.assertEqual(self.run_python("""
block = fill(1)
os.chroot(".")
pid = os.fork()
check(block, 1)
if pid == 0:
    os._exit(5)
assert os.waitpid(pid, 0)[1] == 5 << 8
print("ok")
"""), "ok\n")


class Memory(Family):
    def test_neither_sees_the_other(self):
        """Three generations, all of which write all of it."""
        self.run_python("""
block = fill(1)
for generation in range(2, 5):
    pid = os.fork()
    if pid:
        block[:] = fill(100 + generation)
        check(block, 100 + generation)
        assert os.waitpid(pid, 0)[1] == 0
        check(block, 100 + generation)
        break
    check(block, generation - 1)
    block[:] = fill(generation)
    check(block, generation)
""")
        self.assertGreaterEqual(self.figures()["forks"], 3)

    def test_emptied_for_the_child(self):
        """MADV_WIPEONFORK and MADV_DONTFORK, with the pages outside."""
        self.run_python("""
import mmap
def area(seed):
    memory = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(memory), 4096):
        memory[at:at + 8] = (seed * 1000003 + at).to_bytes(8, "little")
    return memory
wiped, left_out, plain = area(1), area(2), area(3)
wiped.madvise(18)
left_out.madvise(mmap.MADV_DONTFORK)
block = fill(4)
pid = os.fork()
if pid == 0:
    assert bytes(wiped) == bytes(8 << 20)
    check(plain, 3)
    check(block, 4)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
for memory, seed in ((wiped, 1), (left_out, 2), (plain, 3), (block, 4)):
    check(memory, seed)
pid = os.fork()
if pid == 0:
    left_out[0]
    os._exit(0)
assert os.waitpid(pid, 0)[1] & 0x7f == signal.SIGSEGV
""")

    def test_without_handlers(self):
        """A child made by the system call alone has no agent, and all of its memory."""
        self.run_python("""
import ctypes
libc = ctypes.CDLL(None)
block = fill(1)
pid = libc.syscall(57)
if pid == 0:
    check(block, 1)
    block[:] = fill(2)
    check(block, 2)
    os._exit(0)
check(block, 1)
assert os.waitpid(pid, 0)[1] == 0
check(block, 1)
""")

    def test_reclaimed_after_a_fork(self):
        """The parent's pages are shared while the child lives, and leave all the same."""
        self.run_python("""
block = fill(1, 20)
pid = os.fork()
if pid == 0:
    time.sleep(30)
more = fill(2)
check(block, 1)
check(more, 2)
os.kill(pid, signal.SIGKILL)
assert os.waitpid(pid, 0)[1] == signal.SIGKILL
check(block, 1)
""")
        self.assertGreater(self.figures()["pages_put"], 8000)

    def test_dms_is_away(self):
        """A fork waits for the DMS."""
        dms, port = self.start_dms()
        client = self.start_python("""
block = fill(1)
say("ready", "")
while not os.path.exists("go"):
    time.sleep(0.01)
pid = os.fork()
check(block, 1)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("ok")
""", options=[f"--dms=tcp://127.0.0.1:{port}"])
        self.wait_for_file("ready")
        stop(dms.pid)
        with open(self.path("go"), "w", encoding="utf-8"):
            pass
        time.sleep(1.5)
        self.assertIsNone(client.poll())
        dms.send_signal(signal.SIGCONT)
        self.assertEqual(client.wait(LONG_S), 0, client.stderr.read())
        self.assertEqual(client.stdout.read(), b"ok\n")

    def test_regions(self):
        """A child has a region of its own, and takes it along when it ends."""
        _, port = self.start_dms()
        client = self.start_python("""
block = fill(1)
pid = os.fork()
check(block, 1)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    say("one", "")
else:
    say("two", "")
while not os.path.exists("go" if pid else "child"):
    time.sleep(0.01)
check(block, 1)
""", options=[f"--dms=tcp://127.0.0.1:{port}", "--region=family"])
        store = wire.Client(f"tcp://127.0.0.1:{port}", "family.py")
        self.addCleanup(store.close)

        def regions():
            return [region.name for region in store.list()]
        self.wait_for_file("two")
        self.assertEqual(regions(), ["family", "family.1"])
        with open(self.path("child"), "w", encoding="utf-8"):
            pass
        self.wait_for_file("one")
        self.assertTrue(wait_until(lambda: regions() == ["family"]), regions())
        with open(self.path("go"), "w", encoding="utf-8"):
            pass
        self.assertEqual(client.wait(LONG_S), 0, client.stderr.read())
        self.assertEqual(regions(), [])


class Regions(Family):
    """A parent and its child are killed while the DMS is away: edm ends when their regions have been removed."""

    def start_pair(self):
        self.dms, self.port = self.start_dms()
        client = self.start_python("""
block = fill(1)
pid = os.fork()
check(block, 1)
say("two" if pid else "one", str(os.getpid()))
time.sleep(300)
""", options=[f"--dms=tcp://127.0.0.1:{self.port}", "--region=family", "--wait=60"])
        pids = [int(self.wait_for_file(name)) for name in ("one", "two")]
        self.assertEqual(self.regions(), ["family", "family.1"])
        return client, pids

    def regions(self):
        store = wire.Client(f"tcp://127.0.0.1:{self.port}", "family.py")
        try:
            return [region.name for region in store.list()]
        finally:
            store.close()

    def end_pair(self, client, pids):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: not any(is_alive(pid) for pid in pids)))
        time.sleep(2.5)  # of the 5 s that edm waits
        self.assertIsNone(client.poll())

    def check_all_removed(self, client):
        self.assertEqual(client.wait(LONG_S), 128 + signal.SIGKILL)
        self.assertEqual(self.regions(), [])
        self.assertNotIn("could be removed", self.read("log"))

    def test_dms_is_stopped(self):
        client, pids = self.start_pair()
        stop(self.dms.pid)
        self.end_pair(client, pids)
        self.dms.send_signal(signal.SIGCONT)
        self.check_all_removed(client)

    def test_dms_is_killed(self):
        client, pids = self.start_pair()
        self.dms.kill()
        self.dms.wait()
        self.end_pair(client, pids)
        self.start_dms(port=self.port)
        self.check_all_removed(client)

    def test_dms_is_stopped_before_the_fork(self):
        """The child's region is still to be made."""
        self.dms, self.port = self.start_dms()
        client = self.start_python("""
block = fill(1)
def fork():
    return os.fork()
if fork() == 0:
    os._exit(0)
os.wait()
say("one", str(os.getpid()))
while not os.path.exists("go"):
    time.sleep(0.01)
fork()
check(block, 1)
""", options=[f"--dms=tcp://127.0.0.1:{self.port}", "--region=family", "--wait=60"])
        pid = int(self.wait_for_file("one"))
        stop(self.dms.pid)
        with open(self.path("go"), "w", encoding="utf-8"):
            pass
        # It may need a page for that, and wait for it.
        children = wait_until(lambda: children_of(pid), 3)
        self.end_pair(client, [*children, pid])
        self.dms.send_signal(signal.SIGCONT)
        self.check_all_removed(client)

    def test_dms_stays_away(self):
        client, pids = self.start_pair()
        stop(self.dms.pid)
        self.end_pair(client, pids)
        self.assertEqual(client.wait(LONG_S), 128 + signal.SIGKILL)
        for name in ("family", "family[.]1"):
            self.assertRegex(self.read("log"), f"region {name} could be removed from 0 of 1 shards only")


DAEMON = """
block = fill(1)
if os.fork():
    os._exit(7)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(0, 1000)
say("daemon", str(os.getpid()))
try:
    while not os.path.exists("go"):
        check(block, 1)
    block[:] = fill(2)
    check(block, 2)
    say("done", "ok")
except BaseException as error:
    say("done", repr(error))
"""


def let_go_slowly(tid, go, stops, most=None):
    """Traces a thread until it ends, and lets it rest when it has sent something (MOST: of what it sends over a socket
    only that many). Calls go() when that has begun. STOPS: a Counter, of what it has sent over which socket."""
    seize, interrupt, peek_user, go_on, sendmsg, wait_all = 0x4206, 0x4207, 3, 24, 46, 0x40000000
    call_number, first_argument = 15 * 8, 14 * 8
    ptrace = ctypes.CDLL(None).ptrace
    ptrace.restype, ptrace.argtypes = ctypes.c_long, [ctypes.c_long] * 4
    assert ptrace(seize, tid, 0, 0) == 0 and ptrace(interrupt, tid, 0, 0) == 0
    go()
    while os.WIFSTOPPED(os.waitpid(tid, wait_all)[1]):
        if ptrace(peek_user, tid, call_number, 0) == sendmsg:
            socket = os.readlink(f"/proc/{tid}/fd/{ptrace(peek_user, tid, first_argument, 0)}")
            stops[socket] += 1
            if most is None or stops[socket] <= 2 * most:
                time.sleep(0.005)
        ptrace(go_on, tid, 0, 0)


class Daemons(Family):
    def test_whose_agent_is_slow(self):
        """The parent ends at once, while pages are on their way out of its memory: the child has them all the same."""
        rounds = 4
        client = self.start_python(f"""
for round in range({rounds}):
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        say(f"parent.{{round}}", str(os.getpid()))
        while not os.path.exists(f"go.{{round}}"):
            time.sleep(0.01)
        block = fill(round, 28)
        for last in (False, True):  # the first time brings in what the second one needs for it
            if os.fork() == 0:
                check(block, round)
                if last:
                    check(more, round)
                    os.write(writer, b"k")
                os._exit(0)
            if last:
                os._exit(7)
            os.wait()
            more = fill(round, 4)
    os.close(writer)
    assert os.waitpid(parent, 0)[1] == 7 << 8
    assert os.read(reader, 1) == b"k", f"round {{round}}: the child has been ended"
    os.close(reader)
""")
        for number in range(rounds):
            wait_until(lambda: client.poll() is not None or os.path.exists(self.path(f"parent.{number}")), LONG_S)
            if client.poll() is not None:
                break
            pid = int(self.read(f"parent.{number}"))
            agent, = {int(tid) for tid in os.listdir(f"/proc/{pid}/task")} - {pid}
            stops = collections.Counter()
            let_go_slowly(agent, open(self.path(f"go.{number}"), "w", encoding="utf-8").close, stops)
            self.assertTrue(stops, "the agent was not held up")
        self.assertEqual((client.wait(LONG_S), client.stderr.read()), (0, b""))

    def test_child_ends_at_once(self):
        """It may have ended before edm has said all that it has to say to it."""
        client = self.start_client("perl", "-e", """
use POSIX ();
my $block = "0123456789" x (3 << 20);
open my $filled, ">", "filled";
select undef, undef, undef, 0.01 until -e "go";
for (1 .. 20) {
    my $child = fork;
    POSIX::_exit(3) unless $child;
    waitpid $child, 0;
    die "a child has ended with $?" unless $? == 3 << 8;
}
""", options=[LOCAL], cwd=self.dir, stderr=subprocess.PIPE)
        self.wait_for_file("filled")
        pager, = [int(tid) for tid in os.listdir(f"/proc/{client.pid}/task") if name_of(tid) == "edm-pager"]
        stops = collections.Counter()
        threading.Thread(target=let_go_slowly, daemon=True,
                         args=(pager, open(self.path("go"), "w", encoding="utf-8").close, stops, 3)).start()
        self.assertEqual((client.wait(LONG_S), client.stderr.read()), (0, b""))
        self.assertGreaterEqual(len(stops), 20, "the pager was not held up at each child")

    def test_until_the_last_one_ends(self):
        client = self.start_python(DAEMON, options=["--stats-interval=50"])
        wait_until(lambda: client.poll() is not None or os.path.exists(self.path("daemon")), LONG_S)
        self.assertIsNone(client.poll(), f"edm has ended before the daemon; its log: {self.read('log')}")
        pid = int(self.wait_for_file("daemon"))
        time.sleep(0.5)
        self.assertIsNone(client.poll(), "edm has ended before the daemon")
        with open(self.path("go"), "w", encoding="utf-8"):
            pass
        self.assertEqual(client.wait(LONG_S), 7)
        self.assertEqual(self.read("done"), "ok")
        self.assertFalse(is_alive(pid))
        self.assert_no_files()

    def test_signal_is_passed_on(self):
        client = self.start_python(DAEMON)
        pid = int(self.wait_for_file("daemon"))
        self.assertTrue(wait_until(lambda: parent_of(pid) == client.pid))
        client.terminate()
        self.assertEqual(client.wait(LONG_S), 7)
        self.assert_all_gone([pid], GONE_S)

    def test_each_ends_at_once(self):
        """A chain of processes: each forks and ends, and may be gone before the fork is seen."""
        self.run_python("""
import mmap
wiped = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(wiped), 4096):
    wiped[at] = 1
wiped.madvise(18)
block = fill(1)
reader, writer = os.pipe()
if os.fork():
    os.close(writer)
    assert os.read(reader, 100) == b"ok"
    os._exit(0)
try:
    for link in range(40):
        if os.fork():
            os._exit(0)
        assert bytes(wiped) == bytes(4 << 20), link
    check(block, 1)
    os.write(writer, b"ok")
except BaseException as error:
    os.write(writer, repr(error).encode()[:100])
""")

    def test_of_somebody_else(self):
        """A child that edm had before it was edm: not waited for."""
        client = self.start("sh", "-c", 'sleep 300 & echo $!; exec "$@"', "sh",
                            *self.client_words("true"), stdout=subprocess.PIPE, text=True)
        pid = int(client.stdout.readline())
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        self.assertEqual(client.wait(LONG_S), 0)
        self.assertTrue(is_alive(pid))

    def test_left_alone(self):
        """--follow=no: a child is native, and has what its parent had."""
        out = self.run_python("""
block = fill(1)
pid = os.fork()
if pid == 0:
    more = fill(2, 100)
    check(block, 1)
    check(more, 2)
    with open("/proc/self/statm") as file:
        print(int(file.read().split()[1]) * 4096 > 100 << 20)
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
check(block, 1)
print(subprocess.run(["sh", "-c", "echo child"], stdout=subprocess.PIPE, text=True).stdout, end="")
""", options=["--follow=no"])
        self.assertEqual(out, "True\nchild\n")
        self.assertEqual(self.figures()["images"], 1)


def parent_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])


# Whoever lives checks all of it, all the time.
TREE = """
block = fill(1)
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        pids = []
        grandchild = os.fork()
        pids.append(os.getpid())
        break
    pids.append(pid)
say(f"pid.{os.getpid()}", "")
while not os.path.exists("go"):
    check(block, 1)
os._exit(0)
"""


# Each starts the next, and is gone: there is always one that was started and has not reported yet.
CHAIN = """
[ -e stop ] || sh chain &
env -i true
"""
FORKS = """
block = fill(1, 4)
while not os.path.exists("stop"):
    if os.fork():
        os._exit(0)
    check(block[:4096], 1)
"""


class Deaths(Family):
    def living_here(self):
        """Whose working directory is ours: all that the program has started, whatever their environment."""
        found = []
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and os.readlink(f"/proc/{name}/cwd") == self.dir and is_alive(name):
                    found.append(int(name))
            except OSError:
                pass
        return found

    def test_client_while_it_starts_programs(self):
        """Who was started and has not reported yet ends too."""
        for name, words in (("chain", CHAIN), ("forks", BLOCK + FORKS)):
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(words)
        self.addCleanup(lambda: open(self.path("stop"), "w", encoding="utf-8").close())
        for delay in range(5):
            client = self.start_client("sh", "-c", f"sh chain & sh chain & {PYTHON} forks", options=[LOCAL], cwd=self.dir,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(0.4 + 0.07 * delay)
            self.assertIsNone(client.poll(), "edm has ended")
            client.kill()
            client.wait()
            wait_until(lambda: not self.living_here() and not self.files(), 30)
            self.assertEqual([(pid, exe_of(pid)) for pid in self.living_here()], [])
            self.assert_no_files()
            self.check_last_words(client, "(Killed\n)?")

    def start_after_edm(self, *options):
        """Starts a program as one of the run's, when edm has died and its guard has done nothing yet."""
        client = self.start_client("sleep", "100", options=options)
        program = self.wait_for_program(client)
        self.assertTrue(wait_until(lambda: b"EDM_AGENT" in environment_of(program)))
        names = (b"LD_PRELOAD", b"EDM_AGENT", b"PATH")
        environment = dict(word.split(b"=", 1) for word in environment_of(program).split(b"\0") if b"=" in word)
        guard, = [pid for pid in children_of(client.pid) if name_of(pid) == "edm-guard"]
        stop(guard)
        client.kill()
        client.wait()
        done = subprocess.run(["sh", "-c", "(echo forked); sh -c 'echo started'"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env={name: environment[name] for name in names}, check=False)
        os.kill(guard, signal.SIGCONT)
        self.assert_all_gone([program, guard], GONE_S)
        return done

    def test_started_after_edm(self):
        done = self.start_after_edm()
        self.assertEqual((done.returncode, done.stdout), (-signal.SIGKILL, b""))
        self.assertRegex(done.stderr, rb"^edm: edm has died: .*\n$")

    def test_started_after_edm_but_left_alone(self):
        done = self.start_after_edm("--follow=no")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"forked\nstarted\n", b""))

    def check_last_words(self, client, of_a_shell=""):
        """Nothing but that a program was ended because edm has died."""
        self.assertRegex(client.stderr.read().decode(), f"^({of_a_shell}(edm: edm has died: [^\n]*\n)?)*$")

    def start_tree(self, *options):
        client = self.start_python(TREE, options=options)

        def pids():
            self.assertIsNone(client.poll(), "edm has ended")
            return [int(name[4:]) for name in os.listdir(self.dir) if re.fullmatch(r"pid\.\d+", name)]
        self.assertTrue(wait_until(lambda: len(pids()) == 7, LONG_S), pids())
        return client, pids()

    def test_client(self):
        client, pids = self.start_tree()
        pids += children_of(client.pid)
        client.kill()
        self.assert_all_gone(pids, GONE_S)
        self.assertEqual(client.stderr.read(), b"")

    def test_client_while_it_forks(self):
        """At moments of no choice."""
        for delay in range(6):
            client = self.start_python(TREE)
            time.sleep(0.1 + 0.15 * delay)
            pids = family_of(client.pid)
            client.kill()
            client.wait()
            self.assert_all_gone(pids, GONE_S)
            self.check_last_words(client)

    def test_program(self):
        """Its children live on, and edm with them."""
        client, pids = self.start_tree()
        program = [pid for pid in children_of(client.pid) if pid in pids]
        self.assertEqual(len(program), 1)
        os.kill(program[0], signal.SIGKILL)
        time.sleep(0.3)
        self.assertEqual([pid for pid in pids if not is_alive(pid)], program, client.stderr)
        with open(self.path("go"), "w", encoding="utf-8"):
            pass
        self.assertEqual(client.wait(LONG_S), 128 + signal.SIGKILL)
        self.assertEqual(client.stderr.read(), b"")
        self.assert_all_gone(pids, GONE_S)

    def test_all_but_one(self):
        client, pids = self.start_tree()
        for pid in sorted(pids)[:-1]:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        last = sorted(pids)[-1]
        self.assertTrue(is_alive(last))
        with open(self.path("go"), "w", encoding="utf-8"):
            pass
        self.assertEqual(client.wait(LONG_S), 128 + signal.SIGKILL)
        self.assertEqual(client.stderr.read(), b"")

    def end_growing_children(self, rounds, stop):
        self.run_python(f"""
rounds, stop = {rounds}, {stop}
for round in range(rounds):
    child = subprocess.Popen(["{tool('verify')}", "--size=128M", "--seconds=9"], stdout=subprocess.DEVNULL)
    time.sleep(random.uniform(0.005, 0.04))
    if stop:
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
    child.kill()
    child.wait(timeout=20)
""", timeout=60)

    def test_child_that_is_held(self):
        """Killed while it is held back because it grows, a child ends for its parent at once."""
        self.end_growing_children(60, stop=False)

    def test_child_that_is_stopped(self):
        """It gives nothing up, and its parent must not wait for that."""
        self.end_growing_children(20, stop=True)

    def test_parent_right_after_the_fork(self):
        """Again and again: the child needs what its parent had stored, or was just storing."""
        self.run_python("""
for round in range(12):
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        block = fill(round, 32)
        if os.fork() == 0:
            check(block, round)
            block[:] = fill(round + 50, 32)
            check(block, round + 50)
            os.write(writer, b"k")
            os._exit(0)
        time.sleep(round % 4 * 0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    assert os.waitpid(parent, 0)[1] == signal.SIGKILL
    assert os.read(reader, 1) == b"k", round
    os.close(reader)
""")


def environment_of(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()


def name_of(pid):
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()


if __name__ == "__main__":
    main()
