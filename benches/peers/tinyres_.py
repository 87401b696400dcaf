"""tinyres from Python: `tinyres.torch.Loader` over what `tinyres pack` wrote."""

import numpy
import tinyres.torch
import torch

from peer import BATCH, WORKERS, main


def epochs(dst, dtype):
    train = tinyres.open(dst, "train")
    loader = tinyres.torch.Loader(
        train,
        BATCH,
        dtype={"u8": torch.uint8, "f32": torch.float32}[dtype],
        memory_format=torch.channels_last if dtype == "f32" else torch.contiguous_format,
        drop_last=False,
        threads=WORKERS,
    )
    # The others number classes by their folders' names.
    ranks = torch.from_numpy(numpy.argsort(numpy.argsort(train.classes)))
    while True:
        yield ((images, ranks[labels]) for images, labels in loader)


main(None, epochs)
