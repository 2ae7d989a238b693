"""What the benchmarks share: programs to run on each side, and the figures that come of it."""
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = os.path.join(HERE, "programs")
MIB = 1 << 20
START_S = 20
TRIES = 5
# What each program is made of, beside the headers; and what it is linked with.
SOURCES = {
    "work": (("work.c", "floor.c", "tcp.c"), ()),
    "requests": (("requests.c",), ("-lzmq", "-lxxhash")),
    "zipf": (("zipf.c",), ("-lm",)),
    "stdsort": (("stdsort.cc",), ()),
}


class Failure(Exception):
    """Ends the benchmark; its text is for people."""


class Missing(Exception):
    """A benchmark, or a part of it, that this machine cannot run, and why."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def compiler(cxx):
    names = ("c++", "g++", "clang++") if cxx else ("cc", "gcc", "clang")
    found = os.environ.get("CXX" if cxx else "CC") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise Missing(f"no compiler ({', '.join(names)})")
    return found.split()


class Run:
    """What a program that has ended left behind."""

    def __init__(self, out, wall_s, stats):
        self.out = out
        self.wall_s = wall_s
        self.stats = stats

    def json(self):
        """The JSON line that it printed."""
        for line in reversed(self.out.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        raise Failure(f"no figures in what was printed: {self.out[-300:]!r}")


class Dms:
    """A DMS of one run."""

    def __init__(self, bench, options):
        self.data = tempfile.mkdtemp(prefix="dms-", dir=bench.dir)
        for _ in range(TRIES):
            port = free_port()
            self.endpoint = f"tcp://127.0.0.1:{port}"
            self.process = bench.start([bench.edm, "--mode=dms", f"--listen={self.endpoint}",
                                        f"--data={self.data}", f"--log-file={self.data}.log", *options])
            if self.answers(port):
                return
        raise Failure("a DMS does not start")

    def answers(self, port):
        deadline = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return True
            time.sleep(0.02)
        return False

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Bench:
    def __init__(self, edm, name, rounds, quick, results):
        self.edm = edm
        self.name = name
        self.rounds = rounds
        self.quick = quick
        self.results = results
        self.count = 0
        self.dir = tempfile.mkdtemp(prefix="edm-bench-")
        self.processes = []

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def scaled(self, size, least):
        """A size, or so much of it as a quick look takes."""
        return max(least, size // 16) if self.quick else size

    def say(self, text):
        print(f"  {text}", flush=True)

    def missing(self, name, why):
        """A part that this machine cannot run."""
        self.results.leave_out(name, why)

    # ---- programs ----

    def tool(self, name):
        """A program of bench/programs, built where EDM's binary is, when it is older than its source."""
        sources, libraries = SOURCES[name]
        directory = os.path.join(os.path.dirname(self.edm), "bench-programs")
        target = os.path.join(directory, name)
        newest = max(os.path.getmtime(os.path.join(PROGRAMS, file)) for file in os.listdir(PROGRAMS))
        if os.path.exists(target) and os.path.getmtime(target) >= newest:
            return target
        os.makedirs(directory, exist_ok=True)
        cxx = sources[0].endswith(".cc")
        new = f"{target}.{os.getpid()}"
        words = [*compiler(cxx), "-std=c++17" if cxx else "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall",
                 "-Wextra", "-Wshadow", "-pthread", "-o", new,
                 *(os.path.join(PROGRAMS, source) for source in sources), *libraries]
        if subprocess.run(words, check=False).returncode != 0:
            raise Failure(f"{name} does not compile")
        os.rename(new, target)
        return target

    def start(self, words, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("env", dict(os.environ, TMPDIR=self.dir, LC_ALL="C"))
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *words], **options)
        self.processes = [one for one in self.processes if one.poll() is None] + [process]
        return process

    def run(self, words, limit_s=300, on_mark=None, env=None):
        """Runs to the end; a status other than 0, or no end in time, is a failure. on_mark(name, process)
        is called where the program says that it has come to a mark (work.c), while it waits."""
        environ = dict(os.environ, TMPDIR=self.dir, LC_ALL="C", **(env or {}))
        with open(self.path("err"), "w+b") as err:
            begun = time.monotonic()
            process = self.start(words, stdout=subprocess.PIPE, stderr=err, env=environ,
                                 stdin=subprocess.PIPE if on_mark else subprocess.DEVNULL)
            timer = threading.Timer(limit_s, process.kill)
            timer.start()
            out = []
            try:
                for line in process.stdout:
                    out.append(line.decode(errors="replace"))
                    if on_mark and out[-1].startswith("mark "):
                        on_mark(out[-1].split()[1], process)
                        process.stdin.write(b"\n")
                        process.stdin.flush()
                status = process.wait()
            finally:
                timer.cancel()
                process.kill()
                process.wait()
                process.stdout.close()
                if process.stdin:
                    process.stdin.close()
            wall_s = time.monotonic() - begun
            err.seek(0)
            text = err.read().decode(errors="replace")
        if status != 0:
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            raise Failure(f"{' '.join(words)} ended with {how} after {wall_s:.1f} s: {text[-1000:].strip()}")
        return Run("".join(out), wall_s, None)

    def dms(self, *options):
        """A DMS on TCP that keeps its pages as a private one does: they need not outlive a power cut."""
        return Dms(self, ("--durability=none", *options))

    def client_words(self, words, local_mib, dms=None, options=()):
        return [self.edm, "--mode=client", f"--local={local_mib}M", f"--log-file={self.path('log')}",
                f"--stats={self.path('stats')}", *([f"--dms={dms.endpoint}"] if dms else []), *options,
                "--", *words]

    def client(self, words, local_mib, dms=None, options=(), **more):
        """The same under EDM."""
        try:
            run = self.run(self.client_words(words, local_mib, dms, options), **more)
        except Failure as failure:
            raise Failure(f"{failure}\n{tail(self.path('log'))}") from None
        with open(self.path("stats"), encoding="ascii") as file:
            run.stats = json.load(file)
        return run

    # ---- figures ----

    def figure(self, name, unit, values, yardstick, yardstick_values, goal=None, at_most=True, **more):
        """A figure of several rounds and what was measured beside it in the same rounds. The ratio is that
        of the medians, its spread that of the single rounds."""
        value, of_yardstick = statistics.median(values), statistics.median(yardstick_values)
        pairs = sorted(one / other for one, other in zip(values, yardstick_values) if other)
        ratio = value / of_yardstick if of_yardstick else None
        self.add(name, value, unit, yardstick=yardstick, yardstick_value=rounded(of_yardstick),
                 ratio=rounded(ratio), ratio_spread=[rounded(pairs[0]), rounded(pairs[-1])] if pairs else None,
                 spread=[rounded(min(values)), rounded(max(values))], rounds=len(values), goal=goal,
                 goal_of="ratio", at_most=at_most, **more)

    def absolute(self, name, unit, values, goal=None, at_most=True, **more):
        """A figure that is measured against nothing but its goal."""
        self.add(name, statistics.median(values), unit, yardstick=None, yardstick_value=None, ratio=None,
                 ratio_spread=None, spread=[rounded(min(values)), rounded(max(values))],
                 rounds=len(values), goal=goal, goal_of="value", at_most=at_most, **more)

    def add(self, name, value, unit, **more):
        of_goal = more["ratio"] if more["goal_of"] == "ratio" else value
        at_most = more.pop("at_most")
        met = None
        if more["goal"] is not None and of_goal is not None:
            met = of_goal <= more["goal"] if at_most else of_goal >= more["goal"]
        line = {"benchmark": self.name, "name": name, "value": rounded(value), "unit": unit, **more,
                "goal_is": None if more["goal"] is None else "at most" if at_most else "at least",
                "met": met, "load": round(os.getloadavg()[0], 2), "quick": self.quick}
        self.count += 1
        self.results.add(line)


class Results:
    """The lines of results.json, and a table of them."""

    def __init__(self, path):
        self.path = path
        self.lines = []
        self.left_out = []

    def add(self, line):
        self.lines.append(line)
        print_line(line)

    def leave_out(self, name, why):
        self.left_out.append(name)
        print(f"{name}: NOT MEASURED: {why}", flush=True)

    def write(self):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            for line in self.lines:
                file.write(json.dumps(line) + "\n")
        os.rename(self.path + ".new", self.path)


HEAD = f"{'figure':44} {'value':>11} {'unit':9} {'yardstick':>11} {'of':22} {'ratio':>7} {'spread':>15}  goal"


def print_line(line):
    spread, goal = "", ""
    if line["ratio_spread"]:
        spread = f"{line['ratio_spread'][0]:.3g} to {line['ratio_spread'][1]:.3g}"
    elif line["rounds"] > 1:
        spread = f"{line['spread'][0]:.4g} to {line['spread'][1]:.4g}"
    if line["goal"] is not None:
        verdict = {True: "met", False: "MISSED", None: ""}[line["met"]]
        goal = f"{'<=' if line['goal_is'] == 'at most' else '>='} {line['goal']} {verdict}"
    print(f"{line['name']:44} {number(line['value']):>11} {line['unit']:9} {number(line['yardstick_value']):>11} "
          f"{line['yardstick'] or '':22} {number(line['ratio']):>7} {spread:>15}  {goal}", flush=True)


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rounded(value):
    return None if value is None else float(f"{value:.6g}")


def tail(path, count=20):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-count:])
    except OSError:
        return ""


def machine():
    """This machine in a few words."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
        huge = file.read().split("[")[1].split("]")[0]
    return {"machine": f"{os.cpu_count()} processors, {model}; {memory:.0f} GiB; Linux {os.uname().release}; "
                       f"transparent huge pages: {huge}",
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "load": [round(load, 2) for load in os.getloadavg()]}


def stderr(text):
    print(text, file=sys.stderr, flush=True)
