#!/usr/bin/python3
"""test_check_served.py EDM: --mode=check beside a real DMS, and the DMS's own scrub."""
import glob
import os
import struct
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "proto"))
# pylint: disable=wrong-import-position
import edm_wire as wire
from dms_process import DmsProcess

EDM = os.path.abspath(sys.argv.pop(1))
PATIENCE_S = 90


def page_bytes(number):
    return struct.pack("<QQ", number, 77) * 256


class TestCheckServed(unittest.TestCase):
    def begin(self, *options):
        self.dms = DmsProcess(EDM, "--log-level=info", *options)
        self.addCleanup(self.dms.remove)
        self.dms.start()
        self.client = wire.Client(self.dms.endpoint, "test", timeout_s=60.0)
        self.addCleanup(self.client.close)
        self.data = f"{self.dms.directory}/data"
        self.region, self.epoch, _ = self.client.open("program")
        self.client.put(self.region, self.epoch,
                        [(page, 1, wire.RAW, page_bytes(page)) for page in range(64)])

    def run_check(self, *options):
        done = subprocess.run([EDM, "--mode=check", f"--data={self.data}", *options],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE_S, check=False)
        return done.returncode, done.stdout, done.stderr

    def spoil(self, number):
        [path] = glob.glob(f"{self.data}/shard-0/segment-*")
        with open(path, "r+b") as file:
            file.seek(file.read().index(page_bytes(number)) + 700)
            file.write(b"rot")

    def is_whole_but(self, lost):
        for page in range(64):
            try:
                got = self.client.get(self.region, self.epoch, [(page, 1)])[0].bytes
                self.assertEqual(got, page_bytes(page))
                self.assertNotIn(page, lost)
            except wire.Refused as refused:
                self.assertEqual(refused.status, "DATA_LOSS")
                self.assertIn(page, lost)

    def test_check_and_repair(self):
        self.begin()
        frozen = self.client.freeze(self.region, self.epoch, "program@1")
        for options in (), ("--repair",):
            code, said, error = self.run_check(*options)
            self.assertEqual((code, said), (125, ""))
            self.assertIn("is in use by another DMS", error)
            self.assertEqual(error.count("\n"), 1)
        self.dms.kill()
        code, said, _ = self.run_check()
        self.assertEqual(code, 0, said)
        self.assertIn("is sound: 2 regions, 64 pages", said)
        self.spoil(17)
        code, said, _ = self.run_check()
        self.assertEqual(code, 1)
        self.assertIn("page 17 of program, program@1 is damaged", said)
        self.assertIn("region program: 1 of 64 pages lost", said)
        self.assertIn("--repair", said)
        code, said, _ = self.run_check("--repair")
        self.assertEqual(code, 0, said)
        self.assertIn("page 17 of program, program@1 is damaged", said)
        self.assertIn("is repaired", said)
        self.assertEqual(self.run_check()[0], 0)
        self.dms.start()
        self.is_whole_but([17])
        with self.assertRaises(wire.Refused):
            self.client.get(frozen, 0, [(17, 1)])
        self.client.put(self.region, self.epoch, [(17, 1, wire.RAW, page_bytes(17))])
        self.is_whole_but([])

    def test_scrub(self):
        self.begin("--scrub-rate=1G")
        self.spoil(17)
        self.spoil(40)
        deadline = time.monotonic() + PATIENCE_S
        while self.dms.read_log().count("scrub: ") < 2:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        self.assertEqual(self.dms.end(), 0)
        log = self.dms.read_log()
        self.assertEqual(log.count("page 17 of program is damaged"), 1)
        self.assertEqual(log.count("page 40 of program is damaged"), 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
