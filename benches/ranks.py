#!/usr/bin/env python3
"""The time of a step by one process with two threads, and by two processes with one thread each, by turns.

    benches/ranks.py shards                                 # target/release/tinyres, one round: some three minutes
    benches/ranks.py shards --rounds 3 --steps 40           # more of it
    benches/ranks.py shards --gbits 1                       # also over a link of 1 Gbit/s, which takes root
    benches/ranks.py shards before=OLD/tinyres after=target/release/tinyres

The processes talk by the loopback, or over a link between two network namespaces whose rate `tc` limits in both
directions. They train one run, of the same weights as the one process. A figure is the median over the steps of a run but
the first few, in milliseconds; those of several rounds are the medians. Efficiency is the time of the one process over
that of the two, in the same round.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

FLAGS = "--device cpu --pictures off --quiet".split()
# Steps that the processor and libtorch take to get going.
FIRST = 5
PORT = 29531
# Of the two ends of a link.
ADDRESSES = ("10.231.77.1", "10.231.77.2")


def run(*command):
    subprocess.run(command, check=True)


@contextmanager
def link(gbits):
    """Two network namespaces, connected by a link of so many Gbit/s. Gives the commands that run a program in each."""
    names = [f"tinyres-{os.getpid()}-{end}" for end in (0, 1)]
    with ExitStack() as undo:
        for name in names:
            run("ip", "netns", "add", name)
            undo.callback(run, "ip", "netns", "del", name)
        run("ip", "link", "add", "end0", "netns", names[0], "type", "veth", "peer", "name", "end1", "netns", names[1])
        for end, name in enumerate(names):
            inside = ["ip", "netns", "exec", name]
            run(*inside, "ip", "address", "add", f"{ADDRESSES[end]}/24", "dev", f"end{end}")
            run(*inside, "ip", "link", "set", f"end{end}", "up")
            run(*inside, "ip", "link", "set", "lo", "up")
            rate = ["rate", f"{gbits}gbit", "burst", "256kb", "latency", "50ms"]
            run(*inside, "tc", "qdisc", "add", "dev", f"end{end}", "root", "tbf", *rate)
        yield [["ip", "netns", "exec", name] for name in names]


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.runs = options, Path(folder), 0

    def step(self, program, processes, address="127.0.0.1", inside=((), ())):
        """The median time of a step, in milliseconds, of a run by so many processes."""
        self.runs += 1
        to = self.folder / str(self.runs)
        size = ["--sizes", str(self.options.size), "--precision", self.options.precision]
        steps = ["--max-steps", str(self.options.steps), "--batch", str(self.options.batch)]
        # As many groups as threads.
        steps += ["--ghost-batch", str(self.options.batch // 2), "--threads", str(2 // processes)]
        command = [str(program), "train", str(self.options.shards), "-o", str(to), *size, *steps, *FLAGS]
        started = []
        for rank in range(processes):
            where = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": address, "MASTER_PORT": PORT}
            where = {key: str(value) for key, value in where.items()} if processes > 1 else {}
            started.append(
                subprocess.Popen([*inside[rank], *command], env=os.environ | where, stdout=subprocess.DEVNULL)
            )
        if any([process.wait() for process in started]):
            sys.exit("a training failed")
        lines = map(json.loads, open(to / "metrics.jsonl"))
        rates = [line["images_per_second"] for line in lines if line["kind"] == "step"]
        return median(1000 * self.options.batch / rate for rate in rates[FIRST:])

    def ways(self, inside):
        """What is measured: a name, and how."""
        yield "one process, two threads", lambda program: self.step(program, 1)
        yield "two processes, loopback", lambda program: self.step(program, 2)
        if inside:
            name = f"two processes, {self.options.gbits:g} Gbit/s"
            yield name, lambda program: self.step(program, 2, ADDRESSES[0], inside)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("builds", nargs="*", default=["now=target/release/tinyres"], metavar="NAME=PROGRAM")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--gbits", type=float, default=0)
    options = parser.parse_args()
    builds = [build.partition("=")[::2] for build in options.builds]
    found = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, ExitStack() as stack:
        inside = stack.enter_context(link(options.gbits)) if options.gbits else None
        bench = Bench(options, folder)
        for _ in range(options.rounds):
            for way, measure in bench.ways(inside):
                for name, program in builds:
                    found.setdefault((name, way), []).append(measure(Path(program).resolve(strict=True)))
    for (name, way), times in found.items():
        alone = found[name, "one process, two threads"]
        efficiency = median(one / time for one, time in zip(alone, times))
        print(f"{name:8} {way:28} {median(times):6.0f} ms a step, efficiency {efficiency:.2f}")


if __name__ == "__main__":
    main()
