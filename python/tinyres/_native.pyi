import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, SupportsIndex, TypeAlias, final, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinyres._packing import Options

__all__ = [
    "Batches",
    "Dataset",
    "Feed",
    "Loader",
    "Names",
    "Progress",
    "__version__",
    "pack_path",
    "reopen",
    "splits",
    "unpack",
]

_U8: TypeAlias = NDArray[np.uint8]
_Box: TypeAlias = tuple[int, int, int, int]
_Tell: TypeAlias = Callable[[int, int | None, str], object]

__version__: str

_Path: TypeAlias = str | os.PathLike[str]
_Verify: TypeAlias = Literal["off", "lazy", "full"]
_Many: TypeAlias = slice | Sequence[int] | Sequence[bool] | NDArray[np.integer[Any]] | NDArray[np.bool_]

@final
class Dataset:
    def __new__(cls, path: _Path, split: str, verify: _Verify = "lazy") -> Self: ...
    @property
    def path(self) -> str: ...
    @property
    def split(self) -> Literal["train", "val", "test"]: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def class_names(self) -> list[str]: ...
    @property
    def class_to_idx(self) -> dict[str, int]: ...
    @property
    def images(self) -> NDArray[np.uint8]: ...
    def private_images(self) -> NDArray[np.uint8]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def targets(self) -> list[int]: ...
    @property
    def boxes(self) -> NDArray[np.int32]: ...
    @property
    def names(self) -> Names: ...
    def gather(self, index: _Many, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]: ...
    def verify(self) -> None: ...
    # An array is a SupportsIndex, too, to a type checker.
    @overload
    def __getitem__(self, index: _Many, /) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...  # type: ignore[overload-overlap]
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> tuple[NDArray[np.uint8], int]: ...
    def __len__(self) -> int: ...
    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]: ...
    def __dlpack__(self, **arguments: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@final
class Names(Sequence[str]):
    @overload  # type: ignore[override]
    def __getitem__(  # type: ignore[overload-overlap]
        self, index: _Many, /
    ) -> list[str]: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> str: ...  # pyright: ignore[reportIncompatibleMethodOverride]
    def __len__(self) -> int: ...
    def index(self, name: str) -> int: ...  # type: ignore[override]
    def count(self, name: str) -> int: ...

def splits(path: _Path) -> list[str]: ...
def reopen(path: _Path, split: str, verify: _Verify, fingerprint: str) -> Dataset: ...

@final
class Loader:
    def __new__(
        cls,
        dataset: Dataset,
        batch: int,
        *,
        drop_last: bool,
        rank: int,
        world_size: int,
        shuffle: bool,
        seed: int,
        normalize: tuple[Sequence[float], Sequence[float]] | None,
        channels_last: bool,
        flip: bool,
        shift: int,
        threads: int | None,
        fields: Sequence[str],
        alloc: Callable[[int], NDArray[np.uint8]] | None,
    ) -> Loader: ...
    def begin(self, epoch: int, first: int) -> Batches: ...

@final
class Batches:
    @property
    def progress(self) -> Progress: ...
    def __iter__(self) -> Batches: ...
    def __next__(self) -> tuple[NDArray[Any], ...]: ...

@final
class Progress:
    @property
    def batch(self) -> int: ...
    @property
    def ended(self) -> bool: ...

@final
class Feed:
    def __new__(
        cls, output: _Path, options: Options, classes: Sequence[tuple[str | None, str]] | None = None
    ) -> Feed: ...
    def count(self, split: str) -> int: ...
    def encoded(
        self, split: str, data: bytes, label: int | str | None = None, bbox: _Box | None = None, name: str | None = None
    ) -> None: ...
    def pixels(
        self, split: str, pixels: _U8, label: int | str | None = None, bbox: _Box | None = None, name: str | None = None
    ) -> None: ...
    def file(
        self,
        split: str,
        path: _Path,
        label: int | str | None = None,
        bbox: _Box | None = None,
        name: str | None = None,
    ) -> None: ...
    def all_pixels(
        self,
        split: str,
        pixels: _U8,
        labels: Sequence[int | str | None] | None = None,
        boxes: NDArray[np.int32] | None = None,
        names: Sequence[str] | None = None,
    ) -> None: ...
    def all_encoded(
        self,
        split: str,
        data: _U8,
        offsets: NDArray[np.int64],
        labels: Sequence[int | str | None] | None = None,
        boxes: NDArray[np.int32] | None = None,
        names: Sequence[str] | None = None,
        copies: bool = False,
    ) -> None: ...
    def pack(self, progress: _Tell | None = None) -> str: ...

def unpack(shards: _Path, output: _Path, progress: _Tell | None = None) -> str: ...
def pack_path(source: _Path, output: _Path, options: Options, progress: _Tell | None = None) -> str: ...
