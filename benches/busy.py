#!/usr/bin/env python3
"""Rates of `train`, `eval` and `predict` at the same time as other processes and under a CPU quota, as parts of the quiet rate.

    benches/busy.py                                          # target/release/tinyres, some four minutes
    benches/busy.py before=OLD/tinyres after=NEW/tinyres     # two builds by turns
    benches/busy.py --commands train --conditions quiet,1 \\
        20000=target/release/tinyres,GOMP_SPINCOUNT=20000 passive=target/release/tinyres,OMP_WAIT_POLICY=passive

A variant is NAME=PROGRAM[,VARIABLE=VALUE...]. A rate is the images of a whole process over its time, start-up included. In a
round, each variant takes its turn under each condition right after the other; a fraction compares two rates of
one round, and the table has medians over the rounds. A busy process computes without end on any core. The quota
is one CPU for the whole process, and needs a control group, which root can make.

The goal is the CPU time that the scheduler leaves: what as many processes as there are cores, which only compute, get
under a condition, as a part of what they get on the quiet machine. It is measured before the turns of each condition.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

COMMANDS = ("train", "eval", "predict")
CONDITIONS = {"quiet": "nothing else runs", "1": "1 busy process", "2": "2 busy processes", "quota": "a quota of 1 CPU"}
# Images of a turn: some four seconds each on two cores. Pictures to predict are those to evaluate on.
IMAGES = {"train": 1024, "eval": 2000, "predict": 2000}
BATCH = 256
CLASSES = 10
# Seconds in which the goal is measured.
SPIN = 3


@dataclass
class Variant:
    """A build, and what its environment says."""

    name: str
    program: Path
    env: dict

    @classmethod
    def parse(cls, text):
        name, _, rest = text.partition("=")
        program, *variables = rest.split(",")
        return cls(name, Path(program).resolve(strict=True), dict(one.split("=", 1) for one in variables))


class Bench:
    """A synthetic set, a run on it, and pictures, in a folder in memory."""

    def __init__(self, folder, program, scale):
        self.folder = folder
        self.steps = max(1, round(scale * IMAGES["train"] / BATCH))
        val = max(1, round(scale * IMAGES["eval"] / CLASSES))
        self.images = {"train": self.steps * BATCH, "eval": val * CLASSES, "predict": val * CLASSES}
        train = self.images["train"] // CLASSES + 1
        sample = ["sample", "source", "--classes", CLASSES, "--train-per-class", train, "--val-per-class", val]
        self.call(program, *sample)
        self.call(program, "pack", "source", "-o", "shards")
        self.call(program, *self.training(1), "-o", "run")
        self.count = 0

    def training(self, steps):
        """Arguments of a training whose steps are alike from first to last."""
        size = ["--batch", BATCH, "--sizes", 64, "--max-steps", steps]
        return ["train", "shards", *size, "--device", "cpu"]

    def call(self, program, *args, env=None, before=()):
        """Seconds that the command takes."""
        began = time.monotonic()
        # Without a terminal there is no bar of progress to draw.
        done = subprocess.run(
            [*before, program, *map(str, args)],
            cwd=self.folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        took = time.monotonic() - began
        if done.returncode:
            sys.exit(f"{' '.join(map(str, args))}: {done.stderr.decode()}")
        return took

    def rate(self, command, variant, before):
        """Images per second of one process."""
        self.count += 1
        args = {
            "train": [*self.training(self.steps), "-o", f"run-{self.count}"],
            "eval": ["eval", "run", "shards", "--device", "cpu"],
            "predict": ["predict", "run", "source/val/images", "--device", "cpu"],
        }[command]
        return self.images[command] / self.call(variant.program, *args, env=variant.env, before=before)


def cpu_time(before):
    """CPU time that one process for each core gets in a second."""
    spin = [*before, sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(os.cpu_count())]
    began = time.monotonic()
    time.sleep(SPIN)
    took, used = time.monotonic() - began, 0.0
    for process in processes:
        process.kill()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = -9
        used += usage.ru_utime + usage.ru_stime
    return used / took


@contextmanager
def condition(name):
    """What else the machine does; yields the start of a command line that puts a process under the condition."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(int(name) if name.isdigit() else 0)]
    group = None
    try:
        if name == "quota":
            group = quota()
            yield ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
        else:
            yield []
    finally:
        for process in busy:
            process.kill()
            process.wait()
        if group:
            group.rmdir()


def quota():
    """A new control group of one CPU; `None` if it cannot be made."""
    for root, files in (
        ("/sys/fs/cgroup/cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}),
        ("/sys/fs/cgroup", {"cpu.max": "100000 100000"}),
    ):
        group = Path(root) / f"tinyres-bench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for file, value in files.items():
                (group / file).write_text(value)
        except OSError:
            group.rmdir()
            continue
        return group
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", type=Variant.parse, default=None, metavar="NAME=PROGRAM[,VARIABLE=VALUE...]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the images of a turn")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    args = parser.parse_args()
    variants = args.variants or [Variant.parse("tinyres=target/release/tinyres")]
    commands, conditions = args.commands.split(","), args.conditions.split(",")
    if "quota" in conditions:
        group = quota()
        if group:
            group.rmdir()
        else:
            conditions.remove("quota")
            print("skipped: the quota, since no control group can be made here", file=sys.stderr)

    rates, goals = {}, {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        bench = Bench(Path(folder), variants[0].program, args.scale)
        for number in range(args.rounds):
            for name in conditions:
                with condition(name) as before:
                    goals.setdefault(name, []).append(cpu_time(before))
                for command in commands:
                    # Whoever comes first has the caches of another.
                    for variant in variants if number % 2 == 0 else reversed(variants):
                        with condition(name) as before:
                            rate = bench.rate(command, variant, before)
                        rates.setdefault((command, name, variant.name), []).append(rate)
                        print(f"round {number + 1}: {command}, {CONDITIONS[name]}, {variant.name}: {rate:.1f}", file=sys.stderr)

    print(f"| command | condition | goal | {' | '.join(variant.name for variant in variants)} |")
    print(f"|---|---|---:|{'---:|' * len(variants)}")
    for command in commands:
        for name in conditions:
            busy = name != "quiet" and "quiet" in conditions
            goal = fraction(goals[name], goals["quiet"]) if busy else None
            cells = [f"{goal:.2f}" if busy else ""]
            for variant in variants:
                own = rates[command, name, variant.name]
                cell = f"{median(own):.0f} images/s"
                if busy:
                    reached = fraction(own, rates[command, "quiet", variant.name])
                    cell += f", {reached:.2f}, {reached / goal:.0%} of the goal"
                cells.append(cell)
            print(f"| {command} | {CONDITIONS[name]} | {' | '.join(cells)} |")


def fraction(own, quiet):
    """Median over the rounds of `own` as a part of `quiet`."""
    return median(value / best for value, best in zip(own, quiet))


if __name__ == "__main__":
    main()
