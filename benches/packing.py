#!/usr/bin/env python3
"""Packing from Python against its limits, by turns:

    cargo build --release -p tinyres
    python/develop VENV --release
    VENV/bin/python benches/packing.py target/release/tinyres tiny-imagenet-200.zip [ROUNDS]

The limit of a data set of Hugging Face `datasets`, which must be installed, is `tinyres pack` of a zip of the same files;
that of an array `u8 [N, 3, 64, 64]` is `cp` of the set that comes of it. All that is written goes to TMPDIR; /dev/shm
measures the work and not a disk. Prints medians over the rounds.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path, PurePosixPath

import datasets
import numpy as np

import tinyres


def training_files(source, copy):
    """The JPEGs of train and the names of their classes; writes a zip of them as class folders."""
    files, classes = [], []
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as own:
        for name in whole.namelist():
            path = PurePosixPath(name)
            if "train" in path.parts and path.suffix == ".JPEG":
                files.append(whole.read(name))
                classes.append(path.parts[path.parts.index("train") + 1])
                own.writestr(f"train/{classes[-1]}/{path.name}", files[-1])
    return files, classes


def seconds(work, out):
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main():
    program, source = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 7
    with tempfile.TemporaryDirectory(prefix="tinyres-packing-") as work:
        work = Path(work)
        archive, out = work / "train.zip", work / "out"
        files, classes = training_files(source, archive)
        names = sorted(set(classes))
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        columns = {"image": [{"bytes": file, "path": None} for file in files], "label": classes}
        hub = datasets.Dataset.from_dict(columns, features)
        tinyres.pack(hub, work / "set")
        train = tinyres.open(work / "set", "train")
        images, labels = np.array(train.images), np.array(train.labels)
        command = [program, "pack", archive, "--output", out, "--quiet"]
        pairs = {"Hugging Face, encoded": [], "an array": []}
        for _ in range(rounds):
            own = seconds(lambda: tinyres.pack(hub, out), out)
            limit = seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), out)
            pairs["Hugging Face, encoded"].append((own, limit))
            own = seconds(lambda: tinyres.pack((images, labels), out, classes=names), out)
            limit = seconds(lambda: subprocess.run(["cp", "-r", work / "set", out], check=True), out)
            pairs["an array"].append((own, limit))
        for name, both in pairs.items():
            own, limit = (statistics.median(times) for times in zip(*both))
            ratio = statistics.median(limit / own for own, limit in both)
            print(f"{name}: {len(files) / own:,.0f} images/s, limit {len(files) / limit:,.0f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
