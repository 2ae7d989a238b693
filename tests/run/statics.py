#!/usr/bin/python3
"""statics.py EDM TOOLS [CLASS]: programs that load nothing when they start, and so no agent: statically
linked ones and Go's."""
import os
import shutil
import signal
import subprocess
import time
import unittest

from harness import Case, children_of, exe_of, is_alive, main, tool, wait_until

STATIC = tool("static")
COLLECTED = tool("collected")
AS_EXPECTED = 7
LOCAL_MIB = 24
LOCAL = f"--local={LOCAL_MIB}M"
MORE_THAN_LOCAL = "48"
GONE_S = 5  # bench/deaths measures how long it takes; here nothing may depend on how busy the machine is
LONG_S = 240


class Managed(Case):
    def managed(self, *words, status=AS_EXPECTED, options=()):
        """Runs to the end, with no word but its own; returns the figures and the output."""
        done = self.run_client(*words, options=[LOCAL, *options], text=True, timeout=LONG_S)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return self.figures(), done

    def assert_paged(self, figures, name, count=1):
        """So many processes of that name had pages elsewhere."""
        found = [process for process in figures["processes"] if process["name"] == name]
        self.assertEqual(len(found), count, figures["processes"])
        for process in found:
            self.assertGreater(process["pages_evicted"], 1000)
            self.assertGreater(process["faults"], 100)
        self.assertGreater(figures["pages_put"], 1000)
        self.assertGreater(figures["pages_got"], 1000)


@unittest.skipUnless(os.path.exists(STATIC), "no static program could be linked here")
class Static(Managed):
    def test_threads(self):
        """They fill memory as fast as they can from their first moment on, and yet not over the budget."""
        for _ in range(3):
            figures, done = self.managed(STATIC, "verify", MORE_THAN_LOCAL, "4")
            self.assertEqual((done.stdout, done.stderr), ("", ""))
            self.assert_paged(figures, "static")
            self.assertLess(figures["peak_resident_bytes"], (LOCAL_MIB + 8) << 20)

    def test_within_its_budget(self):
        figures, _ = self.managed(STATIC, "verify", "8", "2", options=["--local=256M"])
        self.assertEqual(figures["images"], 1)
        self.assertEqual((figures["pages_put"], figures["faults"]["zero"], figures["faults"]["write"]),
                         (0, 0, 0))

    def test_forks(self):
        figures, _ = self.managed(STATIC, "fork", "48")
        self.assert_paged(figures, "static", 3)
        self.assertEqual(figures["images"], 3)

    def test_run_by_a_shell(self):
        figures, _ = self.managed("sh", "-c", f"exec {STATIC} verify {MORE_THAN_LOCAL} 2")
        self.assert_paged(figures, "static")
        # dash's children come from vfork(): nobody tells of them.
        command = f"{STATIC} verify {MORE_THAN_LOCAL} 2; test $? = {AS_EXPECTED} || exit 1; "
        figures, _ = self.managed("dash", "-c", command + command + "true", status=0)
        self.assert_paged(figures, "static", 2)

    def test_left_alone(self):
        figures, _ = self.managed("dash", "-c", f"{STATIC} verify 48 1; exit $?", options=["--follow=no"])
        self.assertEqual((figures["images"], figures["pages_put"]), (1, 0))

    @unittest.skipUnless(os.getuid() == 0, "chroot is root's")
    def test_in_another_root(self):
        """Where it cannot reach EDM it runs natively, and the log says so."""
        shutil.copy(STATIC, self.path("static"))
        self.managed("sh", "-c", f"/usr/sbin/chroot {self.dir} /static verify {MORE_THAN_LOCAL} 1")
        self.assertIn("It is not managed", self.read("log"))

    def test_runs_another(self):
        code = "b = bytearray(64 << 20); b[::4096] = bytes(i % 251 for i in range(len(b) >> 12)); " \
               "assert all(b[i << 12] == i % 251 for i in range(len(b) >> 12))"
        figures, _ = self.managed(STATIC, "spawn", MORE_THAN_LOCAL, "/usr/bin/python3", "-c", code)
        self.assert_paged(figures, "static")
        self.assert_paged(figures, "python3")

    def test_dynamic_linker_by_name(self):
        """It loads nothing when it starts, and the agent by itself later."""
        loader = "/lib64/ld-linux-x86-64.so.2"
        figures, done = self.managed(loader, "/usr/bin/python3", "-c", "print(6 * 7)", status=0)
        self.assertEqual((figures["images"], done.stdout), (1, "42\n"))

    def test_stopped_when_it_is_found(self):
        """A process that was stopped stays so, and is managed when it goes on."""
        script = f"{STATIC} verify {MORE_THAN_LOCAL} 2 & kill -STOP $!; echo $!; wait $!; exit $?"
        client = self.start_client("dash", "-c", script, options=[LOCAL], stdout=subprocess.PIPE, text=True)
        pid = int(client.stdout.readline())
        time.sleep(0.3)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            self.assertEqual(file.read().rpartition(")")[2].split()[0], "T")
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(client.wait(LONG_S), AS_EXPECTED)

    def test_killed_when_it_is_found(self):
        """At moments of no choice: its parent learns of it, whoever had it in hand."""
        code = f"""
import random, signal, subprocess, time
for round in range(60):
    child = subprocess.Popen(["{STATIC}", "verify", "32", "2"])
    time.sleep(random.uniform(0, 0.02))
    if round % 2:
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.002)
    child.kill()
    child.wait(timeout=20)
"""
        _, done = self.managed("/usr/bin/python3", "-c", code, status=0)
        self.assertEqual(done.stderr, "")
        self.assertNotRegex(self.read("log"), "Warn|Error|Fatal")

    def kill_edm(self, *words):
        client = self.start_client(*words, options=[LOCAL, "--stats-interval=20"])
        self.wait_for_program(client, needs_paging=True)
        everybody = children_of(client.pid)
        everybody += [pid for child in everybody for pid in children_of(child)]
        self.assertIn(STATIC, [exe_of(pid) for pid in everybody])
        client.kill()
        self.assert_all_gone(everybody, GONE_S)

    def test_edm_is_killed(self):
        self.kill_edm(STATIC, "verify", "256", "4")

    def test_edm_is_killed_behind_a_shell(self):
        self.kill_edm("dash", "-c", f"{STATIC} verify 256 4; true")


@unittest.skipUnless(os.path.exists(COLLECTED), "no go to build a Go program with")
class Go(Managed):
    def test_collector(self):
        figures, done = self.managed(COLLECTED, "19", "2", status=0)
        self.assertEqual(done.stdout, f"{2 ** 20 - 1}\n")
        self.assertGreater(int(done.stderr), 3)
        self.assert_paged(figures, "collected")
        # Measured from within: as large as this natively.
        self.assertGreater(figures["peak_managed_bytes"], 4 * LOCAL_MIB << 20)
        self.assertLess(figures["peak_resident_bytes"], (LOCAL_MIB + 8) << 20)

    def test_children(self):
        figures, done = self.managed(COLLECTED, "18", "0", "2", status=0)
        self.assertEqual(done.stdout, 3 * f"{2 ** 19 - 1}\n")
        self.assert_paged(figures, "collected", 3)

    def test_signals(self):
        """Natively it would end of this one: it does so here."""
        client = self.start_client(COLLECTED, "20", "1000", options=[LOCAL, "--stats-interval=20"])
        pid = self.wait_for_program(client, needs_paging=True)
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(client.wait(LONG_S), 128 + signal.SIGTERM)
        self.assertTrue(wait_until(lambda: not is_alive(pid)))


if __name__ == "__main__":
    main()
