"""Runs exported networks in the programs that they are for: `consumers.py DIR...`.

Each DIR has the exported files, `images.bin` (u8 [5, 3, S, S]) and `logits.bin` (f32 [5, classes]), what
tinyres makes of them. Prints, for each DIR and consumer, the largest difference of a logit, or `absent`
where the consumer is not installed.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np

sys.dont_write_bytecode = True
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


class Case:
    def __init__(self, home):
        about = json.loads((home / "about.json").read_text())
        self.home, self.side, self.classes, self.stem = home, about["side"], about["classes"], about["stem"]
        self.images = np.fromfile(home / "images.bin", np.uint8).reshape(-1, 3, self.side, self.side)
        self.logits = np.fromfile(home / "logits.bin", "<f4").reshape(-1, self.classes)

    def resnet18(self):
        """torchvision's network, with the stem that `tinyres export` says to give it."""
        import torch, torchvision

        model = torchvision.models.resnet18(num_classes=self.classes)
        exec(self.stem, {"torch": torch, "model": model})
        return model.eval()


def onnxruntime(case):
    import onnxruntime

    session = onnxruntime.InferenceSession(case.home / "model.onnx", providers=["CPUExecutionProvider"])
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    shape = ["batch", 3, case.side, case.side]
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", shape)
    assert (wanted.name, wanted.type, wanted.shape) == ("logits", "tensor(float)", ["batch", case.classes])
    said = json.loads(session.get_modelmeta().custom_metadata_map["model"])
    assert len(said["classes"]) == case.classes and said["side"] == case.side
    # The batch is dynamic.
    parts = [session.run(None, {"images": case.images[at]})[0] for at in (slice(0, 2), slice(2, 5))]
    return [np.concatenate(parts)]


def torchscript(case):
    import torch

    model, pixels = torch.jit.load(case.home / "model.pt"), torch.from_numpy(case.images)
    assert model.side == case.side and len(model.class_names) == len(model.class_ids) == case.classes
    assert not model.training
    # Twice as bytes, since the executor compiles what it has seen once.
    inputs = [pixels, pixels, pixels / 255, pixels.double() / 255]
    with torch.no_grad():
        outputs = [model(images) for images in inputs] + [torch.jit.freeze(model)(pixels)]
    # Its state is that of torchvision's network, and it trains.
    case.resnet18().load_state_dict(model.state_dict(), strict=True)
    before = model.bn1.running_mean.clone()
    model.train()(pixels).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(before, model.bn1.running_mean)
    return outputs


def torchvision(case):
    """By examples/torchvision_load.py, and with the stem that `tinyres export` says to give the network."""
    import torch
    from safetensors.torch import load_file

    path = case.home / "model.safetensors"
    sys.path.insert(0, str(EXAMPLES))
    from torchvision_load import load

    model, said = load(path)
    told = case.resnet18()
    told.load_state_dict(load_file(path), strict=True)
    mean, std = (torch.tensor(said[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        outputs = [network((torch.from_numpy(case.images) / 255 - mean) / std) for network in (model, told)]
    classify(case, path, said["classes"][int(outputs[0][0].argmax())]["name"])
    return outputs


def classify(case, weights, expected):
    """The example as a user runs it gives the class of the first image."""
    from PIL import Image

    image = case.home / "image.png"
    Image.fromarray(case.images[0].transpose(1, 2, 0)).save(image)
    command = [sys.executable, EXAMPLES / "torchvision_load.py", weights, image]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"{image} {expected} " in printed, (printed, expected)


for consumer, needs in [
    (onnxruntime, ["onnxruntime"]),
    (torchscript, ["torch", "torchvision"]),
    (torchvision, ["torch", "torchvision", "safetensors"]),
]:
    for home in map(pathlib.Path, sys.argv[1:]):
        off = "absent"
        if all(map(importlib.util.find_spec, needs)):
            case = Case(home)
            off = max(np.abs(np.asarray(output) - case.logits).max() for output in consumer(case))
        print(consumer.__name__, home.name, off)
