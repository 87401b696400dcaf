"""What ``tinyres.pack`` takes besides paths: arrays, iterables, and the data sets of other libraries.

Each kind becomes a ``Source``: its classes, if it knows them, and a function that hands its images to the native
``Feed``. None of the libraries is imported here; their objects are recognised by what they have.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from tinyres._native import Feed
from tinyres.errors import Error

Tell = Callable[[int, "int | None"], object]

# Words for each split, as the packer knows them from folders.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Names of columns, the likeliest first; those of images and labels are the packer's own for Parquet files.
COLUMNS = {
    "image": ("image", "img", "picture", "jpg", "png", "image_bytes"),
    "label": ("label", "labels", "fine_label", "class", "target", "cls"),
    "box": ("box", "bbox"),
    "name": ("name", "file_name"),
}
# Rows of a Hugging Face data set that are handed over at once.
BATCH = 4096


class Source(NamedTuple):
    """One split: its classes, or None, and what hands its images over."""

    classes: list[str] | None
    feed: Callable[[Feed, str, Tell], None]


def split_of(name: object) -> str:
    """The split that ``name`` is a word for."""
    for split, words in SPLITS.items():
        if isinstance(name, str) and name.lower() in words:
            return split
    raise ValueError(f"split {name!r}, expected 'train', 'val' or 'test'; rename it or leave it out")


def splits(source: object, columns: Mapping[str, str]) -> list[tuple[str, Source]]:
    """The splits of ``source``, train first."""
    if not isinstance(source, Mapping) or any(key in source for key in ("images", "image")):
        return [("train", adapt(source, columns))]
    found: dict[str, Source] = {}
    for name, images in source.items():
        split = split_of(name)
        if split in found:
            raise ValueError(f"two splits are called {split}, the second {name!r}; rename or join them")
        found[split] = adapt(images, columns)
    return [(split, found[split]) for split in SPLITS if split in found]


def adapt(images: Any, columns: Mapping[str, str]) -> Source:
    """The source of one split."""
    module = type(images).__module__.split(".")[0]
    if module == "datasets" and hasattr(images, "features"):
        return hugging_face(images, columns)
    base, places = subset(images)
    if isinstance(getattr(base, "samples", None), list) and hasattr(base, "root"):
        return image_folder(base, places)
    labels = getattr(base, "targets", getattr(base, "labels", None))
    if labels is not None and is_images(getattr(base, "data", None)):
        data = base.data
        if places is not None:
            data, labels = as_array(data)[places], as_array(labels)[places]
        return Source(getattr(base, "classes", None), arrays(data, labels))
    if isinstance(images, Mapping):
        key = "images" if "images" in images else "image"
        parts = [
            images.get(name, images.get(one))
            for name, one in (("labels", "label"), ("boxes", "box"), ("names", "name"))
        ]
        return Source(None, arrays(images[key], *parts))
    if is_images(images):
        return Source(None, arrays(images, None))
    if isinstance(images, tuple) and 1 < len(images) <= 4 and (is_images(images[0]) or isinstance(images[0], list)):
        return Source(None, arrays(*images))
    if isinstance(images, (str, bytes, os.PathLike)):
        raise TypeError(f"{images!r} is a path of one split; give pack() the directory of all splits")
    if not hasattr(images, "__iter__") and not hasattr(images, "__getitem__"):
        raise TypeError(
            f"a {type(images).__name__}, expected arrays (images, labels), an iterable of (image, label), or a data set"
        )
    classes = getattr(images, "classes", None)
    return Source(list(classes) if isinstance(classes, (list, tuple)) else None, rows(images, columns))


def subset(images: Any) -> tuple[Any, Any]:
    """The data set that a ``torch.utils.data.Subset`` is taken from, and the places of its images in it."""
    places = None
    while type(images).__name__ == "Subset" and hasattr(images, "dataset") and hasattr(images, "indices"):
        of = np.asarray(images.indices, dtype=np.int64)
        places = of if places is None else of[places]
        images = images.dataset
    return images, places


def is_images(value: Any) -> bool:
    """True for an array or tensor of many images."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) in (3, 4)


def as_array(value: Any) -> np.ndarray:
    """``value`` as a NumPy array; a tensor of a GPU is copied."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def pixels_of(value: Any, what: str) -> np.ndarray:
    """``value`` as an array of ``uint8``."""
    array = as_array(value)
    if array.dtype != np.uint8:
        raise TypeError(
            f"{what} of {array.dtype}, expected uint8 from 0 to 255; convert it, or make the data set without a transform"
        )
    return array


def label_of(value: Any) -> int | str | None:
    """A label as the native part takes it."""
    if value is None:
        return None
    if isinstance(value, str):
        return str(value)
    try:
        # A tensor of one whole number has an index, as NumPy's numbers have.
        return operator.index(value)
    except TypeError:
        raise TypeError(f"label {value!r}, expected a whole number or a name") from None


def labels_of(values: Any) -> list[int | str | None] | None:
    """Labels of many images."""
    if values is None:
        return None
    if hasattr(values, "dtype"):
        array = as_array(values)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1 or array.dtype.kind not in "iuUO":
            raise TypeError(f"labels of {array.dtype} {list(array.shape)}, expected whole numbers or names [N]")
        values = array.tolist()
    return [label_of(value) for value in values]


def boxes_of(values: Any) -> np.ndarray | None:
    """Boxes of many images, ``int32 [N, 4]``."""
    if values is None:
        return None
    array = as_array(values)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] != 4:
        raise TypeError(f"boxes of {array.dtype} {list(array.shape)}, expected whole numbers [N, 4]")
    return np.ascontiguousarray(array, dtype=np.int32)


def arrays(images: Any, labels: Any, boxes: Any = None, names: Any = None) -> Callable[[Feed, str, Tell], None]:
    """Hands over images of one array, in place where its memory allows it, or of a list."""

    def feed(to: Feed, split: str, tell: Tell) -> None:
        if isinstance(images, (list, tuple)):
            columns = (images, labels, boxes, names)
            for what, column in zip(("labels", "boxes", "names"), columns[1:]):
                if column is not None and len(column) != len(images):
                    raise ValueError(f"{len(column)} {what} for {len(images)} images, expected one for each")
            items = zip(images, *(repeat(None) if column is None else column for column in columns[1:]))
            add_all(to, split, items, len(images), tell)
            return
        marks = (labels_of(labels), boxes_of(boxes), None if names is None else [str(name) for name in names])
        pixels = pixels_of(images, "images")
        for view in views(pixels):
            if view.flags.c_contiguous:
                to.all_pixels(split, view, *marks)
                return
        for what, column in zip(("labels", "boxes", "names"), marks):
            if column is not None and len(column) != len(pixels):
                raise ValueError(f"{len(column)} {what} for {len(pixels)} images, expected one for each")
        items = zip(pixels, *(repeat(None) if column is None else column for column in marks))
        add_all(to, split, items, len(pixels), tell)

    return feed


def views(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The array, and the one that it is a permuted view of, if it is one of images in colour."""
    yield pixels
    if pixels.ndim == 4 and pixels.shape[3] != 3 and pixels.shape[1] == 3:
        yield np.moveaxis(pixels, 1, 3)
    elif pixels.ndim == 4 and pixels.shape[3] == 3 and pixels.shape[2] != 3:
        yield np.moveaxis(pixels, 3, 1)


def image_folder(dataset: Any, places: Any) -> Source:
    """torchvision's ``ImageFolder`` and ``DatasetFolder``: their files, without their transform."""

    def feed(to: Feed, split: str, tell: Tell) -> None:
        order = range(len(dataset.samples)) if places is None else places.tolist()
        for done, at in enumerate(order, 1):
            path, label = dataset.samples[at]
            name = os.path.relpath(path, dataset.root).replace(os.sep, "/")
            to.file(split, path, label, None, f"{split}/{name}")
            if done % BATCH == 0:
                tell(done, len(order))

    return Source(getattr(dataset, "classes", None), feed)


def rows(images: Any, columns: Mapping[str, str]) -> Callable[[Feed, str, Tell], None]:
    """Hands over what an iterable yields, or a data set with ``__len__`` and ``__getitem__`` has."""

    def feed(to: Feed, split: str, tell: Tell) -> None:
        count = len(images) if hasattr(images, "__len__") else None
        items = images if hasattr(images, "__iter__") or count is None else (images[at] for at in range(count))
        add_all(to, split, (parts(item, columns) for item in items), count, tell)

    return feed


def parts(item: Any, columns: Mapping[str, str]) -> tuple[Any, ...]:
    """Image, label, box and name of a row."""
    if isinstance(item, Mapping):
        found = [value(item, role, columns) for role in COLUMNS]
        if found[0] is None:
            raise TypeError(
                f"a row of {', '.join(map(str, item))}, expected an image; say where it is: columns={{'image': ...}}"
            )
        return tuple(found)
    if isinstance(item, (tuple, list)) and 1 < len(item) <= 4:
        return tuple(item)
    return (item,)


def value(row: Mapping[str, Any], role: str, columns: Mapping[str, str]) -> Any:
    """The value of a row that has this role."""
    if role in columns:
        if columns[role] not in row:
            raise ValueError(f"no column {columns[role]!r} among {', '.join(map(str, row))}")
        return row[columns[role]]
    return next((row[name] for name in COLUMNS[role] if name in row), None)


def add_all(to: Feed, split: str, items: Iterable[tuple[Any, ...]], count: int | None, tell: Tell) -> None:
    """Hands over images one by one."""
    for done, item in enumerate(items, 1):
        add(to, split, *item)
        if done % 64 == 0:
            tell(done, count)


def add(to: Feed, split: str, image: Any, label: Any = None, box: Any = None, name: Any = None) -> None:
    """Hands over one image. An error names it."""
    try:
        hand_over(to, split, image, label_of(label), box_of(box), None if name is None else str(name))
    except (TypeError, ValueError) as error:
        if isinstance(error, Error):
            raise
        raise type(error)(f"{split} image {to.count(split)}: {error}") from error


def box_of(box: Any) -> tuple[int, int, int, int] | None:
    """A box as the native part takes it."""
    if box is None:
        return None
    array = as_array(box)
    if array.shape != (4,) or array.dtype.kind not in "iu":
        raise TypeError(f"box {box!r}, expected four whole numbers x0, y0, x1, y1")
    x0, y0, x1, y1 = array.tolist()
    return x0, y0, x1, y1


def hand_over(
    to: Feed, split: str, image: Any, label: int | str | None, box: tuple[int, int, int, int] | None, name: str | None
) -> None:
    if isinstance(image, Mapping) and ("bytes" in image or "path" in image):
        # An `Image(decode=False)` of `datasets`.
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        to.encoded(split, image, label, box, name)
    elif isinstance(image, (bytearray, memoryview)):
        to.encoded(split, bytes(image), label, box, name)
    elif isinstance(image, (str, os.PathLike)):
        to.file(split, image, label, box, name)
    elif is_pillow(image):
        to.pixels(split, of_pillow(image), label, box, name)
    elif hasattr(image, "__array__") or hasattr(image, "detach"):
        to.pixels(split, np.ascontiguousarray(pixels_of(image, "an image")), label, box, name)
    else:
        raise TypeError(
            f"an image of type {type(image).__name__}, expected an array, a tensor, a Pillow image, encoded bytes or a path"
        )


def is_pillow(image: Any) -> bool:
    """True for an image of Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def of_pillow(image: Any) -> np.ndarray:
    """Pixels of a Pillow image, upright: ``u8 [H, W]`` if it is grey, else ``[H, W, 3]``."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    grey = image.mode in ("1", "L", "LA")
    return np.asarray(image.convert("L" if grey else "RGB"))


def hugging_face(dataset: Any, columns: Mapping[str, str]) -> Source:
    """A ``Dataset`` or ``IterableDataset`` of ``datasets``. Encoded images are not decoded in Python."""
    import datasets

    features = dataset.features
    if features is None:
        return Source(None, rows(dataset, columns))
    image = column(features, "image", columns, datasets.Image)
    label = column(features, "label", columns, datasets.ClassLabel)
    if image is None:
        raise ValueError(
            f"no column of images among {', '.join(features)}; say which one it is: columns={{'image': ...}}"
        )
    roles = {"image": image} | ({} if label is None else {"label": label})
    roles |= {role: columns[role] for role in ("box", "name") if role in columns}
    kind = None if label is None else features[label]
    classes = list(kind.names) if isinstance(kind, datasets.ClassLabel) else None
    if isinstance(features[image], datasets.Image):
        custom = getattr(dataset, "format", {}).get("type") == "custom"
        if isinstance(dataset, datasets.Dataset) and not custom and set(roles) <= {"image", "label"}:
            return Source(classes, arrow(dataset, image, label))
        if not custom:
            dataset = dataset.cast_column(image, datasets.Image(decode=False))
    return Source(classes, rows(dataset, roles))


def column(features: Mapping[str, Any], role: str, columns: Mapping[str, str], kind: type) -> str | None:
    """The column with this role: the one that was named, the only one of its kind, or the one with the likeliest name."""
    if role in columns:
        if columns[role] not in features:
            raise ValueError(f"no column {columns[role]!r} among {', '.join(features)}")
        return columns[role]
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) == 1:
        return found[0]
    likely = [name for name in COLUMNS[role] if name in (found or features)]
    if found and not likely:
        raise ValueError(f"several columns of {role}s: {', '.join(found)}; say which: columns={{{role!r}: ...}}")
    return likely[0] if likely else None


def arrow(dataset: Any, image: str, label: str | None) -> Callable[[Feed, str, Tell], None]:
    """Hands over the columns of a ``Dataset`` as Arrow has them: encoded bytes stay where they are."""

    def feed(to: Feed, split: str, tell: Tell) -> None:
        # Rows that were chosen or shuffled are copies, which must not all stay in memory.
        copies = getattr(dataset, "_indices", None) is not None
        names = [image] if label is None else [image, label]
        row = to.count(split)
        for table in dataset.select_columns(names).with_format("arrow").iter(batch_size=BATCH):
            labels = None if label is None else table.column(label).to_pylist()
            first = 0
            for chunk in table.column(image).chunks:
                encoded, paths = chunk.flatten()
                files = [
                    None if path is None else path.replace("\\", "/").rsplit("/", 1)[-1] for path in paths.to_pylist()
                ]
                called = [
                    f"{split}/{row + at}/{file}" if file else f"{split}/{row + at}" for at, file in enumerate(files)
                ]
                of_chunk = None if labels is None else labels[first : first + len(chunk)]
                if encoded.null_count == 0 and len(chunk) > 0:
                    to.all_encoded(split, *lent(encoded), of_chunk, None, called, copies)
                else:
                    pairs = zip(encoded.to_pylist(), paths.to_pylist())
                    items = ({"bytes": data, "path": path} for data, path in pairs)
                    add_all(
                        to, split, zip(items, of_chunk or repeat(None), repeat(None), called), None, lambda *_: None
                    )
                row += len(chunk)
                first += len(chunk)
            tell(row, len(dataset))

    return feed


def lent(encoded: Any) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of an Arrow array without nulls, ``u8``, and where each value begins, ``i64 [N + 1]``."""
    _, offsets, data = encoded.buffers()
    width = np.int64 if str(encoded.type).startswith("large") else np.int32
    places = np.frombuffer(offsets, width)[encoded.offset : encoded.offset + len(encoded) + 1]
    return np.frombuffer(data or b"", np.uint8), places.astype(np.int64)


def classes_of(classes: Any) -> list[tuple[str | None, str]] | None:
    """Ids and names of classes: a class is a name, or an id and a name."""
    if classes is None:
        return None
    if isinstance(classes, Mapping):
        return [(str(id), str(name)) for id, name in classes.items()]
    found: list[tuple[str | None, str]] = []
    for one in classes:
        if isinstance(one, str):
            found.append((None, one))
        elif hasattr(one, "id") and hasattr(one, "name"):
            found.append((one.id, one.name))
        elif isinstance(one, Sequence) and len(one) == 2:
            found.append((str(one[0]), str(one[1])))
        else:
            raise TypeError(f"class {one!r}, expected a name, or an id and a name")
    return found
