"""Sets and loaders in the libraries that their users have: each is used as its own documentation says."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import spec

import tinyres

PYTHON = Path(__file__).parents[1]
# The libraries warn of their own affairs.
pytestmark = pytest.mark.filterwarnings("default")


def test_torch_data_loader_takes_a_split_as_it_is(ds, split):
    torch = pytest.importorskip("torch")
    images, labels, _, _ = split
    loader = torch.utils.data.DataLoader(ds, batch_size=64, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    assert np.array_equal(torch.cat([batch[0] for batch in batches]), images)
    assert np.array_equal(torch.cat([batch[1] for batch in batches]), labels)


def test_stateful_data_loader_resumes_in_the_middle_of_an_epoch(ds, split):
    pytest.importorskip("torch")
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def loader():
        return stateful.StatefulDataLoader(ds, batch_size=50, num_workers=0)

    interrupted = loader()
    batches = iter(interrupted)
    for _ in range(2):
        next(batches)
    resumed = loader()
    resumed.load_state_dict(interrupted.state_dict())
    rest = list(resumed)
    assert np.array_equal(np.concatenate([images for images, _ in rest]), split[0][100:])


def test_loader_has_the_protocol_of_stateful_objects(ds):
    pytest.importorskip("torch")
    from torch.distributed.checkpoint.stateful import Stateful

    assert isinstance(tinyres.Loader(ds, 32), Stateful)


def test_grain_shuffles_and_batches_a_split(ds, split):
    grain = pytest.importorskip("grain")
    batches = list(grain.MapDataset.source(ds).seed(1).shuffle().batch(100).to_iter_dataset())
    assert [len(labels) for _, labels in batches] == [100, 100, 100]
    sums = sorted(image.sum(dtype=int) for images, _ in batches for image in images)
    assert sums == sorted(image.sum(dtype=int) for image in split[0])


def test_grain_data_loader_has_workers(ds, split):
    grain = pytest.importorskip("grain")
    sampler = grain.samplers.IndexSampler(len(ds), grain.sharding.NoSharding(), shuffle=False, num_epochs=1)
    loader = grain.DataLoader(data_source=ds, sampler=sampler, operations=[grain.transforms.Batch(100)], worker_count=0)
    assert np.array_equal(np.concatenate([images for images, _ in loader]), split[0])


def test_jax_takes_images_and_batches(ds, split):
    jax = pytest.importorskip("jax")
    images = jax.numpy.asarray(ds.images)
    assert images.dtype == jax.numpy.uint8
    assert np.array_equal(images, split[0])
    for batch, _ in tinyres.Loader(ds, 64, dtype="float32"):
        assert np.array_equal(jax.numpy.from_dlpack(batch), batch)


def test_pandas_table_of_a_split(ds, split):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"name": list(ds.names), "label": ds.labels})
    table["class"] = pandas.Categorical.from_codes(ds.labels, ds.classes)
    table[["x0", "y0", "x1", "y1"]] = ds.boxes
    counts = table.groupby("class", observed=False).size()
    assert counts.to_dict() == {name: int((split[1] == label).sum()) for name, label in ds.class_to_idx.items()}
    assert table["class"].isna().sum() == (split[1] == -1).sum()
    # A mask of a table chooses images.
    chosen, labels = ds[(table["label"] == 1).to_numpy()]
    assert np.array_equal(chosen, split[0][split[1] == 1])
    assert (labels == 1).all()


def test_polars_table_of_a_split(ds, split):
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({"name": list(ds.names), "label": ds.labels}).with_row_index("image")
    rows = table.filter(polars.col("label") == 2)["image"]
    images, _ = ds[rows.to_numpy()]
    assert np.array_equal(images, split[0][split[1] == 2])


def test_eight_threads_open_read_and_load_at_once(shards, split):
    images, labels, _, names = split
    failures = []
    start = threading.Barrier(8)

    def work(number):
        try:
            start.wait()
            ds = tinyres.open(shards, "train")
            for at in range(number, len(ds), 8):
                image, label = ds[at]
                assert np.array_equal(image, images[at]) and label == labels[at]
                assert ds.names[at] == names[at]
            assert np.array_equal(ds.images, images)
            seen = [index for _, index in tinyres.Loader(ds, 30, seed=number, fields=("image", "index"))]
            assert sorted(np.concatenate(seen)) == list(range(len(ds)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def run(*command):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(list(map(str, command)), text=True, capture_output=True, env=environment)


def test_example_for_jax_learns(tinted):
    pytest.importorskip("jax")
    result = run(sys.executable, PYTHON / "examples/jax_train.py", tinted, "--batch", 32, "--epochs", 3)
    assert result.returncode == 0, result.stderr
    assert float(re.findall(r"top-1 ([\d.]+)%", result.stdout)[-1]) > 60, result.stdout


def test_example_for_lightning_trains_and_resumes(tinted, tmp_path):
    pytest.importorskip("torchvision")
    pytest.importorskip("pytorch_lightning")
    torch = pytest.importorskip("torch")
    command = [sys.executable, PYTHON / "examples/lightning_train.py", tinted, "--batch", 48, "--output", tmp_path]
    last = tmp_path / "last.ckpt"
    for epochs, more in ((1, []), (2, ["--resume", last])):
        result = run(*command, "--epochs", epochs, *more)
        assert result.returncode == 0, result.stderr
        assert re.search(r"top-1 [\d.]+%", result.stdout), result.stdout
        assert torch.load(last, weights_only=True)["global_step"] == 4 * epochs


@pytest.fixture(scope="session")
def tinted(tmp_path_factory):
    """A set of three classes that differ in their colour."""
    out = tmp_path_factory.mktemp("tinted") / "shards"
    spec.write_set(out, {"train": spec.tinted(192, size=16), "val": spec.tinted(48, size=16, seed=1)})
    return out
