#!/usr/bin/python3
"""suites.py EDM TOOLS [CLASS]: other people's programs at a budget far below their need, with the same results as
natively. EDM_LONG=1: larger, and more of them (make suites)."""
import glob
import hashlib
import os
import pwd
import shutil
import subprocess
import unittest
import xml.etree.ElementTree

from harness import Case, END_WITH_US, main, tool
from workloads import languages

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PYTHON = "/usr/bin/python3"
LONG = os.environ.get("EDM_LONG") == "1"
LONG_S = 3600 if LONG else 400


class Suite(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.dir, 0o777)

    def natively(self, *words, status=0, **more):
        done = subprocess.run([*END_WITH_US, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.environ, text=True, timeout=LONG_S, check=False, **more)
        if status is not None:
            self.assertEqual(done.returncode, status, done.stderr)
        return done

    def managed(self, *words, local_mib, status=0, **more):
        done = self.run_client(*words, options=[f"--local={local_mib}M"], text=True, timeout=LONG_S, **more)
        if status is not None:
            self.assertEqual(done.returncode, status, done.stderr + self.read("log"))
        self.assertNotRegex(self.read("log"), "Fatal")
        figures = self.figures()
        self.assertGreater(figures["pages_put"], 1000)
        self.assertGreater(figures["pages_got"], 1000)
        return done

    def assert_larger(self, factor):
        """What it needed was so many times what it had."""
        figures = self.figures()
        self.assertGreater(figures["peak_managed_bytes"], factor * figures["local_limit_bytes"])

    def same(self, *words, local_mib, **more):
        natively = self.natively(*words, **more)
        managed = self.managed(*words, local_mib=local_mib, **more)
        self.assertEqual(managed.stdout, natively.stdout)
        return natively, managed


@unittest.skipUnless(os.path.exists(tool("Verified.class")), "no javac to build with")
class Java(Suite):
    """What is alive is larger than the budget, and the heap several times as large."""
    MIB = 48 if LONG else 24

    def run_with(self, *options, rounds=1):
        heap = f"-Xmx{self.MIB * 3}m"
        words = ["java", *options, heap, "-XX:-UsePerfData", "-cp", os.path.dirname(tool("Verified.class")), "Verified",
                 str(self.MIB), "2", str(rounds)]
        _, managed = self.same(*words, local_mib=max(24, 2 * self.MIB // 3))
        self.assertGreater(int(managed.stderr), 0, "nothing was collected")
        self.assert_larger(2)

    def test_serial(self):
        self.run_with("-XX:+UseSerialGC")

    def test_g1_touched_before(self):
        self.run_with("-XX:+UseG1GC", "-XX:+AlwaysPreTouch", f"-Xms{self.MIB * 3}m")

    @unittest.skipUnless(LONG, "long")
    def test_parallel(self):
        self.run_with("-XX:+UseParallelGC")

    @unittest.skipUnless(LONG, "long")
    def test_g1(self):
        self.run_with("-XX:+UseG1GC", rounds=2)

    @unittest.skipUnless(LONG, "long")
    def test_serial_touched_before(self):
        self.run_with("-XX:+UseSerialGC", "-XX:+AlwaysPreTouch", f"-Xms{self.MIB * 3}m")

    @unittest.skipUnless(LONG, "long")
    def test_parallel_touched_before(self):
        self.run_with("-XX:+UseParallelGC", "-XX:+AlwaysPreTouch", f"-Xms{self.MIB * 3}m")


POSTGRES = sorted(glob.glob("/usr/lib/postgresql/*/bin"))


@unittest.skipUnless(POSTGRES, "no PostgreSQL here")
@unittest.skipUnless(os.getuid() == 0, "PostgreSQL is run as another user")
class Postgres(Suite):
    def test_queries(self):
        rows = "200000" if LONG else "30000"
        nobody = pwd.getpwnam("nobody")
        words = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--", "bash",
                 os.path.join(HERE, "workloads", "postgres.sh"), POSTGRES[-1]]
        outs = []
        for run in (self.natively, self.managed):
            directory = self.path(run.__name__)
            os.mkdir(directory)
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            more = {} if run == self.natively else {"local_mib": 64 if LONG else 24}
            outs.append(run(*words, directory, rows, cwd=directory, **more).stdout)
        self.assertEqual(outs[1], outs[0])
        self.assertRegex(outs[0], "\n100000[|]t[|]t[|]t\n100\n$")
        self.assert_larger(1.5)


class Build(Suite):
    def test_of_edm(self):
        """In parallel; the object files are the same, byte for byte."""
        for name in ("CMakeLists.txt", "edm.c", "client", "dms", "proto", "ini", "docs"):
            source = os.path.join(ROOT, name)
            copy = shutil.copytree if os.path.isdir(source) else shutil.copy
            copy(source, self.path(name))
        build = self.path("build")
        self.natively("cmake", "-S", self.dir, "-B", build, "-DEDM_TESTS=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
        make = ["make", "-s", "-C", build, "-j4", "edm" if LONG else "edm-proto"]
        self.natively(*make)
        natively = self.built(build)
        self.natively("make", "-s", "-C", build, "clean")
        self.assertEqual(self.built(build), {})
        self.managed(*make, local_mib=16)
        self.assertEqual(self.built(build), natively)
        self.assertGreater(len(natively), 3)
        self.assert_larger(2)

    @staticmethod
    def built(build):
        found = {}
        for directory, _, names in os.walk(build):
            for name in names:
                if name.endswith((".o", ".a")) or name == "edm":
                    with open(os.path.join(directory, name), "rb") as file:
                        found[os.path.join(directory, name)] = hashlib.sha256(file.read()).hexdigest()
        return found


class Languages(Suite):
    MIB = 48 if LONG else 12

    def same_checksum(self, program, *options, text, status=0):
        if not shutil.which(program):
            self.skipTest(f"no {program} here")
        code = text % ((self.MIB,) * (text.count("%d")))
        self.same(program, *options, code, local_mib=max(16, self.MIB // 3), status=status)
        self.assert_larger(1.2)

    def test_node(self):
        self.same_checksum("node", "-e", text=languages.NODE)

    def test_perl(self):
        self.same_checksum("perl", "-e", text=languages.PERL)

    def test_gawk(self):
        self.same_checksum("gawk", text=languages.GAWK)

    def test_ruby(self):
        self.same_checksum("ruby", "-e", text=languages.RUBY)

    def test_php(self):
        self.same_checksum("php", "-d", "opcache.enable_cli=1", "-d", "opcache.jit=tracing", "-d", "opcache.jit_buffer_size=16M",
                           "-r", text=languages.PHP)

    def test_luajit(self):
        self.same_checksum("luajit", "-e", text=languages.LUAJIT)

    def test_erlang(self):
        self.same_checksum("erl", "-noinput", "-eval", text=languages.ERLANG, status=3)

    def test_sbcl(self):
        self.same_checksum("sbcl", "--noinform", "--eval", text=languages.SBCL)

    def test_guile(self):
        self.same_checksum("guile", "--no-auto-compile", "-c", text=languages.GUILE)

    def test_numpy(self):
        self.same_checksum(PYTHON, "-c", text=languages.NUMPY)


class PythonTests(Suite):
    """Python's own tests: each test has the same result as natively."""
    SHORT = ["test_mmap", "test_thread", "test_fork1", "test_wait3", "test_wait4", "test_threading_local", "test_array",
             "test_list"]
    ALL = SHORT + ["test_threading", "test_subprocess", "test_gc", "test_io", "test_ctypes", "test_os", "test_posix",
                   "test_pty", "test_queue", "test_signal", "test_faulthandler", "test_bytes", "test_dict", "test_pickle",
                   "test_select", "test_selectors", "test_resource", "test_socket", "test_multiprocessing_fork"]

    # In some virtual machines a test that talks to itself by vsock waits for ever, natively too. A hundred processes
    # have some 150 MiB that cannot be managed: test_hundred_processes.
    NOT_HERE = ["--ignore", "*VSOCK*", "--ignore", "test_many_processes"]

    # Most of them alone would fit: beside each runs this, under the same budget.
    BESIDE = """
import subprocess, sys
block = bytearray(b"x") * (20 << 20)
child = subprocess.Popen(sys.argv[1:])
while True:
    for at in range(0, len(block), 4096):
        assert block[at] == ord("x"), hex(at)
    try:
        sys.exit(child.wait(5))
    except subprocess.TimeoutExpired:
        pass
"""

    def results(self, run, *tests, **more):
        """Test case -> whether it passed, failed or was skipped."""
        path = self.path("results.xml")
        run(PYTHON, "-c", self.BESIDE, PYTHON, "-m", "test", "--junit-xml", path, *tests, status=None, cwd=self.dir,
            **more)
        found = {}
        for case in xml.etree.ElementTree.parse(path).iter("testcase"):
            found[case.get("name")] = [case.get("result"), *sorted(part.tag for part in case if part.tag != "system-out")]
        os.unlink(path)
        return found

    def same_results(self, *words, local_mib):
        natively = self.results(self.natively, *words)
        self.assertGreater(len(natively), 0)
        managed = self.results(self.managed, *words, local_mib=local_mib)
        self.assertEqual(managed, natively)

    def test_of_python(self):
        for tests in [[test] for test in self.ALL] if LONG else [self.SHORT]:
            with self.subTest(tests=tests):
                self.same_results(*self.NOT_HERE, *tests, local_mib=16)

    def test_hundred_processes(self):
        self.same_results("-m", "test_many_processes", "test_multiprocessing_fork", local_mib=256)


if __name__ == "__main__":
    main()
