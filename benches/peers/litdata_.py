"""LitData: raw pixels in chunks of 64 MB, the size its documentation has, made by a process a core."""

import litdata
import torch

from peer import BATCH, WORKERS, as_batch, main, samples, turbo


def sample(item):
    path, label = item
    return {"image": turbo(path), "label": label}


def pack(src, dst):
    litdata.optimize(
        fn=sample,
        inputs=samples(src),
        output_dir=str(dst),
        num_workers=WORKERS,
        chunk_bytes="64MB",
        start_method="fork",
        verbose=False,
    )


def epochs(dst, dtype):
    data = litdata.StreamingDataset(str(dst), shuffle=True)
    loader = litdata.StreamingDataLoader(
        data, batch_size=BATCH, num_workers=WORKERS, persistent_workers=WORKERS > 0
    )
    while True:
        yield (
            (as_batch(batch["image"], dtype), torch.as_tensor(batch["label"])) for batch in loader
        )


main(pack, epochs)
