"""`tinyres.unpack`: torchvision and `datasets` read what it writes, and packing it gives the set again."""

import csv

import numpy as np
import pytest
from test_pack import packed, pictures, planar

import tinyres

CLASSES = [("n02", "Egyptian cat"), ("n01", "goldfish, Carassius auratus"), ("n03", 'a "crane"')]


@pytest.fixture
def shards(tmp_path):
    """A set whose classes are not in the order of their ids, with boxes in train, and the pixels of each split."""
    pixels = {"train": pictures(30), "val": pictures(6, 1), "test": pictures(5, 2)}
    with tinyres.Writer(tmp_path / "shards", classes=CLASSES, shard_images=11) as writer:
        for split, images in pixels.items():
            for at, image in enumerate(images):
                label = None if split == "test" else at * 7 % 3
                box = (at % 4, 1, 9, 15) if split == "train" and at % 5 else None
                writer.add(image, label, box=box, split=split)
    return tmp_path / "shards", pixels


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_files_hold_the_pixels_and_the_tables_the_rest(shards, tmp_path):
    image = pytest.importorskip("PIL.Image")
    path, pixels = shards
    report = tinyres.unpack(path, tmp_path / "images")
    assert [(one["split"], one["images"], one["boxes"]) for one in report["splits"]] == [
        ("train", 30, 24),
        ("val", 6, 0),
        ("test", 5, 0),
    ]
    for split, images in pixels.items():
        table = rows(tmp_path / "images" / split / "metadata.csv")
        read = [np.asarray(image.open(tmp_path / "images" / split / row["file_name"])) for row in table]
        assert np.array_equal(np.stack(read), images)
        assert [row["name"] for row in table] == [f"{split}/{at}" for at in range(len(images))]
    table = rows(tmp_path / "images/train/metadata.csv")
    assert table[6] == {
        "file_name": "n02/06.png",
        "label": "0",
        "name": "train/6",
        "x0": "2",
        "y0": "1",
        "x1": "9",
        "y1": "15",
    }
    assert table[5]["x0"] == rows(tmp_path / "images/val/metadata.csv")[0]["y1"] == "-1"
    classes = rows(tmp_path / "images/classes.csv")
    assert [(row["id"], row["name"]) for row in classes] == CLASSES


def test_packing_it_gives_the_set_again(shards, tmp_path):
    path, pixels = shards
    tinyres.unpack(path, tmp_path / "images")
    tinyres.pack(tmp_path / "images", tmp_path / "again", shard_images=100)
    expected = np.concatenate([pixels["train"][at::3] for at in range(3)])  # by class: label is 7 * at % 3 = at % 3
    got, labels, boxes, _, metadata = packed(tmp_path / "again")
    assert np.array_equal(got, planar(expected)) and labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    order = np.concatenate([np.arange(30)[at::3] for at in range(3)])
    assert boxes.tolist() == [[at % 4, 1, 9, 15] if at % 5 else [-1] * 4 for at in order]
    assert [(one["id"], one["name"]) for one in metadata["classes"]] == CLASSES
    assert np.array_equal(packed(tmp_path / "again", "test")[0], planar(pixels["test"]))


def test_image_folder_reads_it(shards, tmp_path):
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    path, pixels = shards
    tinyres.unpack(path, tmp_path / "images")
    data = folder(tmp_path / "images/train")
    assert data.classes == ["n01", "n02", "n03"] and len(data) == 30
    image, label = data[0]
    assert label == 0 and np.array_equal(np.asarray(image), pixels["train"][1])


# `datasets` leaves the CSV files open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_imagefolder_of_hugging_face_reads_it(shards, tmp_path):
    datasets = pytest.importorskip("datasets")
    path, pixels = shards
    tinyres.unpack(path, tmp_path / "images")
    data = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "images"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(data) == 30
    by_name = {row["name"]: row for row in data}
    row = by_name["train/6"]
    assert np.array_equal(np.asarray(row["image"]), pixels["train"][6])
    assert (row["label"], row["x0"], row["y1"]) == (0, 2, 15)


def test_classes_of_any_name_get_folders_and_come_back(tmp_path):
    classes = [
        "a/b",
        "..",
        "",
        "Ant",
        "ant",
        ".hidden",
        "class-1",
        "tab\tnew\nline",
        "x" * 300,
        "ü",
        "unlabelled",
        "train",
    ]
    images, labels = pictures(len(classes)), list(range(len(classes)))
    tinyres.pack((images, labels), tmp_path / "shards", classes=classes)
    tinyres.unpack(tmp_path / "shards", tmp_path / "images")
    tinyres.pack(tmp_path / "images", tmp_path / "again")
    got, again, *_, metadata = packed(tmp_path / "again")
    assert np.array_equal(got, planar(images)) and again.tolist() == labels
    assert [one["name"] for one in metadata["classes"]] == classes


def test_a_full_directory_and_damage_are_exceptions(shards, tmp_path):
    path, _ = shards
    with pytest.raises(tinyres.ExistsError, match="shards"):
        tinyres.unpack(path, path)
    with pytest.raises(tinyres.NotFoundError):
        tinyres.unpack(tmp_path / "none", tmp_path / "images")
    shard = path / "train-00001.bin"
    bytes = bytearray(shard.read_bytes())
    bytes[5000] ^= 1
    shard.write_bytes(bytes)
    with pytest.raises(tinyres.ChecksumError, match="train-00001.bin"):
        tinyres.unpack(path, tmp_path / "images")
    shard.unlink()
    with pytest.raises(tinyres.FormatError, match="train-00001.bin"):
        tinyres.unpack(path, tmp_path / "images")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["shards"]


def test_progress_counts_all_images(shards, tmp_path):
    seen = []
    tinyres.unpack(shards[0], tmp_path / "images", progress=lambda *now: seen.append(now))
    assert seen[-1] == (41, 41, "img")
