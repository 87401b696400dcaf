"""Each class of exception: the fault that raises it, the exception of Python that it derives from, and its attributes."""

import errno
import fcntl
import os

import numpy as np
import pytest
import spec

import tinyres
from tinyres import errors

LEN = 3 * 8 * 8
SHARD = "train-00001.bin"
PICTURES = np.zeros((8, 8, 8, 3), np.uint8)


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 4
    path.write_bytes(content)


def missing(own):
    (own / "dataset.json").unlink()
    tinyres.open(own)


def cut_short(own):
    (own / SHARD).write_bytes((own / SHARD).read_bytes()[:-1])
    tinyres.open(own, "train")


def not_json(own):
    (own / "dataset.json").write_text("{")
    tinyres.open(own)


def damaged_block(own):
    flip(own / SHARD, 4096 + 40 * LEN)
    tinyres.open(own, "train").gather(range(300))


def damaged_labels(own):
    offset, _ = np.fromfile(own / SHARD, "<u8", 2, offset=64 + 24 * 2)
    flip(own / SHARD, int(offset))
    tinyres.open(own, "train").labels


def bad_images(own):
    tinyres.pack([(b"no picture", 0), (PICTURES[0], 0), (b"nor this", 0)], own / "out")


def another_set(own):
    tinyres.pack((PICTURES, [0] * 8), own / "out")
    tinyres.pack((PICTURES[:7], [0] * 7), own / "out")


def at_work(own):
    inner = own / "out/.packing"
    inner.mkdir(parents=True)
    held = os.open(inner, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        tinyres.pack((PICTURES, [0] * 8), own / "out")
    finally:
        os.close(held)


def cut_while_in_use(own):
    ds = tinyres.open(own, "train", verify="off")
    os.truncate(own / SHARD, 8192)
    ds.gather(range(128, 256))


NOTHING = {"part": None, "block": None, "images": None}

FAULTS = [
    (missing, errors.NotFoundError, FileNotFoundError, {"errno": errno.ENOENT, "filename": "."}),
    (cut_short, errors.FormatError, ValueError, {"path": SHARD, "shard": SHARD, **NOTHING}),
    (not_json, errors.FormatError, ValueError, {"path": "dataset.json", "shard": None, **NOTHING}),
    (
        damaged_block,
        errors.ChecksumError,
        errors.FormatError,
        {"path": SHARD, "shard": SHARD, "part": "image block 2", "block": 2, "images": range(128 + 32, 128 + 48)},
    ),
    (
        damaged_labels,
        errors.ChecksumError,
        errors.FormatError,
        {"path": SHARD, "shard": SHARD, "part": "labels", "block": None, "images": None},
    ),
    (bad_images, errors.SourceError, ValueError, {"problems": ["train/0", "train/2"]}),
    (another_set, errors.ExistsError, FileExistsError, {"errno": errno.EEXIST, "filename": "out"}),
    (at_work, errors.InUseError, OSError, {"errno": errno.EBUSY, "filename": "out"}),
    (cut_while_in_use, errors.ReadError, OSError, {"errno": errno.EIO, "filename": SHARD}),
]


@pytest.mark.parametrize(
    ("fault", "kind", "base", "attributes"), FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_fault_raises_its_class_with_its_attributes(tmp_path, fault, kind, base, attributes):
    own = spec.write_set(tmp_path / "own", {"train": spec.drawn(300)}, shard_images=128)
    with pytest.raises(errors.Error) as caught:
        fault(own)
    error = caught.value
    assert type(error) is kind and isinstance(error, base)
    found = {name: getattr(error, name) for name in attributes}
    for name in {"path", "filename"} & set(found):
        assert str(found[name]) in str(error)
        found[name] = os.path.relpath(found[name], own)
    if "problems" in found:
        found["problems"] = [problem.split(":")[0] for problem in found["problems"]]
    assert found == attributes


def test_every_class_is_raised_by_a_fault():
    assert {kind.__name__ for _, kind, _, _ in FAULTS} | {"Error"} == set(errors.__all__)
