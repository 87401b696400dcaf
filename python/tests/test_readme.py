"""The Python in the documents, run as a reader would paste it."""

import re
from pathlib import Path

import numpy as np
import pytest
import spec

ROOT = Path(__file__).parents[2]


def scripts(document):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a set of a few images, called as the documents call it."""
    spec.write_set(tmp_path / "shards", {"train": spec.tinted(264), "val": spec.tinted(8)})
    monkeypatch.chdir(tmp_path)


def test_script_of_the_readme_trains(here, capsys):
    pytest.importorskip("torchvision")
    (script,) = scripts("README.md")
    assert "range(10)" in script
    exec(compile(script.replace("range(10)", "range(2)"), "README.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 0: top-1 ")
    assert second.startswith("epoch 1: top-1 ")


def test_script_of_the_package_page_runs(here):
    (script,) = scripts("python/README.md")
    names = {}
    exec(compile(script, "python/README.md", "exec"), names)
    assert names["image"].shape == (3, 32, 32)
    assert names["images"].dtype == np.float32


def test_versions_in_the_readme_are_those_of_the_tests():
    (listed,) = re.findall(r"is tested on Python 3\.11 with (.*?)\.\n", (ROOT / "README.md").read_text(), re.S)
    pins = (ROOT / "python/requirements/test.txt").read_text() + (ROOT / "tools/test").read_text()
    found = re.findall(r"([A-Za-z-]+) (?:[\d.]+ and )?(\d+\.\d+)", listed)
    assert len(found) == 12
    for name, version in found:
        assert re.search(rf"\b{name}=={re.escape(version)}\.\d", pins, re.I), name
