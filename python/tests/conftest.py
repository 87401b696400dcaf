import os
from collections.abc import Iterator

import pytest
import spec

import tinyres

# As in CI: a test fails if the library that it needs is missing, instead of being skipped.
STRICT = bool(os.environ.get("TINYRES_STRICT"))


def fail_if_skipped_for_a_library(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Makes a failure of a report that pytest.importorskip ended."""
    if STRICT and report.skipped and isinstance(report.longrepr, tuple) and "could not import" in report.longrepr[2]:
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]} (TINYRES_STRICT)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    fail_if_skipped_for_a_library(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    fail_if_skipped_for_a_library(report)
    return report


@pytest.fixture(scope="session")
def split():
    """Arrays of a split: (images, labels, boxes, names)."""
    return spec.drawn(300)


@pytest.fixture(scope="session")
def shards(tmp_path_factory, split):
    """A set of these images, in three shards whose images end on pages."""
    directory = tmp_path_factory.mktemp("set") / "shards"
    return spec.write_set(directory, {"train": split, "val": spec.drawn(20, seed=1)}, shard_images=128)


@pytest.fixture
def ds(shards):
    return tinyres.open(shards, "train")
