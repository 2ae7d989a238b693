#!/usr/bin/python3
"""oom.py EDM TOOLS: the kernel's out-of-memory killer takes the program, or edm: nothing hangs, nothing is
left, and the program does not go on over pages that nobody brings back."""
import os
import subprocess
import unittest

from harness import EDM, Case, children_of, is_alive, main, signal, tool, wait_until

CGROUPS = "/sys/fs/cgroup/memory"  # version 1
GONE_S = 5
LIMIT_BYTES = 160 << 20
INTERVAL = "--stats-interval=50"


def write(path, value):
    with open(path, "w", encoding="ascii") as file:
        file.write(str(value))


@unittest.skipUnless(os.access(f"{CGROUPS}/memory.usage_in_bytes", os.F_OK) and os.access(CGROUPS, os.W_OK),
                     "no memory cgroups (version 1) that could be made here")
class OutOfMemory(Case):
    def setUp(self):
        super().setUp()
        self.group = f"{CGROUPS}/edm-oom-{os.getpid()}"
        os.mkdir(self.group)
        self.addCleanup(lambda: self.assertTrue(wait_until(self.remove_group, 20), "its processes stay"))

    def remove_group(self):
        try:
            os.rmdir(self.group)
        except OSError:
            return False
        return True

    def limit(self, limit_bytes):
        write(f"{self.group}/memory.limit_in_bytes", limit_bytes)

    def start_in_group(self, *words, options=()):
        """edm and all that it starts, in the group."""
        enter = f'echo $$ >{self.group}/cgroup.procs && exec "$@"'
        return self.start("sh", "-c", enter, "sh", *self.client_words(*words, options=options),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def start_paging(self, local):
        client = self.start_in_group(tool("verify"), "--size=512M", "--threads=2", "--seconds=60",
                                     options=[INTERVAL, f"--local={local}"])
        pid = self.wait_for_program(client, needs_paging=True)
        return client, pid

    def kills(self):
        with open(f"{self.group}/memory.oom_control", encoding="ascii") as file:
            return dict(line.split() for line in file)["oom_kill"]

    def check_gone(self, client, children):
        self.assertNotIn(b"expected", client.stderr.read(), "the program saw wrong bytes")
        self.assertEqual(client.stdout.read(), b"", "the program ran to its end")
        self.assert_all_gone(children, GONE_S)

    def test_program(self):
        """The largest of them is taken: a program with a budget above what there is."""
        self.limit(LIMIT_BYTES)
        client = self.start_in_group(tool("touch"), "--size=1G", options=[INTERVAL, "--local=512M"])
        pid = self.wait_for_program(client)
        children = children_of(client.pid)
        write(f"/proc/{pid}/oom_score_adj", 500)
        self.assertEqual(client.wait(60), 128 + signal.SIGKILL)
        self.assertGreaterEqual(int(self.kills()), 1)
        self.assertEqual(self.figures()["exit_status"], 128 + signal.SIGKILL)
        self.check_gone(client, children)

    def test_edm(self):
        client, pid = self.start_paging("64M")
        children = children_of(client.pid)
        self.assertIn(pid, children)
        write(f"/proc/{client.pid}/oom_score_adj", 1000)
        self.assertTrue(is_alive(client.pid))
        # Somebody else in the group takes what there is.
        hog = self.start("sh", "-c", f"echo $$ >{self.group}/cgroup.procs && exec /usr/bin/python3 -c "
                         "'block = bytearray(400 << 20); input()'", stdin=subprocess.PIPE)
        self.limit(LIMIT_BYTES)
        self.assertEqual(client.wait(60), -signal.SIGKILL)
        hog.kill()
        self.check_gone(client, children)


if __name__ == "__main__":
    assert os.path.exists(EDM)
    main()
