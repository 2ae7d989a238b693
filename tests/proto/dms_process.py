"""A real DMS of its own for a test, on an ipc endpoint in a temporary directory."""
import os
import shutil
import signal
import subprocess
import tempfile

STOP_TIMEOUT_S = 60


class DmsProcess:
    """Starts `edm --mode=dms`; may be killed and started again on the same data."""

    def __init__(self, edm, *options):
        self.edm = edm
        self.options = options
        self.directory = tempfile.mkdtemp(prefix="edm-wire-")
        self.endpoint = f"ipc://{self.directory}/dms"
        self.log = os.path.join(self.directory, "log")
        self.process = None

    def start(self):
        # setpriv: should this test be killed itself, the server goes with it.
        # The log is opened here: what ends the process, a sanitizer too, writes to standard error.
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", self.edm, "--mode=dms", "--log-file=-",
                 f"--listen={self.endpoint}", f"--data={self.directory}/data", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        """As the kernel would: no chance to tidy up."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def end(self):
        """An orderly end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def is_sanitized(self):
        """A sanitizer's memory is not the program's."""
        with open(self.edm, "rb") as file:
            content = file.read()
        return b"__asan_init" in content or b"__tsan_init" in content

    def resident_bytes(self):
        """Memory of its own, without the files it has mapped."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        return 0

    def read_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def remove(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
