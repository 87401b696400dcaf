"""What the peers share: the images to pack, how a run reports, and the check of what was delivered.

A peer is a script with two functions and `main(pack, epochs)` at its end:

    pack(src, dst)       writes the training images of the tree `src` to the directory `dst`
    epochs(dst, dtype)   yields epochs without end, each an iterable of batches (images, labels) in
                         random order: u8 or f32 [n, 3, 64, 64] and i64 [n]; "f32" is normalised and
                         channels_last, "u8" is as the tool stores it
"""

import argparse
import json
import os
import sys
import time
import zlib
from multiprocessing import Pool
from pathlib import Path

BATCH = int(os.environ.get("PEER_BATCH", "512"))
SIDE = 64
# Threads or processes, where the tool has them.
WORKERS = int(os.environ.get("PEER_WORKERS", os.cpu_count()))
# Of ImageNet's training images, for pixels in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def samples(src):
    """The training images of a tree: [(path, label)], as torchvision's ImageFolder numbers them."""
    classes = sorted(path for path in Path(src, "train").iterdir() if path.is_dir())
    return [
        (path, label)
        for label, folder in enumerate(classes)
        for path in sorted(folder.glob("images/*.JPEG"))
    ]


def pillow(path):
    """An image as u8 [64, 64, 3]."""
    import numpy
    from PIL import Image

    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"))


def turbo(path):
    """The same by libjpeg-turbo alone: the same pixels in half of the time."""
    global _jpeg
    import turbojpeg

    if "_jpeg" not in globals():
        _jpeg = turbojpeg.TurboJPEG()
    return _jpeg.decode(path.read_bytes(), pixel_format=turbojpeg.TJPF_RGB)


def normalised(images):
    """u8 [n, 64, 64, 3] to f32 [n, 3, 64, 64], normalised: channels_last as it lies."""
    import torch

    scale = torch.tensor([1 / (255 * std) for std in STD]).repeat(SIDE)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD)]).repeat(SIDE)
    # Whole rows of pixels, since a loop over an axis of three is not vectorised; and in place, since
    # to fill fresh memory for each step takes seven times as long.
    rows = images.view(-1, SIDE, 3 * SIDE).to(torch.float32)
    torch.addcmul(shift, rows, scale, out=rows)
    return rows.view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2)


def as_batch(images, dtype):
    """u8 [n, 64, 64, 3] as `dtype` asks for it."""
    return normalised(images) if dtype == "f32" else images.permute(0, 3, 1, 2)


def checksum(images, labels):
    """The sum of a CRC for each image, of its pixels and its label: the same in any order."""
    import torch

    if images.dtype == torch.float32:
        assert images.is_contiguous(memory_format=torch.channels_last), images.stride()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        images = images.mul(std).add_(mean).mul_(255).round_().to(torch.uint8)
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    labels = labels.reshape(-1).tolist()
    assert len(pixels) == len(labels)
    return sum(map(image_checksum, pixels, labels))


def image_checksum(pixels, label):
    return zlib.crc32(label.to_bytes(8, "little"), zlib.crc32(pixels))


def run_epochs(epochs, check, seconds):
    """Reports the first batch when it is there. Times all epochs that fit into `seconds`, at least one, after one
    that warms up: it is checked, and some tools compile in it."""
    times, images, total = [], 0, 0
    for epoch in epochs:
        first, begin = not times, time.perf_counter()
        batches = iter(epoch)
        if first:
            batch = next(batches)
            yield {"first": True}
            images, total = len(batch[1]), checksum(*batch) if check else 0
        for batch in batches:
            if first:
                images += len(batch[1])
                total += checksum(*batch) if check else 0
        times.append(time.perf_counter() - begin)
        if sum(times[1:]) > seconds:
            break
    yield {"images": images, "checksum": total if check else None, "seconds": times[1:]}


def reference(src):
    """How many images there are, and the checksum of all as Pillow decodes them."""
    with Pool(WORKERS) as pool:
        sums = pool.starmap(_reference, samples(src), chunksize=512)
    return {"images": len(sums), "checksum": sum(sums)}


def _reference(path, label):
    return image_checksum(pillow(path), label)


def main(pack, epochs):
    """The command line of a peer; what it reports are lines of JSON on stdout."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("src", type=Path)
    packing.add_argument("dst", type=Path)
    loading = commands.add_parser("epochs")
    loading.add_argument("dst", type=Path)
    loading.add_argument("dtype", choices=["u8", "f32"])
    loading.add_argument("--seconds", type=float, default=3)
    loading.add_argument("--check", action="store_true")
    training = commands.add_parser("train")
    training.add_argument("dst", type=Path)
    training.add_argument("net")
    training.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    # The libraries' own chatter goes to stderr.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if args.command == "pack":
        pack(args.src, args.dst)
    elif args.command == "train":
        from training import train

        report = train(epochs(args.dst, "f32"), args.net, args.seconds)
        print(json.dumps(report), file=out)
    else:
        for report in run_epochs(epochs(args.dst, args.dtype), args.check, args.seconds):
            print(json.dumps(report), file=out)


if __name__ == "__main__":
    print(json.dumps(reference(Path(sys.argv[1]))))
