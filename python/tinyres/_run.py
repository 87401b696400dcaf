"""The directory of a training run, read without libtorch: configuration, metrics, weights and classes."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyres.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    import torch

# Values of NumPy for the types of safetensors that tinyres writes.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
# The state of the optimizer has names with this in them; tensors of a network never do. The moving average of a tensor,
# which is evaluated in its place, has the prefix.
SEPARATOR = "/"
AVERAGE = "ema/"
# The head that predicts boxes, which torchvision's network lacks.
BOX_HEAD = "box_head."


class Metrics(list[dict[str, Any]]):
    """Rows of ``metrics.jsonl``, in order: a dictionary for each step and each epoch, by its ``kind``."""

    def to_pandas(self) -> pandas.DataFrame:
        """A ``pandas.DataFrame`` with a row for each."""
        import pandas

        return pandas.DataFrame(self)


class Run:
    """A training run. Everything is read when it is first asked for.

    >>> run = tinyres.load_run("runs/default-1")
    >>> model = run.model()
    >>> run.metrics[-1]["top1"]
    """

    path: Path
    """Its directory."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Imported where they are used, this and tomllib: `import tinyres` would take twice as long.
        from pathlib import Path

        self.path = Path(path)
        if not (self.path / "config.toml").is_file():
            raise NotFoundError(
                f"{self.path}: no config.toml here, expected the directory of a run, as `tinyres train` writes it",
                path=self.path,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.path)!r})"

    @cached_property
    def config(self) -> dict[str, Any]:
        """What decided the run, from ``config.toml``; ``config["run"]`` says what it was trained on."""
        import tomllib

        with open(self.path / "config.toml", "rb") as file:
            return tomllib.load(file)

    @property
    def metrics(self) -> Metrics:
        """Its metrics so far. A line that is being written at this moment is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return Metrics()
        text = path.read_bytes()
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        rows = Metrics()
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise FormatError(f"{path}:{number}: {error}; remove the line", path=path) from None
        return rows

    @property
    def margins(self) -> np.ndarray:
        """The margin of each training image in each epoch so far, ``f16 [epochs, N]`` in the order of the split: its
        label's logit minus the largest other one. NaN for an image that an epoch left out or mixed with another one.

        Needs a run of ``tinyres train --track``. ``numpy.nanmean(run.margins, axis=0).argsort()`` begins with the images
        that are likeliest to be labelled wrongly (Pleiss et al. 2020, area under the margin).
        """
        files = sorted((self.path / "margins").glob("epoch-*.npy"))
        if not files:
            raise NotFoundError(
                f"{self.path}: no margins here, expected those of `tinyres train --track`", path=self.path / "margins"
            )
        return np.stack([np.load(file) for file in files])

    @cached_property
    def classes(self) -> list[dict[str, str]]:
        """``id`` and ``name`` of the class of each output, in order."""
        return self._about()["classes"]  # type: ignore[no-any-return]

    def weights(self, which: str = "final") -> dict[str, Any]:
        """The network as a state dict under torchvision's names: torch tensors where torch is installed, else NumPy
        arrays, ``f32`` but for ``num_batches_tracked``, ``i64 []``.

        which: "final", or "best" for the epoch with the highest top-1, or "last" for the last checkpoint. A run that is
            still going on has no "final".
        """
        arrays = self.arrays(which)
        try:
            import torch
        except ImportError:
            return dict(arrays)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def arrays(self, which: str = "final") -> dict[str, np.ndarray]:
        """The same as :meth:`weights`, as NumPy arrays."""
        header, data, path = self._file(which)
        arrays = {}
        for full, entry in header.items():
            name = full.removeprefix(AVERAGE)
            if SEPARATOR in name or full == "__metadata__" or (name == full and AVERAGE + name in header):
                continue
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data, np.uint8)[begin:end]
            try:
                arrays[name] = values.view(DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()
            except (KeyError, ValueError) as error:
                raise FormatError(f"{path}: tensor {full}: {error}; copy the file again", path=path) from None
        return arrays

    def model(self, which: str = "final") -> torch.nn.Module:
        """torchvision's ResNet18 with these weights, in evaluation mode. Takes ``f32 [B, 3, H, W]`` that are normalised as
        ``config["normalize"]`` says, and gives logits ``f32 [B, classes]``. A box head is left out.

        which: as for :meth:`weights`.
        """
        import torch
        from torchvision.models import resnet18

        state = {name: value for name, value in self.weights(which).items() if not name.startswith(BOX_HEAD)}
        model: torch.nn.Module = resnet18(num_classes=state["fc.weight"].shape[0])
        stem = self.config["stem"]
        if stem != "imagenet":
            # For small images: a 3x3 convolution in place of the 7x7 one, and no pooling.
            stride = {"half": 2, "small": 1}[stem]
            model.conv1 = torch.nn.Conv2d(3, 64, 3, stride, padding=1, bias=False)
            model.maxpool = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        model.load_state_dict(state)
        model.eval()
        return model

    def _about(self) -> dict[str, Any]:
        """What the newest file of weights says of the network."""
        which = next((name for name in ("final", "best", "last") if self._path(name).exists()), "final")
        header, _, path = self._file(which, header_only=True)
        try:
            about: dict[str, Any] = json.loads(header["__metadata__"]["tinyres"])["about"]
        except (KeyError, ValueError) as error:
            raise FormatError(f"{path}: does not say what network it is of: {error}", path=path) from None
        return about

    def _path(self, which: str) -> Path:
        if which not in ("final", "best", "last"):
            raise ValueError(f"weights {which!r}, expected 'final', 'best' or 'last'")
        return self.path / f"{which}.safetensors"

    def _file(self, which: str, header_only: bool = False) -> tuple[Mapping[str, Any], bytes, Path]:
        """Header and data of a file of tensors."""
        path = self._path(which)
        if not path.exists():
            there = [name for name in ("final", "best", "last") if self._path(name).exists()]
            raise NotFoundError(
                f"{path}: not there; "
                + (f"ask for {' or '.join(map(repr, there))}" if there else "the run has no weights yet"),
                path=path,
            )
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = file.read(8)
            length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else size
            if length > size - 8:
                raise FormatError(f"{path}: not a whole file of tensors; copy it again", path=path)
            try:
                header = json.loads(file.read(length))
                ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise FormatError(f"{path}: not a file of tensors: {error}", path=path) from None
            if max(ends, default=0) != size - 8 - length:
                raise FormatError(
                    f"{path}: {size} bytes, expected {max(ends, default=0) + 8 + length}; copy it again", path=path
                )
            return header, b"" if header_only else file.read(), path


def load_run(path: str | os.PathLike[str]) -> Run:
    """Opens the directory of a training run.

    Raises ``NotFoundError`` if it is none.
    """
    return Run(path)
