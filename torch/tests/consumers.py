"""Runs exported networks in the programs that they are for: `consumers.py CONSUMER DIR`.

DIR has the exported files, `images.bin` (u8 [5, 3, S, S]) and `logits.bin` (f32 [5, classes]), what
tinyres computes of them. Prints the largest difference of a logit. Exits with 77 where the consumer is
not installed.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np

consumer, home = sys.argv[1], pathlib.Path(sys.argv[2])
needs = {"onnxruntime": ["onnxruntime"]}.get(consumer, ["torch", "torchvision", "safetensors"])
if not all(importlib.util.find_spec(module) for module in needs):
    sys.exit(77)

about = json.loads((home / "about.json").read_text())
side, classes = about["side"], about["classes"]
images = np.fromfile(home / "images.bin", np.uint8).reshape(-1, 3, side, side)
logits = np.fromfile(home / "logits.bin", "<f4").reshape(len(images), classes)


def resnet18():
    """torchvision's network, with the stem that `tinyres export` says to give it."""
    import torch, torchvision

    model = torchvision.models.resnet18(num_classes=classes)
    exec(about["stem"], {"torch": torch, "model": model})
    return model.eval()


def onnxruntime():
    import onnxruntime

    session = onnxruntime.InferenceSession(home / "model.onnx", providers=["CPUExecutionProvider"])
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 3, side, side])
    assert (wanted.name, wanted.type, wanted.shape) == ("logits", "tensor(float)", ["batch", classes])
    model = json.loads(session.get_modelmeta().custom_metadata_map["model"])
    assert len(model["classes"]) == classes and model["side"] == side
    # The batch is dynamic.
    return [session.run(None, {"images": images[at]})[0] for at in (slice(0, 2), slice(2, 5))]


def torchvision():
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    model, path = resnet18(), home / "model.safetensors"
    model.load_state_dict(load_file(path), strict=True)
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()["model"])
    mean, std = (torch.tensor(said[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return [model((torch.from_numpy(images) / 255 - mean) / std)]


def torchscript():
    import torch

    model, pixels = torch.jit.load(home / "model.pt"), torch.from_numpy(images)
    assert "torchvision" not in sys.modules
    assert model.side == side and len(model.class_names) == len(model.class_ids) == classes
    assert not model.training
    outputs = [model(pixels), model(pixels / 255), model(pixels.double() / 255)]
    # Once more, as the profiling executor has compiled it, and without what only training needs.
    outputs += [model(pixels), torch.jit.freeze(model)(pixels)]
    # Its state is that of torchvision's network, and it trains.
    resnet18().load_state_dict(model.state_dict(), strict=True)
    before = model.bn1.running_mean.clone()
    model.train()(pixels).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(before, model.bn1.running_mean)
    return [output.detach() for output in outputs]


outputs = {"onnxruntime": onnxruntime, "torchvision": torchvision, "torchscript": torchscript}[consumer]()
if consumer == "onnxruntime":
    outputs = [np.concatenate(outputs)]
print(max(float(np.abs(np.asarray(output.detach() if hasattr(output, "detach") else output) - logits).max()) for output in outputs))
