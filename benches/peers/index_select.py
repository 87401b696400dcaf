"""The same mapped array as a tensor: index_select on torch's threads."""

import warnings

import torch

from mapped import pack, read
from peer import BATCH, as_batch, main


def epochs(dst, dtype):
    warnings.filterwarnings("ignore", message=".*not writable")
    images, labels = map(torch.from_numpy, read(dst))

    def batches():
        for picks in torch.randperm(len(labels)).split(BATCH):
            yield as_batch(images.index_select(0, picks), dtype), labels[picks]

    while True:
        yield batches()


main(pack, epochs)
