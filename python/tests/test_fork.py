"""The package in worker processes: no start method and no state of the parent makes a child wait without end, or
leaves a process behind.

`TINYRES_FORKS` is the number of children of each kind; 25 makes 300 and more of them in all.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# No parent takes a tenth of this, even on a busy machine.
PATIENCE = 300


def group(leader):
    """Processes of a process group that have not ended, read from /proc."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                state, _, own = process.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(own) == leader and state != "Z":
                found.append(int(process.name))
    return found


@pytest.mark.parametrize("state", ["unused", "used", "loader", "busy"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_end_and_read_right(method, state, shards):
    count = int(os.environ.get("TINYRES_FORKS", "4" if method == "fork" else "1"))
    command = [sys.executable, Path(__file__).with_name("forks.py"), shards, method, state, str(-(-count // 2))]
    parent = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        _, said = parent.communicate(timeout=PATIENCE)
        assert parent.returncode == 0, said
        # The resource tracker and the fork server end by themselves when their parent has.
        for _ in range(100):
            if not group(parent.pid):
                return
            time.sleep(0.1)
        pytest.fail(f"processes were left: {group(parent.pid)}")
    finally:
        if group(parent.pid):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
