"""torchvision's ImageFolder and a DataLoader: every JPEG is opened and decoded in every epoch.

Transforms as torchvision's documentation has them. PEER_WORKERS is the number of worker processes.
"""

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from peer import BATCH, MEAN, STD, WORKERS, main


def epochs(src, dtype):
    steps = [v2.PILToTensor()]
    if dtype == "f32":
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    loader = torch.utils.data.DataLoader(
        ImageFolder(src / "train", v2.Compose(steps)),
        BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=WORKERS > 0,
    )
    while True:
        yield (
            (images.to(memory_format=torch.channels_last) if dtype == "f32" else images, labels)
            for images, labels in loader
        )


main(None, epochs)
