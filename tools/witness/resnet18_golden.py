"""One training step of torchvision's ResNet18, as golden files for torch/tests.

    resnet18_golden.py [OUT]        OUT defaults to torch/golden, beside this script's tools/

To keep 11 million weights out of git, weights and inputs follow from a formula. In 64-bit integers
that wrap, and then in exact f64 arithmetic:

    unit(k, i)   = (splitmix64(k * 2^32 + i) >> 11) * 2^-52 - 1        in [-1, 1)
    splitmix64(x): z = x + 0x9E3779B97F4A7C15
                   z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
                   z = (z ^ (z >> 27)) * 0x94D049BB133111EB
                   z ^ (z >> 31)

Entry k of the state dict, counted from 0 in its own order, has at flat (row-major) index i
    weights of rank 2 or 4      sqrt(6 / fan_in) * unit(k, i), fan_in = length / first dimension
    other weights (BN)          1 + unit(k, i) / 4
    biases                      unit(k, i) / 4
    running statistics          as a new BN has them: mean 0, variance 1
and the batch is
    images [2, 3, 64, 64]       unit(4085, i)
    labels [2]                  splitmix64(1001 * 2^32 + i) mod 200
The gradient jumps where the input of a ReLU crosses zero, and near zero rounding decides on which side it is.
With key 4085 and a batch of 2, the input nearest to zero is 1.7e-5 standard deviations of its layer away, far
beyond f32's error. With key 1000 and a batch of 8 it was 2.8e-6 away, and kernels other than oneDNN's came out
on the other side. All values are rounded to f32; the step is then computed in f64, and its results are rounded to f32.

resnet18.safetensors holds
    logits [2, 200], loss []    in training mode; mean cross-entropy
    grad.NAME                   the gradient of each parameter: whole if it has rank 1, otherwise the
                                64 elements at the flat indices splitmix64((2000 + k) * 2^32 + j) mod length
    grad.norm [62]              each gradient's L2 norm, in state dict order
    grad.projection [62]        each gradient's scalar product with unit(3000 + k, .)
    NAME.running_mean, _var     the statistics after this one forward pass
    eval.logits [2, 200]        of the same images afterwards, in evaluation mode: the first weights,
                                the new statistics

resnet18-keys.txt holds the state dict's names, types and shapes, a line each, in order.

The 2017 torchvision that recipe `seed` follows ends in AvgPool2d(2) on this 2x2 map, which is the
same global average; it has no num_batches_tracked, and differs in nothing else.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

CLASSES, BATCH, SAMPLES = 200, 2, 64


def splitmix64(key, indices):
    z = (np.uint64(key) << np.uint64(32)) + np.asarray(indices, dtype=np.uint64)
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit(key, *shape):
    bits = splitmix64(key, np.arange(np.prod(shape)))
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-52 - 1).reshape(shape)


def initial(k, name, default):
    if default.dim() > 1:
        value = (6 / default[0].numel()) ** 0.5 * unit(k, *default.shape)
    elif name.endswith(".weight"):
        value = 1 + unit(k, *default.shape) / 4
    elif name.endswith(".bias"):
        value = unit(k, *default.shape) / 4
    else:
        return default
    return value.float()


def training_step(dtype):
    """The golden values, and the order of the state dict's names."""
    net = torchvision.models.resnet18(num_classes=CLASSES)
    state = net.state_dict()
    keys = {name: k for k, name in enumerate(state)}
    net.load_state_dict({name: initial(k, name, state[name]) for name, k in keys.items()})
    net.to(dtype)

    images = unit(4085, BATCH, 3, 64, 64).float().to(dtype)
    labels = torch.from_numpy((splitmix64(1001, np.arange(BATCH)) % CLASSES).astype(np.int64))

    logits = net(images)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    golden = {"logits": logits, "loss": loss}

    norms, projections = [], []
    for name, parameter in net.named_parameters():
        grad, k = parameter.grad.flatten().double(), keys[name]
        norms.append(grad.norm())
        projections.append(grad @ unit(3000 + k, grad.numel()))
        if parameter.dim() > 1:
            grad = grad[(splitmix64(2000 + k, np.arange(SAMPLES)) % grad.numel()).astype(np.int64)]
        golden[f"grad.{name}"] = grad
    golden["grad.norm"] = torch.stack(norms)
    golden["grad.projection"] = torch.stack(projections)

    golden |= {name: b for name, b in net.named_buffers() if b.is_floating_point()}
    golden["eval.logits"] = net.eval()(images)
    return {name: t.detach().float().contiguous() for name, t in golden.items()}, state


def relative(got, want):
    return ((got - want).norm() / want.norm()).item()


def main(out=Path(__file__).parents[2] / "torch/golden"):
    golden, state = training_step(torch.float64)
    save_file(golden, Path(out) / "resnet18.safetensors")
    lines = [
        " ".join([name, str(t.dtype).removeprefix("torch."), *map(str, t.shape)])
        for name, t in state.items()
    ]
    (Path(out) / "resnet18-keys.txt").write_text("\n".join(lines) + "\n")

    # The error of f32 itself: a tolerance must lie above it.
    single, _ = training_step(torch.float32)
    worst = max(golden, key=lambda name: relative(single[name], golden[name]))
    print(f"torchvision in f32 is off by at most {relative(single[worst], golden[worst]):.1e}, in {worst}")


main(*sys.argv[1:])
