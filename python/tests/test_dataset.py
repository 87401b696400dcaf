"""Splits as arrays and by index, against the arrays that the set was written from."""

import copy
import gc
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import spec

import tinyres


def test_splits_are_a_mapping_and_attributes(shards):
    ds = tinyres.open(shards)
    assert list(ds) == ["train", "val"]
    assert (len(ds), len(ds["train"]), len(ds.val)) == (2, 300, 20)
    assert ds.train is ds["train"]
    assert "test" not in ds and not hasattr(ds, "test")
    with pytest.raises(KeyError):
        ds["test"]
    assert repr(ds) == f"Splits({str(shards)!r}: train, val)"
    assert np.array_equal(pickle.loads(pickle.dumps(ds)).train.labels, ds.train.labels)


def test_arrays_are_those_that_were_packed(ds, split):
    images, labels, boxes, names = split
    for got, expected, dtype in [
        (ds.images, images, np.uint8),
        (ds.labels, labels, np.int64),
        (ds.boxes, boxes, np.int32),
    ]:
        assert got.dtype == dtype
        assert np.array_equal(got, expected)
        assert not got.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            got[0] = 0
    with pytest.raises(ValueError):
        ds.images.setflags(write=True)
    assert ds.targets == labels.tolist()
    assert list(ds.names) == names
    assert ds.shape == (3, 8, 8)
    assert ds.classes == ["n00", "n01", "n02"]
    assert ds.class_names == ["thing 0", "thing 1", "thing 2"]
    assert ds.class_to_idx == {"n00": 0, "n01": 1, "n02": 2}
    assert ds.fingerprint == "ab" * 32
    assert ds.split == "train"


def test_images_are_one_map_of_the_files(ds):
    assert ds.images is ds.images
    assert ds.images.flags.c_contiguous and not ds.images.flags.owndata
    start = ds.images.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        ranges = [(line.split()[0], line.split()[-1]) for line in maps if "train-" in line]
    inside = [path for at, path in ranges if start <= int(at.split("-")[0], 16) < start + ds.images.nbytes]
    assert [os.path.basename(path) for path in inside] == [f"train-0000{shard}.bin" for shard in range(3)]


def test_shards_that_end_within_a_page_have_no_images(tmp_path):
    split = spec.drawn(50)
    ds = tinyres.open(spec.write_set(tmp_path / "odd", {"train": split}, shard_images=30), "train")
    with pytest.raises(ValueError, match="train-00000.bin: .*gather"):
        ds.images
    assert np.array_equal(ds.gather(range(50)), split[0])
    # As the message says.
    again = spec.write_set(tmp_path / "odd", {"train": split}, shard_images=8192)
    assert np.array_equal(tinyres.open(again, "train").images, split[0])
    # In a single one they may.
    ds = tinyres.open(spec.write_set(tmp_path / "one", {"train": split}, shard_images=50), "train")
    assert np.array_equal(ds.images, split[0])


INDICES = [
    0,
    299,
    -1,
    -300,
    np.int64(7),
    np.uint8(200),
    np.array(5),
    slice(None),
    slice(3, 9),
    slice(250, 1000),
    slice(None, None, -7),
    slice(9, 3),
    slice(-10, -1, 2),
    [],
    [4, 4, -1],
    (1, 2),
    range(128, 131),
    np.array([299, 0, -2], np.int16),
    np.array([0, 255], np.uint64),
    np.zeros(300, bool),
    np.arange(300) % 3 == 1,
    [True] * 300,
]


@pytest.mark.parametrize("index", INDICES, ids=lambda index: re.sub(r"\s+", " ", repr(index))[:30])
def test_index_means_what_it_means_to_numpy(ds, split, index):
    images, labels, _, names = split
    plain = list(index) if isinstance(index, tuple | range) else index
    plain = np.array(plain, int) if isinstance(plain, list) and not plain else plain
    image, label = ds[index]
    assert np.array_equal(image, images[plain]) and image.dtype == np.uint8
    assert np.array_equal(label, labels[plain])
    assert ds.names[index] == (
        names[int(index)]
        if np.ndim(plain) == 0 and not isinstance(index, slice)
        else np.array(names, object)[plain].tolist()
    )
    if isinstance(label, int):
        assert image.shape == (3, 8, 8)
    else:
        assert label.dtype == np.int64
        assert np.array_equal(ds.gather(index), images[plain])
    assert image.flags.writeable and image.flags.owndata or image.base is not None
    image += 1  # a copy
    assert np.array_equal(ds.images, images)


def test_random_indices_mean_what_they_mean_to_numpy(ds, split):
    images, labels, _, names = split
    draw = np.random.default_rng(2)

    def bound():
        return None if draw.random() < 0.2 else int(draw.integers(-400, 400))

    for _ in range(300):
        count = int(draw.integers(0, 20))
        index = [
            slice(bound(), bound(), int(draw.integers(1, 9)) * int(draw.choice([-1, 1]))),
            draw.integers(-300, 300, count).astype(draw.choice([np.int16, np.int32, np.int64, ">i4"])),
            draw.integers(0, 300, 2 * count).astype(draw.choice([np.uint16, np.uint64]))[::2],
            draw.random(300) < 0.05,
        ][draw.integers(4)]
        got, label = ds[index]
        assert np.array_equal(got, images[index]), index
        assert np.array_equal(label, labels[index]), index
        assert ds.names[index] == np.array(names, object)[index].tolist(), index


@pytest.mark.parametrize("index", [300, -301, 2**70, [0, 300], np.array([2**63], np.uint64), [True] * 299, [[1, 2]]])
def test_missing_image_is_an_index_error(ds, index):
    for container in (ds, ds.names):
        with pytest.raises(IndexError):
            container[index]


@pytest.mark.parametrize("index", [1.5, "a", None, [0.5], True])
def test_index_of_another_type_is_a_type_error(ds, index):
    with pytest.raises((TypeError, IndexError)):
        ds[index]


def test_iteration_ends(ds, split):
    labels = [label for _, label in ds]
    assert labels == split[1].tolist()


def test_names_are_a_sequence(ds, split):
    names = split[3]
    assert isinstance(ds.names, Sequence)
    assert names[17] in ds.names and "other" not in ds.names
    assert ds.names.index(names[17]) == 17
    assert ds.names.count(names[17]) == 1
    with pytest.raises(ValueError, match="other"):
        ds.names.index("other")
    assert list(reversed(ds.names)) == names[::-1]
    assert len(ds.names) == 300


def test_gather_fills_the_array_it_is_given(ds, split):
    out = np.empty((3, 3, 8, 8), np.uint8)
    assert ds.gather([1, 250, 1], out=out) is out
    assert np.array_equal(out, split[0][[1, 250, 1]])
    for wrong in [
        np.empty((2, 3, 8, 8), np.uint8),
        np.empty((3, 3, 8, 8), np.int8),
        np.empty((3, 8, 8, 3), np.uint8).transpose(0, 3, 1, 2),
        np.empty(576, np.uint8),
        "text",
        ds.images[:3],
    ]:
        with pytest.raises(ValueError, match="out"):
            ds.gather([1, 250, 1], out=wrong)
    with pytest.raises(TypeError):
        ds.gather(3)


def test_views_outlive_the_data_set(shards, split):
    ds = tinyres.open(shards, "train")
    view, labels, names = ds.images[280:], ds.labels, ds.names
    del ds
    gc.collect()
    assert np.array_equal(view, split[0][280:])
    assert np.array_equal(labels, split[1])
    assert names[3] == split[3][3]


def test_array_protocols_give_the_images(ds, split):
    assert np.shares_memory(np.asarray(ds), ds.images)
    assert np.array_equal(np.asarray(ds, np.float32), split[0].astype(np.float32))
    fresh = np.array(ds)
    assert fresh.flags.writeable and np.array_equal(fresh, split[0])
    assert ds.__dlpack_device__() == (1, 0)
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        assert np.shares_memory(np.from_dlpack(ds), ds.images)
    else:  # could not say that an array is read-only
        with pytest.raises(BufferError):
            np.from_dlpack(ds)


def test_pickle_opens_the_same_set(ds, shards, tmp_path):
    for again in (pickle.loads(pickle.dumps(ds)), copy.copy(ds), copy.deepcopy(ds)):
        assert (again.path, again.split, len(again)) == (ds.path, ds.split, len(ds))
        assert repr(again) == repr(ds)
    assert len(pickle.dumps(ds)) < 1000
    moved = tmp_path / "moved"
    spec.write_set(moved, {"train": spec.drawn(10)})
    pickled = pickle.dumps(tinyres.open(moved, "train"))
    spec.write_set(moved, {"train": spec.drawn(11)}, fingerprint="cd" * 32)
    with pytest.raises(ValueError, match="packed again"):
        pickle.loads(pickled)


def test_path_stays_right_when_the_directory_changes(shards, monkeypatch, tmp_path):
    monkeypatch.chdir(shards.parent)
    ds = tinyres.open(shards.name, "val")
    assert ds.path == str(shards)
    monkeypatch.chdir(tmp_path)
    assert len(pickle.loads(pickle.dumps(ds))) == 20


def test_repr_says_what_it_is(ds, shards):
    assert repr(ds) == (
        f"Dataset(path='{shards}', split='train', images=300, shape=(3, 8, 8), classes=3, fingerprint='{'ab' * 32}')"
    )


def test_threads_may_use_one_data_set(shards, split):
    ds = tinyres.open(shards, "train")
    wrong = []

    def use(seed):
        draw = np.random.default_rng(seed)
        for _ in range(30):
            index = draw.integers(-300, 300, 40)
            if not np.array_equal(ds.gather(index), split[0][index]) or not np.array_equal(ds.images, split[0]):
                wrong.append(index)
            if ds.names[int(index[0])] != split[3][index[0]] or not np.array_equal(ds.labels, split[1]):
                wrong.append(index)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_does_not_grow_by_opening(shards):
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    def use():
        ds = tinyres.open(shards, "train")
        return ds.images.sum() + ds.labels.sum() + len(ds.names[5]) + ds[3][1]

    for _ in range(20):
        use()
    before = resident()
    for _ in range(300):
        use()
    assert resident() - before < 4 << 20


def test_import_brings_numpy_and_little_else():
    code = "import sys, numpy; before = set(sys.modules); import tinyres; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert not roots & {"torch", "jax", "tqdm", "datasets", "pandas"}
    assert len(done.stdout.split()) < 30, done.stdout


def test_no_argument_makes_it_panic(ds, shards):
    """A panic of Rust would be a BaseException, which nothing here catches."""
    odd = [
        None,
        0,
        -1,
        2**40,
        -(2**63),
        2**64,
        1.5,
        float("nan"),
        "",
        "train\0",
        b"x",
        "\udcff",
        [],
        [[]],
        [None],
        {},
        set(),
        object(),
        slice(2**70),
        slice(None, None, 0),
        slice("a"),
        np.array([]),
        np.array(["a"]),
        np.array(1.0),
        np.zeros((2, 2), bool),
        np.full(3, 2**62),
        np.array([1, None]),
        np.datetime64("now"),
        range(10**6),
        ...,
        ds,
    ]
    calls = [
        ds.__getitem__,
        ds.gather,
        ds.names.__getitem__,
        ds.names.index,
        ds.names.count,
        ds.__array__,
        tinyres.open,
        lambda x: ds.gather([0], out=x),
        lambda x: ds.gather([0], x),
        lambda x: ds.__array__(x, copy=False),
        lambda x: tinyres.open(shards, x),
        lambda x: tinyres.open(shards, "train", verify=x),
        lambda x: tinyres.Dataset(x, x, x),
        lambda x: tinyres.open(shards)[x],
        lambda x: ds.__dlpack__(stream=x),
    ]
    raised = 0
    for call in calls:
        for argument in odd:
            try:
                call(argument)
            except Exception:
                raised += 1
    assert raised > len(calls) * len(odd) // 2


def test_split_without_images(tmp_path):
    empty = tuple(part[:0] for part in spec.drawn(1))
    ds = tinyres.open(spec.write_set(tmp_path / "set", {"train": empty}), "train")
    assert len(ds) == 0 and list(ds) == [] and list(ds.names) == [] and ds.targets == []
    assert ds.images.shape == (0, 3, 8, 8) and ds.labels.shape == (0,) and ds.boxes.shape == (0, 4)
    assert ds[[]][0].shape == ds[:][0].shape == ds.gather([]).shape == (0, 3, 8, 8)
    with pytest.raises(IndexError):
        ds[0]
    ds.verify()
