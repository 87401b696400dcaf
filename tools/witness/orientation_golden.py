"""Writes EXIF and XMP blocks, whole and mutated, with the orientation that Pillow finds in each.

    orientation_golden.py [tests/golden/orientations.bin]

The blocks are those of pillow_differential.py, in a JPEG. The file is a zlib stream of records: the orientation, 1
where none turns the image; the lengths of EXIF data and XMP as u16 in little endian, 65535 for none; then both.
"""

import io
import random
import struct
import sys
import zlib

from PIL import Image
from pillow_differential import TURNS, directory, marker, saved, scene, xmp

draw = random.Random(15)
plain = saved(scene(draw), "JPEG")
records = b""
for _ in range(2500):
    exif = directory(draw, draw.choice("<>")) if draw.random() < 0.85 else None
    text = xmp(draw) if exif is None or draw.random() < 0.25 else None
    pieces = b""
    if exif is not None:
        pieces += marker(0xE1, b"Exif\0\0" + exif)
    if text is not None:
        pieces += marker(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text)
    try:
        value = Image.open(io.BytesIO(plain[:2] + pieces + plain[2:])).getexif().get(0x0112)
    except Exception:  # noqa: BLE001: Pillow raises whatever comes up
        value = None
    value = int(value) if value in TURNS else 1
    lengths = [65535 if block is None else len(block) for block in (exif, text)]
    records += struct.pack("<B2H", value, *lengths) + (exif or b"") + (text or b"")
out = sys.argv[1] if len(sys.argv) > 1 else "tests/golden/orientations.bin"
with open(out, "wb") as file:
    file.write(zlib.compress(records, 9))
