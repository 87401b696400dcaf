"""Writes small pictures of every kind, and what Pillow and torchvision make of them.

    pillow_pictures.py [tests/golden/pictures]

Writes, into the directory:
    exact/CLASS/*, resized/CLASS/*   the pictures, two sets in class folders
    exact.json     for each picture of `exact` the SHA-256 of its planar RGB bytes, as
                   exif_transpose(Image.open(f)).convert("RGB") gives them
    resized.json   for each picture of `resized` the planar RGB bytes, in hex, after
                   Resize(16) and CenterCrop(16) (`crop`) and after Resize((16, 16)) (`squash`)
    refused.json   for each picture of `refused` a part of the reason for which it is refused
    folders.json   files in folders, and the classes and samples that ImageFolder finds in them
"""

import hashlib
import json
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.datasets import ImageFolder

ORIENTATION = 0x0112
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/pictures")


def scene(width, height, seed=0):
    """A smooth picture with edges; no two of its rows, columns or mirror images are equal."""
    y, x = np.mgrid[:height, :width]
    red = 255 * x / width
    green = 255 * y / height
    blue = np.where((x + 2 * y + seed) % 7 < 3, 230, 20)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def exif(orientation):
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data.tobytes()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, depth, color, rows, before=(), after=()):
    """A PNG of 16 x 16 pixels from rows of packed samples, since Pillow cannot write every kind."""
    raw = b"".join(b"\0" + bytes(row) for row in rows)
    head = struct.pack(">IIBBBBB", 16, 16, depth, color, 0, 0, 0)
    parts = [(b"IHDR", head), *before, (b"IDAT", zlib.compress(raw)), *after, (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def samples(count, bits, seed):
    """16 rows of `count` samples of `bits` bits, packed."""
    draw = np.random.default_rng(seed).integers(0, 2**bits, (16, count), dtype=np.uint32)
    if bits == 16:
        return [row.astype(">u2").tobytes() for row in draw]
    shifts = np.arange(8 - bits, -1, -bits)
    return [(row.reshape(-1, 8 // bits) << shifts).sum(1).astype(np.uint8).tobytes() for row in draw]


def exact(root):
    exifs, pngs = root / "exif", root / "png"
    for folder in (exifs, pngs):
        folder.mkdir(parents=True)
    picture = Image.fromarray(scene(16, 16))
    for orientation in range(10):
        picture.save(exifs / f"{orientation}.jpg", quality=90, exif=exif(orientation))
    picture.save(exifs / "none.JPEG", quality=90)
    picture.convert("L").save(exifs / "grey-6.jpg", quality=90, exif=exif(6))
    picture.save(exifs / "progressive-8.jpg", quality=90, progressive=True, exif=exif(8))
    broken = bytearray((exifs / "6.jpg").read_bytes())
    at = broken.index(b"Exif\0\0") + 10
    broken[at:at + 4] = b"\xff\xff\xff\xff"  # where its directory lies
    (exifs / "broken.jpg").write_bytes(broken)
    picture.save(exifs / "6.png", exif=exif(6))
    png(exifs / "late-3.png", 8, 2, [row.tobytes() for row in scene(16, 16)], after=[(b"eXIf", exif(3)[6:])])
    # The name has the extension of another format.
    (exifs / "in-truth-a-png.jpg").write_bytes((exifs / "6.png").read_bytes())

    colors = np.random.default_rng(7).integers(0, 256, (256, 3), dtype=np.uint8).tobytes()
    for bits in (1, 2, 4, 8):
        png(pngs / f"grey{bits}.png", bits, 0, samples(16, bits, bits))
        palette = [(b"PLTE", colors[:3 * 2**bits])]
        png(pngs / f"palette{bits}.png", bits, 3, samples(16, bits, bits), palette)
    clear = [(b"PLTE", colors), (b"tRNS", bytes(range(0, 250, 5)))]
    png(pngs / "palette-clear.png", 8, 3, samples(16, 8, 20), clear)
    png(pngs / "palette-short.png", 8, 3, samples(16, 8, 21), [(b"PLTE", colors[:300])])
    png(pngs / "grey-clear.png", 8, 0, samples(16, 8, 22), [(b"tRNS", b"\0\x07")])
    png(pngs / "rgb-clear.png", 8, 2, samples(48, 8, 23), [(b"tRNS", b"\0\1\0\2\0\3")])
    for bits in (8, 16):
        png(pngs / f"rgb{bits}.png", bits, 2, samples(48, bits, 30 + bits))
        png(pngs / f"grey-alpha{bits}.png", bits, 4, samples(32, bits, 40 + bits))
        png(pngs / f"rgba{bits}.png", bits, 6, samples(64, bits, 50 + bits))
    png(pngs / "gamma.png", 8, 2, samples(48, 8, 60), [(b"gAMA", struct.pack(">I", 100000))])
    # Rows of the seven passes of Adam7, which Pillow reads and cannot write.
    pixels, passes = scene(16, 16, 3), []
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        passes += [b"\0" + row.tobytes() for row in pixels[y0::dy, x0::dx]]
    head = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 1)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(passes))), (b"IEND", b""))
    (pngs / "interlaced.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def resized(root):
    sizes = {"even": (64, 48), "odd": (41, 30), "odd2": (43, 30), "tall": (29, 90), "small": (9, 7), "wide": (200, 16), "half": (32, 32)}
    for kind in ("jpg", "png"):
        (root / kind).mkdir(parents=True)
        for name, size in sizes.items():
            Image.fromarray(scene(*size)).save(root / kind / f"{name}.{kind}", quality=90)
    for orientation in (3, 6, 7):
        turned = Image.fromarray(scene(50, 31))
        turned.save(root / "jpg" / f"turned-{orientation}.jpg", quality=90, exif=exif(orientation))
    Image.fromarray(scene(16, 16)).save(root / "jpg" / "as-it-is.jpg", quality=90)


def other(root):
    """Other formats under the extension of a JPEG, the WebP a lossy one; CMYK, 16-bit grey, a PNG without its end."""
    picture = Image.fromarray(scene(16, 16))
    root.mkdir(parents=True)
    for kind in ("gif", "webp", "bmp", "tiff", "ppm"):
        picture.save(root / f"{kind}.jpg", format=kind)
    png(root / "grey16.png", 16, 0, samples(16, 16, 1))
    picture.convert("CMYK").save(root / "cmyk.jpg")
    png(root / "no-end.png", 8, 2, samples(48, 8, 2))
    whole = (root / "no-end.png").read_bytes()
    (root / "no-end.png").write_bytes(whole[:-12])


def refused(root):
    root.mkdir(parents=True)
    png(root / "cut.png", 8, 2, samples(48, 8, 2))
    whole = (root / "cut.png").read_bytes()
    (root / "cut.png").write_bytes(whole[:len(whole) // 2])
    # A wrong checksum of the compressed pixels.
    (root / "crc.png").write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    whole = (OUT / "exact/exif/1.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[:-100])
    (root / "page.jpg").write_text("<!DOCTYPE html><html></html>\n")
    (root / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return {
        "crc.png": "undecodable",
        "cut.png": "undecodable", "page.jpg": "a web page", "pointer.jpg": "a Git LFS pointer",
        "cut.jpg": "Premature end",
    }


def planar(image):
    return np.asarray(image).transpose(2, 0, 1).tobytes()


def upright(path):
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def write(name, value):
    (OUT / name).write_text(json.dumps(value, indent=1) + "\n")


def pictures(root):
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def folders():
    """Files whose names sort differently as text and as bytes, nested folders, and files that are not images."""
    files = [
        "b/1.jpg", "b/10.JPG", "b/2.jpeg", "b/x/3.png", "b/x-y/4.png", "b/x/a/5.webp", "b/x.jpg",
        "B/1.bmp", "a b/ü.jpg", "a b/z.jpg", "a b/notes.txt", "é/1.PNG", "z/deep/er/1.tif",
        "a/1.pgm", "a/1.ppm", "a/01.tiff", "10/1.jpg", "9/1.jpg", "9/1.jpg.txt",
    ]
    with tempfile.TemporaryDirectory() as root:
        for file in files:
            path = Path(root) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        found = ImageFolder(root)
        samples = [[Path(path).relative_to(root).as_posix(), label] for path, label in found.samples]
    return {"files": files, "classes": found.classes, "samples": samples}


exact(OUT / "exact")
other(OUT / "exact" / "other")
write("exact.json", {
    name: hashlib.sha256(planar(upright(path))).hexdigest()
    for name, path in pictures(OUT / "exact").items()
})
resized(OUT / "resized")
crop = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16)])
squash = transforms.Resize((16, 16))
write("resized.json", {
    name: {"crop": planar(crop(upright(path))).hex(), "squash": planar(squash(upright(path))).hex()}
    for name, path in pictures(OUT / "resized").items()
})
write("refused.json", refused(OUT / "refused"))
write("folders.json", folders())
