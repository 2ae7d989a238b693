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

from lib.ending import undisturbed

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


class TooLong(Failure):
    """A program that had to be ended."""


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

    def __init__(self, out, wall_s, cpu_s):
        self.out = out
        self.wall_s = wall_s
        self.cpu_s = cpu_s  # with all its children that were waited for
        self.stats = None

    def json(self):
        """The JSON line that it printed."""
        for line in reversed(self.out.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        raise Failure(f"no figures in what was printed: {self.out[-300:]!r}")


class Dms:
    """A DMS of one run."""

    def __init__(self, bench, options, shards):
        self.data = tempfile.mkdtemp(prefix="dms-", dir=bench.dir)
        for _ in range(TRIES):
            port = free_port()
            # A range of ports of its own for each try: shard i has the i-th.
            self.endpoints = [f"tcp://127.0.0.1:{port + shard}" for shard in range(shards)]
            self.endpoint = ",".join(self.endpoints)
            self.process = bench.start([bench.edm, "--mode=dms", f"--listen={self.endpoints[0]}",
                                        f"--shards={shards}", f"--data={self.data}",
                                        f"--log-file={self.data}.log", *options])
            if self.answers(port):
                return
        raise Failure(f"a DMS does not start\n{tail(f'{self.data}.log')}")

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
    def __init__(self, edm, name, rounds, quick, results, share_s=None, use_swap=True):
        self.edm = edm
        self.name = name
        self.rounds = rounds
        self.quick = quick
        self.results = results
        self.share_s = share_s
        self.use_swap = use_swap
        self.dir = tempfile.mkdtemp(prefix="edm-bench-")
        self.processes = []

    def end_programs(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def close(self):
        self.end_programs()
        # What a killed edm leaves behind its guard process removes, perhaps a moment later.
        deadline = time.monotonic() + START_S
        while os.path.exists(self.dir) and time.monotonic() < deadline:
            shutil.rmtree(self.dir, ignore_errors=True)
            time.sleep(0.02)

    def turns(self, rounds=None, share=1.0):
        """Numbers of the rounds: as many as are wanted, or as fit into this part of the benchmark's
        share of the time; one at least."""
        rounds = rounds or self.rounds
        begun = time.monotonic()
        for turn in range(rounds):
            spent = time.monotonic() - begun
            if turn and self.share_s and spent * (turn + 1) / turn > self.share_s * share:
                self.say(f"{turn} of {rounds} rounds: each takes {spent / turn:.0f} s")
                return
            yield turn

    def path(self, name):
        return os.path.join(self.dir, name)

    def scaled(self, size, least):
        """A size, or so much of it as a quick look takes."""
        return max(least, size // 16) if self.quick else size

    def say(self, text):
        print(f"  {text}", flush=True)

    def missing(self, name, why):
        """A part that this machine cannot run."""
        self.results.leave_out(self.name, name, why)

    # ---- programs ----

    def source(self, name):
        return os.path.join(PROGRAMS, name)

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
        with undisturbed():
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *words], **options)
            self.processes = [one for one in self.processes if one.poll() is None] + [process]
        return process

    def run(self, words, limit_s=300, on_mark=None, env=None):
        """Runs to the end; a status other than 0, or no end in time, is a failure. on_mark(name, process)
        is called where the program says that it has come to a mark (work.c), while it waits."""
        environ = dict(os.environ, TMPDIR=self.dir, LC_ALL="C", **(env or {}))
        with tempfile.TemporaryFile(dir=self.dir) as err:
            begun = time.monotonic()
            process = self.start(words, stdout=subprocess.PIPE, stderr=err, env=environ,
                                 stdin=subprocess.PIPE if on_mark else subprocess.DEVNULL)
            too_long = threading.Event()
            timer = threading.Timer(limit_s, end_now, (process.pid, too_long))
            # A signal may end us while it starts: then nobody is to wait for it.
            timer.daemon = True
            out = []
            try:
                timer.start()
                for line in process.stdout:
                    out.append(line.decode(errors="replace"))
                    if on_mark and out[-1].startswith("mark "):
                        on_mark(out[-1].split()[1], process)
                        process.stdin.write(b"\n")
                        process.stdin.flush()
                status, cpu_s = wait_for(process)
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
        if too_long.is_set():
            raise TooLong(f"{' '.join(words)} had not ended after {wall_s:.0f} s")
        if status != 0:
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            raise Failure(f"{' '.join(words)} ended with {how} after {wall_s:.1f} s: {text[-1000:].strip()}")
        return Run("".join(out), wall_s, cpu_s)

    def dms(self, *options, shards=1):
        """A DMS on TCP that keeps its pages as a private one does: they need not outlive a power cut."""
        durability = () if any("--durability" in option for option in options) else ("--durability=none",)
        return Dms(self, (*durability, *options), shards)

    def client_words(self, words, local_mib, dms=None, options=()):
        return [self.edm, "--mode=client", f"--local={local_mib}M", f"--log-file={self.path('log')}",
                f"--stats={self.path('stats')}", *([f"--dms={dms.endpoint}"] if dms else []), *options,
                "--", *words]

    def client(self, words, local_mib, dms=None, options=(), **more):
        """The same under EDM."""
        try:
            run = self.run(self.client_words(words, local_mib, dms, options), **more)
        except Failure as failure:
            raise type(failure)(f"{failure}\n{tail(self.path('log'))}") from None
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
        self.results.add(line)


class Results:
    """The lines of results.json, and a table of them."""

    def __init__(self, path, about):
        self.path = path
        self.about = about
        self.lines = []

    def add(self, line):
        self.lines.append({**line, **self.about})
        print_line(line)

    def leave_out(self, benchmark, name, why):
        self.lines.append({"benchmark": benchmark, "name": name, "value": None, "not_measured": str(why),
                           **self.about})
        print(f"{name}: NOT MEASURED: {why}", flush=True)

    def write(self):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            for line in self.lines:
                file.write(json.dumps(line) + "\n")
        os.rename(self.path + ".new", self.path)


def end_now(pid, told):
    told.set()
    os.kill(pid, signal.SIGKILL)


def wait_for(process):
    """Its exit status, and the processor time that it and its children took."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


HEAD = f"{'figure':50} {'value':>11} {'unit':9} {'yardstick':>11} {'of':22} {'ratio':>7} {'spread':>15}  goal"


def print_line(line):
    spread, goal = "", ""
    if line["ratio_spread"]:
        spread = f"{line['ratio_spread'][0]:.3g} to {line['ratio_spread'][1]:.3g}"
    elif line["rounds"] > 1:
        spread = f"{line['spread'][0]:.4g} to {line['spread'][1]:.4g}"
    if line["goal"] is not None:
        verdict = {True: "met", False: "MISSED", None: ""}[line["met"]]
        goal = f"{'<=' if line['goal_is'] == 'at most' else '>='} {line['goal']} {verdict}"
    print(f"{line['name']:50} {number(line['value']):>11} {line['unit']:9} {number(line['yardstick_value']):>11} "
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
    with open("/proc/sys/vm/page-cluster", encoding="ascii") as file:
        cluster = 1 << int(file.read())
    files = subprocess.run(["findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", tempfile.gettempdir()], check=False,
                           stdout=subprocess.PIPE, text=True).stdout.split()
    return {"machine": f"{os.cpu_count()} processors, {model}; {memory:.0f} GiB; Linux {os.uname().release}; "
                       f"transparent huge pages: {huge}; swap reads {cluster} pages ahead; files on {' of '.join(files)}",
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def stderr(text):
    print(text, file=sys.stderr, flush=True)
