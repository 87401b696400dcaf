"""Measures the images per second of PyTorch's own training step, to compare with `tinyres train`.

    bench_pytorch.py [--recipe default|seed] [--stem imagenet|small] [--batch N] [--size PIXELS] [--threads N]
                     [--steps N] [--compile] [--cuda]

torchvision's ResNet18 in eager mode (or compiled) and channels_last, with the recipe's loss and SGD or Adam. The images
are one batch of noise that lies in memory as floats: no loading, no augmentation and no normalisation, all of which
tinyres's figure includes. On a GPU it computes as tinyres does: bfloat16 by autocast, cuDNN's fastest kernels, and no
loss is read before ten steps are queued. Compare it with:

    tinyres train SHARDS --recipe RECIPE --optimizer sgd --batch N --sizes PIXELS --threads N --max-steps N --json | head -n 1

Prints the rate over all steps except the first two (on a GPU, twenty), and that of the median step (on a GPU, of the
median group of ten steps).
"""

import argparse
import time

import torch
import torchvision

parser = argparse.ArgumentParser()
parser.add_argument("--recipe", choices=["default", "seed"], default="default")
parser.add_argument("--stem", choices=["imagenet", "small"], default="imagenet")
parser.add_argument("--batch", type=int)
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--cuda", action="store_true")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
parser.add_argument("--steps", type=int, default=20)
args = parser.parse_args()
seed = args.recipe == "seed"
batch = args.batch or (200 if seed else 128)

group = 10 if args.cuda else 1
device = "cuda" if args.cuda else "cpu"

torch.set_num_threads(args.threads)
torch.backends.cudnn.benchmark = True
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
net = torchvision.models.resnet18(num_classes=200)
if args.stem == "small":
    net.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    net.maxpool = torch.nn.Identity()
net = net.to(device, memory_format=torch.channels_last)
if seed:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=args.cuda)
else:
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": plain}],
        lr=0.01,
        momentum=0.9,
        nesterov=True,
        fused=args.cuda,
    )
forward = torch.compile(net) if args.compile else net
criterion = torch.nn.CrossEntropyLoss(label_smoothing=0 if seed else 0.1)
images = torch.randn(batch, 3, args.size, args.size, device=device).to(memory_format=torch.channels_last)
labels = torch.randint(200, (batch,), device=device)


def step():
    with torch.autocast("cuda", torch.bfloat16, enabled=args.cuda):
        logits = forward(images)
    loss = criterion(logits.float(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


times = []
for _ in range(max(args.steps // group, 1) + 2):
    begin = time.perf_counter()
    for _ in range(group):
        loss = step()
    loss.item()
    times.append((time.perf_counter() - begin) / group)
times = sorted(times[2:])
where = torch.cuda.get_device_name() if args.cuda else f"{args.threads} threads"
print(
    f"PyTorch {torch.__version__}, {args.recipe}, stem {args.stem}, {args.size} pixels, batch {batch}, {where}"
    f"{', compiled' if args.compile else ''}: "
    f"{batch * len(times) / sum(times):.1f} img/s, median step {batch / times[len(times) // 2]:.1f} img/s"
)
