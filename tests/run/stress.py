#!/usr/bin/python3
"""stress.py EDM TOOLS [SECONDS [SEED]]: everything at once.

Programs that know what every byte of their memory has to be run two or three at a time, each under an edm of
its own at a random budget: threads, random memory calls, forks, execs, statically linked ones, pipelines. Their pages
are in DMSs which are killed (-9) and started again, and stopped for a while, as are the programs' processes; some
programs and some edms are killed. In the end every program that was let live has ended well, there are no
processes, files or regions left, and the DMSs' files are sound. SEED repeats the choices, not the moments.
"""
import glob
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from harness import (EDM, END_WITH_US, FILL, ROOT, children_of, exe_of, family_of, free_port, is_alive, tool,
                     wait_until)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "proto"))
import edm_wire as wire  # noqa: E402

SECONDS = int(sys.argv[3]) if len(sys.argv) > 3 else 20
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else int(time.time())
NDMS = 3
AT_ONCE = 3
RUN_S = 10         # how long a program runs, about
PATIENCE_S = 400   # and how long it may take when the machine is busy
GONE_S = 60        # the same: whether it is gone is the question, not how soon
PYTHON = "/usr/bin/python3"
BLOCK = FILL + """
import multiprocessing, subprocess, sys
mib, seed = int(sys.argv[1]), int(sys.argv[2])
block = fill(seed, mib)
"""
PROCESSES = BLOCK + """
def work(number):
    check(block, seed)
    if number % 2:
        block[:] = fill(number, mib)
        check(block, number)
        block[:] = fill(seed, mib)
    return subprocess.run(["sh", "-c", "echo %d" % number], stdout=subprocess.PIPE).stdout
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(4), 1) == [b"%d\\n" % number for number in range(4)]
check(block, seed)
print("processes: ok")
"""
EXECS = BLOCK + """
check(block, seed)
if seed > 0:
    again = [sys.executable, "-c", sys.argv[3], str(mib), str(seed // 2), sys.argv[3]]
    os.execve(again[0], again, {} if seed % 3 == 0 else os.environ)
print("execs: ok")
"""


class Wrong(Exception):
    pass


def say(words):
    print(time.strftime("%T"), words, flush=True)


def sanitizer_said(text):
    return re.search("Sanitizer|runtime error|WARNING: Thread", text)


def words_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")[:300]
    except OSError:
        return "gone"


class Dms:
    def __init__(self, number):
        self.name = f"dms{number}"
        self.port = free_port()
        self.kills = 0
        self.lock = threading.Lock()
        self.start()

    def path(self, name=""):
        return os.path.join(ROOT, self.name + name)

    def start(self):
        self.errors = open(self.path(".err"), "ab")
        self.process = subprocess.Popen(
            END_WITH_US + [EDM, "--mode=dms", f"--listen=tcp://127.0.0.1:{self.port}", f"--data={self.path()}",
                           f"--log-file={self.path('.log')}"], stderr=self.errors)

    def kill(self, away_s):
        with self.lock:
            self.process.kill()
            self.process.wait()
            self.errors.close()
            self.kills += 1
            time.sleep(away_s)
            self.start()

    def stop(self, seconds):
        with self.lock:
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self.process.send_signal(signal.SIGCONT)

    def answers(self):
        if self.process.poll() is not None:
            raise Wrong(f"{self.name} has ended with {self.process.returncode}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def regions(self):
        """Those that somebody should have removed: an edm that is killed cannot, and one says so when a DMS was away for
        too long. None: no answer, it may be reading its files."""
        store = wire.Client(f"tcp://127.0.0.1:{self.port}", "stress.py")
        try:
            names = [region.name for region in store.list()]
            return [name for name in names if name not in Run.excused and name.split(".")[0] not in Run.killed_edms]
        except wire.NoAnswer:
            return None
        finally:
            store.close()

    def last_words(self):
        with open(self.path(".log"), encoding="utf-8", errors="replace") as file:
            return f"{self.name}, {self.kills} kills: {file.read()[-1500:]}"

    def end(self):
        """In good order: no regions, sound files, nothing said by a sanitizer."""
        wait_until(self.answers)
        left = wait_until(lambda: self.regions() == [], GONE_S) or self.regions()
        self.process.terminate()
        status = self.process.wait(PATIENCE_S)
        self.errors.close()
        with open(self.path(".err"), encoding="utf-8", errors="replace") as file:
            errors = file.read()
        if left is not True:
            raise Wrong(f"{self.name} still has {left}\n{self.last_words()}")
        if status != 0 or sanitizer_said(errors):
            raise Wrong(f"{self.name} ended with {status}: {errors[-4000:]}")
        done = subprocess.run([EDM, "--mode=check", f"--data={self.path()}"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise Wrong(f"{self.name}'s files: {done.stdout[-2000:]}")


class Run:
    """One program under an edm."""
    made = 0
    excused = set()  # regions that an edm has said it could not remove
    killed_edms = set()  # whose regions, and children's, may be left

    def __init__(self, chance, dmss):
        Run.made += 1
        self.number = Run.made
        self.local_mib = chance.choice([16, 20, 24, 32, 48])
        self.name, words, self.expect = chance.choice(PROGRAMS)(chance, self.local_mib)
        options = [f"--local={self.local_mib}M", f"--region=run{self.number}", "--wait=300",
                   f"--compress={chance.choice(['auto', 'yes'])}", f"--log-file={self.path('log')}",
                   f"--stats={self.path('stats')}"]
        if chance.random() < 0.8:
            chosen = chance.sample(dmss, chance.randint(1, len(dmss)))
            options.append("--dms=" + ",".join(f"tcp://127.0.0.1:{dms.port}" for dms in chosen))
        os.mkdir(self.path("tmp"))
        self.killed = None
        self.words = [EDM, "--mode=client", *options, "--", *words]
        with open(self.path("out"), "wb") as out, open(self.path("err"), "wb") as err:
            self.process = subprocess.Popen(
                END_WITH_US + self.words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT,
                env=dict(os.environ, TMPDIR=self.path("tmp"), LC_ALL="C"))
        self.begun = time.monotonic()

    def path(self, name):
        return os.path.join(ROOT, f"run{self.number}.{name}")

    def read(self, name):
        if not os.path.exists(self.path(name)):
            return ""
        with open(self.path(name), encoding="utf-8", errors="replace") as file:
            return file.read()

    def processes(self):
        """The program's: no edm, no guard, no DMS of its own."""
        own = exe_of(self.process.pid)
        return [pid for pid in family_of(self.process.pid) if exe_of(pid) not in (own, None)]

    def kill(self, chance):
        pids = family_of(self.process.pid)
        program = [pid for pid in self.processes() if pid in children_of(self.process.pid)]
        self.killed = chance.choice(["edm", "program"])
        if self.killed == "edm" or not program:
            self.killed = "edm"
            self.process.kill()
        else:
            os.kill(program[0], signal.SIGKILL)
        return pids

    def check(self):
        """It has ended; how?"""
        status, out, err = self.process.returncode, self.read("out"), self.read("err")
        # It may have been started while a DMS was away.
        err = re.sub("edm: no answer from the DMS at [^ ]* yet: trying for 300 s.", "", err, flags=re.DOTALL)
        if self.killed == "edm":
            fine = True
        elif self.killed == "program":
            fine = status in (0, 128 + signal.SIGKILL, self.expect[0])
        else:
            fine = status == self.expect[0] and re.search(self.expect[1], out) and not err
        # Whoever loses a parent that was killed may say so; nobody may have seen a wrong byte.
        if not fine or re.search("expected|assert|Assertion", out + err) or sanitizer_said(err):
            raise Wrong(f"{' '.join(self.words)[:600]}\nended with {status}: {out[-1000:]}{err[-4000:]}\n"
                        f"{self.read('log')[-3000:]}")
        if not wait_until(lambda: not os.listdir(self.path("tmp")), GONE_S):
            raise Wrong(f"{self.name}: files are left: {os.listdir(self.path('tmp'))}")
        if self.killed == "edm":
            Run.killed_edms.add(f"run{self.number}")
        Run.excused.update(re.findall("region ([^ ]*)(?: could be removed from|: removing it)", self.read("log")))
        took = time.monotonic() - self.begun
        say(f"{self.number} {self.name} at {self.local_mib}M: {took:.0f} s"
            f"{', killed: ' + self.killed if self.killed else ''}")
        subprocess.run(["rm", "-rf", *glob.glob(self.path("*"))], check=True)


def seconds(chance):
    return chance.randint(2, RUN_S)


def verify(chance, local_mib):
    words = [tool("verify"), f"--size={local_mib * chance.randint(2, 5)}M", f"--threads={chance.randint(1, 6)}",
             f"--seconds={seconds(chance)}", f"--seed={chance.randrange(1 << 30)}"]
    return "verify", words + chance.choice([[], ["--churn"], ["--churn", "--small"]]), (0, "^verify: ok ")


def storm(chance, _):
    return "storm", [tool("storm"), f"--threads={chance.randint(2, 6)}", "--pages=4096", f"--seconds={seconds(chance)}",
                     f"--seed={chance.randrange(1 << 30)}"], (0, "^storm: ok ")


def forks(chance, _):
    return "forks", [tool("forks"), f"--pages={chance.choice([2048, 8192])}", f"--rounds={chance.randint(2, 6)}",
                     f"--seed={chance.randrange(1 << 30)}"], (0, "^forks: ok$")


def static(chance, local_mib):
    size = str(local_mib * chance.randint(2, 3))
    words = [tool("static"), "fork", size] if chance.random() < 0.5 else [tool("static"), "verify", size, "3"]
    return "static", words, (7, "^$")


def behind_a_shell(chance, local_mib):
    one = " ".join([tool("static"), "verify", str(local_mib * 2), "2"])
    two = " ".join([tool("verify"), f"--size={local_mib * 2}M", "--seconds=2", "--churn"])
    return "shell", ["dash", "-c", f"{one}; env -i {two} & {two} && wait $!"], (0, "(verify: ok .*\n){2}")


def processes(chance, local_mib):
    return "processes", [PYTHON, "-c", PROCESSES, str(local_mib * 2), str(chance.randint(1, 1000))], (
        0, "^processes: ok\n$")


def execs(chance, local_mib):
    return "execs", [PYTHON, "-c", EXECS, str(local_mib * 2), str(chance.randint(4, 63)), EXECS], (0, "^execs: ok\n$")


def pipeline(chance, _):
    lines = chance.randint(100000, 400000)
    return "pipeline", ["sh", "-c", f"seq {lines} | sed 's/$/ some words/' | sort -S 64M --parallel=1 -r | tee /dev/null | "
                        "sort -n -S 32M | tail -n 1"], (0, f"^{lines} some words\n$")


PROGRAMS = [verify, verify, verify, storm, storm, storm, forks, forks, processes, execs, pipeline, behind_a_shell]
if os.path.exists(tool("static")):
    PROGRAMS.append(static)


class Trouble(threading.Thread):
    """Kills and stops whom it likes until it is told to end."""
    def __init__(self, chance, dmss, runs):
        super().__init__(daemon=True)
        self.chance, self.dmss, self.runs = chance, dmss, runs
        self.over, self.calm, self.dismissed = threading.Event(), threading.Event(), threading.Event()
        self.failed = None
        self.counts = {}

    def run(self):
        try:
            while not self.over.wait(self.chance.uniform(0.05, 0.8)):
                what = self.chance.choices([self.kill_dms, self.stop_dms, self.stop_one, self.end_run],
                                           [4, 2, 20, 1])[0]
                what()
                self.counts[what.__name__] = self.counts.get(what.__name__, 0) + 1
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.failed = error
        self.calm.set()
        # The DMSs it has started end with this thread (PDEATHSIG).
        self.dismissed.wait()

    def kill_dms(self):
        self.chance.choice(self.dmss).kill(self.chance.choice([0, 0.1, 1.5]))

    def stop_dms(self):
        self.chance.choice(self.dmss).stop(self.chance.uniform(0, 1))

    def some_run(self):
        runs = [run for run in list(self.runs) if run.process.poll() is None and not run.killed]
        return self.chance.choice(runs) if runs else None

    def stop_one(self):
        run = self.some_run()
        pids = run.processes() if run else []
        if not pids:
            return
        pid = self.chance.choice(pids)
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.chance.choice([0, 0.01, 0.3]))
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def end_run(self):
        run = self.some_run()
        if not run or not run.processes():
            return
        pids = run.kill(self.chance)
        if run.killed == "edm" and not wait_until(lambda: not any(is_alive(pid) for pid in pids), GONE_S):
            raise Wrong(f"edm of {run.name} was killed, and there are still "
                        f"{[(pid, words_of(pid)) for pid in pids if is_alive(pid)]}")


def stress():
    chance = random.Random(SEED)
    dmss = [Dms(number) for number in range(NDMS)]
    for dms in dmss:
        if not wait_until(dms.answers):
            raise Wrong("no DMS")
    runs, done = [], 0
    trouble = Trouble(random.Random(SEED + 1), dmss, runs)
    trouble.start()
    end = time.monotonic() + SECONDS
    while runs or time.monotonic() < end:
        if trouble.failed:
            raise trouble.failed
        if len(runs) < AT_ONCE and time.monotonic() < end:
            runs.append(Run(chance, dmss))
        for run in list(runs):
            if run.process.poll() is not None:
                runs.remove(run)
                run.check()
                done += 1
            elif time.monotonic() - run.begun > PATIENCE_S:
                raise Wrong(f"{' '.join(run.words)} does not end:\n{run.read('log')[-3000:]}")
        time.sleep(0.05)
    trouble.over.set()
    trouble.calm.wait()
    if trouble.failed:
        raise trouble.failed
    for dms in dmss:
        dms.end()
    trouble.dismissed.set()
    trouble.join()
    if children_of(os.getpid()):
        raise Wrong(f"processes are left: {[(pid, exe_of(pid)) for pid in children_of(os.getpid())]}")
    say(f"stress: ok seed {SEED}: {done} programs, {trouble.counts}")


if __name__ == "__main__":
    say(f"stress: {SECONDS} s, seed {SEED}")
    try:
        stress()
    except Wrong as wrong:
        say(f"stress: FAILED, seed {SEED}: {wrong}")
        sys.exit(1)
