"""Exceptions of tinyres.

Where Python has an exception for a fault, that one is raised, or a class that derives from it: a missing set is a
``FileNotFoundError``, a wrong argument a ``ValueError``, a missing image an ``IndexError``.
"""

import errno
import os
import re

__all__ = [
    "ChecksumError",
    "Error",
    "ExistsError",
    "FormatError",
    "InUseError",
    "NotFoundError",
    "ReadError",
    "SourceError",
]


class Error(Exception):
    """Base class of the exceptions that tinyres defines."""


class FormatError(Error, ValueError):
    """A shard or ``dataset.json`` is damaged, or of another version or set.

    path: the file, or None.
    shard: its name if it is a shard, for example ``"train-00003.bin"``, or None.
    part: the part of the shard that is wrong, for example ``"labels"``, or None.
    block: number of the block of 16 images that is wrong, counted in the shard, or None.
    images: numbers of the images of that block in the split, or None.
    """

    path: str | None
    shard: str | None
    part: str | None
    block: int | None
    images: range | None

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        part: str | None = None,
        block: int | None = None,
        images: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.path = None if path is None else os.fspath(path)
        name = None if path is None else os.path.basename(path)
        self.shard = name if name is not None and name.endswith((".bin", ".bin.zst")) else None
        self.part = part
        self.block = block
        self.images = None if images is None else range(*images)


class ChecksumError(FormatError):
    """Bytes of a shard changed after they were written."""


class SourceError(Error, ValueError):
    """A source cannot be packed.

    problems: a message for each thing that is wrong with it.
    """

    problems: list[str]

    def __init__(self, message: str, *, problems: list[str] | None = None) -> None:
        super().__init__(message)
        self.problems = [] if problems is None else problems


class NotFoundError(Error, FileNotFoundError):
    """There is no such set, or no such file of a set."""

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.errno = errno.ENOENT
        self.filename = path

    def __str__(self) -> str:
        return str(self.args[0])


class ExistsError(Error, FileExistsError):
    """Another set is in the directory."""

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.errno = errno.EEXIST
        self.filename = path

    def __str__(self) -> str:
        return str(self.args[0])


class InUseError(Error, OSError):
    """Another process is at work in the directory."""

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.errno = errno.EBUSY
        self.filename = path

    def __str__(self) -> str:
        return str(self.args[0])


class ReadError(Error, OSError):
    """A shard can no longer be read: the file was cut while in use, or the disk failed.

    What was read from it may be zeros, so from then on all that reads this data set raises: its other shards, too, since
    the set is no longer the one that was opened. Open it again, by `tinyres.open`, when the file is whole again.
    """

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.errno = errno.EIO
        self.filename = path

    def __str__(self) -> str:
        return str(self.args[0])


# Flags that messages of the packer name, and the arguments of `pack` that do the same.
_FLAGS = (
    (r"--skip-bad=([\d.]+)%", lambda found: f"skip_bad={float(found[1]) / 100:g}"),
    (r"--skip-bad\b", "skip_bad=True"),
    (
        r"--(val-fraction|size|threads|shard-images)[ =]([\d.]+)\b",
        lambda found: f"{found[1].replace('-', '_')}={found[2]}",
    ),
    (r"--(val-fraction|size|threads|shard-images)\b", lambda found: f"{found[1].replace('-', '_')}="),
    (r"--(force|squash)\b", r"\1=True"),
)


def _in_python(message: str) -> str:
    """A message of the packer, with arguments of Python in place of flags."""
    for flag, argument in _FLAGS:
        message = re.sub(flag, argument, message)
    return message
