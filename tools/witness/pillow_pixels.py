"""Digests of a Tiny ImageNet tree or zip as Pillow and plain Python read it.

    pillow_pixels.py SRC OUT.json

For each split, over its images in source order:
    images, grey    how many there are, and how many are JPEGs of one component
    pixels          SHA-256 of the images' planar RGB bytes, one after the other
    annotations     SHA-256 of a line per image: name, label, x0, y0, x1, y1, separated by tabs and
                    ended by a newline; the name alone where there is no label

Source order: train by wnids.txt, each class as its boxes file lists it; val as val_annotations.txt
lists it; test by the number in the name.
"""

import hashlib
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def items(root):
    """Yields (split, image, label and box) in source order."""
    wnids = (root / "wnids.txt").read_text().split()
    for label, wnid in enumerate(wnids):
        for line in (root / "train" / wnid / f"{wnid}_boxes.txt").read_text().splitlines():
            name, *box = line.split()
            yield "train", root / "train" / wnid / "images" / name, [label, *box]
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid, *box = line.split()
        yield "val", root / "val" / "images" / name, [wnids.index(wnid), *box]
    test = (root / "test" / "images").iterdir()
    for image in sorted(test, key=lambda path: int(re.search(r"\d+", path.name)[0])):
        yield "test", image, []


def main(src, out):
    top = Path(src)
    if top.is_file():
        top = zipfile.Path(src)
    root = next(d for d in (top, *top.iterdir()) if (d / "wnids.txt").exists())

    splits = {}
    for split, path, annotation in items(root):
        images, grey, pixels, lines = splits.get(split) or (0, 0, hashlib.sha256(), hashlib.sha256())
        image = Image.open(io.BytesIO(path.read_bytes()))
        planar = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        pixels.update(planar.tobytes())
        lines.update(("\t".join([path.name, *map(str, annotation)]) + "\n").encode())
        splits[split] = images + 1, grey + (image.mode == "L"), pixels, lines

    golden = {
        split: {
            "images": images,
            "grey": grey,
            "pixels": pixels.hexdigest(),
            "annotations": lines.hexdigest(),
        }
        for split, (images, grey, pixels, lines) in splits.items()
    }
    Path(out).write_text(json.dumps(golden, indent=2) + "\n")


main(*sys.argv[1:])
