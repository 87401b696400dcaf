#!/usr/bin/env python3
"""Batches from Python against the native loader, by turns: rates of each form of a batch, with its labels, and their ratio.

    cargo build --release -p tinyres-load --example epoch
    python/develop VENV --release
    VENV/bin/python benches/python.py target/release/examples/epoch shards [ROUNDS]

The native loop gives each batch back before it asks for the next; a `for` of Python still holds one then. Each side has a
process of its own in each round, since where memory lies is drawn with the process.

Prints medians over the rounds, the time from a process's start to its first batch beyond the time of importing NumPy,
how long `import tinyres` takes beyond it, and the memory of a process that has broken off 100 epochs, and 1,000. The
start is also measured with OPENBLAS_NUM_THREADS=1: otherwise importing NumPy starts threads of OpenBLAS, which keep all
cores but one busy for 30 ms.
"""

import itertools
import os
import re
import statistics
import subprocess
import sys
import time

import tinyres

BATCH, THREADS = 512, 2

START = """
import time, sys
began = time.perf_counter()
import numpy
numpy_there = time.perf_counter()
import tinyres
imported = time.perf_counter()
batches = iter(tinyres.Loader(tinyres.open(sys.argv[1], "train"), 512))
batch = next(batches)
print(imported - numpy_there, time.perf_counter() - numpy_there)
"""

MEMORY = """
import re, sys
import tinyres
loader = tinyres.Loader(tinyres.open(sys.argv[1], "train"), 512)
for epoch in range(1, 1001):
    for batch in loader:
        break
    if epoch in (100, 1000):
        print(int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""


FORMS = list(itertools.product(("u8", "f32"), ("First", "Last"), (False, True)))


def native(example, shards):
    """Images a second of each form by the native loader: (dtype, layout, moved) to a number."""
    command = [example, shards, "1", str(THREADS)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rates = {}
    for dtype, layout, moved, rate in re.findall(r"(u8|f32), Channels(First|Last)(, flip and shift)?: (\d+)", lines):
        rates[dtype, layout, bool(moved)] = float(rate)
    return rates


def python(shards):
    """The same by `tinyres.Loader`."""
    command = [sys.executable, __file__, "--rates", shards]
    rates = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(FORMS, map(float, rates)))


def rate(loader):
    """Images a second of an epoch."""
    began = time.perf_counter()
    images = sum(len(batch[0]) for batch in loader)
    return images / (time.perf_counter() - began)


def print_rates(shards):
    """Prints images a second of each form, of an epoch after another one."""
    split = tinyres.open(shards, "train")
    for dtype, layout, moved in FORMS:
        loader = tinyres.Loader(
            split,
            BATCH,
            dtype={"u8": "uint8", "f32": "float32"}[dtype],
            layout={"First": "NCHW", "Last": "NHWC"}[layout],
            flip=moved,
            shift=4 * moved,
            threads=THREADS,
        )
        # The first epoch touches the memory of the batches; and the first of all checks every block.
        rate(loader)
        print(rate(loader))


def main():
    example, shards = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    turns, starts = [], {"": [], ", OPENBLAS_NUM_THREADS=1": []}
    for _ in range(rounds):
        turns.append((native(example, shards), python(shards)))
        for name, times in starts.items():
            environment = os.environ | ({"OPENBLAS_NUM_THREADS": "1"} if name else {})
            command = [sys.executable, "-c", START, shards]
            line = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            times.append([float(seconds) * 1000 for seconds in line.split()])
    command = [sys.executable, "-c", MEMORY, shards]
    grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    for form in FORMS:
        limit, own = (statistics.median(rates[form] for rates in each) for each in zip(*turns))
        ratio = statistics.median(own[form] / limit[form] for limit, own in turns)
        dtype, layout, moved = form
        name = f"{dtype}, channels {layout.lower()}" + (", flip and shift" if moved else "")
        print(f"{name}: Python {own:,.0f} images/s, native {limit:,.0f}, ratio {ratio:.2f}")
    for dtype, layout in itertools.product(("u8", "f32"), ("First", "Last")):
        ratio = statistics.median(own[dtype, layout, True] / own[dtype, layout, False] for _, own in turns)
        print(f"{dtype}, channels {layout.lower()}: flip and shift {ratio:.2f} of none")
    for name, times in starts.items():
        imported, first = (statistics.median(each) for each in zip(*times))
        print(f"beyond NumPy{name}: import {imported:.0f} ms, first batch {first:.0f} ms")
    early, late = (int(size) / 1e6 for size in grown)
    print(f"memory, maps of files left out: {early:.1f} MB after 100 epochs broken off, {late:.1f} MB after 1,000")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rates"]:
        print_rates(sys.argv[2])
    else:
        main()
