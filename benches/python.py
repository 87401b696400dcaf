#!/usr/bin/env python3
"""Batches from Python against the native loader, by turns: rates of each form of a batch and their ratio.

    cargo build --release -p tinyres-load --example epoch
    python/develop VENV --release
    VENV/bin/python benches/python.py target/release/examples/epoch shards [ROUNDS]

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


def native(example, shards):
    """Images a second of each form: (dtype, layout, moved) to a number."""
    lines = subprocess.run([example, shards, "1", str(THREADS)], check=True, capture_output=True, text=True).stdout
    rates = {}
    for dtype, layout, moved, rate in re.findall(r"(u8|f32), Channels(First|Last)(, flip and shift)?: (\d+)", lines):
        rates[dtype, layout, bool(moved)] = float(rate)
    return rates


def loader(split, dtype, layout, moved):
    return tinyres.Loader(
        split,
        BATCH,
        dtype={"u8": "uint8", "f32": "float32"}[dtype],
        layout={"First": "NCHW", "Last": "NHWC"}[layout],
        flip=moved,
        shift=4 * moved,
        threads=THREADS,
    )


def python(loaders):
    """The same by `tinyres.Loader`: an epoch of each, after another one, as the native loader does it."""
    rates = {}
    for form, batches in [*loaders.items(), *loaders.items()]:
        began = time.perf_counter()
        images = sum(len(batch[0]) for batch in batches)
        rates[form] = images / (time.perf_counter() - began)
    return rates


def main():
    example, shards = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    split = tinyres.open(shards, "train")
    forms = itertools.product(("u8", "f32"), ("First", "Last"), (False, True))
    loaders = {form: loader(split, *form) for form in forms}
    python(loaders)  # Checks every block, and touches the memory of the batches.
    pairs, starts = [], {"": [], ", OPENBLAS_NUM_THREADS=1": []}
    for _ in range(rounds):
        pairs.append((native(example, shards), python(loaders)))
        for name, times in starts.items():
            environment = os.environ | ({"OPENBLAS_NUM_THREADS": "1"} if name else {})
            command = [sys.executable, "-c", START, shards]
            line = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            times.append([float(seconds) * 1000 for seconds in line.split()])
    command = [sys.executable, "-c", MEMORY, shards]
    grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    median = {}
    for form in pairs[0][0]:
        own = [round_[1][form] for round_ in pairs]
        median[form] = statistics.median(own)
        ratio = statistics.median(ours[form] / theirs[form] for theirs, ours in pairs)
        there = statistics.median(round_[0][form] for round_ in pairs)
        dtype, layout, moved = form
        name = f"{dtype}, channels {layout.lower()}" + (", flip and shift" if moved else "")
        print(f"{name}: Python {median[form]:,.0f} images/s, native {there:,.0f}, ratio {ratio:.2f}")
    for dtype, layout in itertools.product(("u8", "f32"), ("First", "Last")):
        ratio = statistics.median(ours[dtype, layout, True] / ours[dtype, layout, False] for _, ours in pairs)
        print(f"{dtype}, channels {layout.lower()}: flip and shift {ratio:.2f} of none")
    for name, times in starts.items():
        imported, first = (statistics.median(each) for each in zip(*times))
        print(f"beyond NumPy{name}: import {imported:.0f} ms, first batch {first:.0f} ms")
    early, late = (int(size) / 1e6 for size in grown)
    print(f"memory, maps of files left out: {early:.1f} MB after 100 epochs broken off, {late:.1f} MB after 1,000")


if __name__ == "__main__":
    main()
