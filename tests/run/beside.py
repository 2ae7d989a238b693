#!/usr/bin/python3
"""beside.py EDM TOOLS [CLASS]: programs and what comes between them and EDM: other users, other preloaded
objects, environments without ours, debuggers, core dumps."""
import ctypes.util
import glob
import os
import pwd
import re
import resource
import shutil
import subprocess
import sys
import time
import unittest

from harness import Case, main, tool

PYTHON = "/usr/bin/python3"
LOCAL_MIB = 16
LOCAL = f"--local={LOCAL_MIB}M"
LONG_S = 240
OBJECTS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "objects.py")
OBJECTS_MIB = "30"
TRACED = tool("traced")
MIB = 40
AS_EXPECTED = 7
# A program whose children, by fork and by exec, are larger than the budget too.
FAMILY = """
import os, subprocess, sys
block = bytearray(40 << 20)
for at in range(0, len(block), 4096):
    block[at:at + 4] = at.to_bytes(4, "little")
def check():
    assert all(int.from_bytes(block[at:at + 4], "little") == at for at in range(0, len(block), 4096))
pid = os.fork()
check()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], "40", "check"])
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert subprocess.run([sys.argv[1], "40", "check"]).returncode == 7
check()
print("ok")
"""
WORDS = [0, 1000000, MIB * (1 << 17) - 1]
# So that a preloaded malloc is used at all.
PYTHON_ON_MALLOC = {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}


class Beside(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.dir, 0o777)
        self.environ.update(PYTHON_ON_MALLOC)

    def managed(self, *words, status=0, err="", options=(), **more):
        done = self.run_client(*words, options=[LOCAL, *options], text=True, timeout=LONG_S, cwd=self.dir, **more)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr + self.read("log"))
        if err is not None:
            self.assertEqual(done.stderr, err)
        return done.stdout

    def assert_paged(self, name):
        """A process of that name was managed: most of it was outside at times."""
        found = [process for process in self.figures()["processes"] if process["name"] == name]
        self.assertTrue(any(process["pages_evicted"] > 1000 for process in found), self.figures()["processes"])
        self.assertGreater(self.figures()["pages_got"], 1000)

    def same_objects(self, *words, environ=None):
        """WORDS go before a Python that builds and hashes objects, as it does natively."""
        command = [PYTHON, OBJECTS, OBJECTS_MIB]
        natively = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, **PYTHON_ON_MALLOC),
                                  check=True, text=True).stdout
        out = self.managed(*words, *command, env=environ or self.environ)
        self.assertEqual(out, natively)
        self.assert_paged("python3")


class Environments(Beside):
    """What is started without EDM in LD_PRELOAD is managed all the same."""
    def test_emptied(self):
        self.same_objects("env", "-i", "PYTHONHASHSEED=0")

    def test_emptied_for_a_child(self):
        self.same_objects("dash", "-c", 'env -i PYTHONHASHSEED=0 "$@"; exit $?', "dash")

    def test_emptied_by_vfork(self):
        self.same_objects(PYTHON, "-c", "import subprocess, sys; "
                          "sys.exit(subprocess.run(sys.argv[1:], env={'PYTHONHASHSEED': '0'}).returncode)")

    def test_what_it_starts(self):
        """Nobody asks before its forks, and its children's environments have nothing either."""
        self.assertEqual(self.managed("env", "-i", PYTHON, "-c", FAMILY, TRACED), "ok\n")
        self.assert_paged("python3")
        self.assert_paged("traced")


class Preloads(Beside):
    def preload(self, name):
        library = ctypes.util.find_library(name)
        self.assertTrue(library, f"no {name} here")
        self.same_objects(environ=dict(self.environ, LD_PRELOAD=library))
        self.same_objects("env", f"LD_PRELOAD={library}")
        self.same_objects("dash", "-c", f'LD_PRELOAD={library} "$@"; exit $?', "dash")

    @unittest.skipUnless(os.path.exists(tool("leaks")), "no AddressSanitizer to build with")
    def test_address_sanitizer(self):
        """Its part wants to be the first that is loaded. At the program's end it stops all threads and looks at
        their memory from a process that shares it."""
        words = [tool("leaks"), str(MIB)]
        natively = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        out = self.managed(*words, status=natively.returncode, err=natively.stderr)
        self.assertEqual(out, natively.stdout)
        self.assert_paged("leaks")

    def test_jemalloc(self):
        self.preload("jemalloc")

    def test_mimalloc(self):
        self.preload("mimalloc")


@unittest.skipUnless(os.getuid() == 0, "only root can become somebody else")
class Users(Beside):
    nobody = pwd.getpwnam("nobody")

    def test_setpriv(self):
        self.same_objects("setpriv", f"--reuid={self.nobody.pw_uid}", f"--regid={self.nobody.pw_gid}",
                          "--clear-groups", "--")

    def test_login(self):
        """With an environment of its own."""
        self.same_objects("runuser", "-u", "nobody", "--", "env", "-i", "PYTHONHASHSEED=0")

    def test_by_itself(self):
        """Without an exec between."""
        code = ("import os, sys; os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1])); sys.argv[:3] = []; "
                "sys.argv.insert(0, ''); exec(open(sys.argv[2]).read().replace('sys.argv[1]', 'sys.argv[-1]'))")
        self.same_objects(PYTHON, "-c", code, str(self.nobody.pw_uid), str(self.nobody.pw_gid))

    def test_somebody_else_connects(self):
        """Who is none of the program's is turned away."""
        client = self.start_client("sleep", "60", options=[LOCAL], stderr=subprocess.PIPE)
        self.wait_for_program(client)
        path, = glob.glob(os.path.join(self.tmp, "edm-*", "socket"))
        code = ("import os, socket, sys; os.setuid(int(sys.argv[2]))\n"
                "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])\n"
                "try: print(len(s.recv(100)))\nexcept ConnectionResetError: print(0)")
        done = subprocess.run([PYTHON, "-c", code, path, str(self.nobody.pw_uid)], stdout=subprocess.PIPE,
                              timeout=LONG_S, check=True, text=True)
        self.assertEqual(done.stdout, "0\n")
        self.assertIn("none of the program's", self.read("log"))
        # What is not for the agents is closed to others.
        for name in os.listdir(os.path.dirname(path)):
            mode = os.stat(os.path.join(os.path.dirname(path), name)).st_mode & 0o077
            self.assertEqual(mode != 0, name == "socket" or name.startswith("agent.so"), name)
        client.terminate()
        client.wait(LONG_S)
        self.assertEqual(client.stderr.read(), b"")


@unittest.skipUnless(os.getuid() == 0, "only root can make a namespace")
class Namespaces(Beside):
    """In a pid namespace of its own all threads, EDM's too, have other numbers than here."""
    WORDS = ["unshare", "--pid", "--fork", "--mount-proc", "--net", "--ipc", "--uts"]

    def test_alone(self):
        self.same_objects(*self.WORDS)

    def test_family(self):
        self.assertEqual(self.managed(*self.WORDS, PYTHON, "-c", FAMILY, TRACED), "ok\n")
        self.assert_paged("python3")
        self.assert_paged("traced")


class Filters(Beside):
    """A seccomp filter that the program sets on all of its threads is on EDM's, too."""
    CODE = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# The call's number; these get EPERM; all others are allowed.
lines = [(0x20, 0, 0, 0), (0x06, 0, 0, 0x7fff0000)]
for word in sys.argv[2].split(","):
    lines[1:1] = [(0x15, 0, 1, int(word)), (0x06, 0, 0, 0x50001)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
program = struct.pack("=HxxxxxxQ", len(lines), ctypes.addressof(code))
on_all = sys.argv[1] == "all"
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(317, 1, on_all, program) == 0, ctypes.get_errno()
if not on_all:
    import subprocess
    sys.exit(subprocess.run(["echo", "ok"]).returncode)
block = bytearray(b"x") * (40 << 20)
assert block.count(b"x") == 40 << 20
print("ok")
"""

    def test_refused(self):
        for number in (46, 47, 200):  # sendmsg, recvmsg, and one that nobody needs
            words = [PYTHON, "-c", self.CODE, "all", str(number)]
            with self.subTest(number=number):
                self.assertEqual(subprocess.check_output(words, text=True), "ok\n")
                if number == 200:
                    self.assertEqual(self.managed(*words), "ok\n")
                    continue
                done = self.run_client(*words, options=[LOCAL], text=True, timeout=LONG_S)
                self.assertEqual(done.returncode, 125, done.stderr)
                self.assertRegex(done.stderr, "^edm: .*refused.*by a seccomp filter.*\n$")

    def test_child(self):
        """One that may not have a userfaultfd goes on alone."""
        out = self.managed(PYTHON, "-c", self.CODE, "one", "16,323")
        self.assertEqual(out, "ok\n")
        self.assertRegex(self.read("log"), r"the agent in \d+ failed at userfaultfd.*natively")


class Debuggers(Beside):
    # gdb reads what is in memory, and otherwise says that it cannot.
    READS = [f"python\ntry:\n  gdb.execute('output words[{i}]'); print('')\nexcept gdb.error as e: print('cannot' if 'annot access memory' in str(e) else e)\nend"
             for i in WORDS]

    def commands(self, *lines):
        with open(self.path("commands"), "w", encoding="utf-8") as file:
            file.write("\n".join(("set pagination off", "set confirm off", *lines, "")))
        return ["gdb", "-batch", "-nx", "-x", self.path("commands")]

    def calls(self):
        """Commands that have the program touch its memory. gdb 13 calls no function where the processor has AMX."""
        command = self.commands("break full", "run", "print peek(1)", "kill")
        done = subprocess.run([*command, "--args", TRACED, "1", "check"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=LONG_S, check=False)
        if f"= {7919 + 1}\n" in done.stdout:
            return [f"print peek({i})" for i in WORDS]
        self.assertIn("Couldn't write extended state", done.stdout)
        print("gdb calls no functions here: only what it reads is looked at ... ", end="", file=sys.stderr)
        return []

    def assert_peeks(self, out, calls):
        for word in WORDS if calls else []:
            self.assertRegex(out, f"= {word * 7919 + 1}\n")
        read = [line for line in out.splitlines() if re.fullmatch(r"\d+|cannot", line)]
        self.assertIn(len(read), [len(WORDS), 2 * len(WORDS)], out)
        for line in read:
            self.assertIn(line, ["cannot", *(str(i * 7919 + 1) for i in WORDS)])

    def test_gdb(self):
        """What is outside comes in when the program itself is made to touch it; gdb alone cannot read it, and
        says so: it never shows other bytes."""
        calls = self.calls()
        out = self.managed(*self.commands("break full", "run", *self.READS, *calls, *self.READS, "delete", "continue"),
                           "--args", TRACED, str(MIB), "check", err=None)
        self.assertIn("exited with code 07", out)
        self.assert_peeks(out, calls)
        self.assert_paged("traced")

    def test_gdb_attaches(self):
        calls = self.calls()
        client = self.start_client(TRACED, str(MIB), "wait", self.path("go"),
                                   options=[LOCAL, "--stats-interval=20"], stderr=subprocess.PIPE)
        pid = self.wait_for_program(client, needs_paging=True)
        command = self.commands(*calls, *self.READS, "detach")
        for _ in range(10):
            # It may be held back just now, which takes a tracer too.
            done = subprocess.run([*command, "-p", str(pid)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=LONG_S, check=False)
            if "detached" in done.stdout:
                break
            time.sleep(0.5)
        self.assertIn("detached", done.stdout)
        self.assert_peeks(done.stdout, calls)
        with open(self.path("go"), "w", encoding="utf-8"):
            pass
        self.assertEqual(client.wait(LONG_S), AS_EXPECTED, client.stderr.read())

    def test_strace(self):
        """Under EDM, and EDM under it."""
        self.managed("strace", "-f", "-o", self.path("calls"), TRACED, str(MIB), "check", status=AS_EXPECTED)
        self.assert_paged("traced")
        self.assertIn("exited with 7", self.read("calls"))
        done = subprocess.run(["strace", "-f", "-o", self.path("calls"),
                               *self.client_words(TRACED, str(MIB), "check", options=[LOCAL])],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=LONG_S,
                              env=self.environ, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (AS_EXPECTED, "", ""))
        self.assertGreater(self.figures()["pages_got"], 1000)


def core_is_a_file():
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
        pattern = file.read().strip()
    return "/" not in pattern and not pattern.startswith(("|", "@"))


@unittest.skipUnless(core_is_a_file(), "cores go elsewhere here")
class Cores(Beside):
    LINE = r"Warn\].* (\d+) \(traced\): its core dump is not whole: (\d+) pages "

    def cored(self, *words, status, local=LOCAL_MIB):
        limits = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_CORE, limits)
        self.assertNotEqual(limits[1], 0, "no core may be dumped here")
        out = self.managed(TRACED, *words, status=status, options=[f"--local={local}M"])
        self.assertTrue(any(name.startswith("core") for name in os.listdir(self.dir)), os.listdir(self.dir))
        return out, re.findall(self.LINE, self.read("log"))

    def test_program(self):
        _, lines = self.cored(str(MIB), "abort", status=128 + 6)
        self.assertEqual(len(lines), 1, self.read("log"))
        self.assertGreater(int(lines[0][1]), (MIB - LOCAL_MIB) * 200)

    def test_child(self):
        """Its parent, not edm, waits for it."""
        out, lines = self.cored(str(MIB), "child", status=AS_EXPECTED)
        self.assertEqual(out, "core\n")
        self.assertEqual(len(lines), 1, self.read("log"))

    def test_whole(self):
        """Nothing was outside: nothing is said, and gdb finds all of it."""
        _, lines = self.cored(str(MIB), "abort", status=128 + 6, local=256)
        self.assertEqual(lines, [])
        core, = [name for name in os.listdir(self.dir) if name.startswith("core")]
        done = subprocess.run(["gdb", "-batch", "-nx", *(word for i in WORDS for word in ("-ex", f"print words[{i}]")),
                               TRACED, self.path(core)], stdout=subprocess.PIPE, text=True, check=True)
        for word in WORDS:
            self.assertRegex(done.stdout, f"= {word * 7919 + 1}\n")

    def test_none(self):
        """Without a core there is nothing to say."""
        self.managed("sh", "-c", f"ulimit -c 0; exec {TRACED} {MIB} abort", status=128 + 6)
        self.assertEqual(re.findall(self.LINE, self.read("log")), [])


if __name__ == "__main__":
    for needed in ("gdb", "strace"):
        if not shutil.which(needed):
            print(f"skipped: no {needed}")
            sys.exit(77)
    main()
