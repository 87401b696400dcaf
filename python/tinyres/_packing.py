"""Packing from Python: ``pack``, ``Writer`` and the options that both take."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypedDict

from tinyres import _feeding
from tinyres._native import Feed, pack_path
from tinyres._native import unpack as unpack_path

Path = str | os.PathLike[str]
Progress = Callable[[int, "int | None", str], object]
Classes = Sequence[str] | Sequence[tuple[str, str]] | Mapping[str, str]


class Options(TypedDict):
    """Options of the native packer."""

    size: int | None
    squash: bool
    zstd: int | None
    val_fraction: float | None
    skip_bad: float | None
    shard_images: int | None
    threads: int | None
    force: bool


def options(
    size: int | None,
    squash: bool,
    zstd: bool | int | None,
    val_fraction: float | None,
    skip_bad: bool | float,
    shard_images: int | None,
    threads: int | None,
    force: bool,
) -> Options:
    """The options as the native packer takes them."""
    return {
        "size": size,
        "squash": squash,
        "zstd": {True: 3, False: None, None: None}[zstd] if zstd is None or isinstance(zstd, bool) else zstd,
        "val_fraction": val_fraction,
        # In percent; at most half without a number, as `--skip-bad` does.
        "skip_bad": ({True: 50.0, False: None}[skip_bad] if isinstance(skip_bad, bool) else 100.0 * skip_bad),
        "shard_images": shard_images,
        "threads": threads,
        "force": force,
    }


def pack(
    source: object,
    out: Path,
    *,
    size: int | None = None,
    squash: bool = False,
    val_fraction: float | None = None,
    classes: Classes | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool | float = False,
    shard_images: int | None = None,
    threads: int | None = None,
    zstd: bool | int | None = None,
    force: bool = False,
    progress: bool | Progress | None = None,
) -> dict[str, Any]:
    """Packs images into shards, as the command ``tinyres pack`` does, and returns its report.

    The set appears in ``out`` as a whole or not at all: nothing is there after an exception or Ctrl-C. If exactly
    this set is there already, nothing is written, and ``unchanged`` in the report is true.

    source: a path of a directory, archive or file that ``tinyres pack`` reads. Or images of train, or a mapping of
        splits (``{"train": ..., "val": ..., "test": ...}``, or a ``DatasetDict``), each of them

        - arrays ``(images, labels[, boxes[, names]])``: images ``u8 [N, H, W, 3]``, ``[N, 3, H, W]`` or ``[N, H, W]``
          (NumPy, torch), labels ``int [N]`` or names of classes, boxes ``int [N, 4]`` of x0, y0, x1, y1 in pixels, the
          last ones included, or -1 four times. Nobody may write to the arrays meanwhile: contiguous ones are read in
          place;
        - a ``Dataset`` or ``IterableDataset`` of Hugging Face ``datasets``, whose images stay encoded until the
          native decoder has them;
        - a data set of torchvision: the files of an ``ImageFolder``, the arrays of CIFAR, MNIST and SVHN, or a
          ``Subset`` of them, each without its transforms; of others, what ``__getitem__`` returns;
        - an iterable of ``(image, label[, box[, name]])`` or of dictionaries with ``image``, ``label``, ``box``, ``name``.
          An image is an array or tensor ``u8`` ``[H, W, 3]``, ``[3, H, W]`` or ``[H, W]``, a Pillow image, the bytes of
          an encoded file, or the path of one. It is kept in a temporary file (``TMPDIR``) until all have come.
    out: directory of the set, created if missing.
    size: width and height that images are resized to, the middle of the longer side kept; ``squash``: the whole of it.
        Without it, images must be squares of one size.
    val_fraction: part of train to hold out as val, chosen by a hash of each name.
    classes: names of the classes in label order, or pairs of id and name. Without it they are those that the data set
        knows; labels that are names are sorted, and numbers are called by themselves.
    columns: names of the columns that hold ``image``, ``label``, ``box`` and ``name``, where a data set calls them
        otherwise.
    skip_bad: leave out images that cannot be decoded, and list them in the report: up to half of a split for True, or
        this fraction of it.
    shard_images: images in a shard, 8192 if not given.
    threads: decoding threads; one a core if not given. The bytes of the set do not depend on it.
    zstd: compress the shards to move or keep them, at this level, 1 to 22; 3 for True.
    force: replace a set in ``out``.
    progress: called with (images done, all images or None, unit); True for a bar of ``tqdm``, if it is installed.

    Raises ``SourceError`` (with ``problems``) for images that cannot be packed, ``ExistsError`` if another set is in
    ``out``, ``NotFoundError``, ``InUseError`` and other ``OSError``, and ``ValueError`` and ``TypeError`` for wrong
    arguments.

    >>> tinyres.pack((images, labels), "shards", classes=["cat", "dog"], val_fraction=0.1)["splits"]
    """
    chosen = options(size, squash, zstd, val_fraction, skip_bad, shard_images, threads, force)
    with telling(progress) as tell:
        if isinstance(source, (str, os.PathLike)):
            if classes is not None or columns is not None:
                raise TypeError("classes and columns are for objects; the source at a path names its own")
            return report_of(pack_path(source, out, chosen, tell))
        splits = _feeding.splits(source, columns or {})
        feed = Feed(out, chosen, _feeding.classes_of(one_list(splits) if classes is None else classes))
        done = 0
        for split, images in splits:

            def told(count: int, total: int | None, before: int = done) -> None:
                if tell is not None:
                    tell(before + count, None if total is None else before + total, "img read")

            images.feed(feed, split, told)
            done += feed.count(split)
        return report_of(feed.pack(tell))


def unpack(shards: Path, out: Path, *, progress: bool | Progress | None = None) -> dict[str, Any]:
    """Writes the images of shards as PNG files in class folders, as the command ``tinyres unpack`` does, and returns its
    report.

    ``out/train/CLASS/0.png`` and so on, which torchvision's ``ImageFolder`` reads; ``out/train/metadata.csv``, which
    Hugging Face's ``imagefolder`` reads, with label, name and box of each; ``out/classes.csv``. Packing ``out`` gives
    the same pixels, labels and boxes. Each image is compared with its checksum first, and ``out`` is there as a whole or
    not at all. Nobody may write to the shards meanwhile.

    shards: directory of a set, raw or compressed, or one shard.
    out: directory to write, absent or empty.
    progress: as for :func:`pack`.

    Raises ``FormatError`` for damage, ``ExistsError`` if something is in ``out``, ``NotFoundError`` and other ``OSError``.
    """
    with telling(progress) as tell:
        return report_of(unpack_path(shards, out, tell))


def one_list(splits: list[tuple[str, _feeding.Source]]) -> list[str] | None:
    """The classes of the splits, which agree."""
    known = [(split, list(images.classes)) for split, images in splits if images.classes is not None]
    for split, classes in known[1:]:
        if classes != known[0][1]:
            raise ValueError(f"{split} has other classes than {known[0][0]}; give all of them by classes=")
    return known[0][1] if known else None


def report_of(text: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(text)
    return report


@contextmanager
def telling(progress: bool | Progress | None) -> Iterator[Progress | None]:
    """What to call with the progress: a function of the caller's, a bar, or None."""
    if not isinstance(progress, bool):
        yield progress
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        progress = False
    if not progress:
        yield None
        return
    bar: Any = None

    def show(done: int, total: int | None, unit: str) -> None:
        nonlocal bar
        if bar is None or bar.unit != f" {unit}":
            if bar is not None:
                bar.close()
            bar = tqdm(total=total, unit=f" {unit}")  # pyright: ignore[reportPossiblyUnboundVariable]
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


class Writer:
    """Packs images that come one by one, and publishes them when its ``with`` block ends.

    An exception in the block publishes nothing, and leaves nothing behind. Images are kept in a temporary file
    (``TMPDIR``) until the block ends; then they are decoded in parallel. Its options are those of :func:`tinyres.pack`.

    >>> with tinyres.Writer("shards", classes=["cat", "dog"]) as w:
    ...     w.add(image, 0)
    ...     w.add(jpeg_bytes, "dog", split="val")
    >>> w.report["fingerprint"]
    """

    report: dict[str, Any] | None
    """The report, once the set is there."""

    def __init__(
        self,
        out: Path,
        *,
        classes: Classes | None = None,
        size: int | None = None,
        squash: bool = False,
        val_fraction: float | None = None,
        skip_bad: bool | float = False,
        shard_images: int | None = None,
        threads: int | None = None,
        zstd: bool | int | None = None,
        force: bool = False,
        progress: bool | Progress | None = None,
    ) -> None:
        chosen = options(size, squash, zstd, val_fraction, skip_bad, shard_images, threads, force)
        self.report = None
        self._progress = progress
        self._feed: Feed | None = Feed(out, chosen, _feeding.classes_of(classes))

    def add(
        self, image: object, label: object = None, box: object = None, name: str | None = None, split: str = "train"
    ) -> None:
        """Adds an image to a split.

        image: array or tensor ``u8`` ``[H, W, 3]``, ``[3, H, W]`` or ``[H, W]``, a Pillow image, the bytes of an encoded
            file, or the path of one, which must stay until the block ends.
        label: number of its class, or the class's name; only images of test may lack it.
        box: x0, y0, x1, y1 in pixels, the last ones included.
        name: what it is called; no two images have the same name. ``SPLIT/NUMBER`` if not given.
        split: "train", "val" or "test".

        Raises ``SourceError``, ``ValueError`` or ``TypeError``, naming the image; it is not added then.
        """
        _feeding.add(self._open(), _feeding.split_of(split), image, label, box, name)

    def _open(self) -> Feed:
        if self._feed is None:
            raise ValueError("this writer has ended: make another one")
        return self._feed

    def __enter__(self) -> Writer:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        feed, self._feed = self._open(), None
        if kind is None:
            with telling(self._progress) as tell:
                self.report = report_of(feed.pack(tell))
