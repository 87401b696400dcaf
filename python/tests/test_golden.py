"""The golden shard, read by the NumPy lines of SPEC.md and by the package."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import spec

import tinyres

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "examples"))
from numpy_reader import read_shard  # noqa: E402

GOLDEN = ROOT / "format/tests/golden/train-00001.bin"


@pytest.fixture
def golden(tmp_path):
    """A set whose second shard is the golden one."""
    images, labels, boxes, names, metadata = read_shard(GOLDEN)
    assert (metadata["split"], metadata["shard"]) == ("train", 1)
    files = []
    for index in range(metadata["shards"]):
        file = tmp_path / f"train-{index:05}.bin"
        if index == 1:
            shutil.copy(GOLDEN, file)
        else:
            file.write_bytes(spec.shard(images, labels, boxes, names, metadata | {"shard": index}))
        content = file.read_bytes()
        digest = hashlib.sha256(content[:4096]).hexdigest()
        files.append({"file": file.name, "images": len(images), "bytes": len(content), "digest": digest})
    manifest = {
        "version": 1,
        "creator": metadata["creator"],
        "fingerprint": metadata["fingerprint"],
        "shape": images.shape[1:],
        "classes": len(metadata["classes"]),
        "splits": [{"split": "train", "images": len(images) * len(files), "shards": files}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    return tinyres.open(tmp_path, "train", verify="full")


def test_golden_shard_reads_the_same_by_numpy_and_by_the_package(golden):
    images, labels, boxes, names, metadata = read_shard(GOLDEN)
    own = slice(len(images), 2 * len(images))
    assert np.array_equal(golden.gather(own), images)
    assert np.array_equal(golden.labels[own], labels)
    assert np.array_equal(golden.boxes[own], boxes)
    assert list(golden.names[own]) == names
    assert golden.classes == [entry["id"] for entry in metadata["classes"]]
    assert golden.class_names == [entry["name"] for entry in metadata["classes"]]
    assert golden.fingerprint == metadata["fingerprint"]
