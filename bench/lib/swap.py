"""The yardstick that the kernel is: a memory cgroup of a budget, and a swap file on the local disk."""
import contextlib
import os
import subprocess
import time

from lib.bench import Failure, Missing
from lib.ending import undisturbed

THROTTLED_OPERATIONS = 3000
THROTTLED_BYTES = 125000000
PROBES = 2000
JOIN = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


def write_to(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def command(*words):
    # In a session of its own: what a terminal sends to all of us does not end it half-way.
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True)
    return done.returncode == 0, done.stdout.strip(), done.stderr.strip()


def mounts():
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        return [line.split() for line in file]


@contextlib.contextmanager
def swap_or_none(bench, name, size_mib, throttled=False):
    """Swap, or None where this machine has none: then it is said that `name` was not measured, and why."""
    swap = Swap(bench, size_mib, throttled)
    opened = False
    try:
        try:
            if not bench.use_swap:
                raise Missing("without swap, as was asked for")
            with undisturbed():
                swap.open()
                opened = True
        except Missing as missing:
            bench.missing(name, missing)
        yield swap if opened else None
    finally:
        if opened:
            with undisturbed():
                bench.end_programs()
                swap.close()


class Group:
    """A memory cgroup, of version 2 or 1."""

    def __init__(self, name):
        self.version, top = self.find()
        self.top = top
        self.path = os.path.join(top, name)
        try:
            if self.version == 2:
                # The root may have processes and give controllers to its children all the same.
                write_to(os.path.join(top, "cgroup.subtree_control"), "+memory +io")
            os.mkdir(self.path)
        except OSError as error:
            raise Missing(f"no memory cgroup can be made in {top}: {error}") from None

    @staticmethod
    def find():
        for _, top, kind, *_ in mounts():
            if kind == "cgroup2":
                with open(os.path.join(top, "cgroup.controllers"), encoding="ascii") as file:
                    if "memory" in file.read().split():
                        return 2, top
        for _, top, kind, options, *_ in mounts():
            if kind == "cgroup" and "memory" in options.split(","):
                return 1, top
        raise Missing("the kernel has no memory cgroups here, of either version")

    def limit(self, mib):
        write_to(os.path.join(self.path, "memory.max" if self.version == 2 else "memory.limit_in_bytes"),
                 str(mib << 20))

    def oom_kills(self):
        """How many programs the kernel has ended in it because it found no memory."""
        with open(os.path.join(self.path, "memory.events" if self.version == 2 else "memory.oom_control"),
                  encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))

    def joined(self, words):
        """The command that runs words in it."""
        return ["sh", "-c", JOIN, self.path, *words]

    def remove(self):
        for _ in range(100):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)


class Swap:
    """Swap of some size from open() to close(); run() puts a program below a budget."""

    def __init__(self, bench, size_mib, throttled=False):
        self.bench = bench
        self.size_mib = size_mib
        self.throttled = throttled
        self.file = bench.path("swap-file")
        self.loops = []
        self.swapped = None
        self.throttles = []
        self.group = None
        self.about = ""

    # ---- the device ----

    def make_file(self):
        kind = command("stat", "-f", "-c", "%T", self.bench.dir)[1]
        if kind in ("tmpfs", "ramfs"):
            raise Missing(f"{self.bench.dir} is no disk but {kind}: set TMPDIR to a directory on one")
        if command("fallocate", "-l", f"{self.size_mib}M", self.file)[0]:
            os.chmod(self.file, 0o600)
            return
        made, _, error = command("dd", "if=/dev/zero", f"of={self.file}", "bs=1M", f"count={self.size_mib}",
                                 "conv=fsync", "status=none")
        os.chmod(self.file, 0o600)
        if not made:
            raise Missing(f"no file of {self.size_mib} MiB for swap: {error}")

    def make_loop(self, path):
        for options in (["--direct-io=on"], []):
            made, device, error = command("losetup", *options, "--find", "--show", path)
            if made:
                self.loops.append(device)
                return device
        raise Missing(f"no loop device: {error}")

    def switch_on(self, path):
        """None, or what the kernel had against it."""
        made, _, error = command("mkswap", path)
        if made:
            made, _, error = command("swapon", "--priority", "100", path)
        if made:
            self.swapped = path
            return None
        return f"swap on {path}: {error}"

    def open(self):
        try:
            self.group = Group(f"edm-bench-{os.getpid()}")
            self.make_file()
            if self.throttled:
                # Two, one on the other. A limit counts what it is given, and swap gives it single pages; a
                # disk is given what the queue before it has put together. Here that is the upper one's.
                lower = self.make_loop(self.file)
                upper = self.make_loop(lower)
                self.throttle(lower, upper)
                tried = [self.switch_on(upper)]
            else:
                tried = [self.switch_on(self.file)]
                if tried[0]:
                    tried.append(self.switch_on(self.make_loop(self.file)))
            if not self.swapped:
                raise Missing(f"no swap: {'; '.join(tried)}")
        except BaseException:
            self.close()
            raise
        self.about = "throttled swap" if self.throttled else "swap"
        self.bench.say(f"{self.about}: {self.size_mib} MiB on {'loop devices over ' if self.loops else ''}a file "
                       f"in {self.bench.dir}; memory cgroup of version {self.group.version}")

    def close(self):
        if self.swapped:
            command("swapoff", self.swapped)
        for path, device in self.throttles:
            try:
                write_to(path, f"{device} 0")
            except OSError:
                pass
        for device in reversed(self.loops):
            command("losetup", "--detach", device)
        if self.group:
            self.group.remove()
        if os.path.exists(self.file):
            os.unlink(self.file)

    # ---- a common cloud disk ----

    def throttle(self, device, used):
        """Only what goes to the loop device is held back: nothing else on the machine uses it."""
        number = os.stat(device).st_rdev
        name = f"{os.major(number)}:{os.minor(number)}"
        try:
            if self.group.version == 2:
                write_to(os.path.join(self.group.path, "io.max"),
                         f"{name} riops={THROTTLED_OPERATIONS} wiops={THROTTLED_OPERATIONS} "
                         f"rbps={THROTTLED_BYTES} wbps={THROTTLED_BYTES}")
            else:
                self.throttle_1(name)
        except OSError as error:
            raise Missing(f"the kernel does not throttle {device}: {error}") from None
        self.probe(used)

    def throttle_1(self, name):
        """What is swapped out counts for the root group with version 1: so the root is throttled, for this
        one device."""
        tops = [top for _, top, kind, options, *_ in mounts()
                if kind == "cgroup" and "blkio" in options.split(",")]
        if not tops:
            raise Missing("no blkio cgroup to throttle swap with")
        for file, limit in (("read_iops", THROTTLED_OPERATIONS), ("write_iops", THROTTLED_OPERATIONS),
                            ("read_bps", THROTTLED_BYTES), ("write_bps", THROTTLED_BYTES)):
            path = os.path.join(tops[0], f"blkio.throttle.{file}_device")
            write_to(path, f"{name} {limit}")
            self.throttles.append((path, name))

    def probe(self, device):
        """Reads it as the program will, to see whether it is held back."""
        script = ("import mmap,os,random,sys,time\n"
                  "fd=os.open(sys.argv[1],os.O_RDONLY|os.O_DIRECT);page=mmap.mmap(-1,4096)\n"
                  "begun=time.monotonic()\n"
                  f"for _ in range({PROBES}): "
                  f"os.preadv(fd,[page],random.randrange({self.size_mib * 256})*4096)\n"
                  "print(time.monotonic()-begun)")
        done, out, error = command(*self.group.joined(["/usr/bin/python3", "-c", script, device]))
        if not done:
            raise Missing(f"{device} cannot be read: {error}")
        rate = PROBES / float(out)
        self.bench.say(f"throttled to {THROTTLED_OPERATIONS} operations/s and {THROTTLED_BYTES // 10**6} MB/s, "
                       f"reads and writes each: {rate:.0f} reads of a page a second were seen")
        if rate > THROTTLED_OPERATIONS * 1.3:
            raise Missing(f"the kernel takes the limit for {device} and does not keep it: {rate:.0f} reads/s")

    # ---- a program ----

    def words(self, words, budget_mib):
        self.group.limit(budget_mib)
        return self.group.joined(words)

    @contextlib.contextmanager
    def survived(self):
        """Where the disk is slow and the budget small the kernel sometimes ends a program instead of waiting
        for the disk. Then there is no figure; that is no fault of the program's or of EDM's."""
        before = self.group.oom_kills()
        try:
            yield
        except Failure:
            if self.group.oom_kills() > before:
                raise Missing("with swap the kernel ended the program: out of memory in its cgroup") from None
            raise

    def run(self, words, budget_mib, **options):
        with self.survived():
            return self.bench.run(self.words(words, budget_mib), **options)
