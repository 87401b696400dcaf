"""Writes small data sets as the libraries of others write them, and what those libraries read back.

    python tools/witness/sources.py tests/golden/sources [parquet cifar npz ...]

For each set there is NAME.json: the classes, and per split the label and the SHA-256 of the pixels (RGB,
planar, u8) of each image, by the library's own decoding. `tests/sources.rs` packs each set and compares.
"""

import hashlib
import io
import json
import pathlib
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile

import numpy as np
from PIL import Image

SIDE = 16
CLASSES = ["zebra", "ant", "owl"]  # in no order that sorting gives


def pixels(seed: int, grey: bool = False) -> np.ndarray:
    """A smooth picture of SIDE x SIDE that no other seed gives."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4) if grey else (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def encoded(seed: int, kind: str = "JPEG", grey: bool = False) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed, grey)).save(file, kind, quality=90)
    return file.getvalue()


def digest(image) -> str:
    """SHA-256 of `[3, H, W]`."""
    if not isinstance(image, np.ndarray):
        image = np.asarray(image.convert("RGB"))
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    return hashlib.sha256(np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes()).hexdigest()


def expect(out: pathlib.Path, name: str, classes: list[str], splits: dict[str, list]) -> None:
    text = json.dumps({"classes": classes, "splits": splits}, indent=0)
    (out / f"{name}.json").write_text(text + "\n")


def parquet(out: pathlib.Path) -> None:
    """As `datasets` pushes a set to the Hub, and the same rewritten by pyarrow in other forms."""
    import datasets
    import pyarrow.parquet as pq

    root = out / "parquet" / "data"
    root.mkdir(parents=True)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    expected = {}
    for split, hub, first, count in [("train", "train", 0, 23), ("val", "valid", 100, 7), ("test", "test", 200, 5)]:
        rows = {"image": [], "label": []}
        for at in range(count):
            kind, grey = ("PNG", False) if at % 5 == 1 else ("JPEG", at % 7 == 3)
            path = None if at % 3 else f"{CLASSES[at % 3]}_{at}.{kind}"
            rows["image"].append({"bytes": encoded(first + at, kind, grey), "path": path})
            rows["label"].append(-1 if split == "test" else (at * 2) % 3)
        set_ = datasets.Dataset.from_dict(rows, features=features)
        shards = 2 if split == "train" else 1
        for shard in range(shards):
            name = f"{hub}-{shard:05}-of-{shards:05}.parquet"
            set_.shard(shards, shard, contiguous=True).to_parquet(root / name, batch_size=5)
        # What the library reads back from its files.
        again = datasets.load_dataset("parquet", data_files=sorted(map(str, root.glob(f"{hub}-*"))), split="train")
        assert len(again) == count
        expected[split] = [[row["label"], digest(row["image"])] for row in again]
    expect(out, "parquet", CLASSES, expected)
    whole = pq.read_table(root / "train-00000-of-00002.parquet")
    forms = out / "parquet-forms"
    forms.mkdir()
    for name, options in {
        "train-snappy": {"compression": "snappy", "row_group_size": 4},
        "train-zstd-v2": {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 2000},
        "train-gzip": {"compression": "gzip", "use_dictionary": False, "data_page_size": 2000},
        "train-lz4": {"compression": "lz4"},
        "train-plain-delta": {"compression": "none", "use_dictionary": False, "data_page_size": 1000,
                              "column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"}},
    }.items():
        pq.write_table(whole, forms / f"{name}.parquet", **options)
    expect(out, "parquet-forms", CLASSES, {"train": expected["train"][:len(whole)]})


def cifar(out: pathlib.Path) -> None:
    """CIFAR-10 and CIFAR-100 in their published forms, of few images each. The size of an image is part of
    the format: 32 x 32. The Python form was pickled by Python 2, whose `str` holds the bytes of pixels."""
    def picture(seed: int) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.NEAREST))

    def row(image: np.ndarray) -> np.ndarray:
        return image.transpose(2, 0, 1).reshape(-1)

    def python2(value) -> bytes:
        """Protocol 2 as Python 2 wrote it: `str` as BINSTRING, arrays by _reconstruct and a `str`."""
        def put(value) -> bytes:
            if isinstance(value, bytes):
                head = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<I", len(value))
                return head + value
            if isinstance(value, int):
                return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
            if isinstance(value, list):
                return b"](" + b"".join(map(put, value)) + b"e"
            if isinstance(value, dict):
                return b"}(" + b"".join(put(key) + put(item) for key, item in value.items()) + b"u"
            assert value.dtype == np.uint8 and value.ndim == 2
            shape = put(value.shape[0]) + put(value.shape[1]) + b"\x86"
            dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            return (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
                    + shape + dtype + b"\x89" + put(value.tobytes()) + b"tb")
        return b"\x80\x02" + put(value) + b"."

    def write_tar(path: pathlib.Path, files: dict[str, bytes]) -> None:
        with tarfile.open(path, "w:gz") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    python, binary = {}, {}
    expected = {"train": [], "test": []}
    for at, batch in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]):
        images = [picture(10 * at + n) for n in range(3)]
        labels = [(3 * at + n) % 10 for n in range(3)]
        python[f"cifar-10-batches-py/{batch}"] = python2({
            b"batch_label": b"training batch", b"labels": labels, b"data": np.stack([row(i) for i in images]),
            b"filenames": [b"image_%d_%d.png" % (at, n) for n in range(3)]})
        binary[f"cifar-10-batches-bin/{batch}.bin"] = b"".join(
            bytes([label]) + row(image).tobytes() for label, image in zip(labels, images))
        # As torchvision's CIFAR10 reads a batch.
        loaded = pickle.loads(python[f"cifar-10-batches-py/{batch}"], encoding="latin1")
        again = np.vstack([loaded["data"]]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        expected["test" if batch == "test_batch" else "train"] += [
            [label, digest(image)] for label, image in zip(loaded["labels"], again)]
    python["cifar-10-batches-py/batches.meta"] = python2(
        {b"num_cases_per_batch": 3, b"label_names": [n.encode() for n in names], b"num_vis": 3072})
    binary["cifar-10-batches-bin/batches.meta.txt"] = "\n".join(names + [""]).encode()
    write_tar(out / "cifar-10-python.tar.gz", python)
    write_tar(out / "cifar-10-binary.tar.gz", binary)
    expect(out, "cifar-10", names, expected)

    fine, coarse = [f"fine_{n}" for n in range(100)], [f"coarse_{n}" for n in range(20)]
    python, binary = {}, {}
    expected = {}
    for split in ["train", "test"]:
        images = [picture(1000 + len(python) * 10 + n) for n in range(3)]
        labels = [99, 0, 42]
        python[f"cifar-100-python/{split}"] = python2({
            b"filenames": [b"f_%d.png" % n for n in range(3)], b"batch_label": b"training batch 1 of 1",
            b"fine_labels": labels, b"coarse_labels": [1, 2, 3], b"data": np.stack([row(i) for i in images])})
        binary[f"cifar-100-binary/{split}.bin"] = b"".join(
            bytes([at, label]) + row(image).tobytes() for at, (label, image) in enumerate(zip(labels, images)))
        loaded = pickle.loads(python[f"cifar-100-python/{split}"], encoding="latin1")
        again = loaded["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        expected[split] = [[label, digest(image)] for label, image in zip(loaded["fine_labels"], again)]
    python["cifar-100-python/meta"] = python2(
        {b"fine_label_names": [n.encode() for n in fine], b"coarse_label_names": [n.encode() for n in coarse]})
    binary["cifar-100-binary/fine_label_names.txt"] = "\n".join(fine + [""]).encode()
    binary["cifar-100-binary/coarse_label_names.txt"] = "\n".join(coarse + [""]).encode()
    write_tar(out / "cifar-100-python.tar.gz", python)
    write_tar(out / "cifar-100-binary.tar.gz", binary)
    expect(out, "cifar-100", fine, expected)


def npz(out: pathlib.Path) -> None:
    """As MedMNIST publishes its sets, in grey and in colour, and as Keras publishes MNIST."""
    for name, grey in [("medmnist-grey", True), ("medmnist-colour", False)]:
        arrays, expected = {}, {}
        for at, (split, ours, count) in enumerate([("train", "train", 9), ("val", "val", 4), ("test", "test", 5)]):
            images = np.stack([pixels(500 + 20 * at + n, grey) for n in range(count)])
            arrays[f"{split}_images"] = images
            arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8).reshape(-1, 1) % 3
        np.savez_compressed(out / f"{name}.npz", **arrays)
        # As medmnist.dataset.MedMNIST reads them: `imgs[index]`, `labels[index]`, Image.fromarray.
        loaded = np.load(out / f"{name}.npz", mmap_mode="r")
        for split in ["train", "val", "test"]:
            expected[split] = [
                [int(label[0]), digest(Image.fromarray(image).convert("RGB"))]
                for image, label in zip(loaded[f"{split}_images"], loaded[f"{split}_labels"])]
        expect(out, name, ["0", "1", "2"], expected)
    for name, save in [("keras", np.savez_compressed), ("keras-stored", np.savez)]:
        arrays = {}
        for split, first, count in [("test", 300, 4), ("train", 0, 11)]:
            arrays[f"x_{split}"] = np.stack([pixels(700 + first + n, True) for n in range(count)])
            arrays[f"y_{split}"] = np.arange(count, dtype=np.int64) % 4
        save(out / f"{name}.npz", **arrays)
        # As keras.datasets.mnist.load_data reads them.
        with np.load(out / f"{name}.npz", allow_pickle=True) as loaded:
            expected = {split: [[int(label), digest(image)] for image, label in
                                zip(loaded[f"x_{split}"], loaded[f"y_{split}"])] for split in ["train", "test"]}
    expect(out, "keras", ["0", "1", "2", "3"], expected)


def downsampled(out: pathlib.Path) -> None:
    """Downsampled ImageNet: `.npz` files in a zip, and pickled batches in a zip. Labels begin at 1."""
    batches, expected = {}, {"train": [], "val": []}
    for at, name in enumerate(["train_data_batch_1", "train_data_batch_2", "train_data_batch_10", "val_data"]):
        images = np.stack([pixels(900 + 20 * at + n).transpose(2, 0, 1).reshape(-1) for n in range(6 - at)])
        labels = [1 + (5 * at + 3 * n) % 7 for n in range(6 - at)]
        batches[name] = {"data": images, "labels": labels, "mean": images.mean(axis=0)}
    # The published sets have ten batches: numbers without a gap.
    for number in range(3, 10):
        image = pixels(2000 + number).transpose(2, 0, 1).reshape(1, -1)
        batches[f"train_data_batch_{number}"] = {"data": image, "labels": [number - 2], "mean": image[0] / 1.0}

    def load(batch: dict, size: int = SIDE) -> list:
        """As load_databatch of the authors' test scripts, before it divides."""
        x, y = batch["data"], [i - 1 for i in batch["labels"]]
        size2 = size * size
        x = np.dstack((x[:, :size2], x[:, size2:2 * size2], x[:, 2 * size2:])).reshape((x.shape[0], size, size, 3))
        return [[int(label), digest(image)] for image, label in zip(x, y)]

    order = [f"train_data_batch_{number}" for number in range(1, 11)]
    with zipfile.ZipFile(out / "downsampled-npz.zip", "w", zipfile.ZIP_DEFLATED) as npzs, \
            zipfile.ZipFile(out / "downsampled-stored.zip", "w") as stored, \
            zipfile.ZipFile(out / "downsampled-pickle.zip", "w", zipfile.ZIP_DEFLATED) as pickles:
        for at, name in enumerate([*order, "val_data"]):
            folder = "Imagenet16_val" if name == "val_data" else "Imagenet16_train"
            file = io.BytesIO()
            save = np.savez if at % 2 else np.savez_compressed
            save(file, **{**batches[name], "labels": np.array(batches[name]["labels"])})
            npzs.writestr(f"{folder}_npz/{name}.npz", file.getvalue())
            stored.writestr(f"{folder}_npz/{name}.npz", file.getvalue())
            if at % 4 == 3:
                batches[name]["labels"] = np.array(batches[name]["labels"])
            pickled = pickle.dumps(batches[name], protocol=3 + at % 3)
            pickles.writestr(f"{folder}/{name}", pickled)
            again = np.load(io.BytesIO(file.getvalue()))
            assert load(again) == load(pickle.loads(pickled))
            expected["val" if name == "val_data" else "train"] += load(again)
    expect(out, "downsampled", [str(n) for n in range(7)], expected)


def webdataset(out: pathlib.Path) -> None:
    """Shards as the library's ShardWriter writes them, in the forms that timm's and other sets have: `cls`; `json`
    with a label and a name; `cls` of names; a plain and a compressed tar."""
    import webdataset as wds

    def sample(seed: int, parts: dict) -> dict:
        kind = ["jpg", "png", "jpeg", "webp"][seed % 4]
        data = encoded(seed, {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}.get(kind, "WEBP"), seed % 5 == 2) \
            if kind != "webp" else lossless(seed)
        return {"__key__": f"n{seed % 3:02}_{seed:06}", kind: data, **parts}

    def lossless(seed: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels(seed)).save(file, "WEBP", lossless=True)
        return file.getvalue()

    def write(folder: pathlib.Path, pattern: str, seeds: range, per_shard: int, parts) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with wds.ShardWriter(str(folder / pattern), maxcount=per_shard, verbose=0, mtime=0) as writer:
            for seed in seeds:
                writer.write(sample(seed, parts(seed)))

    def read(paths, label) -> list:
        """As the library decodes, in the order of the shards."""
        rows = []
        for path in sorted(map(str, paths)):
            set_ = wds.WebDataset(path, shardshuffle=False, empty_check=False).decode("pil")
            for row in set_:
                image = next(row[kind] for kind in ["jpg", "png", "jpeg", "webp"] if kind in row)
                rows.append([label(row), digest(image)])
        return rows

    # imagenet1k-train-0000.tar with cls and json, as timm's sets, and shards of val.
    root = out / "webdataset"
    number = lambda seed: (seed * 2) % 3  # noqa: E731
    full = lambda seed: {"cls": number(seed), "json": {  # noqa: E731
        "label": number(seed), "filename": f"n{seed}.JPEG", "width": SIDE, "height": SIDE, "class_name": CLASSES[number(seed)]}}
    write(root, "imagenet-train-%06d.tar", range(11), 4, full)
    write(root, "imagenet-validation-%02d.tar", range(100, 105), 3, full)
    expect(out, "webdataset", CLASSES, {
        "train": read(root.glob("*-train-*"), lambda row: row["cls"]),
        "val": read(root.glob("*-validation-*"), lambda row: row["json"]["label"])})
    # Folders per split, json alone, names in a list.
    root = out / "webdataset-json"
    write(root / "train", "%05d.tar", range(200, 207), 4, lambda seed: {"json": {"label": number(seed)}, "txt": f"a caption {seed}"})
    write(root / "test", "%05d.tar", range(300, 304), 4, lambda seed: {"txt": "no label"})
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    expect(out, "webdataset-json", CLASSES, {
        "train": read(root.glob("train/*"), lambda row: row["json"]["label"]),
        "test": read(root.glob("test/*"), lambda row: -1)})
    # One tar, plain and compressed, whose cls is the name of a class, as text.
    names = sorted(CLASSES)
    for name, options in [("webdataset-one.tar", {}), ("webdataset-one.tar.gz", {"compress": True})]:
        with wds.TarWriter(str(out / name), mtime=0, **options) as writer:
            for seed in range(400, 406):
                writer.write(sample(seed, {"cls": CLASSES[number(seed)].encode()}))
    rows = []
    for row in wds.WebDataset(str(out / "webdataset-one.tar"), shardshuffle=False):
        image = next(row[kind] for kind in ["jpg", "png", "jpeg", "webp"] if kind in row)
        rows.append([names.index(row["cls"].decode()), digest(Image.open(io.BytesIO(image)))])
    expect(out, "webdataset-one", names, {"train": rows})


def ilsvrc(out: pathlib.Path) -> None:
    """ImageNet as in Kaggle's zip, of few images of SIDE x SIDE. Boxes by xml.etree and the rule of TensorFlow's
    process_bounding_boxes.py: corners in any order, cut to the image; of several, the largest of the class."""
    import xml.etree.ElementTree as ET

    wnids = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish, Carassius auratus", "n02084071": "dog"}
    files: dict[str, bytes] = {}
    random = np.random.default_rng(5)

    def xml(folder: str, name: str, objects: list) -> bytes:
        parts = "".join(
            f"\t<object>\n\t\t<name>{wnid}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
            f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymin>{y0}</ymin>\n"
            f"\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>\n\t\t</bndbox>\n\t</object>\n" for wnid, x0, y0, x1, y1 in objects)
        return (f"<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{name}</filename>\n\t<source>\n"
                f"\t\t<database>ILSVRC_2012</database>\n\t</source>\n\t<size>\n\t\t<width>{SIDE}</width>\n"
                f"\t\t<height>{SIDE}</height>\n\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{parts}</annotation>\n").encode()

    def box(data: bytes | None, wnid: str) -> list[int]:
        best, most = [-1] * 4, 0
        for item in ET.fromstring(data).iter("object") if data else []:
            if item.findtext("name") != wnid:
                continue
            x0, y0, x1, y1 = (int(item.find("bndbox").findtext(side)) for side in ["xmin", "ymin", "xmax", "ymax"])
            x0, x1 = max(min(x0, x1), 0), min(max(x0, x1), SIDE - 1)
            y0, y1 = max(min(y0, y1), 0), min(max(y0, y1), SIDE - 1)
            area = (x1 - x0 + 1) * (y1 - y0 + 1)
            if x0 <= x1 and y0 <= y1 and area > most:
                best, most = [x0, y0, x1, y1], area
        return best

    def objects(wnid: str, count: int) -> list:
        return [(wnid, *map(int, random.integers(-2, SIDE + 3, 4))) for _ in range(count)]

    expected: dict[str, list] = {"train": [], "val": [], "test": []}
    boxes: dict[str, list] = {"train": [], "val": [], "test": []}
    data = "ILSVRC/Data/CLS-LOC"
    seed = 5000
    for label, wnid in enumerate(wnids):
        for number in sorted([7, 18, 100, 1027], key=lambda n: f"{wnid}_{n}.JPEG"):
            name, seed = f"{wnid}_{number}", seed + 1
            image = files[f"{data}/train/{wnid}/{name}.JPEG"] = encoded(seed, grey=seed % 5 == 0)
            annotation = None
            if number != 18:
                drawn = objects(wnid, 1 + seed % 3) + (objects("n02084071", 1) if number == 7 else [])
                annotation = files[f"ILSVRC/Annotations/CLS-LOC/train/{wnid}/{name}.xml"] = xml(wnid, name, drawn)
            expected["train"].append([label, digest(Image.open(io.BytesIO(image)))])
            boxes["train"].append(box(annotation, wnid))
    solution = ["ImageId,PredictionString"]
    for number in range(1, 8):
        name, seed, label = f"ILSVRC2012_val_{number:08}", seed + 1, (number * 2) % 3
        wnid = list(wnids)[label]
        image = files[f"{data}/val/{name}.JPEG"] = encoded(seed)
        annotation = files[f"ILSVRC/Annotations/CLS-LOC/val/{name}.xml"] = xml("val", name, objects(wnid, 1 + number % 2))
        expected["val"].append([label, digest(Image.open(io.BytesIO(image)))])
        boxes["val"].append(box(annotation, wnid))
        solution.append(f"{name}," + "".join(f"{wnid} 0 0 {n} {n} " for n in range(1 + number % 2)))
    for number in range(1, 4):
        image = files[f"{data}/test/ILSVRC2012_test_{number:08}.JPEG"] = encoded(seed + 10 + number)
        expected["test"].append([-1, digest(Image.open(io.BytesIO(image)))])
        boxes["test"].append([-1] * 4)
    files["ILSVRC/ImageSets/CLS-LOC/val.txt"] = "".join(f"ILSVRC2012_val_{n:08} {n}\n" for n in range(1, 8)).encode()
    files["LOC_synset_mapping.txt"] = "".join(f"{wnid} {name}\n" for wnid, name in wnids.items()).encode()
    files["LOC_val_solution.csv"] = "\n".join([*solution[:1], *reversed(solution[1:]), ""]).encode()
    files["LOC_sample_submission.csv"] = b"ImageId,PredictionString\n"
    with zipfile.ZipFile(out / "ilsvrc.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    text = {"classes": list(wnids.values()), "splits": expected, "boxes": boxes}
    (out / "ilsvrc.json").write_text(json.dumps(text, indent=0) + "\n")


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    writers = [parquet, cifar, npz, downsampled, webdataset, ilsvrc]
    names = sys.argv[2:]
    if not names:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
    for write in writers:
        if not names or write.__name__ in names:
            write(out)


if __name__ == "__main__":
    main()
