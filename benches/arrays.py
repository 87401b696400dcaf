#!/usr/bin/env python3
"""Single images and the array of all images from Python, each against its limit, by turns:

    cargo build --release -p tinyres
    python/develop VENV --release
    VENV/bin/python benches/arrays.py target/release/tinyres shards [ROUNDS]

The limit of `ds[i]` in random order is a copy of a view of the same image. That of the first use of `ds.images`, in a
process that has only imported tinyres, is `tinyres inspect --verify` of the same files. That process has
OPENBLAS_NUM_THREADS=1: otherwise importing NumPy starts threads of OpenBLAS, which keep all cores but one busy for 30 ms.
Prints medians over the rounds.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import tinyres

IMAGES = 3000
ALONE = os.environ | {"OPENBLAS_NUM_THREADS": "1"}

FIRST = """
import sys, time
import tinyres
began = time.perf_counter()
tinyres.open(sys.argv[1], "train").images
print(time.perf_counter() - began)
"""


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def each(take, order):
    for i in order:
        take(i)


def main():
    program, shards = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 15
    files = sorted(Path(shards).glob("train-*.bin"))
    inspect = [program, "inspect", "--verify", *files]
    ds = tinyres.open(shards, "train")
    images = ds.images
    images.sum()
    order = np.random.default_rng(0).integers(0, len(ds), IMAGES).tolist()
    pairs = {"ds[i], us an image": [], "ds.images at first, ms": []}
    for _ in range(rounds):
        single = seconds(lambda: each(lambda i: ds[i], order)), seconds(lambda: each(lambda i: images[i].copy(), order))
        pairs["ds[i], us an image"].append([took / IMAGES * 1e6 for took in single])
        line = subprocess.run([sys.executable, "-c", FIRST, shards], check=True, capture_output=True, env=ALONE).stdout
        limit = seconds(lambda: subprocess.run(inspect, check=True, stdout=subprocess.DEVNULL))
        pairs["ds.images at first, ms"].append([float(line) * 1e3, limit * 1e3])
    for name, both in pairs.items():
        own, limit = (statistics.median(times) for times in zip(*both))
        print(f"{name}: {own:.2f}, limit {limit:.2f}, ratio {statistics.median(a / b for a, b in both):.2f}")


if __name__ == "__main__":
    main()
