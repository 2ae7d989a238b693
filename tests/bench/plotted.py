#!/usr/bin/python3
"""plotted.py BENCH: bench/plot makes of results the plots and tables that they are, and leaves what it has no
figures for. Needs gnuplot, which is no part of what the other tests need."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

BENCH = sys.argv[1]
DOCUMENT = os.path.join(BENCH, os.pardir, "docs", "performance.md")


def figure(benchmark, name, value, unit, yardstick, yardstick_value, **more):
    return {"benchmark": benchmark, "name": name, "value": value, "unit": unit, "yardstick": yardstick,
            "yardstick_value": yardstick_value, "ratio": value / yardstick_value, "ratio_spread": [0.5, 0.75],
            "spread": [value, value], "rounds": 3, "goal": None, "goal_of": "ratio", "goal_is": None, "met": None,
            "load": 0.5, "quick": False, "machine": "3 processors", "date": "today", **more}


RESULTS = [
    figure("random", "p50", 60.5, "us", "floor", 44, goal=1.25, goal_is="at most", met=False,
           distribution_us=[50 + i for i in range(101)], yardstick_distribution_us=[40 + i for i in range(101)]),
    figure("random", "p50", 60.5, "us", "swap", 88, distribution_us=[50 + i for i in range(101)],
           yardstick_distribution_us=[70 + i for i in range(101)]),
    figure("stdsort", "std::sort at 50 %", 8, "s", "native", 4),
    figure("stdsort", "std::sort at 50 %", 8, "s", "swap", 16, goal=1.0, goal_is="at most", met=True),
    {"benchmark": "stdsort", "name": "throttled", "value": None, "not_measured": "no loop device",
     "machine": "3 processors", "date": "today"},
    *(figure("budget", f"sort, {percent} %", percent, "MB/s", yardstick, 100, program="std::sort", percent=percent)
      for percent in (100, 50, 10) for yardstick in ("native", "swap")),
]
SWITCH = figure("switches", "client, --low-threshold=50", 8, "MB/s", "by default", 10, option="--low-threshold",
                setting="50", default="90")


class Plotted(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="edm-plotted-")
        self.addCleanup(shutil.rmtree, self.directory)
        shutil.copy(DOCUMENT, self.directory)

    def plot(self, results):
        path = os.path.join(self.directory, "results.json")
        with open(path, "w", encoding="ascii") as file:
            file.writelines(json.dumps(line) + "\n" for line in results)
        done = subprocess.run([f"{BENCH}/plot", f"--results={path}", f"--docs={self.directory}"], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertNotIn("warning", done.stderr)

    def read(self, name):
        with open(os.path.join(self.directory, name), encoding="utf-8") as file:
            return file.read()

    def texts(self, name):
        tree = xml.etree.ElementTree.fromstring(self.read(name))
        return " ".join("".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text"))

    def test_plots(self):
        self.plot(RESULTS)
        for name, words in (("latency", ("EDM", "floor", "swap", "microseconds")),
                            ("budget", ("std::sort", "native", "EDM", "swap")),
                            ("programs", ("std::sort at 50 %", "EDM", "swap"))):
            texts = self.texts(f"performance-{name}.svg")
            for word in words:
                self.assertIn(word, texts)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "performance-switches.svg")))
        self.plot([SWITCH])
        self.assertIn("--low-threshold=50", self.texts("performance-switches.svg"))

    def test_tables(self):
        before = self.read("performance.md")
        self.plot(RESULTS)
        text = self.read("performance.md")
        self.assertIn("| p50 | 60.5 us | floor 44 | 1.375 | 0.5 to 0.75 | at most 1.25: **missed** |", text)
        self.assertIn("at most 1.0: met |", text)
        self.assertIn("| throttled | not measured: no loop device |", text)
        self.assertIn("3 processors", text)
        # What stands around them stays, and a second time is as the first.
        self.assertEqual(text.split("<!-- figures -->")[0], before.split("<!-- figures -->")[0])
        self.plot(RESULTS)
        self.assertEqual(self.read("performance.md"), text)


if __name__ == "__main__":
    if not shutil.which("gnuplot"):
        print("gnuplot is not installed")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
