"""tinyres for PyTorch: a loader whose batches are tensors, and a map-style data set that replaces ``ImageFolder``.

    import tinyres, tinyres.torch

    train = tinyres.open("shards", "train")
    for images, labels in tinyres.torch.Loader(train, 512, dtype="float32", flip=True, shift=4, device="cuda"):
        ...

`Loader` needs no workers and is many times faster than a ``DataLoader``; `Dataset` is for code that has one, and for
transforms of torchvision.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
import torch
import torch.distributed
import torch.utils.data
from numpy.typing import NDArray

import tinyres
from tinyres import _native
from tinyres.loader import Field, Normalize

__all__ = ["Dataset", "Loader", "collate", "tensor"]

_Path = str | os.PathLike[str]


def tensor(split: _native.Dataset) -> torch.Tensor:
    """All images of a split as one tensor, uint8 ``[N, 3, H, W]``, without a copy.

    It is a map of the shards of its own. It can be written to: the kernel then copies the pages that are, and neither
    the files nor other tensors change. All checksums are compared first, as for ``split.images``.

    Raises:
        ValueError: the images of a shard do not end on a page of memory; those of ``tinyres pack`` do by default.
    """
    return torch.from_numpy(split.private_images())


class Loader(tinyres.Loader):
    """`tinyres.Loader` with tensors for arrays. All that is said there holds here.

    >>> loader = tinyres.torch.Loader(train, 512, dtype="float32", device="cuda", flip=True, shift=4)
    >>> for images, labels in loader:  # float32 [512, 3, 64, 64], int64 [512], on the GPU
    ...     ...

    Images are always ``[n, 3, H, W]``.

    Parameters, where they differ from `tinyres.Loader`:
        memory_format: ``torch.contiguous_format``, or ``torch.channels_last``, which convolutions prefer.
        device: where the tensors of a batch are to be; None for the CPU's memory. To a CUDA device they are uploaded from
            pinned memory without waiting, so the upload runs while the CPU prepares what comes next.
        pin_memory: gather into pinned memory, for code that uploads by itself. If ``device`` is a GPU, that is so in any
            case. Without CUDA, memory is not pinned.
        rank, world_size: None for those of ``torch.distributed`` if it is initialised, else for one process.
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
        dtype: Literal["uint8", "float32"] | torch.dtype = "uint8",
        memory_format: torch.memory_format = torch.contiguous_format,
        normalize: Normalize = "imagenet",
        flip: bool = False,
        shift: int = 0,
        fields: Sequence[Field] = ("image", "label"),
        rank: int | None = None,
        world_size: int | None = None,
        threads: int | None = None,
        device: torch.device | str | int | None = None,
        pin_memory: bool = False,
    ) -> None:
        if memory_format not in (torch.contiguous_format, torch.channels_last):
            raise ValueError(
                f"memory_format is {memory_format}, expected torch.contiguous_format or torch.channels_last"
            )
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if together else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if together else 1
        self.device = None if device is None else torch.device(device)
        on_gpu = self.device is not None and self.device.type == "cuda"
        self.pin_memory = (bool(pin_memory) or on_gpu) and torch.cuda.is_available()
        self.memory_format = memory_format
        self._setup(
            split,
            batch_size,
            seed=seed,
            epoch=epoch,
            shuffle=shuffle,
            drop_last=drop_last,
            dtype=str(dtype).removeprefix("torch."),
            layout="NHWC" if memory_format == torch.channels_last else "NCHW",
            normalize=normalize,
            flip=flip,
            shift=shift,
            fields=fields,
            rank=rank,
            world_size=world_size,
            threads=threads,
            alloc=_pinned if self.pin_memory else None,
        )

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return map(self._tensors, super().__iter__())

    def _tensors(self, batch: tuple[NDArray[Any], ...]) -> tuple[torch.Tensor, ...]:
        tensors = []
        for field, array in zip(self.fields, batch):
            if field == "image":
                one = _whole(array) if self.pin_memory else torch.from_numpy(array)
                if self.memory_format == torch.channels_last:
                    one = one.permute(0, 3, 1, 2)
            else:
                one = torch.from_numpy(array)
                if self.pin_memory:
                    one = one.pin_memory()
            tensors.append(one if self.device is None else one.to(self.device, non_blocking=self.pin_memory))
        return tuple(tensors)


def _pinned(size: int) -> NDArray[np.uint8]:
    """Pinned memory for one batch. torch's allocator takes it back when the tensor has died and uploads of it have ended,
    so a batch never changes while it is being uploaded."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


def _whole(array: NDArray[Any]) -> torch.Tensor:
    """The tensor that an array from `_pinned` lies at the start of, with the array's type and shape."""
    owner: Any = array
    while not isinstance(owner, torch.Tensor):
        owner = owner.base
    return owner[: array.nbytes].view(torch.from_numpy(array[:0]).dtype).view(array.shape)


class _Samples(Sequence[tuple[Any, Any]]):
    """The samples of a batch, made when they are asked for. `collate` takes the batch as it is."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.batch = (images, labels)

    def __len__(self) -> int:
        return len(self.batch[0])

    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[Any, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> _Samples: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        images, labels = self.batch
        if isinstance(index, slice):
            return _Samples(images[index], labels[index])
        return images[index], int(labels[index])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        images, labels = self.batch
        return zip(images, labels.tolist())


def collate(samples: Sequence[tuple[Any, Any]]) -> Any:
    """A batch of samples of a `Dataset`, for ``DataLoader(dataset, collate_fn=tinyres.torch.collate)``.

    Batches that no transform takes apart are not copied again. Targets with boxes stay a list, one of each image, since
    images differ in how many they have. Everything else is as ``torch.utils.data.default_collate`` does it.
    """
    if isinstance(samples, _Samples):
        return samples.batch
    if samples and isinstance(samples[0], tuple) and isinstance(samples[0][1], dict):
        images, targets = zip(*samples)
        return torch.utils.data.default_collate(list(images)), list(targets)
    return torch.utils.data.default_collate(list(samples))


class Dataset(torch.utils.data.Dataset[tuple[Any, Any]]):
    """A split as a map-style data set of (image, label), with what torchvision's ``ImageFolder`` has.

    >>> data = ImageFolder("tiny-imagenet-200/train", transform)
    >>> data = tinyres.torch.Dataset("shards", "train", transform, image="pil")  # the line to change

    A sample is a uint8 tensor ``[3, H, W]`` and a label, an ``int``, -1 for images without one.
    ``DataLoader`` fetches a batch at a time by ``__getitems__``; with ``collate_fn=tinyres.torch.collate`` a batch
    without transforms is not copied again. Workers may be started by fork, forkserver or spawn.

    Parameters:
        root: directory of a set, or one split of it from `tinyres.open`.
        split: "train", "val" or "test".
        transform: called with each image.
        target_transform: called with each target.
        transforms: called with (image, target); not together with the other two.
        image: "tensor", or "pil" for a ``PIL.Image`` as ``ImageFolder`` gives it: for transforms such as
            ``ToTensor``, which do not take tensors.
        boxes: True for targets as torchvision's detection models and its transforms v2 take them: a dictionary of
            "boxes", ``tv_tensors.BoundingBoxes`` float32 ``[k, 4]``, edges (x0, y0, x1, y1) in pixels, and "labels",
            int64 ``[k]``. k is 1, or 0 for an image without a box. Images are then ``tv_tensors.Image``.
        verify: as for `tinyres.open`.

    Attributes:
        classes: ids of the classes, in the order of the labels: names of their directories in most sources.
        class_to_idx: label of each id.
        targets: label of each image, a list.
        samples: (name in the source, label) of each image, a list; also called ``imgs``.
        split: the split that is read.
    """

    def __init__(
        self,
        root: _Path | _native.Dataset,
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        image: Literal["tensor", "pil"] = "tensor",
        boxes: bool = False,
        verify: Literal["off", "lazy", "full"] = "lazy",
    ) -> None:
        if image not in ("tensor", "pil"):
            raise ValueError(f'image is {image!r}, expected "tensor" or "pil"')
        if transforms is not None and (transform is not None or target_transform is not None):
            raise ValueError("transforms goes without transform and target_transform")
        self.split = root if isinstance(root, _native.Dataset) else tinyres.open(root, split, verify=verify)
        self.root = self.split.path
        self.transform = transform
        self.target_transform = target_transform
        self.transforms = transforms
        self.image = image
        self.boxes = bool(boxes)

    @property
    def classes(self) -> list[str]:
        return self.split.classes

    @property
    def class_to_idx(self) -> dict[str, int]:
        return self.split.class_to_idx

    @property
    def targets(self) -> list[int]:
        return self.split.targets

    @cached_property
    def samples(self) -> list[tuple[str, int]]:
        return list(zip(self.split.names, self.targets))

    @property
    def imgs(self) -> list[tuple[str, int]]:
        return self.samples

    def tensor(self) -> torch.Tensor:
        """All images as one tensor, without a copy: see `tinyres.torch.tensor`."""
        return tensor(self.split)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, Any]:
        pixels, label = self.split[index]
        return self._sample(index, pixels, label)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[tuple[Any, Any]]:
        """Samples of several images, whose pixels are read at once."""
        wanted = np.asarray(indices, np.int64)
        plain = self.image == "tensor" and not self.boxes
        if plain and self.transform is None and self.target_transform is None and self.transforms is None:
            images = _room((len(wanted), *self.split.shape))
            self.split.gather(wanted, out=images.numpy())
            return _Samples(images, torch.from_numpy(self.split.labels[wanted]))
        pixels, labels = self.split.gather(wanted), self.split.labels[wanted]
        return [self._sample(*sample) for sample in zip(wanted.tolist(), pixels, labels.tolist())]

    def _sample(self, index: SupportsIndex, pixels: NDArray[np.uint8], label: int) -> tuple[Any, Any]:
        image: Any
        target: Any = label
        if self.image == "pil":
            from PIL import Image

            image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        else:
            image = torch.from_numpy(pixels)
        if self.boxes:
            from torchvision import tv_tensors

            if self.image == "tensor":
                image = tv_tensors.Image(image)
            x0, y0, x1, y1 = self.split.boxes[index].tolist()
            edges = [] if x0 < 0 else [[x0, y0, x1 + 1, y1 + 1]]
            target = {
                "boxes": tv_tensors.BoundingBoxes(  # pyright: ignore[reportCallIssue]
                    torch.tensor(edges, dtype=torch.float32).reshape(-1, 4),
                    format=tv_tensors.BoundingBoxFormat.XYXY,
                    canvas_size=self.split.shape[1:],
                ),
                "labels": torch.full((len(edges),), label),
            }
        try:
            if self.transforms is not None:
                return self.transforms(image, target)
            if self.transform is not None:
                image = self.transform(image)
        except TypeError as error:
            if self.image == "tensor":
                error.add_note(
                    'The image is a uint8 tensor [3, H, W]. For a transform of PIL images, pass image="pil".'
                )
            raise
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def __repr__(self) -> str:
        lines = [f"Dataset {type(self).__name__}", f"    Number of datapoints: {len(self)}"]
        lines += [f"    Root location: {self.root}", f"    Split: {self.split.split}"]
        for name in ("transform", "target_transform", "transforms"):
            if (value := getattr(self, name)) is not None:
                lines.append(f"    {name}: " + repr(value).replace("\n", "\n        "))
        return "\n".join(lines)


def _room(shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor for a batch. In a worker it lies in shared memory, as those of `default_collate` do: the main process takes
    it from there without a copy."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))  # type: ignore[no-untyped-call]
    return torch.tensor([], dtype=torch.uint8).set_(storage).view(shape)
