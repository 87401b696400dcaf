"""WebDataset: tar files of raw pixels (.npy) or, with PEER_JPEG=1, of the JPEGs as they came.

A writer for each core; batches are made in the workers, as its documentation says for speed.
"""

import os
from multiprocessing import Pool

import numpy
import torch
import webdataset

from peer import BATCH, WORKERS, as_batch, main, samples, turbo

JPEG = bool(os.environ.get("PEER_JPEG"))


def pack(src, dst):
    dst.mkdir()
    todo = samples(src)
    share = -(-len(todo) // WORKERS)
    with Pool(WORKERS) as pool:
        pool.starmap(write, [(dst, part, todo[part * share :][:share]) for part in range(WORKERS)])


def write(dst, part, todo):
    # A few thousand images a file, so that a shuffle of files and of a buffer mixes them.
    with webdataset.ShardWriter(f"{dst}/train-{part}-%04d.tar", maxcount=2048, verbose=0) as writer:
        for path, label in todo:
            image = {"jpg": path.read_bytes()} if JPEG else {"npy": turbo(path)}
            writer.write({"__key__": path.stem, "cls": label, **image})


def epochs(dst, dtype):
    files = sorted(map(str, dst.glob("*.tar")))
    data = (
        webdataset.WebDataset(files, shardshuffle=len(files))
        .shuffle(5000)
        .decode(*["rgb8"] * JPEG)
        .to_tuple("jpg" if JPEG else "npy", "cls")
        .batched(BATCH, collation_fn=collate)
    )
    loader = webdataset.WebLoader(
        data, batch_size=None, num_workers=WORKERS, persistent_workers=WORKERS > 0
    )
    while True:
        yield ((as_batch(images, dtype), labels) for images, labels in loader)


def collate(batch):
    images, labels = zip(*batch)
    return torch.from_numpy(numpy.stack(images)), torch.tensor(labels)


main(pack, epochs)
