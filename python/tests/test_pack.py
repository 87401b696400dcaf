"""`tinyres.pack` and `tinyres.Writer`: what other libraries hold becomes the set that the command line packs."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

import tinyres

SIDE = 16


def pictures(count, seed=0, side=SIDE):
    """`u8 [count, side, side, 3]`, each of its own."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def png(pixels):
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shard(path):
    """A shard by the lines of SPEC.md, section 8: another reader than the package's."""
    head = path.read_bytes()
    raw = np.frombuffer(head, np.uint8)
    count, c, h, w = np.frombuffer(head, "<u8", 1, 24)[0], *np.frombuffer(head, "<u4", 3, 32)
    sections = [np.frombuffer(head, "<u8", 2, 64 + 24 * at) for at in range(7)]
    crcs = [int(np.frombuffer(head, "<u4", 1, 80 + 24 * at)[0]) for at in range(7)]
    parts = [raw[int(start) : int(start + length)] for start, length in sections]
    assert all(zlib.crc32(part) == crc for part, crc in zip(parts[1:], crcs[1:]))
    ends, text = parts[4].view("<u4"), parts[5].tobytes()
    names = [text[a:b].decode() for a, b in zip(ends, ends[1:])]
    images = parts[0].reshape(int(count), int(c), int(h), int(w))
    return images, parts[2].view("<i8"), parts[3].view("<i4").reshape(-1, 4), names, json.loads(parts[6].tobytes())


def packed(out, split="train"):
    return shard(out / f"{split}-00000.bin")


def bytes_of(out):
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def planar(pixels):
    return np.moveaxis(pixels, 3, 1)


@pytest.fixture
def tree(tmp_path):
    """Class folders of PNG files, and the pixels of each split in the order of its files."""
    pixels = {"train": pictures(12), "val": pictures(6, 1)}
    for split, images in pixels.items():
        for at, image in enumerate(images):
            name = ("ant", "bee", "cat")[at * 3 // len(images)]
            file = tmp_path / "tree" / split / name / f"{at:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(image))
    return tmp_path / "tree", pixels


def test_arrays_give_their_pixels_labels_boxes_and_names(tmp_path):
    images = pictures(40)
    labels = np.arange(40) % 3
    boxes = np.stack([np.arange(40) % 7, np.arange(40) % 5, np.full(40, 9), np.full(40, 15)], 1)
    boxes[3] = -1
    names = [f"train/{at}.png" for at in range(40)]
    report = tinyres.pack((images, labels, boxes, names), tmp_path / "out", classes=["ant", "bee", "cat"])
    got, got_labels, got_boxes, got_names, metadata = packed(tmp_path / "out")
    assert np.array_equal(got, planar(images))
    assert np.array_equal(got_labels, labels) and np.array_equal(got_boxes, boxes) and got_names == names
    assert metadata["classes"] == [{"id": name, "name": name} for name in ("ant", "bee", "cat")]
    assert report["splits"][0]["images"] == 40 and report["unchanged"] is False
    assert report["fingerprint"] == metadata["fingerprint"]


def test_all_layouts_of_an_array_give_the_same_bytes(tmp_path):
    images, labels = pictures(20), [at % 4 for at in range(20)]
    torch = pytest.importorskip("torch")
    layouts = {
        "interleaved": images,
        "planar": np.ascontiguousarray(planar(images)),
        "view": planar(images),
        "back": np.moveaxis(np.ascontiguousarray(planar(images)), 1, 3),
        "gaps": np.repeat(images, 2, 0)[::2],
        "reversed": images[:, ::-1].copy()[:, ::-1],
        "list": list(images),
        "tensor": torch.from_numpy(images),
        "channels last": torch.from_numpy(images).permute(0, 3, 1, 2),
        "read only": np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape),
    }
    for name, layout in layouts.items():
        tinyres.pack((layout, labels), tmp_path / name)
    expected = bytes_of(tmp_path / "interleaved")
    assert np.array_equal(packed(tmp_path / "interleaved")[0], planar(images))
    for name in layouts:
        assert bytes_of(tmp_path / name) == expected, name


def test_grey_images_get_three_equal_channels(tmp_path):
    grey = pictures(9)[..., 0]
    for name, images in {"N H W": grey, "N H W 1": grey[..., None], "N 1 H W": grey[:, None]}.items():
        tinyres.pack((images, [0] * 9), tmp_path / name)
        got, *_, metadata = packed(tmp_path / name)
        assert np.array_equal(got, np.repeat(grey[:, None], 3, 1)) and metadata["grey"] == 9, name


def test_each_kind_of_image_gives_the_same_pixels(tmp_path):
    image = pytest.importorskip("PIL.Image")
    torch = pytest.importorskip("torch")
    pixels = pictures(9)
    (tmp_path / "7.png").write_bytes(png(pixels[7]))
    with tinyres.Writer(tmp_path / "out", classes={"a": "ant", "b": "bee"}) as writer:
        writer.add(pixels[0], 0)
        writer.add(planar(pixels)[1], "a")
        writer.add(torch.from_numpy(pixels[2]).permute(2, 0, 1), torch.tensor(1))
        writer.add(image.fromarray(pixels[3]), "bee", box=(1, 2, 3, 4), name="third")
        writer.add(png(pixels[4]), np.int64(1))
        writer.add(bytearray(png(pixels[5])), 1, split="test")
        writer.add(pixels[6], split="test")
        writer.add(tmp_path / "7.png", 0, box=np.array([0, 0, 15, 15]))
        writer.add(image.fromarray(pixels[8]).convert("RGBA"), 0, split="val")
    got, labels, boxes, names, metadata = packed(tmp_path / "out")
    assert np.array_equal(got, planar(pixels[[0, 1, 2, 3, 4, 7]]))
    assert labels.tolist() == [0, 0, 1, 1, 1, 0]
    assert boxes[3].tolist() == [1, 2, 3, 4] and boxes[5].tolist() == [0, 0, 15, 15] and boxes[0].tolist() == [-1] * 4
    assert names == ["train/0", "train/1", "train/2", "third", "train/4", "train/5"]
    assert metadata["classes"] == [{"id": "a", "name": "ant"}, {"id": "b", "name": "bee"}]
    assert packed(tmp_path / "out", "test")[1].tolist() == [1, -1]
    assert np.array_equal(packed(tmp_path / "out", "val")[0], planar(pixels[8:]))
    assert [split["split"] for split in writer.report["splits"]] == ["train", "val", "test"]


def test_pillow_images_are_turned_upright_as_encoded_ones_are(tmp_path):
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    file = io.BytesIO()
    image.fromarray(pictures(1)[0]).save(file, "PNG", exif=exif)
    with tinyres.Writer(tmp_path / "out") as writer:
        writer.add(file.getvalue(), 0)
        writer.add(image.open(file), 0)
    got = packed(tmp_path / "out")[0]
    assert np.array_equal(got[0], got[1])
    assert np.array_equal(got[0], planar(np.rot90(pictures(1), -1, (1, 2)))[0])


def test_labels_that_are_names_become_sorted_classes(tmp_path):
    rows = [(image, name) for image, name in zip(pictures(4), ["dog", "ant", "dog", "cat"])]
    tinyres.pack(iter(rows), tmp_path / "out")
    _, labels, *_, metadata = packed(tmp_path / "out")
    assert [one["id"] for one in metadata["classes"]] == ["ant", "cat", "dog"]
    assert labels.tolist() == [2, 0, 2, 1]


def test_dictionaries_and_a_mapping_of_splits(tmp_path):
    pixels = pictures(6)
    rows = [{"img": pixels[at], "label": at, "bbox": [0, 0, at, at], "name": f"n{at}"} for at in range(3)]
    val = {"images": pixels[3:5], "labels": np.array([2, 0])}
    tinyres.pack({"validation": val, "train": rows, "test": pixels[5:]}, tmp_path / "out")
    _, labels, boxes, names, metadata = packed(tmp_path / "out")
    assert labels.tolist() == [0, 1, 2] and boxes[2].tolist() == [0, 0, 2, 2] and names == ["n0", "n1", "n2"]
    assert [one["id"] for one in metadata["classes"]] == ["0", "1", "2"]
    assert packed(tmp_path / "out", "val")[1].tolist() == [2, 0]
    assert packed(tmp_path / "out", "test")[1].tolist() == [-1]


def test_image_folder_gives_the_bytes_of_the_native_packer(tree, tmp_path):
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    root, pixels = tree
    native = tinyres.pack(root, tmp_path / "native")
    fed = tinyres.pack({split: folder(root / split) for split in pixels}, tmp_path / "fed")
    assert bytes_of(tmp_path / "fed") == bytes_of(tmp_path / "native")
    assert fed["fingerprint"] == native["fingerprint"]
    got = packed(tmp_path / "fed")
    assert np.array_equal(got[0], planar(pixels["train"])) and got[3][0] == "train/ant/00.png"
    again = tinyres.pack({split: folder(root / split) for split in pixels}, tmp_path / "fed")
    assert again["unchanged"]


def test_subset_keeps_its_order(tree, tmp_path):
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    subset = pytest.importorskip("torch.utils.data").Subset
    root, pixels = tree
    tinyres.pack(subset(subset(folder(root / "train"), [9, 2, 0]), [1, 0]), tmp_path / "out")
    got, labels, _, names, _ = packed(tmp_path / "out")
    assert np.array_equal(got, planar(pixels["train"][[2, 9]])) and labels.tolist() == [0, 2]
    assert names == ["train/ant/02.png", "train/cat/09.png"]


class Cifar:
    """The attributes of torchvision's `CIFAR10`."""

    classes = ["ant", "bee", "cat"]

    def __init__(self, pixels):
        self.data = pixels
        self.targets = [at * 3 // len(pixels) for at in range(len(pixels))]

    def __len__(self):
        return len(self.data)


def test_the_same_pixels_from_all_libraries_are_the_same_images(tree, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    root, pixels = tree
    files = {split: sorted((root / split).rglob("*.png")) for split in pixels}
    labels = {split: Cifar(images).targets for split, images in pixels.items()}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=Cifar.classes)})

    def rows(split):
        images = [{"bytes": file.read_bytes(), "path": None} for file in files[split]]
        return datasets.Dataset.from_dict({"image": images, "label": labels[split]}, features=features)

    sources = {
        "cifar": {split: Cifar(images) for split, images in pixels.items()},
        "arrays": {split: (images, labels[split]) for split, images in pixels.items()},
        "hugging face": datasets.DatasetDict({"train": rows("train"), "validation": rows("val")}),
        "decoded": {split: list(zip(images, labels[split])) for split, images in pixels.items()},
        "folder": {split: folder(root / split) for split in pixels},
    }
    for name, source in sources.items():
        tinyres.pack(source, tmp_path / name, classes=Cifar.classes)
        for split, images in pixels.items():
            got = packed(tmp_path / name, split)
            assert np.array_equal(got[0], planar(images)) and got[1].tolist() == labels[split], (name, split)
    # Where names agree, all bytes do.
    for name in ("arrays", "hugging face", "decoded"):
        assert bytes_of(tmp_path / name) == bytes_of(tmp_path / "cifar"), name


def test_torchvision_cifar_gives_the_bytes_of_the_native_packer(tmp_path):
    cifar = pytest.importorskip("torchvision.datasets").CIFAR10
    golden = Path(__file__).parents[2] / "tests/golden/sources"
    archives = sorted(golden.glob("cifar-10-python*"))
    assert archives, "no golden file of CIFAR-10"
    tinyres.pack(archives[0], tmp_path / "native")
    native = {split: packed(tmp_path / "native", split) for split in ("train", "test")}

    class Golden(cifar):
        """CIFAR10 with the images of the golden file, which is too small for torchvision's own reader."""

        def __init__(self, split):
            images, labels, *_, metadata = native[split]
            self.data = np.ascontiguousarray(np.moveaxis(images, 1, 3))
            self.targets = labels.tolist()
            self.classes = [one["id"] for one in metadata["classes"]]

    tinyres.pack({split: Golden(split) for split in native}, tmp_path / "fed")
    assert bytes_of(tmp_path / "fed") == bytes_of(tmp_path / "native")


def test_parquet_of_hugging_face_gives_the_bytes_of_the_native_packer(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("tinyres._feeding.BATCH", 5)
    datasets = pytest.importorskip("datasets")
    root, pixels = tree
    images = [{"bytes": png(image), "path": f"{at}.png"} for at, image in enumerate(pixels["train"])]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])})
    data = datasets.Dataset.from_dict({"img": images, "label": [at // 4 for at in range(12)]}, features=features)
    (tmp_path / "hub").mkdir()
    data.to_parquet(tmp_path / "hub/train-00000-of-00001.parquet")
    tinyres.pack(tmp_path / "hub", tmp_path / "native")
    read = datasets.Dataset.from_parquet(
        str(tmp_path / "hub/train-00000-of-00001.parquet"), cache_dir=str(tmp_path / "cache")
    )
    tinyres.pack(read, tmp_path / "fed")
    assert bytes_of(tmp_path / "fed") == bytes_of(tmp_path / "native")


@pytest.mark.parametrize("change", ["shuffled", "filtered", "sliced", "streamed", "transformed", "files"])
def test_changed_hugging_face_sets_keep_their_order(tree, tmp_path, change, monkeypatch):
    monkeypatch.setattr("tinyres._feeding.BATCH", 5)
    datasets = pytest.importorskip("datasets")
    root, pixels = tree
    files = sorted((root / "train").rglob("*.png"))
    paths = change == "files"
    images = [{"bytes": None if paths else file.read_bytes(), "path": str(file) if paths else None} for file in files]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict({"image": images, "label": list(range(12))}, features=features)
    order = list(range(12))
    if change == "shuffled":
        data = data.shuffle(seed=3)
        order = list(data["label"])
        assert order != list(range(12))
    elif change == "filtered":
        data = data.filter(lambda row: row["label"] % 2 == 1)
        order = order[1::2]
    elif change == "sliced":
        data = data.select(range(5, 9))
        order = order[5:9]
    elif change == "streamed":
        data = data.to_iterable_dataset()
    elif change == "transformed":

        def turn(rows):
            return {"image": [np.asarray(image)[::-1] for image in rows["image"]], "label": rows["label"]}

        data = data.with_transform(turn)
    tinyres.pack(data, tmp_path / "out")
    expected = pixels["train"][order]
    got, labels, *_ = packed(tmp_path / "out")
    assert np.array_equal(got, planar(expected[:, ::-1] if change == "transformed" else expected))
    assert labels.tolist() == order


def test_sizes_are_resized_as_the_native_packer_does(tree, tmp_path):
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    root, pixels = tree
    tinyres.pack(root, tmp_path / "native", size=8)
    tinyres.pack({split: folder(root / split) for split in pixels}, tmp_path / "fed", size=8)
    assert bytes_of(tmp_path / "fed") == bytes_of(tmp_path / "native")
    tinyres.pack(
        {split: (images, [at * 3 // len(images) for at in range(len(images))]) for split, images in pixels.items()},
        tmp_path / "raw",
        size=8,
    )
    assert np.array_equal(packed(tmp_path / "raw")[0], packed(tmp_path / "native")[0])


def test_options_do_what_the_flags_do(tree, tmp_path):
    root, pixels = tree
    (tmp_path / "only").mkdir()
    os.rename(root / "train", tmp_path / "only/train")
    report = tinyres.pack(tmp_path / "only", tmp_path / "out", val_fraction=0.3, shard_images=4, zstd=True, threads=1)
    assert [split["split"] for split in report["splits"]] == ["train", "val"]
    assert report["splits"][0]["shards"] > 1 and report["zstd"]
    assert sorted((tmp_path / "out").glob("*.zst"))
    images = (pictures(30), [0] * 30)
    report = tinyres.pack(images, tmp_path / "fed", val_fraction=0.3)
    assert sum(split["images"] for split in report["splits"]) == 30 and len(report["splits"]) == 2


def test_bad_images_are_named_and_can_be_skipped(tmp_path):
    rows = [(png(image), 0) for image in pictures(8)]
    rows[5] = (b"no picture", 0)
    with pytest.raises(tinyres.SourceError, match="train/5") as caught:
        tinyres.pack(rows, tmp_path / "out")
    assert "skip_bad=True" in str(caught.value) and "--" not in str(caught.value)
    assert len(caught.value.problems) == 1 and isinstance(caught.value, ValueError)
    assert not (tmp_path / "out").exists()
    report = tinyres.pack(rows, tmp_path / "out", skip_bad=0.2)
    assert [one["name"] for one in report["refused"]] == ["train/5"]
    assert np.array_equal(packed(tmp_path / "out")[0], planar(pictures(8)[[0, 1, 2, 3, 4, 6, 7]]))
    with pytest.raises(tinyres.SourceError, match=r"skip_bad=0\.125"):
        tinyres.pack(rows, tmp_path / "other", skip_bad=0.05)


def test_another_set_is_replaced_only_by_force(tmp_path):
    first = (pictures(8), [0] * 8)
    tinyres.pack(first, tmp_path / "out")
    assert tinyres.pack(first, tmp_path / "out")["unchanged"]
    changed = pictures(8)
    changed[6, 0, 0, 0] ^= 1
    for images in (changed, pictures(7)):
        with pytest.raises(tinyres.ExistsError, match="force=True") as caught:
            tinyres.pack((images, [0] * len(images)), tmp_path / "out")
        assert isinstance(caught.value, FileExistsError)
    assert np.array_equal(packed(tmp_path / "out")[0], planar(first[0]))
    tinyres.pack((changed, [0] * 8), tmp_path / "out", force=True)
    assert np.array_equal(packed(tmp_path / "out")[0], planar(changed))


def test_exception_in_the_block_publishes_nothing(tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setenv("TMPDIR", str(spool))
    with pytest.raises(ZeroDivisionError):
        with tinyres.Writer(tmp_path / "out") as writer:
            for image in pictures(30):
                writer.add(image, 0)
            1 / 0
    assert writer.report is None
    with pytest.raises(ValueError, match="make another"):
        writer.add(pictures(1)[0], 0)

    def stops():
        yield pictures(1)[0], 0
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tinyres.pack(stops(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["spool"] and not list(spool.iterdir())


def test_exception_of_the_progress_publishes_nothing(tmp_path):
    def stop(done, total, unit):
        if unit == "img":
            raise ZeroDivisionError

    rows = [(np.zeros((600, 600, 3), np.uint8), 0)] * 400
    with pytest.raises(ZeroDivisionError):
        tinyres.pack(rows, tmp_path / "out", size=64, progress=stop, threads=1)
    assert not (tmp_path / "out").exists()


def test_progress_counts_all_images(tmp_path):
    seen = []
    tinyres.pack(
        {"train": (pictures(20), [0] * 20), "val": (pictures(5, 1), [0] * 5)},
        tmp_path / "out",
        progress=lambda *now: seen.append(now),
    )
    assert seen[-1] == (25, 25, "img") and seen == sorted(seen)
    pytest.importorskip("tqdm")
    tinyres.pack(((image, 0) for image in pictures(200)), tmp_path / "bar", progress=True)


SLOW = """
import io, sys, tinyres
from PIL import Image
png = io.BytesIO()
Image.new("RGB", (3000, 3000)).save(png, "PNG")
rows = [(png.getvalue(), 0)] * 200
def tell(done, total, unit):
    if unit == "img":
        print("packing", flush=True)
try:
    tinyres.pack(rows, sys.argv[1], size=64, threads=1, progress=tell)
except KeyboardInterrupt:
    sys.exit(42)
"""


def test_interrupt_stops_and_leaves_no_set(tmp_path):
    command = [sys.executable, "-c", SLOW, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"packing\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 42
    assert not (tmp_path / "out").exists()


def test_other_threads_run_while_packing(tmp_path):
    ticks, ended = [], threading.Event()

    def tick():
        while not ended.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.002)

    thread = threading.Thread(target=tick)
    rows = [(np.zeros((900, 900, 3), np.uint8), 0)] * 60
    with tinyres.Writer(tmp_path / "out", size=64, threads=1) as writer:
        for row in rows:
            writer.add(*row)
        thread.start()
    ended.set()
    thread.join()
    assert len(ticks) > 5


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([(np.zeros((4, 4, 3), np.float32), 0)], TypeError, "train image 0: an image of float32, expected uint8"),
        ([(np.zeros((4, 4, 4), np.uint8), 0)], ValueError, r"train image 0: an image of shape \[4, 4, 4\]"),
        ([(np.zeros((4, 4, 3), np.uint8), None)], tinyres.SourceError, "train image 0: no label"),
        ([(np.zeros((4, 4, 3), np.uint8), 3)], tinyres.SourceError, "train image 0: label 3, expected less than 2"),
        ([(np.zeros((4, 4, 3), np.uint8), "cow")], tinyres.SourceError, 'train image 0: label "cow", expected one of'),
        ([(np.zeros((4, 4, 3), np.uint8), 0.5)], TypeError, "train image 0: label 0.5"),
        ([(np.zeros((4, 4, 3), np.uint8), 0, (3, 0, 1, 2))], tinyres.SourceError, r"train image 0: box \[3, 0, 1, 2\]"),
        ([(np.zeros((4, 4, 3), np.uint8), 0, (0, 0, 4, 4))], tinyres.SourceError, r"train/0: box \[0, 0, 4, 4\]"),
        (
            [(np.zeros((4, 4, 3), np.uint8), 0, None, "a")] * 2,
            tinyres.SourceError,
            "train image 1: another image is called",
        ),
        ([("nothing.png", 0)], FileNotFoundError, "nothing.png"),
        ([(object(), 0)], TypeError, "train image 0: an image of type object"),
        ([], tinyres.SourceError, "no image"),
        ({"unsupervised": []}, ValueError, "split 'unsupervised', expected"),
        (7, TypeError, "a int, expected arrays"),
    ],
)
def test_wrong_input_is_named(tmp_path, rows, error, words):
    with pytest.raises(error, match=words):
        tinyres.pack(rows, tmp_path / "out", classes=["ant", "bee"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size is 0"),
        ({"squash": True}, "needs size"),
        ({"val_fraction": 1.0}, "val_fraction is 1"),
        ({"skip_bad": 2.0}, "skip_bad is 2"),
        ({"zstd": 99}, "99"),
        ({"shard_images": 0}, "shard_images is 0"),
    ],
)
def test_wrong_options_are_met_before_any_image(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        tinyres.Writer(tmp_path / "out", **options)


def test_missing_source_is_file_not_found(tmp_path):
    with pytest.raises(tinyres.NotFoundError) as caught:
        tinyres.pack(tmp_path / "none", tmp_path / "out")
    assert str(tmp_path / "none") in str(caught.value)


def test_pixels_that_were_packed_outlive_the_arrays(tmp_path):
    """Arrays are read in place: those that nobody else holds must live until the end."""
    with tinyres.Writer(tmp_path / "out") as writer:
        for at in range(50):
            writer.add(np.full((SIDE, SIDE, 3), at, np.uint8), 0)
    assert packed(tmp_path / "out")[0][:, 0, 0, 0].tolist() == list(range(50))
    tinyres.pack((np.stack([np.full((SIDE, SIDE), at, np.uint8) for at in range(50)]), [0] * 50), tmp_path / "lent")
    assert packed(tmp_path / "lent")[0][:, 0, 0, 0].tolist() == list(range(50))


def test_packing_works_in_a_child_of_fork(tmp_path):
    images = (pictures(40), [0] * 40)
    tinyres.pack(images, tmp_path / "out")
    child = os.fork()
    if child == 0:
        try:
            same = tinyres.pack(images, tmp_path / "out")["unchanged"]
            tinyres.pack(images, tmp_path / "child")
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert bytes_of(tmp_path / "child") == bytes_of(tmp_path / "out")


LARGE = """
import resource, sys
import numpy as np, tinyres

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

with tinyres.Writer(sys.argv[1] + "/small", size=8, threads=1) as w:
    w.add(np.zeros((600, 600, 3), np.uint8), 0)
before = peak()
with tinyres.Writer(sys.argv[1] + "/out", size=8, threads=1) as w:
    for at in range(300):
        w.add(np.full((600, 600, 3), at % 256, np.uint8), 0)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_images(tmp_path):
    ran = subprocess.run([sys.executable, "-c", LARGE, tmp_path], capture_output=True, text=True, check=True)
    # 309 MiB of pixels were handed over.
    assert int(ran.stdout) < 60
