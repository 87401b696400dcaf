"""A process that reports in lines of JSON, and the most memory that it and its children have at once."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

LIMIT = 600  # seconds
PERIOD = 0.2  # seconds between two readings of its memory


class Failed(Exception):
    """Why there is no figure."""


class Process:
    def __init__(self, command, env):
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as this
        self.begin = time.perf_counter()
        # A session of its own: its processes are known by it, and can be ended together.
        self.child = subprocess.Popen(
            list(map(str, command)),
            env=env,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
        )
        self.memory = 0
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def elapsed(self):
        return time.perf_counter() - self.begin

    def report(self):
        """Its next line."""
        line = self.child.stdout.readline()
        if not line:
            self.wait()
            raise Failed("it ended without a report")
        return json.loads(line)

    def wait(self):
        """How many seconds it took, and the most memory that it had in bytes."""
        self.child.stdout.read()
        _, status, usage = os.wait4(self.child.pid, 0)
        seconds = self.elapsed()
        self.child.returncode = os.waitstatus_to_exitcode(status)
        self.ended.set()
        self.watcher.join()
        self.stop()
        if self.child.returncode:
            self.stderr.seek(0)
            lines = self.stderr.read().strip().splitlines() or ["and said nothing"]
            raise Failed(f"exit code {self.child.returncode}: {lines[-1]}")
        # Looks can miss the peak of a short process; the kernel's own record has it, but for one alone.
        return seconds, max(self.memory, usage.ru_maxrss * 1024)

    def watch(self):
        while not self.ended.wait(PERIOD):
            self.memory = max(self.memory, sum(map(proportional_set, self.members())))
            if self.elapsed() > LIMIT:
                self.stop()

    def members(self):
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # it has ended
                if int(fields[3]) == self.child.pid:
                    yield process

    def stop(self):
        """Ends what is left of it."""
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def proportional_set(process):
    """Proportional memory (PSS) of a process, in bytes: shared pages are divided by the number of their users."""
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass  # it has ended
    return 0
