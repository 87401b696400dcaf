"""Small labelled images in memory-mapped shards: packed once, read as NumPy arrays and batches.

>>> import tinyres
>>> ds = tinyres.open("shards")
>>> len(ds["train"])
100000
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, overload

from tinyres._native import Dataset, Names, __version__, splits
from tinyres._packing import Writer, pack, unpack
from tinyres._run import Metrics, Run, load_run
from tinyres.errors import (
    ChecksumError,
    Error,
    ExistsError,
    FormatError,
    InUseError,
    NotFoundError,
    ReadError,
    SourceError,
)
from tinyres.loader import Loader

__all__ = [
    "ChecksumError",
    "Dataset",
    "Error",
    "ExistsError",
    "FormatError",
    "InUseError",
    "Loader",
    "Metrics",
    "NotFoundError",
    "ReadError",
    "Run",
    "SourceError",
    "Splits",
    "Writer",
    "__version__",
    "load_run",
    "open",
    "pack",
    "unpack",
]

Verify = Literal["off", "lazy", "full"]
Sequence.register(Names)  # pyright: ignore[reportAttributeAccessIssue]


class Splits(Mapping[str, Dataset]):
    """The splits of a set, by name: ``ds["train"]`` or ``ds.train``. Each is opened when it is first used."""

    def __init__(self, path: str | os.PathLike[str], verify: Verify = "lazy") -> None:
        self._path = path
        self._verify: Verify = verify
        self._splits: dict[str, Dataset | None] = dict.fromkeys(splits(path))

    def __getitem__(self, name: str) -> Dataset:
        split = self._splits[name]
        if split is None:
            split = self._splits[name] = Dataset(self._path, name, self._verify)
        return split

    def __getattr__(self, name: str) -> Dataset:
        if name in ("train", "val", "test"):
            try:
                return self[name]
            except KeyError:
                pass
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self._path)!r}: {', '.join(self)})"


@overload
def open(path: str | os.PathLike[str], split: None = None, *, verify: Verify = "lazy") -> Splits: ...
@overload
def open(path: str | os.PathLike[str], split: str, *, verify: Verify = "lazy") -> Dataset: ...
def open(path: str | os.PathLike[str], split: str | None = None, *, verify: Verify = "lazy") -> Splits | Dataset:
    """Opens a set of shards, or one split of it.

    The shards are mapped, not read. Nobody may write to or cut them while they are in use; `tinyres pack` never
    does, since it renames finished files into place. A shard that is cut nevertheless, or a disk that fails, raises
    ``ReadError``: at the call that meets it, or for a view of ``images`` soon after, in the main thread. From then on
    everything that reads this data set raises it; open the set again when its files are whole.

    path: directory of the set.
    split: "train", "val" or "test"; None for all of them.
    verify: when pixels are checked against their checksums: "lazy" (when first touched), "full" (all of them now),
        or "off". Labels, boxes and names are always checked when they are first used.

    Raises ``NotFoundError`` (a ``FileNotFoundError``) if there is no set, ``FormatError`` if it is damaged, and
    ``ValueError`` if it has no such split.
    """
    return Splits(path, verify) if split is None else Dataset(path, split, verify)
