#!/usr/bin/python3
"""tree_budget.py EDM TOOLS: the budget is one for the whole tree, measured from outside: what its processes have of
their own, and their shares of what they have together after a fork (Pss), stays within it."""
import os
import subprocess

from harness import FILL, Case, exe_of, family_of, main, tool

LOCAL_MIB = 32
# What is not registered yet, executable memory and what the kernel has given out but not counted yet (64 pages for each
# thread and process), for some ten processes.
SLACK_MIB = 12
PYTHON = "/usr/bin/python3"
LONG_S = 240
# Four children read what they have from their parent, which is half of the budget, and each writes as much.
TREE = FILL + """
import sys
mib = int(sys.argv[1])
block = fill(1, mib)
for number in range(4):
    if os.fork() == 0:
        for round in range(2):
            check(block, 1)
            own = fill(number + 2, mib)
            check(own, number + 2)
        os._exit(0)
for number in range(4):
    check(block, 1)
    assert os.wait()[1] == 0
check(block, 1)
print("ok")
"""


def anonymous_share(pid):
    """Pss of anonymous memory, in bytes; 0: it has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss_Anon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class TreeBudget(Case):
    def watch(self, client):
        """The largest sum that was seen, and how often it was looked at."""
        own = exe_of(client.pid)
        peak = samples = most = 0
        while client.poll() is None:
            pids = [pid for pid in family_of(client.pid) if exe_of(pid) not in (own, None)]
            peak = max(peak, sum(anonymous_share(pid) for pid in pids))
            most = max(most, len(pids))
            samples += 1
        return peak, samples, most

    def hold(self, *words, processes):
        client = self.start_client(*words, options=[f"--local={LOCAL_MIB}M"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        peak, samples, most = self.watch(client)
        out, err = client.stdout.read(), client.stderr.read()
        self.assertEqual((client.returncode, err), (0, ""), out)
        print(f"peak of Pss {peak / (1 << 20):.1f} MiB in {samples} looks at up to {most} processes", flush=True)
        self.assertGreater(samples, 10)
        self.assertGreaterEqual(most, processes)
        self.assertGreater(peak, LOCAL_MIB << 19)
        self.assertLess(peak, (LOCAL_MIB + SLACK_MIB) << 20)
        self.assertGreater(self.figures()["pages_put"], 1000)
        return out

    def test_shared_after_forks(self):
        self.assertEqual(self.hold(PYTHON, "-c", TREE, str(LOCAL_MIB // 2), processes=5), "ok\n")

    def test_forks_of_forks(self):
        self.hold(tool("forks"), "--pages=8192", "--rounds=12", f"--seed={os.getpid()}", processes=3)

    def test_own_memory(self):
        """Processes that share nothing, growing at the same time."""
        one = f"{tool('verify')} --size={LOCAL_MIB}M --threads=2 --seconds=3 --churn"
        self.hold("sh", "-c", f"{one} & {one} & {one} & wait", processes=4)


if __name__ == "__main__":
    main()
