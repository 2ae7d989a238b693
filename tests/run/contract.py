#!/usr/bin/python3
"""contract.py EDM TOOLS: what a user may rely on: exit status, signals, standard streams, arguments, and
what is said about programs that cannot be run."""
import os
import random
import subprocess
import time
import unittest

from harness import Case, main, signal, stop, tool, wait_until, WAIT_S

# Takes 150 MiB at a budget of 64, then does what it was told.
LARGE = "block = bytearray(b'x') * (150 << 20); "
# Says when it is ready for signals.
TRAPS = """
import os, signal, sys, time
got = []
for number in (1, 2, 3, 10, 12, 14, 15, 28):
    signal.signal(number, lambda n, frame: (print(n, flush=True), sys.exit(42) if n == 15 else None))
print('ready', flush=True)
while True:
    time.sleep(0.01)
"""


class Status(Case):
    def test_exit_status(self):
        for status in (0, 1, 2, 77, 125, 126, 127, 128, 255):
            self.assertEqual(self.run_client("sh", "-c", f"exit {status}").returncode, status)

    def test_exit_status_with_pages_out(self):
        # The pager needs a processor once before it ends.
        done = self.run_client("/usr/bin/python3", "-c", f"import time; {LARGE} time.sleep(1); raise SystemExit(33)")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (33, b"", b""))
        figures = self.figures()
        self.assertEqual(figures["exit_status"], 33)
        self.assertGreater(figures["pages_put"], 1000)

    def test_ended_by_a_signal(self):
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV,
                       signal.SIGTERM, signal.SIGRTMIN):
            done = self.run_client("/usr/bin/python3", "-c",
                                   f"import os, signal; signal.signal({int(number)}, 0) if {int(number)} "
                                   f"not in (9,) else 0; os.kill(os.getpid(), {int(number)})")
            self.assertEqual(done.returncode, 128 + number)

    def test_ended_by_a_signal_with_pages_out(self):
        done = self.run_client("/usr/bin/python3", "-c", f"import os; {LARGE} os.kill(os.getpid(), 11)")
        self.assertEqual(done.returncode, 128 + 11)


class Signals(Case):
    def test_passed_on(self):
        client = self.start_client("/usr/bin/python3", "-c", TRAPS, stdout=subprocess.PIPE, text=True)
        self.assertEqual(client.stdout.readline(), "ready\n")
        for number in (1, 2, 3, 10, 12, 15):
            client.send_signal(number)
            self.assertEqual(client.stdout.readline(), f"{number}\n")
        self.assertEqual(client.wait(WAIT_S), 42)
        self.assert_no_files()

    def test_not_caught_by_the_program(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            client = self.start_client("sleep", "100")
            self.wait_for_program(client)
            client.send_signal(number)
            self.assertEqual(client.wait(WAIT_S), 128 + number)
            self.assert_no_files()

    def test_ended_while_it_starts(self):
        """Whatever the pager has in hand at that moment: it is the program's end, not a failure."""
        delays = random.Random(5)
        for _ in range(10):
            clients = [self.start_client("sh", "-c", "exec sleep 100", stderr=subprocess.PIPE)
                       for _ in range(4)]
            pids = [self.wait_for_program(client) for client in clients]
            time.sleep(delays.random() * 0.01)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            for client in clients:
                _, said = client.communicate(timeout=WAIT_S)
                self.assertEqual((client.returncode, said), (128 + 15, b""))
            self.assert_no_files()

    def test_a_stopped_program_goes_on(self):
        client = self.start_client(tool("verify"), "--size=128M", "--seconds=2", stdout=subprocess.PIPE,
                                   options=["--stats-interval=50"])
        pid = self.wait_for_program(client, needs_paging=True)
        stop(pid)
        self.assertFalse(wait_until(lambda: client.poll() is not None, 1))
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(client.wait(WAIT_S), 0)
        self.assertRegex(client.stdout.read(), b"^verify: ok ")


class Streams(Case):
    def test_bytes_pass_untouched(self):
        data = os.urandom(3 << 20)
        done = self.run_client("sh", "-c", "tee /dev/stderr", input=data)
        self.assertEqual(done.returncode, 0)
        self.assertTrue(done.stdout == data)
        self.assertTrue(done.stderr == data)

    def test_nothing_is_added_under_pressure(self):
        done = self.run_client("/usr/bin/python3", "-c",
                               f"import sys; {LARGE} print(sum(block) // 120, sys.stdin.read())",
                               input=b"input")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"157286400 input\n", b""))

    def test_closed_streams(self):
        done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh",
                               *self.client_words("sh", "-c", "exit 5")], env=self.environ,
                              timeout=WAIT_S, check=False)
        self.assertEqual(done.returncode, 5)
        self.assert_no_files()

    def test_no_descriptor_of_edm_reaches_the_program(self):
        """Beyond the three streams the program has only what the agent needs, and that is not inherited."""
        done = self.run_client("sh", "-c", "ls /proc/self/fd | wc -w", input=b"")
        # Of ls itself: three streams and the directory it reads.
        self.assertLessEqual(int(done.stdout), 4 + 2, done.stdout)


class Arguments(Case):
    def test_words_stay_as_they_are(self):
        words = ["", " ", "two words", "-x", "--", "--local=1G", "'\"\\", "$HOME *", "\n", b"\xfc"]
        done = self.run_client("/usr/bin/python3", "-c",
                               "import os, sys; print([os.fsencode(a) for a in sys.argv[1:]])", *words)
        self.assertEqual(done.stdout.decode(), f"{[os.fsencode(word) for word in words]}\n")

    def test_name_and_directory_stay_as_they_are(self):
        done = self.run_client("sh", "-c", "echo $0; pwd", cwd="/usr")
        self.assertEqual(done.stdout, b"sh\n/usr\n")

    def test_environment(self):
        done = self.run_client("env", env=dict(self.environ, EDM_TEST="a b"))
        words = {line.partition("=")[0]: line.partition("=")[2] for line in done.stdout.decode().splitlines()}
        self.assertEqual(words["EDM_TEST"], "a b")
        self.assertEqual(words["TMPDIR"], self.tmp)


class Wrappers(Case):
    def wrapper(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), 0o755)
        return self.path(name)

    def check_paged(self, done):
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertRegex(done.stdout, b"^touch: ok ")
        self.assertGreater(self.figures()["pages_put"], 1000)

    def test_script_that_execs(self):
        """The program behind two wrappers is managed as well."""
        inner = self.wrapper("inner", f"#!/bin/sh\nexec {tool('touch')} \"$@\"\n")
        outer = self.wrapper("outer", f"#!/usr/bin/env bash\nexec {inner} \"$@\"\n")
        self.check_paged(self.run_client(outer, "--size=150M"))

    def test_many_execs(self):
        """Each image is taken over, however soon the next one comes."""
        # Several at once: it takes a busy machine for an exec to fall between two steps of the pager.
        running = [self.start_client(*["env"] * 300, "true", stdin=subprocess.DEVNULL) for _ in range(6)]
        self.assertEqual([each.wait(WAIT_S) for each in running], [0] * len(running))

    def test_script_without_an_interpreter_line(self):
        self.check_paged(self.run_client(self.wrapper("plain", f"exec {tool('touch')} --size=150M\n")))

    def test_name_in_path(self):
        self.wrapper("edm-test-wrapped", f"#!/bin/sh\nexec {tool('touch')} --size=150M\n")
        environ = dict(self.environ, PATH=f"{self.dir}:{os.environ['PATH']}")
        self.check_paged(self.run_client("edm-test-wrapped", env=environ))

    def test_exec_with_pages_out(self):
        """What the old image had outside its budget is forgotten with it."""
        code = f"import os; {LARGE} os.execv('{tool('touch')}', ['touch', '--size=150M'])"
        self.check_paged(self.run_client("/usr/bin/python3", "-c", code))
        self.assertGreater(self.figures()["images"], 1)


class Refusals(Case):
    @unittest.skipUnless(os.geteuid() == 0, "a pid namespace needs root")
    def test_proc_of_another_namespace(self):
        """Processes would be looked for under the wrong numbers."""
        done = subprocess.run(["unshare", "--pid", "--fork", "--kill-child", *self.client_words("true")],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environ,
                              timeout=WAIT_S, check=False)
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertRegex(done.stderr, "^edm: /proc is not mounted, or is another pid namespace's: .*\n$")
        self.assert_no_files()

    def refused(self, status, pattern, *words, **options):
        """The status, and one line that says why."""
        done = self.run_client(*words, **options)
        self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
        self.assertRegex(done.stderr.decode(), rf"^edm: .*{pattern}[^\n]*\n$")

    def test_not_found(self):
        self.refused(127, "edm-no-such-program.*not found", "edm-no-such-program")
        self.refused(127, "/no/such/program.*No such file", "/no/such/program")
        self.refused(127, "", "")

    def test_directory(self):
        self.refused(126, f"{self.dir}.*[Dd]irectory", self.dir)

    def test_not_executable(self):
        with open(self.path("plain"), "w", encoding="utf-8"):
            pass
        self.refused(126, "plain.*Permission denied", self.path("plain"))

    def test_missing_interpreter(self):
        with open(self.path("script"), "w", encoding="utf-8") as file:
            file.write("#!/no/such/interpreter\n")
        os.chmod(self.path("script"), 0o755)
        self.refused(126, "/no/such/interpreter", self.path("script"))

    def test_no_program_at_all(self):
        with open(self.path("binary"), "wb") as file:
            file.write(b"\x7fELF" + bytes(200))
        os.chmod(self.path("binary"), 0o755)
        self.refused(126, "binary", self.path("binary"))

    def test_static(self):
        if not os.path.exists(tool("static")):
            self.skipTest("no static program could be linked here")
        self.assertEqual(subprocess.run([tool("static")], check=False).returncode, 7)
        for words in ([tool("static")], ["sh", "-c", f"exec {tool('static')}"]):
            done = self.run_client(*words)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (7, b"", b""))


if __name__ == "__main__":
    main()
