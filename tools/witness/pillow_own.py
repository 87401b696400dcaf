"""Compares what tinyres makes of the pictures that Pillow tests itself with, and of any others, with Pillow.

    pip download --no-binary :all: --no-deps --no-build-isolation pillow==13.0.0   (needs setuptools and pybind11)
    tar xf pillow-13.0.0.tar.gz
    cargo build --example decode
    pillow_own.py target/debug/examples/decode pillow-13.0.0/Tests/images

Decodes every file below the directory with both, and compares the SHA-256 of the planar RGB bytes: Pillow's are
those of `exif_transpose(Image.open(f)).convert("RGB")`. Prints the counts by format, as Pillow names it, and
each file that differs. `--all` also lists the files that only one of them reads, with the reason.
Exits with 1 if a file that both read has other pixels, or if one of a format in FORMATS that Pillow reads is
refused and is not in STRICTER.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

from PIL import Image
from pillow_differential import digest, upright

FORMATS = {"JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "PPM", "WEBP"}
"""What tinyres reads; Pillow calls a JPEG with more pictures behind it MPO. Other formats are not claimed."""

STRICTER = {
    "clipboard.dib": "a BMP without its first header, which only the clipboard has",
    "hopper.Lab.tif": "LAB, which Pillow converts by Little CMS",
    "lab.tif": "LAB",
    "lab-green.tif": "LAB",
    "lab-red.tif": "LAB",
    "hopper_lzma.tif": "LZMA in a TIFF, which libtiff itself reads only where it was built so",
    "old-style-jpeg-compression.tif": "JPEG from before TIFF 6.0, which the standard calls obsolete",
    "old-style-jpeg-compression-no-samplesperpixel.tif": "the same",
}
"""Files that tinyres refuses and Pillow reads, and why."""


def pillow(path):
    """Pillow's name of the format, and the digest of the picture or what Pillow says."""
    kind = None
    try:
        with Image.open(path) as image:
            kind = image.format
            return kind, digest(upright(image)), None
    except Exception as error:  # noqa: BLE001: Pillow raises whatever comes up
        return kind, None, f"{type(error).__name__}: {error}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("decode", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    files = sorted(path for path in asked.folder.rglob("*") if path.is_file())
    names = "".join(f"{path}\n" for path in files)
    lines = subprocess.run([asked.decode], input=names, text=True, check=True, stdout=subprocess.PIPE).stdout
    ours = {line["file"]: line for line in map(json.loads, lines.splitlines())}
    counts, lists = defaultdict(Counter), defaultdict(list)
    failed = False
    for path in files:
        name = path.relative_to(asked.folder).as_posix()
        kind, theirs, why = pillow(path)
        found = ours[str(path)]
        mine = found.get("sha256")
        if theirs and mine:
            what = "equal" if theirs == mine else "OTHER PIXELS"
        elif theirs:
            what = "Pillow alone" if kind in FORMATS else "not claimed"
            if kind in FORMATS:
                what = "stricter" if name in STRICTER else "REFUSED"
        elif mine:
            what = "tinyres alone"
        else:
            what = "both refuse"
        failed |= what in ("OTHER PIXELS", "REFUSED")
        counts[kind][what] += 1
        said = STRICTER.get(name) or found.get("error") or why or ""
        lists[what].append(f"{kind} {name}: {said}")
    for kind in sorted(counts, key=lambda kind: (kind not in FORMATS, str(kind))):
        print(kind, dict(sorted(counts[kind].items())))
    shown = ["OTHER PIXELS", "REFUSED", "stricter"] + (["tinyres alone"] if asked.all else [])
    for what in shown:
        for line in lists[what]:
            print(f"{what}: {line}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
