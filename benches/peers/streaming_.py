"""MosaicML Streaming: raw pixels in MDS shards, converted by a process for each core.

As its guide to parallel conversion has it: a writer for each process, then one merged index.
"""

from multiprocessing import Pool

import torch
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import merge_index

from peer import BATCH, SIDE, WORKERS, as_batch, main, samples, turbo

COLUMNS = {"image": f"ndarray:uint8:{SIDE},{SIDE},3", "label": "int"}


def pack(src, dst):
    todo = samples(src)
    share = -(-len(todo) // WORKERS)
    parts = [(dst / str(part), todo[part * share :][:share]) for part in range(WORKERS)]
    with Pool(WORKERS) as pool:
        pool.starmap(write, parts)
    merge_index(str(dst), keep_local=True)


def write(out, part):
    with MDSWriter(out=str(out), columns=COLUMNS) as writer:
        for path, label in part:
            writer.write({"image": turbo(path), "label": label})


def epochs(dst, dtype):
    data = StreamingDataset(local=str(dst), shuffle=True, batch_size=BATCH)
    loader = torch.utils.data.DataLoader(
        data, BATCH, num_workers=WORKERS, persistent_workers=WORKERS > 0
    )
    while True:
        yield ((as_batch(batch["image"], dtype), batch["label"]) for batch in loader)


main(pack, epochs)
