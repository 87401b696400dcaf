"""`tinyres.load_run` on a run whose weights torchvision made and the `safetensors` package wrote."""

import json
import subprocess
import sys

import numpy as np
import pytest

import tinyres

CLASSES = [{"id": "n02124075", "name": "Egyptian cat"}, {"id": "n04067472", "name": "reel"}]
CONFIG = """\
# What decided this run. `--config` takes this file.

recipe = "default"
epochs = 30
stem = "{stem}"
normalize = "imagenet"
freeze = []
boxes = false

[run]
version = "0.1.0"
data = "/data/shards"
"""
METRICS = """\
{"epoch":0,"images":256,"images_per_second":280.5,"kind":"step","loss":5.363,"lr":0.188,"step":1}
{"epoch":0,"images_per_second":167.9,"kind":"epoch","lr":0.047,"step":4,"top1":0.009,"train_loss":5.355,"val_loss":5.298}
"""


def network(stem):
    """torchvision's network, with the first layers that tinyres has for small images."""
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(1)
    model = torchvision.models.resnet18(num_classes=2)
    if stem != "imagenet":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1 if stem == "small" else 2, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.train()
    model(torch.randn(4, 3, 64, 64))  # running statistics of its own
    return model.eval()


def write_run(path, stem="imagenet", extra=(), which=("final",)):
    save_file = pytest.importorskip("safetensors.torch").save_file
    model = network(stem)
    path.mkdir()
    (path / "config.toml").write_text(CONFIG.format(stem=stem))
    (path / "metrics.jsonl").write_text(METRICS)
    about = {"tinyres": json.dumps({"format": 1, "about": {"version": "0.1.0", "classes": CLASSES}})}
    for name in which:
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()} | dict(extra)
        save_file(tensors, path / f"{name}.safetensors", about)
    return model


@pytest.mark.parametrize("stem", ["imagenet", "half", "small"])
def test_model_is_the_network_that_was_saved(tmp_path, stem):
    torch = pytest.importorskip("torch")
    saved = write_run(tmp_path / "run", stem, extra={"box_head.mean": torch.zeros(4)})
    run = tinyres.load_run(tmp_path / "run")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(run.model()(images), saved(images))
    assert "box_head.mean" in run.weights()
    assert run.classes == CLASSES


def test_weights_are_those_that_safetensors_reads(tmp_path):
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    write_run(tmp_path / "run", which=("best", "last"))
    run = tinyres.load_run(tmp_path / "run")
    expected = load_file(tmp_path / "run/best.safetensors")
    weights = run.weights("best")
    assert weights.keys() == expected.keys()
    assert all(
        torch.equal(weights[name], value) and weights[name].dtype == value.dtype for name, value in expected.items()
    )
    arrays = run.arrays("best")
    assert arrays["conv1.weight"].dtype == np.float32 and arrays["conv1.weight"].shape == (64, 3, 7, 7)
    with pytest.raises(FileNotFoundError, match="ask for 'best' or 'last'"):
        run.weights()
    with pytest.raises(ValueError, match="'newest', expected"):
        run.weights("newest")


def test_last_checkpoint_gives_the_averages_and_no_optimizer(tmp_path):
    torch = pytest.importorskip("torch")
    extra = {"ema/fc.bias": torch.tensor([3.0, 4.0]), "optimizer/momentum/fc.bias": torch.zeros(2)}
    write_run(tmp_path / "run", extra=extra, which=("last",))
    weights = tinyres.load_run(tmp_path / "run").weights("last")
    assert weights["fc.bias"].tolist() == [3.0, 4.0]
    assert not any("/" in name for name in weights) and len(weights) == 122


def test_config_and_metrics_are_those_of_the_files(tmp_path):
    write_run(tmp_path / "run")
    run = tinyres.load_run(str(tmp_path / "run"))
    assert run.config["epochs"] == 30 and run.config["run"]["data"] == "/data/shards"
    assert [row["kind"] for row in run.metrics] == ["step", "epoch"] and run.metrics[1]["top1"] == 0.009
    with open(tmp_path / "run/metrics.jsonl", "a") as file:
        file.write('{"epoch":1,"kind":"st')  # a line that is being written
    assert len(run.metrics) == 2
    pandas = pytest.importorskip("pandas")
    frame = run.metrics.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame["loss"][0] == 5.363 and len(frame) == 2


def test_damage_is_named(tmp_path):
    with pytest.raises(tinyres.NotFoundError, match="config.toml"):
        tinyres.load_run(tmp_path)
    write_run(tmp_path / "run")
    file = tmp_path / "run/final.safetensors"
    whole = file.read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(tinyres.FormatError, match="final.safetensors"):
            tinyres.load_run(tmp_path / "run").weights()
    (tmp_path / "run/metrics.jsonl").write_text(METRICS + "nonsense\n")
    with pytest.raises(tinyres.FormatError, match="metrics.jsonl:3"):
        tinyres.load_run(tmp_path / "run").metrics


def test_weights_are_arrays_where_torch_is_missing(tmp_path):
    write_run(tmp_path / "run")
    code = """
import sys
sys.modules["torch"] = None
import tinyres
weights = tinyres.load_run(sys.argv[1]).weights()
print(type(weights["fc.weight"]).__module__, weights["fc.weight"].shape)
"""
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True)
    assert ran.stdout == "numpy (2, 512)\n", ran.stderr


def test_margins_are_those_of_each_epoch_in_order(tmp_path):
    write_run(tmp_path / "run")
    run = tinyres.load_run(tmp_path / "run")
    with pytest.raises(tinyres.NotFoundError, match="--track"):
        _ = run.margins
    (tmp_path / "run/margins").mkdir()
    expected = np.array([[1, -2, np.nan], [3, np.nan, 0.5]], np.float16)
    for epoch in (1, 0):
        np.save(tmp_path / f"run/margins/epoch-{epoch + 1:04}.npy", expected[epoch])
    np.testing.assert_array_equal(run.margins, expected)
