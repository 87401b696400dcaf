"""Weights in the ways in which people save them, and torchvision's logits, for torch/tests/logits.rs.

    logits_golden.py [OUT]      OUT defaults to torch/golden, beside this script's tools/

logits.pth      a ResNet18 of 5 classes under each of several keys: with prefixes, in other precisions, with other names
                of the layers, with the classifier in a Sequential
logits-old.pth  the same in the format before PyTorch 1.6, as PyTorch 0.3 wrote it: _rebuild_tensor, parameters that are
                calls of their class, no counts of batches
logits.txt      lines of `FILE KEY STEM`, then 2 x 5 logits of the network for the two images

Image b has ((7x + 13y + 31c + 17b + bx) % 17 - 8) / 8 in channel c, row y, column x. It has 64 pixels for torchvision's
stem, and 32 for the stem `small`, which is that of pytorch-cifar. Filters are windows, which overlap, on
the same few numbers, so that the files stay small; everything else is of its own.
"""

import pickle
import re
import sys
from collections import OrderedDict
from pathlib import Path

import torch
import torchvision

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "torch/golden")
CLASSES = 5
NUMBERS = 12_007
random = torch.Generator().manual_seed(7)
numbers = torch.randn(NUMBERS, generator=random)


def images(side):
    b, c, y, x = torch.meshgrid(*(torch.arange(n) for n in (2, 3, side, side)), indexing="ij")
    return ((7 * x + 13 * y + 31 * c + 17 * b + b * x) % 17 - 8).float() / 8


def window(shape, k, of):
    """A window on `of` that no other tensor has."""
    steps = (11, 7, 3, 1)[-len(shape):]
    reach = sum((size - 1) * step for size, step in zip(shape, steps))
    return of.as_strided(shape, steps, (97 * k) % (NUMBERS - reach))


def resnet18(small):
    net = torchvision.models.resnet18(num_classes=CLASSES)
    if small:
        net.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = torch.nn.Identity()
    return net.eval()


def network(small):
    net = resnet18(small)
    for k, module in enumerate(net.modules()):
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = window(module.weight.shape, k, numbers)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data = torch.rand(module.num_features, generator=random) / 2 + 0.5
            module.bias.data = torch.randn(module.num_features, generator=random) / 4
            module.momentum = None
    net.fc.weight.data = torch.randn(CLASSES, 512, generator=random) / 8
    net.fc.bias.data = torch.randn(CLASSES, generator=random)
    # Statistics of its own activations.
    net.train()
    with torch.no_grad():
        net(torch.randn(16, 3, 64, 64, generator=random))
    return net.eval()


def logits(net, side):
    with torch.no_grad():
        return net.double()(images(side).double()).flatten().tolist()


def renamed(state, rule):
    return OrderedDict((rule(name), tensor) for name, tensor in state.items())


def prefixed(state, prefix):
    return renamed(state, lambda name: prefix + name)


def shortcut(name):
    return name.replace("downsample", "shortcut").replace("fc.", "linear.")


def residual(name):
    name = re.sub(r"^conv1\.", "conv1.0.", name)
    name = re.sub(r"^bn1\.", "conv1.1.", name)
    name = re.sub(r"^layer(\d)", lambda found: f"conv{int(found[1]) + 1}_x", name)
    for own, other in ("conv1", "0"), ("bn1", "1"), ("conv2", "3"), ("bn2", "4"):
        name = re.sub(rf"_x\.(\d)\.{own}\.", rf"_x.\1.residual_function.{other}.", name)
    return name.replace("downsample", "shortcut")


def stages(name):
    if name.startswith("fc."):
        return name.replace("fc.", "classifier.1.")
    name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
    name = re.sub(r"^conv1", "embedder.embedder.convolution", name)
    name = re.sub(r"^bn1", "embedder.embedder.normalization", name)
    for own, other in ("conv1", "0.convolution"), ("bn1", "0.normalization"), ("conv2", "1.convolution"), ("bn2", "1.normalization"):
        name = re.sub(rf"^(layer\d\.\d)\.{own}\.", rf"\1.layer.{other}.", name)
    name = re.sub(r"^layer(\d)\.(\d)", lambda found: f"encoder.stages.{int(found[1]) - 1}.layers.{found[2]}", name)
    return f"resnet.{name}"


def in_precision(state, dtype):
    """The state in `dtype`; windows stay windows, on one copy of the numbers."""
    copy = numbers.to(dtype)
    out = OrderedDict()
    for name, tensor in state.items():
        if tensor.dim() == 4:
            tensor = copy.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        elif tensor.is_floating_point():
            tensor = tensor.to(dtype)
        out[name] = tensor
    return out


lines = []


def note(file, key, stem, net, state=None):
    """Adds the logits of `net`, with `state` if there is one, which torchvision loads strictly."""
    # Not `net` itself, whose filters share their numbers.
    copy = resnet18(stem == "small")
    copy.load_state_dict(state or net.state_dict())
    lines.append(f"{file} {key} {stem}")
    lines.append(" ".join(f"{logit:.9g}" for logit in logits(copy, 32 if stem == "small" else 64)))


whole, cifar = network(False), network(True)
plain, small = whole.state_dict(), cifar.state_dict()
sequential = prefixed(OrderedDict((name, plain[name]) for name in plain if not name.startswith("fc.")), "")
sequential.update({"fc.1.weight": plain["fc.weight"], "fc.1.bias": plain["fc.bias"]})
half, bfloat = in_precision(plain, torch.float16), in_precision(plain, torch.bfloat16)
ways = {
    "state_dict": (plain, "imagenet", None),
    "model_state_dict": (prefixed(plain, "module."), "imagenet", None),
    "net": (prefixed(small, "module."), "small", None),
    "compiled": (prefixed(plain, "module._orig_mod."), "imagenet", None),
    "ema": (prefixed(plain, "_orig_mod.module.backbone."), "imagenet", None),
    "dropout": (sequential, "imagenet", None),
    "half": (half, "imagenet", half),
    "bfloat16": (bfloat, "imagenet", bfloat),
    "shortcut": (renamed(small, shortcut), "small", None),
    "residual": (renamed(small, residual), "small", None),
    "stages": (renamed(plain, stages), "imagenet", None),
}
for key, (state, stem, other) in ways.items():
    own = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in other.items()} if other else None
    note("logits.pth", key, stem, cifar if stem == "small" else whole, own)
torch.save({"epoch": 3, **{key: state for key, (state, _, _) in ways.items()}}, OUT / "logits.pth")


class Old(pickle.Pickler):
    """Pickles tensors and parameters as PyTorch 0.3 did."""

    def reducer_override(self, value):
        if isinstance(value, torch.nn.Parameter):
            return torch.nn.Parameter, (value.data, value.requires_grad)
        if isinstance(value, torch.Tensor):
            storage = torch.storage.TypedStorage(wrap_storage=value.untyped_storage(), dtype=value.dtype, _internal=True)
            return torch._utils._rebuild_tensor, (storage, value.storage_offset(), tuple(value.size()), value.stride())
        return NotImplemented


class module:
    Pickler, dumps, dump = Old, staticmethod(pickle.dumps), staticmethod(pickle.dump)


old = OrderedDict(
    (name, torch.nn.Parameter(tensor) if name.startswith("layer1.") and "running" not in name else tensor)
    for name, tensor in plain.items() if not name.endswith("num_batches_tracked")
)
torch.save({"net": old}, OUT / "logits-old.pth", pickle_module=module, _use_new_zipfile_serialization=False)
note("logits-old.pth", "net", "imagenet", whole)
(OUT / "logits.txt").write_text("\n".join(lines) + "\n")
