"""What a NumPy user writes: pixels and labels as two .npy files, written by a process for each core."""

from itertools import pairwise
from multiprocessing import Pool

import numpy

from peer import SIDE, WORKERS, samples, turbo


def pack(src, dst):
    dst.mkdir()
    todo = samples(src)
    shape = (len(todo), SIDE, SIDE, 3)
    numpy.lib.format.open_memmap(dst / "images.npy", "w+", numpy.uint8, shape)
    numpy.save(dst / "labels.npy", numpy.array([label for _, label in todo]))
    bounds = numpy.linspace(0, len(todo), WORKERS + 1, dtype=int)
    parts = [
        (dst, first, [path for path, _ in todo[first:last]]) for first, last in pairwise(bounds)
    ]
    with Pool(WORKERS) as pool:
        pool.starmap(write, parts)


def write(dst, first, paths):
    images = numpy.load(dst / "images.npy", mmap_mode="r+")
    for place, path in enumerate(paths, first):
        images[place] = turbo(path)


def read(dst):
    """The pixels, mapped, and the labels."""
    return numpy.load(dst / "images.npy", mmap_mode="r"), numpy.load(dst / "labels.npy")
