"""The program `tinyres-torch`, which `tinyres` becomes for train, eval, predict, export and doctor.

It was linked against one release of libtorch, and takes it from the torch package of this Python: for the CPU or for
CUDA, as that package is.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Becomes the program, with the arguments of this process. Does not import torch, which takes seconds."""
    environment = dict(os.environ)
    paths = [str(libtorch()), *filter(None, [environment.get("LD_LIBRARY_PATH")])]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    program = str(Path(__file__).with_name("tinyres-torch"))
    os.execve(program, [program, *sys.argv[1:]], environment)


def libtorch() -> Path:
    """Directory of libtorch in the installed package torch. Ends this process if it is not the release needed."""
    needed = next(requirement for requirement in requires(__name__) or () if requirement.startswith("torch=="))
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"error: {sys.executable} has no package torch: {remedy(needed)}")
    found = version("torch")
    if not found.startswith(needed.removeprefix("torch==").removesuffix("*")):
        sys.exit(f"error: tinyres-torch needs {needed}, and {sys.executable} has {found}: {remedy(needed)}")
    return Path(spec.submodule_search_locations[0], "lib")


def remedy(needed: str) -> str:
    """The command that installs what is needed."""
    return f"{sys.executable} -m pip install '{needed}'"
