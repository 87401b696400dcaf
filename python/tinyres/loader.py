"""Batches of a split for training: shuffled, gathered ahead by native threads, and resumable at any batch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, SupportsIndex, TypedDict

import numpy as np
from numpy.typing import NDArray

from tinyres import _native

__all__ = ["IMAGENET", "Batch", "Field", "Layout", "Loader", "LoaderState", "Normalize"]

Field = Literal["image", "label", "box", "index"]
Layout = Literal["NCHW", "NHWC"]
Normalize = Literal["imagenet"] | tuple[Sequence[float], Sequence[float]] | None
Batch = tuple[NDArray[Any], ...]

#: ImageNet's mean and standard deviation of red, green and blue, for pixels from 0 to 1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_PIXELS_01 = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class LoaderState(TypedDict):
    """Where a loader is, as JSON can hold it. `Loader.state_dict` makes it."""

    epoch: int
    batch: int
    seed: int
    shuffle: bool
    global_batch: int
    drop_last: bool
    fingerprint: str
    split: str
    images: int


class Loader:
    """Batches of a split as NumPy arrays. Each ``iter(loader)`` is one epoch.

    >>> loader = tinyres.Loader(ds["train"], 512, seed=1, dtype="float32", flip=True, shift=4)
    >>> for images, labels in loader:  # float32 [512, 3, 64, 64], int64 [512]
    ...     ...

    **Order.** It follows from (seed, epoch), moves from (seed, epoch, image), as section 7 of the shard's
    specification says: both are those of ``tinyres train``, whatever the number of threads or ranks.

    **Epochs.** The first ``iter(loader)`` is epoch ``epoch``, and each ``iter`` after it is the next epoch, also if the
    one before was broken off: like a PyTorch ``DataLoader`` that shuffles, a loader does not repeat itself.
    ``set_epoch(n)`` makes ``n`` the next one.

    **Batches** stay as they are while they, or views of them, are held. Their memory is used again when they have died;
    a caller who holds them all gets new memory for each. They are writable, and nobody else sees what is written.

    **Copies and pickles** of a loader go on where it is.

    **Threads and processes.** An epoch may be iterated by several threads: each batch goes to one of them. A loader that
    a forked process inherits works there; an epoch that was begun before the fork does not.

    Parameters:
        split: one split of a set, from `tinyres.open`.
        batch_size: images of a batch on this rank. A batch of all ranks together has ``batch_size * world_size``.
        seed: decides orders and moves; below 2**64.
        epoch: number of the first epoch, from 0.
        shuffle: False for the order of the shards. Moves are drawn all the same.
        drop_last: leave out a last batch that is smaller. If False, its images are spread over the ranks; where there
            are fewer images than ranks, some get a batch without images.
        dtype: "uint8", pixels as they are stored, or "float32", ``(pixel / 255 - mean) / std``.
        layout: "NCHW": images are ``[n, 3, H, W]``. "NHWC": ``[n, H, W, 3]``.
        normalize: for float32: "imagenet", or (mean, std) of red, green and blue for pixels from 0 to 1, or None for
            pixels from 0 to 1 as they are.
        flip: mirror half of the images.
        shift: largest shift in pixels, in each direction, smaller than the images. What it uncovers is filled by
            reflection at the edge, before pixels are normalised.
        fields: what a batch is a tuple of, in this order:
            "image": uint8 or float32, ``[n, 3, H, W]`` or ``[n, H, W, 3]``;
            "label": int64 ``[n]``, -1 for images without one;
            "box": int32 ``[n, 4]``, the pixels (x0, y0, x1, y1), all inclusive, moved with the image; four times -1
            for no box, or one that a shift has moved out of the image;
            "index": int64 ``[n]``, numbers of the images in the split.
        rank, world_size: number of this process, and how many train together. Batches of all ranks join to those of
            one process, rank 0 first.
        threads: threads that gather; None for as many as there are cores, but no more than four.

    Raises:
        ValueError: an argument is out of range.
        FormatError: raised by an iterator when it comes to damaged images; that ends the epoch.
    """

    def __init__(
        self,
        split: _native.Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        dtype: Literal["uint8", "float32"] | type[np.uint8] | type[np.float32] | np.dtype[Any] = "uint8",
        layout: Layout = "NCHW",
        normalize: Normalize = "imagenet",
        flip: bool = False,
        shift: int = 0,
        fields: Sequence[Field] = ("image", "label"),
        rank: int = 0,
        world_size: int = 1,
        threads: int | None = None,
    ) -> None:
        self._setup(
            split,
            batch_size,
            seed=seed,
            epoch=epoch,
            shuffle=shuffle,
            drop_last=drop_last,
            dtype=dtype,
            layout=layout,
            normalize=normalize,
            flip=flip,
            shift=shift,
            fields=fields,
            rank=rank,
            world_size=world_size,
            threads=threads,
        )

    def _setup(
        self,
        split: _native.Dataset,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        shuffle: bool,
        drop_last: bool,
        dtype: Any,
        layout: Layout,
        normalize: Normalize,
        flip: bool,
        shift: int,
        fields: Sequence[Field],
        rank: int,
        world_size: int,
        threads: int | None,
        alloc: Callable[[int], NDArray[np.uint8]] | None = None,
    ) -> None:
        if not isinstance(split, _native.Dataset):
            raise TypeError(
                f"split is a {type(split).__name__}, expected one split of a set: "
                'tinyres.open(path, "train"), or tinyres.open(path)["train"]'
            )
        chosen = tuple(fields)
        if isinstance(fields, str) or not chosen or len(set(chosen)) != len(chosen):
            raise ValueError(f"fields are {fields!r}, expected a sequence of at least one, each once")
        if layout not in ("NCHW", "NHWC"):
            raise ValueError(f'layout is {layout!r}, expected "NCHW" or "NHWC"')
        if not isinstance(flip, (bool, np.bool_)):
            raise TypeError(f"flip is {flip!r}, expected True, which mirrors half of the images, or False")
        kind = np.dtype(dtype)
        if kind not in (np.dtype(np.uint8), np.dtype(np.float32)):
            raise ValueError(f'dtype is {dtype!r}, expected "uint8" or "float32"')
        self.dataset = split
        self.batch_size = _integer("batch_size", batch_size, 1, 2**31)
        self.seed = _integer("seed", seed, 0, 2**64)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.world_size = _integer("world_size", world_size, 1, 2**31)
        self.rank = _integer("rank", rank, 0, self.world_size)
        self.dtype = kind
        self.fields: tuple[Field, ...] = chosen
        self._next = _integer("epoch", epoch, 0, 2**64)
        self._first = 0
        self._running: tuple[int, _native.Progress] | None = None
        self._options: dict[str, Any] = {
            "drop_last": self.drop_last,
            "rank": self.rank,
            "world_size": self.world_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "normalize": _statistics(normalize, kind),
            "channels_last": layout == "NHWC",
            "flip": bool(flip),
            "shift": _integer("shift", shift, 0, 2**32),
            "threads": None if threads is None else _integer("threads", threads, 1, 2**31),
            "fields": chosen,
            "alloc": alloc,
        }
        self._native = _native.Loader(split, self.batch_size, **self._options)

    def __getstate__(self) -> dict[str, Any]:
        epoch, batch = self._place()
        state = self.__dict__ | {"_next": epoch, "_first": batch, "_running": None}
        del state["_native"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._native = _native.Loader(self.dataset, self.batch_size, **self._options)

    @property
    def epoch(self) -> int:
        """Number of the epoch that is running, or of the next one if none is."""
        return self._place()[0]

    def set_epoch(self, epoch: int) -> None:
        """Makes ``epoch`` the number of the next epoch, from its first batch on."""
        self._next = _integer("epoch", epoch, 0, 2**64)
        self._first = 0
        self._running = None

    def __len__(self) -> int:
        """Number of batches of an epoch, the same for all ranks."""
        images, batch = len(self.dataset), self.batch_size * self.world_size
        return images // batch if self.drop_last else -(-images // batch)

    def __iter__(self) -> Iterator[Any]:
        epoch, first = self._next, self._first
        batches = self._native.begin(epoch, first)
        self._running = (epoch, batches.progress)
        self._next, self._first = epoch + 1, 0
        return batches

    def state_dict(self) -> LoaderState:
        """Where the loader is: the epoch that was begun last, and the number of its next batch.

        Batches that were gathered ahead, but not handed out, do not count. Once an iterator has raised
        ``StopIteration``, that is batch 0 of the next epoch.
        """
        epoch, batch = self._place()
        return {
            "epoch": epoch,
            "batch": batch,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "global_batch": self.batch_size * self.world_size,
            "drop_last": self.drop_last,
            "fingerprint": self.dataset.fingerprint,
            "split": self.dataset.split,
            "images": len(self.dataset),
        }

    def load_state_dict(self, state: LoaderState) -> None:
        """Makes the next ``iter(loader)`` go on where ``state`` was taken, with the same batches as there.

        The number of ranks may differ, if ``batch_size * world_size`` is the same.

        Raises:
            ValueError: the loader would not give the same batches: seed, size of batches, order, set or split differ.
        """
        here = self.state_dict()
        for name, expected in here.items():
            if name in ("epoch", "batch"):
                continue
            if name not in state:
                raise ValueError(f"this is not the state of a tinyres.Loader: it has no {name!r}")
            if state[name] != expected:  # type: ignore[literal-required]
                raise ValueError(
                    f"the state has {name} {state[name]!r}, but this loader {expected!r}: "  # type: ignore[literal-required]
                    "make the loader with the arguments that it had"
                )
        epoch = _integer("epoch", state["epoch"], 0, 2**64)
        batch = _integer("batch", state["batch"], 0, len(self) + 1)
        self.set_epoch(epoch)
        self._first = batch

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dataset!r}, {self.batch_size}, seed={self.seed}, epoch={self.epoch}, "
            f"dtype={self.dtype.name!r}: {len(self)} batches)"
        )

    def _place(self) -> tuple[int, int]:
        if self._running is not None:
            epoch, progress = self._running
            if not progress.ended:
                return epoch, progress.batch
        return self._next, self._first


def _integer(name: str, value: SupportsIndex, least: int, end: int | None = None) -> int:
    """An argument as an integer, checked to be from `least` to below `end`."""
    number = operator.index(value)
    if number < least or (end is not None and number >= end):
        expected = f"at least {least}" if end is None else f"from {least} to {end - 1}"
        raise ValueError(f"{name} is {number}, expected {expected}")
    return number


def _statistics(normalize: Normalize, dtype: np.dtype[Any]) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel, or None for pixels as they are stored."""
    if dtype == np.uint8:
        if normalize is not None and normalize != "imagenet":
            raise ValueError('normalize is for dtype="float32": uint8 batches have the pixels as they are stored')
        return None
    if isinstance(normalize, str) and normalize != "imagenet":
        raise ValueError(f'normalize is {normalize!r}, expected "imagenet", (mean, std) or None')
    chosen = IMAGENET if normalize == "imagenet" else _PIXELS_01 if normalize is None else normalize
    try:
        mean, std = ([float(value) for value in values] for values in chosen)
    except (TypeError, ValueError):
        mean, std = [], []
    if len(mean) != 3 or len(std) != 3 or not np.isfinite(mean).all() or not all(0 < s < np.inf for s in std):
        raise ValueError(f"normalize is {normalize!r}, expected (mean, std), each of three numbers, std above 0")
    return mean, std
