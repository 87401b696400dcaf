import pytest
import spec

import tinyres


@pytest.fixture(scope="session")
def split():
    """Arrays of a split: (images, labels, boxes, names)."""
    return spec.drawn(300)


@pytest.fixture(scope="session")
def shards(tmp_path_factory, split):
    """A set of these images, in three shards whose images end on pages."""
    directory = tmp_path_factory.mktemp("set") / "shards"
    return spec.write_set(directory, {"train": split, "val": spec.drawn(20, seed=1)}, shard_images=128)


@pytest.fixture
def ds(shards):
    return tinyres.open(shards, "train")
