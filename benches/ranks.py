#!/usr/bin/env python3
"""The time of a step by one process with two threads, and by two processes with one thread each, by turns.

    benches/ranks.py shards                                 # target/release/tinyres, one round: some three minutes
    benches/ranks.py shards --rounds 3 --steps 40           # more of it
    benches/ranks.py shards --gbits 1                       # also over a link of 1 Gbit/s, which takes root
    benches/ranks.py shards before=OLD/tinyres after=target/release/tinyres
    benches/ranks.py shards --scale                         # a model of many processes: some six minutes

The processes talk by the loopback, or over a link between two network namespaces whose rate `tc` limits in both
directions. They train one run, of the same weights as the one process. A figure is the median over the steps of a run but
the first few, in milliseconds; those of several rounds are the medians. Efficiency is the time of the one process over
that of the two, in the same round.

`--scale` measures the step of 1, 2, 3, 4, 8 and 16 processes that share the c cores of this host: with Muon; with SGD,
which sends less; and with SGD and the last stage frozen, which sends a quarter of that. All of them together compute the
same groups of images, so what a step takes more than that of one process is what being several costs. Gradients of S bytes
go from rank to rank and back. Those of Muon's matrices, of W bytes, go back as far as the rank that computes the matrix,
half the way as a mean, and the matrix goes from there to the others: (p - 1)(2 S + W / 2) bytes in all. So

    T(p) = T(1) + (p - 1)((2 S + W / 2) k + u) / c

with k seconds of a core for a byte that is sent and received, and u for what a process does by itself in a step, messages
included. Both are fitted to 2, 3, 4 and 8 processes by least squares of the relative errors, and 16 shows how wrong they
are. With a core for each process, and a link of b bytes a second for each, a step of p processes takes at least

    max(c T(1) / p + u + (2 S + W / 2) k,  (2 S + W / 2) / b) + 2(p - 1)(P / b + a)

of which two processes send half. The last term is the way of the first piece, of P bytes, to the last rank and back; a is
the time of a message, 0.1 ms.
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

try:
    import numpy
except ImportError:
    numpy = None

FLAGS = "--device cpu --pictures off --quiet".split()
# Steps that the processor and libtorch take to get going.
FIRST = 5
PORT = 29531
CORES = 2
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


# Bytes of the gradients of ResNet18 with 200 classes, and of those of its last stage.
GRADIENTS, LAST = 4 * 11_279_112, 4 * 8_393_728
# What is trained: by which flags, and the bytes that each process but one receives and sends. Muon trains 11,157,504 weights.
TRAINED = {
    "SGD": (["--optimizer", "sgd"], 2 * GRADIENTS),
    "SGD, layer4 frozen": (["--optimizer", "sgd", "--freeze", "layer4"], 2 * (GRADIENTS - LAST)),
    "Muon": (["--optimizer", "muon"], 2 * GRADIENTS + 2 * 11_157_504),
}
# Bytes of a piece that is sent.
PIECE = 4 * (1 << 18)
# Seconds that a message takes between two processes of one host.
LATENCY = 1e-4


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.runs = options, Path(folder), 0

    def step(self, program, processes, address="127.0.0.1", inside=None, groups=2, flags=()):
        """The median time of a step, in milliseconds, of a run by so many processes."""
        self.runs += 1
        to = self.folder / str(self.runs)
        size = ["--sizes", str(self.options.size), "--precision", self.options.precision]
        steps = ["--max-steps", str(self.options.steps), "--batch", str(self.options.batch)]
        steps += ["--ghost-batch", str(self.options.batch // groups), "--threads", str(max(1, CORES // processes))]
        command = [str(program), "train", str(self.options.shards), "-o", str(to), *size, *steps, *flags, *FLAGS]
        started = []
        for rank in range(processes):
            where = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            where |= {"MASTER_ADDR": address, "MASTER_PORT": PORT}
            where = {key: str(value) for key, value in where.items()} if processes > 1 else {}
            started.append(
                subprocess.Popen([*(inside[rank] if inside else []), *command], env=os.environ | where, stdout=subprocess.DEVNULL)
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



def scale(bench, program, rounds):
    """Fits the model to few processes, and says what it makes of many."""
    counts, taken = (1, 2, 3, 4, 8, 16), {}
    for _ in range(rounds):
        for processes in counts:
            for name, (flags, _) in TRAINED.items():
                time = bench.step(program, processes, groups=16, flags=flags)
                taken.setdefault((name, processes), []).append(time)
    time = {key: median(times) for key, times in taken.items()}

    def row(name, p):
        """The factors of k, in seconds for a GB, and of u, in milliseconds, in the time of a step."""
        return [(p - 1) * TRAINED[name][1] / 1e6 / CORES, (p - 1) / CORES]

    fitted = [(name, p) for name in TRAINED for p in (2, 3, 4, 8)]
    weights = numpy.array([1 / time[key] for key in fitted])
    factors = numpy.array([row(*key) for key in fitted]) * weights[:, None]
    more = numpy.array([time[key] - time[key[0], 1] for key in fitted]) * weights
    (k, u), *_ = numpy.linalg.lstsq(factors, more, rcond=None)
    print(f"k = {k:.2f} s for a GB, u = {u:.1f} ms")
    for name in TRAINED:
        for p in counts:
            model = time[name, 1] + float(numpy.dot(row(name, p), [k, u]))
            wrong = 100 * (model / time[name, p] - 1)
            print(f"{name:18} {p:3} processes {time[name, p]:6.0f} ms a step, by the model {model:6.0f} ms, {wrong:+.0f}%")
    print(f"a core for each process, batches of {bench.options.batch} at {bench.options.size} pixels, Muon:")
    for p in (1, 2, 4, 8, 16, 32, 64, 128, 256, 1000):
        computing = CORES * time["Muon", 1] / p
        own = u + TRAINED["Muon"][1] / 1e6 * k if p > 1 else 0
        steps = []
        for gbits in (1, 10, 100):
            rate = gbits * 125e6 / 1000  # bytes in a millisecond
            # Of two, each sends one way what those in the middle send both ways.
            wire = [0, 0.5, 1][min(p, 3) - 1] * TRAINED["Muon"][1] / rate
            steps.append(max(computing + own, wire) + 2 * (p - 1) * (PIECE / rate + 1000 * LATENCY))
        print(f"{p:5} processes: computing {computing:6.1f} ms, exchange {own:5.1f} ms;", end=" ")
        print("a step over 1, 10, 100 Gbit/s: " + ", ".join(f"{step:.0f}" for step in steps) + " ms")


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
    parser.add_argument("--scale", action="store_true", help="fit a model of many processes (takes NumPy)")
    options = parser.parse_args()
    if options.scale and numpy is None:
        parser.error("--scale takes NumPy: pip install numpy")
    builds = [build.partition("=")[::2] for build in options.builds]
    found = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, ExitStack() as stack:
        inside = stack.enter_context(link(options.gbits)) if options.gbits else None
        bench = Bench(options, folder)
        if options.scale:
            scale(bench, Path(builds[0][1]).resolve(strict=True), options.rounds)
            return
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
