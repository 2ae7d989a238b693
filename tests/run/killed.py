#!/usr/bin/python3
"""killed.py EDM TOOLS: whoever is killed, nothing is left running, no file is left, and the program never
goes on over pages that nobody brings back."""
import ctypes
import os
import subprocess
import time

from harness import Case, children_of, exe_of, is_alive, main, signal, stop, tool, wait_until, WAIT_S

GONE_S = 5  # bench/deaths measures how long it takes; here nothing may depend on how busy the machine is
INTERVAL = "--stats-interval=50"


class Killed(Case):
    def start_paging(self, *options):
        """Returns edm with a program whose pages are out, and all of edm's children."""
        client = self.start_client(tool("verify"), "--size=256M", "--threads=2", "--seconds=60",
                                   options=[INTERVAL, *options], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        pid = self.wait_for_program(client, needs_paging=True)
        return client, pid, children_of(client.pid)

    def check_silent_death(self, client):
        self.assertEqual(client.stdout.read(), b"", "the program ran to its end")
        self.assertNotIn(b"expected", client.stderr.read(), "the program saw wrong bytes")

    def test_client(self):
        client, pid, children = self.start_paging()
        # The program, the guard and the private DMS.
        self.assertGreaterEqual(len(children), 3, [exe_of(child) for child in children])
        self.assertIn(pid, children)
        self.assertTrue(self.files())
        client.kill()
        self.assert_all_gone(children, GONE_S)
        client.wait()
        self.check_silent_death(client)

    def test_client_again_and_again(self):
        """At moments of no choice."""
        for delay in range(10):
            client = self.start_client(tool("touch"), "--size=256M", stdout=subprocess.DEVNULL)
            time.sleep(0.02 + delay * 0.07)
            children = children_of(client.pid)
            client.kill()
            client.wait()
            self.assert_all_gone(children, GONE_S)

    def test_client_and_guard(self):
        """Without its guard the program ends all the same."""
        client, pid, children = self.start_paging()
        helpers = [child for child in children if child != pid]
        stop(client.pid)
        for helper in helpers:
            os.kill(helper, signal.SIGKILL)
        client.kill()
        client.wait()
        self.assertTrue(wait_until(lambda: not any(is_alive(child) for child in children), 5))
        self.check_silent_death(client)

    def test_program(self):
        client, pid, children = self.start_paging()
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(client.wait(WAIT_S), 128 + signal.SIGKILL)
        self.assert_all_gone(children, GONE_S)
        self.assertEqual(self.figures()["exit_status"], 128 + signal.SIGKILL)
        self.assertEqual(client.stderr.read(), b"")

    def test_program_again_and_again(self):
        """While it takes memory as fast as it can, and is held back."""
        for delay in range(10):
            client = self.start_client(tool("touch"), "--size=2G", "--threads=4", "--block=100K",
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            pid = self.wait_for_program(client)
            time.sleep(delay * 0.1)
            children = children_of(client.pid)
            os.kill(pid, signal.SIGKILL)
            self.assertEqual(client.wait(WAIT_S), 128 + signal.SIGKILL, client.stderr.read())
            self.assert_all_gone(children, GONE_S)

    def test_client_with_a_dms(self):
        """The DMS is not edm's: it stays, and serves the next one."""
        dms, port = self.start_dms()
        option = f"--dms=tcp://127.0.0.1:{port}"
        client, _, children = self.start_paging(option)
        client.kill()
        client.wait()
        self.assert_all_gone(children, GONE_S)
        self.assertIsNone(dms.poll())
        done = self.run_client(tool("verify"), "--size=128M", "--seconds=1", options=[option])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(self.figures()["pages_put"], 1000)

    def test_private_dms(self):
        """It is started again on its pages, and the program goes on."""
        client = self.start_client(tool("verify"), "--size=256M", "--threads=2", "--seconds=6", "--churn",
                                   options=[INTERVAL], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        pid = self.wait_for_program(client, needs_paging=True)
        victims = 0
        for child in children_of(client.pid):
            with open(f"/proc/{child}/cmdline", "rb") as file:
                is_dms = b"--mode=dms" in file.read()
            if child != pid and is_dms:
                os.kill(child, signal.SIGKILL)
                victims += 1
        self.assertEqual(victims, 1)
        self.assertEqual(client.wait(WAIT_S), 0, client.stderr.read())
        self.assertRegex(client.stdout.read(), b"^verify: ok ")
        self.assert_no_files()

    def test_agents_thread(self):
        """It cannot be killed alone: the kernel ends all threads."""
        client, pid, children = self.start_paging()

        def is_the_agents(tid):
            """Its descriptor table is its own, and has two userfaultfds."""
            fds = f"/proc/{pid}/task/{tid}/fd"
            return sum("userfaultfd" in os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)) == 2
        agents = [int(tid) for tid in os.listdir(f"/proc/{pid}/task") if is_the_agents(tid)]
        self.assertEqual(len(agents), 1)
        tgkill = 234  # x86_64
        self.assertEqual(ctypes.CDLL(None).syscall(tgkill, pid, agents[0], signal.SIGKILL), 0)
        self.assertEqual(client.wait(WAIT_S), 128 + signal.SIGKILL)
        self.check_silent_death(client)
        self.assert_all_gone(children, GONE_S)

    def test_agents_thread_cannot_be_waited_for(self):
        """A program whose threads exit one by one, the main thread first, ends as it would."""
        code = ("import ctypes, threading, time, os\n"
                "block = bytearray(b'x') * (150 << 20)\n"
                "threading.Thread(target=lambda: (time.sleep(0.5), os._exit(block[5] - 100))).start()\n"
                "ctypes.CDLL(None).syscall(60, 0)\n")
        done = self.run_client("/usr/bin/python3", "-c", code)
        self.assertEqual(done.returncode, ord("x") - 100)


class Terminated(Case):
    def test_by_sigterm_with_pages_out(self):
        client = self.start_client(tool("verify"), "--size=256M", "--seconds=60", options=[INTERVAL])
        self.wait_for_program(client, needs_paging=True)
        children = children_of(client.pid)
        client.terminate()
        self.assertEqual(client.wait(WAIT_S), 128 + signal.SIGTERM)
        self.assert_all_gone(children, GONE_S)


if __name__ == "__main__":
    main()
