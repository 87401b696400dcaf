"""A mapped NumPy array: fancy indexing on one thread, then torch on its threads to normalise."""

import numpy
import torch

from mapped import pack, read
from peer import BATCH, as_batch, main


def epochs(dst, dtype):
    images, labels = read(dst)
    random = numpy.random.default_rng()

    def batches():
        order = random.permutation(len(labels))
        for first in range(0, len(order), BATCH):
            picks = order[first : first + BATCH]
            batch = torch.from_numpy(images[picks])
            yield as_batch(batch, dtype), torch.from_numpy(labels[picks])

    while True:
        yield batches()


main(pack, epochs)
