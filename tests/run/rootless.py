#!/usr/bin/python3
"""rootless.py EDM TOOLS: a user without rights runs EDM where the user may open /dev/userfaultfd, and is
told what would help where not. Needs root, to become somebody else in a mount namespace of its own."""
import os
import re
import shutil
import subprocess
import sys

from harness import Case, EDM, main, tool, WAIT_S

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"]
SKIPPED = 77
# $1: directory for a device file, $2: minor number, $3: mode; the rest: the command.
WITH_DEVICE = """
set -e
mount -t tmpfs edm-test "$1"
mknod "$1/userfaultfd" c 10 "$2"
chmod "$3" "$1/userfaultfd"
mount --bind "$1/userfaultfd" /dev/userfaultfd
shift 3
exec "$@"
"""


def minor_number():
    with open("/proc/misc", encoding="utf-8") as file:
        found = re.search(r"(\d+) userfaultfd$", file.read(), re.MULTILINE)
    return found and found.group(1)


def unprivileged_userfaultfd():
    with open("/proc/sys/vm/unprivileged_userfaultfd", encoding="utf-8") as file:
        return file.read().strip() == "1"


def why_not():
    if os.getuid() != 0:
        return "not root"
    if not minor_number() or not os.path.exists("/dev/userfaultfd"):
        return "no /dev/userfaultfd here"
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "edm-test", "/mnt"],
                          stderr=subprocess.DEVNULL, check=False)
    return "no mount namespace to be had" if done.returncode != 0 else None


class Rootless(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.dir, 0o777)
        os.mkdir(self.path("dev"))
        # Where a build is may be closed to others.
        for name, path in (("edm", EDM), ("verify", tool("verify")), ("static", tool("static"))):
            if os.path.exists(path):
                shutil.copy(path, self.path(name))
                os.chmod(self.path(name), 0o755)

    def run_as_nobody(self, mode, *words, options=()):
        client = self.client_words(*words, options=options)
        client[0] = self.path("edm")
        return subprocess.run(["unshare", "-m", "bash", "-c", WITH_DEVICE, "bash", self.path("dev"),
                               minor_number(), mode, *NOBODY, *client], env=self.environ, cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=WAIT_S, check=False)

    def test_with_the_device(self):
        done = self.run_as_nobody("666", self.path("verify"), "--size=256M", "--seconds=3", "--churn")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, "^verify: ok ")
        self.assertGreater(self.figures()["pages_put"], 1000)
        self.assert_no_files()

    def run_forks(self, mib):
        """A program that forks with MIB in use, of which some is outside."""
        code = ("import os, sys\n"
                "block = bytearray(130 << 20)\n"
                "for at in range(0, len(block), 4096): block[at:at + 4] = at.to_bytes(4, 'little')\n"
                f"del block[{mib} << 20:]\n"
                "def check(also=0):\n"
                "    for at in range(0, len(block), 4096):\n"
                "        assert int.from_bytes(block[at:at + 4], 'little') == at + also\n"
                "for round in range(3):\n"
                "    pid = os.fork()\n"
                "    if pid == 0:\n"
                "        check()\n"
                "        for at in range(0, len(block), 4096):\n"
                "            block[at:at + 4] = (at + 1).to_bytes(4, 'little')\n"
                "        check(1)\n"
                "        os._exit(0)\n"
                "    check()\n"
                "    assert os.waitpid(pid, 0)[1] == 0\n"
                "check()\n"
                "print('ok')\n")
        return self.run_as_nobody("666", "/usr/bin/python3", "-c", code, options=["--log-level=info"])

    def test_fork(self):
        """What is outside comes in before."""
        done = self.run_forks(40)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "ok\n", ""))
        figures = self.figures()
        self.assertGreater(figures["pages_put"], 1000)
        self.assertGreaterEqual(figures["forks"], 3)
        self.assertIn("no EVENT_FORK", self.read("log"))

    def test_children_that_no_handler_sees(self):
        """The same for those; their children by fork() are managed, and fork again."""
        code = """if True:
            import ctypes, mmap, os, socket
            libc = ctypes.CDLL(None, use_errno=True)
            def fill(seed, mib=96, kept=30):
                block = bytearray(mib << 20)
                for at in range(0, len(block), 4096): block[at:at + 4] = (at + seed).to_bytes(4, 'little')
                del block[kept << 20:]
                return block
            def check(block, seed):
                for at in range(0, len(block), 4096):
                    assert int.from_bytes(block[at:at + 4], 'little') == at + seed
            def ends_well(pid):
                return os.waitpid(pid, 0)[1] == 0
            def child(_):
                check(block, 1)
                pid = os.fork()
                if pid == 0:
                    more = fill(2, kept=10)
                    pid = os.fork()
                    check(block, 1)
                    check(more, 2)
                    os._exit(0 if pid == 0 or ends_well(pid) else 1)
                check(block, 1)
                os._exit(0 if ends_well(pid) else 1)
            def sockets(_):
                pair = socket.socketpair()
                os._exit(0)
            kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
            in_child, in_another = kind(child), kind(sockets)
            stack = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE)
            top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + (1 << 20)
            libc.clone.argtypes = [kind, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
            CLONE3 = (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17)
            FORK, CLONE, GETPID, SIGCHLD, CLONE_FILES, CLONE_VFORK = 57, 56, 39, 17, 0x400, 0x4000
            block = fill(1)
            for make in (lambda: libc.syscall(FORK), lambda: libc.syscall(CLONE, SIGCHLD, 0, 0, 0, 0),
                         lambda: libc.syscall(CLONE, SIGCHLD | CLONE_FILES, 0, 0, 0, 0),
                         lambda: libc.syscall(435, CLONE3, 64), libc._Fork,
                         lambda: libc.clone(in_child, top, SIGCHLD, None),
                         lambda: libc.clone(in_child, top, SIGCHLD | CLONE_VFORK, None)):
                pid = make()
                assert pid >= 0
                if pid == 0:
                    child(None)
                check(block, 1)
                assert ends_well(pid)
            # It leaves its parent descriptors, of the numbers that were free.
            for _ in range(20):
                pid = libc.clone(in_another, top, SIGCHLD | CLONE_FILES | CLONE_VFORK, None)
                assert ends_well(pid)
            held = [socket.socket(fileno=int(fd)) for fd in os.listdir('/proc/self/fd')
                    if os.path.exists('/proc/self/fd/' + fd) and os.readlink('/proc/self/fd/' + fd).startswith('socket:')]
            assert len(held) == 40, len(held)
            for one in held:
                one.setblocking(False)
                try:
                    assert not one.recv(1), 'somebody has written'
                except BlockingIOError:
                    pass
            # All other calls are what they were.
            assert libc.syscall(GETPID) == os.getpid()
            for number, first in ((-1, 0), (435, 8)):
                assert libc.syscall(number, ctypes.c_void_p(first), 64) == -1
            assert ctypes.get_errno() == 14, ctypes.get_errno()
            check(block, 1)
            print('ok')
            """
        done = self.run_as_nobody("666", "/usr/bin/python3", "-c", code, options=["--log-level=info"])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "ok\n", ""))
        figures = self.figures()
        self.assertGreater(figures["pages_put"], 1000)
        self.assertGreater(figures["images"], 1)

    def test_fork_that_cannot_be(self):
        done = self.run_forks(120)
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertRegex(done.stderr, r"^edm: [^\n]* about to fork [^\n]*--local[^\n]*\n$")
        self.assert_no_files()

    def test_static(self):
        """Its forks could not be seen: a child would find zeros."""
        if not os.path.exists(tool("static")):
            self.skipTest("no static program could be linked here")
        done = self.run_as_nobody("666", self.path("static"), "fork", "100")
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertRegex(done.stderr, r"^edm: [^\n]*statically linked[^\n]*EVENT_FORK[^\n]*\n$")
        self.assert_no_files()
        # Behind a program that is managed it runs as it would without EDM.
        done = self.run_as_nobody("666", "dash", "-c", f"{self.path('static')} fork 60; exit $?")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "", ""))
        self.assertIn("outside of the budget", self.read("log"))
        self.assert_no_files()

    def test_without_the_device(self):
        if unprivileged_userfaultfd():
            self.skipTest("this machine lets everybody use userfaultfd")
        done = self.run_as_nobody("600", "sh", "-c", "echo ran")
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertRegex(done.stderr, r"^edm: [^\n]*\n$")
        for help_ in ("/dev/userfaultfd", "vm.unprivileged_userfaultfd", "CAP_SYS_PTRACE"):
            self.assertIn(help_, done.stderr)
        self.assert_no_files()


if __name__ == "__main__":
    reason = why_not()
    if reason:
        print("skipped:", reason)
        sys.exit(SKIPPED)
    main()
