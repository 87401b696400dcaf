"""A parent that starts children in one of the ways of multiprocessing, while the loader is in some state:

    forks.py SET METHOD STATE COUNT

Exits 0 if every child has read the split right.
"""

import multiprocessing
import sys
import threading
from contextlib import ExitStack

import numpy as np

import tinyres


def read(ds, expected):
    if isinstance(ds, str):
        ds = tinyres.open(ds, "train")
    order = np.random.default_rng(len(multiprocessing.current_process().name)).permutation(len(ds))
    total = int(ds.gather(order).sum(dtype=np.int64))
    assert total == expected, (total, expected)
    assert int(ds.images.sum(dtype=np.int64)) == expected
    assert ds[5][1] == ds.labels[5] == ds.targets[5]
    batches = tinyres.Loader(ds, 32, drop_last=False)
    assert sum(int(image.sum(dtype=np.int64)) for image, _ in batches) == expected


def busy(path, stop):
    while not stop.is_set():
        tinyres.open(path, "train").gather(range(300))


def main():
    path, method, state, count = sys.argv[1:]
    expected = sum(int(pixels(path, shard)) for shard in range(3))
    if state == "unused":
        # Opening a set uses the threads, too.
        start(method, [path, path], count, expected)
        return
    ds = tinyres.open(path, "train")
    with ExitStack() as stack:
        if state == "used":
            read(ds, expected)
        elif state == "loader":
            alive = iter(tinyres.Loader(ds, 4))
            kept = [next(alive), next(alive)]
            stack.callback(lambda: (kept.clear(), alive))
        elif state == "busy":
            stop = threading.Event()
            threads = [threading.Thread(target=busy, args=(path, stop)) for _ in range(3)]
            for thread in threads:
                thread.start()
                stack.callback(thread.join)
            stack.callback(stop.set)
        start(method, [ds, tinyres.open(path, "train")], count, expected)


def start(method, sets, count, expected):
    context = multiprocessing.get_context(method)
    for _ in range(int(count)):
        children = [context.Process(target=read, args=(of, expected)) for of in sets]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0], [child.exitcode for child in children]


def pixels(path, shard):
    """The sum of a shard's pixels, read without tinyres."""
    raw = np.fromfile(f"{path}/train-{shard:05}.bin", np.uint8)
    offset, length = raw[64:80].view("<u8")
    return raw[offset : offset + length].sum(dtype=np.int64)


if __name__ == "__main__":
    main()
