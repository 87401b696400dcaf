"""Files of torch.save for torch/tests/init.rs.

    pth_golden.py [OUT]        OUT defaults to torch/golden, beside this script's tools/

resnet18.pth    the state dict of torchvision's resnet18 (1000 classes), to keep it small with tensor k,
                counted from 0 in its own order, all of one value, (k + 1) / 128, in a storage of one
                element that the tensor expands; num_batches_tracked is k
tensors.pth     {"epoch": 3, "args": Namespace, "state_dict": tensors of every kind and form}:
                arange(6) / 4 as float32, float64, float16, bfloat16 and int64; a transposed and an
                offset view of one storage [2, 3]; a parameter; one that was saved on a GPU; each
                under its own name
legacy.pth      one tensor, in the format before PyTorch 1.6
module.pth      a whole module

The next files have a ResNet18 whose tensor k is as in resnet18.pth, in one storage that all tensors share:

checkpoint.pth  a checkpoint of training: "epoch", "optimizer" with its state, and as "model_state_dict" a compiled
                network inside DataParallel, next to buffers of a metric
two.pth         {"state_dict", "state_dict_ema"}: two networks
namings.pth     under the name of each: the names of pytorch-cifar ("shortcut", stem 3x3), pytorch-cifar100
                ("residual", stem 3x3), nn.Sequential(*children()) ("children", without the classifier), transformers
                ("stages")
dropout.pth     bfloat16, the classifier in a Sequential (fc.1) of 3 classes
whole.pth       a pickled DataParallel(resnet18), in the format before PyTorch 1.6
resnet34.pth    the state dict of torchvision's resnet34

architectures.txt
                for each of several other networks of torchvision a line with its name, then one with name and
                shape of each matrix and kernel
"""

import argparse
import re
import sys
from collections import OrderedDict
from pathlib import Path

import torch
import torchvision

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "torch/golden")

state = torchvision.models.resnet18().state_dict()
for k, (name, tensor) in enumerate(state.items()):
    if tensor.is_floating_point():
        state[name] = torch.tensor([(k + 1) / 128]).expand(tensor.shape)
    else:
        state[name] = torch.tensor(k)
torch.save(state, OUT / "resnet18.pth")

values = torch.arange(6) / 4
matrix = values.reshape(2, 3)
kinds = {
    "float": values,
    "double": values.double(),
    "half": values.half(),
    "bfloat16": values.bfloat16(),
    "long": torch.arange(6),
    "transposed": matrix.t(),
    "offset": matrix[1],
    "parameter": torch.nn.Parameter(values),
}
gpu = values.clone()
kinds["cuda"] = gpu
# Without a GPU: writes what torch.save writes for a tensor on one.
of_gpu = gpu.untyped_storage().data_ptr()
torch.serialization.register_package(
    0, lambda storage: "cuda:0" if storage.data_ptr() == of_gpu else None, lambda storage, location: None
)
torch.save({"epoch": 3, "args": argparse.Namespace(lr=0.1), "state_dict": kinds}, OUT / "tensors.pth")
torch.save({"weight": values}, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(1, 1), OUT / "module.pth")


shared = torch.arange(1, 129) / 128
counts = torch.arange(128)


def small(network, kind=torch.float32):
    """Makes tensor k of `network` a view of element k of one storage."""
    numbers = shared.to(kind)
    of_names = {}
    for k, (name, tensor) in enumerate(network.state_dict().items()):
        source = numbers if tensor.is_floating_point() else counts
        of_names[name] = source[k % 128].expand(tensor.shape)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = False
        parameter.data = of_names[name]
    for module_name, module in network.named_modules():
        for name in module._buffers:
            module._buffers[name] = of_names[f"{module_name}.{name}".lstrip(".")]
    return network


class Experiment(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.DataParallel(torch.compile(small(torchvision.models.resnet18())))
        self.register_buffer("val_confusion", torch.zeros(3, 3, dtype=torch.int64))
        self.register_buffer("ema_updates", torch.tensor(7))


experiment = Experiment()
optimizer = torch.optim.SGD(torchvision.models.resnet18().parameters(), lr=0.1, momentum=0.9)
saved = optimizer.state_dict()
saved["state"] = {k: {"momentum_buffer": shared[:1].expand(64, 3, 7, 7)} for k in range(3)}
torch.save(
    {"epoch": 7, "loss": 1.5, "optimizer": saved, "model_state_dict": experiment.state_dict(), "best": None},
    OUT / "checkpoint.pth",
)
one, ema = small(torchvision.models.resnet18()), small(torchvision.models.resnet18())
torch.save({"state_dict": one.state_dict(), "state_dict_ema": ema.state_dict()}, OUT / "two.pth")


def renamed(state, rule, stem=None):
    """`state` with the names that `rule` gives; names that it makes None are left out."""
    out = OrderedDict()
    for name, tensor in state.items():
        if stem and name == "conv1.weight":
            tensor = tensor[:, :, :stem, :stem]
        if rule(name) is not None:
            out[rule(name)] = tensor
    return out


def residual(name):
    if name.startswith("fc."):
        return name
    name = re.sub(r"^conv1\.", "conv1.0.", name)
    name = re.sub(r"^bn1\.", "conv1.1.", name)
    name = re.sub(r"^layer(\d)", lambda found: f"conv{int(found[1]) + 1}_x", name)
    for own, other in ("conv1", "0"), ("bn1", "1"), ("conv2", "3"), ("bn2", "4"):
        name = re.sub(rf"_x\.(\d)\.{own}\.", rf"_x.\1.residual_function.{other}.", name)
    return name.replace("downsample", "shortcut")


def children(name):
    first, rest = name.split(".", 1)
    number = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}.get(first)
    return None if number is None else f"{number}.{rest}"


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


plain = one.state_dict()
shortcut = renamed(plain, lambda name: name.replace("downsample", "shortcut").replace("fc.", "linear."), stem=3)
sequential = torch.nn.Sequential(*list(one.children())[:-1])
assert list(sequential.state_dict()) == list(renamed(plain, children))
torch.save(
    {
        "shortcut": OrderedDict((f"module.{name}", tensor) for name, tensor in shortcut.items()),
        "residual": renamed(plain, residual, stem=3),
        "children": sequential.state_dict(),
        "stages": renamed(plain, stages),
    },
    OUT / "namings.pth",
)

dropout = torchvision.models.resnet18()
dropout.fc = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(512, 3))
torch.save(small(dropout.bfloat16(), torch.bfloat16).state_dict(), OUT / "dropout.pth")
torch.save(torch.nn.DataParallel(one), OUT / "whole.pth", _use_new_zipfile_serialization=False)
torch.save(small(torchvision.models.resnet34()).state_dict(), OUT / "resnet34.pth")

with open(OUT / "architectures.txt", "w") as out:
    for name in (
        "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d", "vgg11", "vgg16_bn",
        "alexnet", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "vit_b_16", "swin_t",
        "convnext_tiny", "squeezenet1_0", "shufflenet_v2_x1_0", "regnet_y_400mf", "googlenet",
    ):
        with torch.device("cpu" if name.startswith("regnet") else "meta"):
            network = torchvision.models.get_model(name)
        out.write(f"= {name}\n")
        for key, tensor in network.state_dict().items():
            if tensor.dim() in (2, 4):
                out.write(f"{key} {' '.join(map(str, tensor.shape))}\n")
