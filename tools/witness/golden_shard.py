#!/usr/bin/env python3
"""Writes format/tests/golden/train-00001.bin from format/SPEC.md alone, with the standard library.

It shares no code with the format crate, whose tests demand the same bytes.

    python3 tools/witness/golden_shard.py format/tests/golden/train-00001.bin
"""
import json
import struct
import sys
import zlib

COUNT, C, H, W = 18, 3, 2, 5


def pixel(i, c, y, x):
    return (7 * i + 31 * c + 13 * y + 5 * x) % 256


def label(i):
    return i % 4 - 1


def box(i):
    return (-1, -1, -1, -1) if i % 5 == 0 else (i % 3, i % 2, 4 - i % 2, 1)


def name(i):
    return "" if i == 7 else f"train/é{i}.JPEG"


metadata = {
    "creator": "golden_shard.py",
    "fingerprint": "0123456789abcdef" * 4,
    "split": "train",
    "shard": 1,
    "shards": 3,
    "grey": 5,
    "refused": [{"name": "train/bad.JPEG", "reason": "cut short"}],
    "classes": [
        {"id": "n02124075", "name": "Egyptian cat"},
        {"id": "n04067472", "name": "reel"},
        {"id": "n04540053", "name": "volleyball"},
    ],
}

images = [
    bytes(pixel(i, c, y, x) for c in range(C) for y in range(H) for x in range(W))
    for i in range(COUNT)
]
blocks = [b"".join(images[at : at + 16]) for at in range(0, COUNT, 16)]
names = [name(i).encode() for i in range(COUNT)]
ends = [sum(map(len, names[:i])) for i in range(COUNT + 1)]
sections = [
    b"".join(images),
    b"".join(struct.pack("<I", zlib.crc32(block)) for block in blocks),
    struct.pack(f"<{COUNT}q", *map(label, range(COUNT))),
    b"".join(struct.pack("<4i", *box(i)) for i in range(COUNT)),
    struct.pack(f"<{COUNT + 1}I", *ends),
    b"".join(names),
    json.dumps(metadata, separators=(",", ":"), ensure_ascii=False).encode(),
]

body, table = b"", b""
for i, section in enumerate(sections):
    offset = 4096 if i == 0 else -(-(4096 + len(body)) // 64) * 64
    body = body.ljust(offset - 4096, b"\0") + section
    table += struct.pack("<QQII", offset, len(section), zlib.crc32(section) if i else 0, 0)
head = b"\x89TRS\r\n\x1a\n" + struct.pack(
    "<2I2Q6I8x", 1, 0, 4096 + len(body), COUNT, C, H, W, 0, 16, len(sections)
)
page = (head + table).ljust(4092, b"\0")
with open(sys.argv[1], "wb") as file:
    file.write(page + struct.pack("<I", zlib.crc32(page)) + body)
