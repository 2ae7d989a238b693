#!/usr/bin/python3
"""limit.py EDM TOOLS [CASES]: the budget of a running program is changed, down and up, and who asks is
told the truth, by what the kernel says from outside."""
import os
import random
import re
import signal
import socket
import subprocess
import time

from harness import EDM, Case, main, program_of, stop, tool, wait_until

MIB = 1 << 20
# The kernel counts to some pages for each processor; and it takes the test a moment to look, in
# which the program may fault some in.
SLACK_BYTES = 2 * MIB
CHANGES = int(os.environ.get("EDM_CHANGES", "12"))
# Others may run the same test on this machine, and clients are found wherever their files are.
TAG = f"..{os.getpid()}"
SLOW = os.environ.get("EDM_SCALE") is not None

# A program that locks memory, says so, and waits.
LOCKS = """
import ctypes, mmap, sys, time
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096):
    memory[at:at + 8] = at.to_bytes(8, "little")
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(memory))):
    sys.exit("mlock: errno %d" % ctypes.get_errno())
print("locked", flush=True)
time.sleep(600)
"""

# Three processes with some memory each, which they read again in the end.
TREE = """
import os, sys, time
def fill(seed):
    return [os.urandom(16) + bytes([seed]) * 65520 for _ in range(512)]
blocks = fill(1)
sums = [sum(block) for block in blocks]
for seed in (2, 3):
    if os.fork() == 0:
        blocks = fill(seed)
        sums = [sum(block) for block in blocks]
        break
os.write(1, b"filled\\n")  # at once, whatever PYTHONUNBUFFERED says
sys.stdin.read()
sys.exit(sums != [sum(block) for block in blocks])
"""


def tagged(words):
    """Names of regions begin with a letter, and nothing else that is said to edm here does."""
    return [word + TAG if word[0].isalpha() else word for word in words]


def anonymous_bytes(pid):
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            _, resident, shared = file.read().split()[:3]
    except OSError:
        return 0
    return (int(resident) - int(shared)) * 4096


def below(pid):
    """A process and its descendants."""
    found = [pid]
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            for child in file.read().split():
                found += below(int(child))
    except OSError:
        pass
    return found


class Asking(Case):
    def ask(self, *words, **more):
        more.setdefault("env", self.environ)
        before = more.pop("before", [])
        done = subprocess.run([*before, EDM, *tagged(words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, text=True, timeout=150, check=False, **more)
        done.stdout, done.stderr = done.stdout.replace(TAG, ""), done.stderr.replace(TAG, "")
        return done

    def start_asker(self, *words):
        return self.start(EDM, "--mode=limit", *tagged(words), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)

    @staticmethod
    def end_of(asker):
        """Its exit status, and all it has said."""
        out, err = asker.communicate(timeout=100)
        return asker.returncode, out.replace(TAG, ""), err.replace(TAG, "")

    def limit(self, *words, **more):
        return self.ask("--mode=limit", *words, **more)

    def says(self, done, status, line):
        """One line, on standard output where all is well, and the exit status."""
        out, err = (done.stdout, done.stderr) if status == 0 else (done.stderr, done.stdout)
        self.assertEqual((done.returncode, err), (status, ""), done)
        self.assertEqual(out.count("\n"), 1, out)
        self.assertRegex(out, f"^{line}\n$")

    def start_named(self, name, *words, local="64M", **more):
        return self.start_client(*words, options=[f"--local={local}", f"--region={tagged([name])[0]}",
                                                  "--stats-interval=50"], **more)

    def start_locker(self, name, mib, local):
        client = self.start_named(name, "/usr/bin/python3", "-c", LOCKS, str(mib), local=local,
                                  stdout=subprocess.PIPE, text=True)
        self.assertEqual(client.stdout.readline(), "locked\n")
        return client

    def idle(self, name, local="64M"):
        client = self.start_named(name, "sleep", "600", local=local)
        self.wait_for_run(client)
        return client

    def wait_for_run(self, client):
        self.assertTrue(wait_until(lambda: re.search(rf"^ *{client.pid} ", self.ask("--mode=status").stdout,
                                                     re.MULTILINE)), "it is not listed")


class Budget(Asking):
    def check_changes(self, seed, client, pids, name):
        """Changes at random while the program runs; after each it is within the budget."""
        source = random.Random(seed)
        nchanges, over = 0, -16 * MIB
        while nchanges < CHANGES and client.poll() is None:
            size = source.choice([16 * MIB, 1 << source.randrange(24, 29),
                                  source.randrange(16 * MIB, 300 * MIB)])
            done = self.limit("--wait=100", name, str(size))
            if client.poll() is not None or done.returncode == 3:
                break
            resident = sum(anonymous_bytes(pid) for pid in pids())
            self.says(done, 0, f"region {name}: budget {size // 1024} KiB, resident [0-9]+ KiB")
            over = max(over, resident - size)
            self.assertLessEqual(resident, size + SLACK_BYTES, f"change {nchanges} to {size}, seed {seed}")
            nchanges += 1
            time.sleep(source.random() * 0.2)
        print(f"{nchanges} changes, at most {over // 1024} KiB above the budget", flush=True)
        return nchanges

    def test_many_changes(self):
        """The verifier finds no wrong byte, and is never over the budget that was asked for last."""
        seed = random.randrange(1 << 30)
        size = "128M" if SLOW else "384M"
        client = self.start_named("many", tool("verify"), f"--size={size}", "--threads=4",
                                  f"--seconds={CHANGES}", f"--seed={seed}", "--churn",
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        pid = self.wait_for_program(client)
        nchanges = self.check_changes(seed, client, lambda: [pid], "many")
        self.says(self.limit("many", "256M"), 0, "region many: budget 262144 KiB, resident [0-9]+ KiB")
        self.assertEqual(client.wait(300 + 2 * CHANGES), 0, f"seed {seed}: {client.stderr.read()}")
        self.assertGreaterEqual(nchanges, 3, "hardly any change was made")
        figures = self.figures()
        self.assertEqual(figures["local_limit_bytes"], 256 * MIB)
        self.assertGreater(figures["pages_put"], 1000)
        self.assertGreater(figures["pages_got"], 1000)

    def test_native_program(self):
        """One that was far below its budget, and was not managed at all."""
        client = self.start_named("native", "/usr/bin/python3", "-c", TREE, local="1G",
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            self.assertEqual(client.stdout.readline(), "filled\n")
        pid = self.wait_for_program(client)
        pids = below(pid)
        self.assertEqual(len(pids), 3)
        before = sum(anonymous_bytes(one) for one in pids)
        self.assertGreater(before, 96 * MIB)
        self.assertEqual(self.figures()["pages_put"], 0)
        for size in (48, 17, 64, 16):
            self.says(self.limit("native", f"{size}M"), 0,
                      f"region native: budget {size * 1024} KiB, resident [0-9]+ KiB")
            resident = sum(anonymous_bytes(one) for one in pids)
            self.assertLessEqual(resident, size * MIB + MIB)
            self.assertEqual(below(pid), pids)
        # All of it is there, and right.
        client.stdin.close()
        self.assertEqual(client.wait(60), 0)

    def test_up_returns_at_once(self):
        """Also where it does not help: the limit counts, not what could be below it."""
        client = self.start_locker("up", 40, "32M")
        self.says(self.limit("--wait=0", "up", "31M"), 1, "edm: region up: the budget is 31744 KiB, but after 0 s "
                  "[0-9]+ KiB are still resident; 40960 KiB are locked")
        self.says(self.limit("up", "80M"), 0, "region up: budget 81920 KiB, resident [0-9]+ KiB")
        self.assertIsNone(client.poll())

    def test_part_of_memory(self):
        self.idle("part")
        done = self.limit("part", "100%")
        self.says(done, 0, "region part: budget [0-9]+ KiB, resident [0-9]+ KiB")
        status = self.ask("--mode=status", "part")
        self.assertEqual(status.returncode, 0)
        budget = int(re.search(r"budget ([0-9]+)", done.stdout)[1])
        self.assertEqual(int(status.stdout.splitlines()[1].split()[2]), budget)
        with open("/proc/meminfo", encoding="ascii") as file:
            self.assertLessEqual(budget, int(re.search(r"MemTotal: +([0-9]+)", file.read())[1]))
        self.assertGreater(budget, 64 * 1024)


class Reasons(Asking):
    """What cannot be done is said in one line."""

    def test_locked(self):
        client = self.start_locker("locked", 40, "1G")
        begun = time.monotonic()
        self.says(self.limit("--wait=2", "locked", "32M"), 1,
                  "edm: region locked: the budget is 32768 KiB, but after 2 s [0-9]+ KiB are still resident; "
                  "40960 KiB are locked")
        self.assertGreater(time.monotonic() - begun, 1.9)
        self.assertIsNone(client.poll())

    def test_stopped(self):
        client = self.start_named("stopped", tool("verify"), "--size=96M", "--threads=1", "--seconds=600",
                                  "--seed=1", local="256M")
        pid = self.wait_for_program(client)
        self.assertTrue(wait_until(lambda: anonymous_bytes(pid) > 90 * MIB))
        stop(pid)
        self.says(self.limit("--wait=1", "stopped", "16M"), 1,
                  "edm: region stopped: the budget is 16384 KiB, but after 1 s [0-9]+ KiB are still resident; "
                  f"process {pid} is stopped")
        # It comes about when it can.
        os.kill(pid, signal.SIGCONT)
        self.says(self.limit("stopped", "16M"), 0, "region stopped: budget 16384 KiB, resident [0-9]+ KiB")
        self.assertLessEqual(anonymous_bytes(pid), 18 * MIB)

    def test_program_ends(self):
        client = self.start_locker("ends", 40, "1G")
        asker = self.start_asker("ends", "16M")
        self.wait_for_budget("ends", 16)
        os.kill(program_of(client.pid), signal.SIGKILL)
        self.assertEqual(self.end_of(asker), (3, "", "edm: region ends: the program has ended\n"))
        self.assertEqual(client.wait(60), 128 + signal.SIGKILL)
        self.assert_no_files()

    def test_edm_is_killed(self):
        client = self.start_locker("killed", 40, "1G")
        asker = self.start_asker("killed", "16M")
        self.wait_for_budget("killed", 16)
        pid = program_of(client.pid)
        client.kill()
        self.assertEqual(self.end_of(asker), (3, "", "edm: region killed: its client has ended\n"))
        self.assert_all_gone([pid], 20)
        self.says(self.limit("killed", "16M"), 2, "edm: no region killed is running(; .*)?")

    def test_asker_is_killed(self):
        client = self.start_locker("asker", 40, "1G")
        for signal_number in (signal.SIGKILL, signal.SIGINT):
            asker = self.start_asker("asker", "16M")
            self.wait_for_budget("asker", 16)
            asker.send_signal(signal_number)
            self.assertNotEqual(asker.wait(10), 0)
            # Nothing has become of the client by that, and it does what it is asked next.
            self.says(self.limit("asker", "1G"), 0, "region asker: budget 1048576 KiB, resident [0-9]+ KiB")
        self.assertIsNone(client.poll())

    def test_two_ask_at_once(self):
        self.start_locker("two", 40, "1G")
        first = self.start_asker("two", "16M")
        self.wait_for_budget("two", 16)
        self.says(self.limit("--wait=3", "two", "16M"), 1, "edm: region two: .* after 3 s .* are locked")
        self.assertIsNone(first.poll(), "one that wants the same is no reason not to wait")
        self.says(self.limit("two", "80M"), 0, "region two: budget 81920 KiB, resident [0-9]+ KiB")
        self.assertEqual(self.end_of(first), (1, "", "edm: region two: another budget, 81920 KiB, was set "
                                              "meanwhile\n"))

    def wait_for_budget(self, name, mib):
        def is_set():
            lines = self.ask("--mode=status", name).stdout.splitlines()
            return len(lines) == 2 and lines[1].split()[2] == str(mib * 1024)
        self.assertTrue(wait_until(is_set), "the budget is not set")


class Which(Asking):
    """Which client is meant."""

    def test_names(self):
        clients = [self.idle("same"), self.idle("same"), self.idle("a:b@c-d+e.f_g")]
        self.says(self.limit("other", "64M"), 2, "edm: no region other is running(; .*)?")
        self.says(self.limit("sam", "64M"), 2, "edm: no region sam is running(; .*)?")
        self.says(self.limit("same", "64M"), 2, "edm: region same is running more than once: give one of the process "
                  "ids " + ", ".join(str(pid) for pid in sorted(c.pid for c in clients[:2])) + " instead")
        self.says(self.limit(str(clients[1].pid), "96M"), 0, "region same: budget 98304 KiB, resident [0-9]+ KiB")
        self.says(self.limit("a:b@c-d+e.f_g", "80M"), 0,
                  r"region a:b@c-d\+e.f_g: budget 81920 KiB, resident [0-9]+ KiB")
        budgets = {line.split()[0]: line.split()[2] for line in self.ask("--mode=status").stdout.splitlines()}
        self.assertEqual([budgets[str(client.pid)] for client in clients], ["65536", "98304", "81920"])
        # A name that looks like another's process id is still a name.
        named = self.idle(str(clients[0].pid))
        self.says(self.limit(str(clients[0].pid), "32M"), 0,
                  f"region {clients[0].pid}: budget 32768 KiB, resident [0-9]+ KiB")
        status = self.ask("--mode=status", str(clients[0].pid)).stdout.splitlines()
        self.assertEqual([line.split()[0] for line in status[1:]], [str(named.pid)])

    def test_status(self):
        client = self.start_named("seen", "/bin/sh", "-c", "sleep 600; exit", local="123M")
        self.wait_for_run(client)
        self.assertTrue(wait_until(lambda: self.status_of("seen")[5] == "2"), "two processes")
        self.assertEqual(self.status_of("seen")[:3] + self.status_of("seen")[6:],
                         [str(client.pid), str(os.geteuid()), str(123 * 1024), "seen", "/bin/sh"])
        self.says(self.ask("--mode=status", "unseen"), 2, "edm: no region unseen is running(; .*)?")

    def status_of(self, name):
        done = self.ask("--mode=status", name)
        self.assertEqual(done.returncode, 0, done)
        return done.stdout.splitlines()[1].split()

    def test_other_temporary_directories(self):
        """Who asks need not have the client's $TMPDIR; nor one that could be a client's."""
        self.idle("elsewhere")
        for tmpdir in (None, "", "/nonexistent", "relative", "/" + 300 * "long/"):
            environ = {key: value for key, value in self.environ.items() if key != "TMPDIR"}
            if tmpdir is not None:
                environ["TMPDIR"] = tmpdir
            self.says(self.limit("elsewhere", "64M", env=environ), 0,
                      "region elsewhere: budget 65536 KiB, resident [0-9]+ KiB")

    def test_found_without_the_list_of_sockets(self):
        """In another network namespace, by the directories alone."""
        if os.geteuid() != 0:
            self.skipTest("needs root")
        self.idle("netns")
        done = self.limit("netns", "64M", before=["unshare", "--net"])
        self.says(done, 0, "region netns: budget 65536 KiB, resident [0-9]+ KiB")

    def test_what_the_dead_have_left(self):
        """Directories without a socket, with one that nobody listens at, or with something else."""
        for name, kind in (("edm-aaaaaa", None), ("edm-bbbbbb", "socket"), ("edm-cccccc", "file"),
                           ("edm-dddddd", "link")):
            os.mkdir(os.path.join(self.tmp, name))
            path = os.path.join(self.tmp, name, "control.sock")
            if kind == "socket":
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
                    dead.bind(path)
            elif kind == "file":
                with open(path, "wb"):
                    pass
            elif kind == "link":
                os.symlink("/proc/self/exe", path)
        os.symlink("/", os.path.join(self.tmp, "edm-eeeeee"))
        self.idle("alive")
        self.says(self.limit("alive", "64M"), 0, "region alive: budget 65536 KiB, resident [0-9]+ KiB")
        self.says(self.limit("dead", "64M"), 2, "edm: no region dead is running(; .*)?")

    def test_does_not_answer(self):
        client = self.idle("silent")
        stop(client.pid)
        self.says(self.limit("silent", "64M"), 2, f"edm: no region silent is running; process {client.pid}, which runs "
                  "one, does not answer(; .*)?")
        os.kill(client.pid, signal.SIGCONT)
        self.says(self.limit("silent", "64M"), 0, "region silent: budget 65536 KiB, resident [0-9]+ KiB")

    def test_other_users(self):
        """Who is not the same user and not root finds nothing, and is not let in where it could."""
        if os.geteuid() != 0:
            self.skipTest("needs root")
        client = self.idle("roots")
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
        line = "edm: no region roots is running; [0-9]+ directories of other users' runs were not looked at"
        self.says(self.limit("roots", "32M", before=as_nobody), 2, line)
        run = os.path.join(self.tmp, self.files()[0])
        os.chmod(run, 0o755)
        os.chmod(os.path.join(run, "control.sock"), 0o777)
        self.says(self.limit("roots", "32M", before=as_nobody), 2, line)
        script = ("import socket,sys; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(30)\n"
                  "s.connect(sys.argv[1])\ntry: s.send(b'edm-control 1 limit size=32M')\nexcept BrokenPipeError: pass\n"
                  "print(s.recv(5000).decode())")
        done = subprocess.run(as_nobody + ["/usr/bin/python3", "-c", script, os.path.join(run, "control.sock")],
                              stdout=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.stdout, "edm-control 1 error code=denied text=the%20run%20is%20another%20user's\n")
        self.assertEqual(self.ask("--mode=status", "roots").stdout.splitlines()[1].split()[2], "65536")
        self.assertIsNone(client.poll())


class Protocol(Asking):
    """Other requests over the socket itself."""

    def connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(connection.close)
        connection.settimeout(60)
        connection.connect(os.path.join(self.tmp, self.files()[0], "control.sock"))
        return connection

    def test_requests(self):
        client = self.idle("wire")
        connection = self.connect()
        for request, answer in (
                (b"edm-control 1 limit", "error code=bad text=a%20size%20such.*"),
                (b"edm-control 1 limit size=1M", "error code=bad text=a%20size%20such.*"),
                (b"edm-control 1 limit size=%0A", "error code=bad text=a%20size%20such.*"),
                (b"edm-control 1 evacuate", "error code=unknown text=.*"),
                (b"edm-control 9 whatever", "error code=version text=.*"),
                (b"\0" * 5000, "error code=bad text=.*"),
                (b"edm-control 1 limit size=50M wait_ms=99999999999999999999 x=y", "ok resident=[0-9]+ limit=52428800"),
                (b"edm-control 1 status", f"ok region=wire{TAG} pid={client.pid} limit=52428800 resident=[0-9]+ "
                 "managed=[0-9]+ processes=1 program=sleep")):
            connection.send(request)
            self.assertRegex(connection.recv(5000).decode(), f"^edm-control 1 {answer}$")
        # Many that say nothing do no harm.
        silent = [self.connect() for _ in range(60)]
        self.says(self.limit("wire", "64M"), 0, "region wire: budget 65536 KiB, resident [0-9]+ KiB")
        for one in silent:
            one.close()


main()
