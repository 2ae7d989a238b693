#!/usr/bin/python3
"""test_kill_served.py EDM [KILLS [SEED [DMS-OPTION...]]]: a real DMS is killed with SIGKILL at random
instants, also while it reads its files back, under load from several connections (kill_worker.py).
After every restart every acknowledged page of every region and branch is read back; what was under
way is there wholly or as before."""
import multiprocessing
import os
import random
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire
import kill_worker
from dms_process import DmsProcess

EDM = os.path.abspath(sys.argv.pop(1))
KILLS = int(sys.argv.pop(1)) if len(sys.argv) > 1 else 50
SEED = int(sys.argv.pop(1)) if len(sys.argv) > 1 else 5
OPTIONS = sys.argv[1:]
del sys.argv[1:]
WORKERS = 3
LONGEST_LOAD_S = 0.06
LONGEST_START_S = 0.02
STEADY_TIMEOUT_S = 120


class TestKillServed(unittest.TestCase):
    def setUp(self):
        self.dms = DmsProcess(EDM, *OPTIONS)
        self.addCleanup(self.dms.remove)
        self.random = random.Random(SEED)
        self.workers = []
        self.kills = 0

    def start_workers(self):
        # Forked before this process has a ZeroMQ context, so each has one of its own.
        context = multiprocessing.get_context("fork")
        for family in range(1, WORKERS + 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=kill_worker.run, daemon=True,
                                      args=(family, self.dms.endpoint, SEED, theirs))
            process.start()
            theirs.close()
            self.addCleanup(process.join)
            self.addCleanup(process.kill)
            self.workers.append(ours)

    @staticmethod
    def tell(pipe, word):
        try:
            pipe.send(word)
        except BrokenPipeError:
            pass  # It says why when it is heard.

    def hear(self, pipe, word):
        """What a worker says, which must be WORD."""
        self.assertTrue(pipe.poll(STEADY_TIMEOUT_S), "a worker says nothing")
        said, what = pipe.recv()
        self.assertEqual(said, word, f"after {self.kills} kills, seed {SEED}:\n{what}")
        return what

    def kill(self):
        self.dms.kill()
        self.kills += 1

    def test_kills(self):
        self.dms.start()
        self.start_workers()
        for pipe in self.workers:
            self.hear(pipe, "ready")
        while self.kills < KILLS:
            time.sleep(self.random.random() * LONGEST_LOAD_S)
            self.kill()
            while self.kills < KILLS and self.random.randrange(4) == 0:
                self.dms.start()
                time.sleep(self.random.random() * LONGEST_START_S)
                self.kill()
            self.dms.start()
            for pipe in self.workers:
                self.tell(pipe, "killed")
            for pipe in self.workers:
                self.hear(pipe, "ready")
        for pipe in self.workers:
            self.tell(pipe, "end")
        self.sum_up([self.hear(pipe, "done") for pipe in self.workers])
        self.check_left()

    def sum_up(self, results):
        total = {method: sum(done[method] for done, _ in results) for method in range(1, 11)}
        interrupted = sum(count for _, count in results)
        names = {wire.PAGE_PUT: "PUT", wire.PAGE_DROP: "DROP", wire.FREEZE: "FREEZE",
                 wire.BRANCH: "BRANCH", wire.REMOVE: "REMOVE"}
        print(f"{self.kills} kills, seed {SEED}: acknowledged "
              + ", ".join(f"{total[method]} {name}" for method, name in names.items())
              + f"; {interrupted} under way when the server was killed", flush=True)
        # There was load, and kills hit it.
        for method in names:
            self.assertGreater(total[method], KILLS // 10, names[method])
        self.assertGreater(total[wire.PAGE_PUT], KILLS)
        self.assertGreater(interrupted, KILLS)

    def check_left(self):
        """Every worker has removed its regions: no slot may be left in use."""
        client = wire.Client(self.dms.endpoint, "test", timeout_s=60.0)
        self.addCleanup(client.close)
        self.assertEqual(client.list(), [])
        end = time.monotonic() + 60
        while client.stat()[0]["npages"] > 0 and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(client.stat()[0]["npages"], 0)
        self.assertEqual(self.dms.end(), 0)
        self.assertNotIn("damaged:", self.dms.read_log())


if __name__ == "__main__":
    unittest.main(verbosity=2)
