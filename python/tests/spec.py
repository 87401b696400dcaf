"""A writer of sets after format/SPEC.md, with NumPy and the standard library. It shares no code with tinyres, so the
tests of the package have a witness of their own."""

import hashlib
import json
import struct
import zlib

import numpy as np


def shard(images, labels, boxes, names, metadata):
    """The bytes of a shard of images ``u8 [n, 3, H, W]``."""
    count, channels, height, width = images.shape
    texts = [name.encode() for name in names]
    blocks = [images[at : at + 16].tobytes() for at in range(0, count, 16)]
    sections = [
        images.tobytes(),
        b"".join(struct.pack("<I", zlib.crc32(block)) for block in blocks),
        np.asarray(labels, "<i8").tobytes(),
        np.asarray(boxes, "<i4").tobytes(),
        np.cumsum([0, *map(len, texts)], dtype="<u4").tobytes(),
        b"".join(texts),
        json.dumps(metadata).encode(),
    ]
    body, table = bytearray(), b""
    for i, section in enumerate(sections):
        offset = 4096 if i == 0 else -(-(4096 + len(body)) // 64) * 64
        body = body.ljust(offset - 4096, b"\0") + section
        table += struct.pack("<QQII", offset, len(section), zlib.crc32(section) if i else 0, 0)
    head = b"\x89TRS\r\n\x1a\n" + struct.pack(
        "<2I2Q6I8x", 1, 0, 4096 + len(body), count, channels, height, width, 0, 16, len(sections)
    )
    page = (head + table).ljust(4092, b"\0")
    return page + struct.pack("<I", zlib.crc32(page)) + bytes(body)


def write_set(directory, splits, classes=3, shard_images=8192, fingerprint="ab" * 32):
    """Writes a set. splits: name to (images, labels, boxes, names)."""
    directory.mkdir(exist_ok=True)
    entries = []
    for split, (images, labels, boxes, names) in splits.items():
        files, starts = [], range(0, len(images), shard_images)
        for index, start in enumerate(starts):
            own = slice(start, start + shard_images)
            metadata = {
                "creator": "spec.py",
                "fingerprint": fingerprint,
                "split": split,
                "shard": index,
                "shards": len(starts),
                "grey": 0,
                "refused": [],
                "classes": [{"id": f"n{label:02}", "name": f"thing {label}"} for label in range(classes)],
            }
            content = shard(images[own], labels[own], boxes[own], names[own], metadata)
            file = f"{split}-{index:05}.bin"
            (directory / file).write_bytes(content)
            digest = hashlib.sha256(content[:4096]).hexdigest()
            files.append({"file": file, "images": len(images[own]), "bytes": len(content), "digest": digest})
        entries.append({"split": split, "images": len(images), "shards": files})
    manifest = {
        "version": 1,
        "creator": "spec.py",
        "fingerprint": fingerprint,
        "shape": images.shape[1:],
        "classes": classes,
        "splits": entries,
    }
    (directory / "dataset.json").write_text(json.dumps(manifest))
    return directory


def drawn(count, size=8, classes=3, seed=0):
    """A split with random images: (images, labels, boxes, names)."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, 3, size, size), np.uint8)
    labels = draw.integers(-1, classes, count)
    sides = np.sort(draw.integers(0, size, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.int32)
    boxes = np.where(draw.random((count, 1)) < 0.2, np.int32(-1), sides)
    return images, labels, boxes, [f"train/é{image}.png" for image in range(count)]


def tinted(count, classes=3, size=32, seed=0):
    """A split whose classes differ in their colour: (images, labels, boxes, names)."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = draw.integers(0, 200, (count, 3, size, size), np.uint8)
    images[np.arange(count), labels] += 50
    return images, labels, np.full((count, 4), -1, np.int32), [f"{index}.png" for index in range(count)]
