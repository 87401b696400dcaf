"""Images per second of PyTorch's own training step, to set beside `tinyres train`.

    bench_pytorch.py [--recipe default|seed] [--batch N] [--size PIXELS] [--threads N] [--steps N] [--compile]

torchvision's ResNet18 in eager mode (or compiled) and channels_last, with the recipe's loss and optimizer. Images
are one batch of noise that lies in memory as the network takes it: no loading, no augmentation and no
normalisation, so PyTorch is spared what tinyres's figure includes. Beside it:

    tinyres train SHARDS --recipe RECIPE --batch N --sizes PIXELS --threads N --max-steps N --json | head -n 1

Prints the rate over all steps but the first two, and of the median step.
"""

import argparse
import time

import torch
import torchvision

parser = argparse.ArgumentParser()
parser.add_argument("--recipe", choices=["default", "seed"], default="default")
parser.add_argument("--batch", type=int)
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
parser.add_argument("--steps", type=int, default=20)
args = parser.parse_args()
seed = args.recipe == "seed"
batch = args.batch or (200 if seed else 128)

torch.set_num_threads(args.threads)
net = torchvision.models.resnet18(num_classes=200).to(memory_format=torch.channels_last)
if seed:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
else:
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": plain}],
        lr=0.01,
        momentum=0.9,
        nesterov=True,
    )
forward = torch.compile(net) if args.compile else net
criterion = torch.nn.CrossEntropyLoss(label_smoothing=0 if seed else 0.1)
images = torch.randn(batch, 3, args.size, args.size).to(memory_format=torch.channels_last)
labels = torch.randint(200, (batch,))

times = []
for _ in range(args.steps + 2):
    begin = time.perf_counter()
    loss = criterion(forward(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    times.append(time.perf_counter() - begin)
times = sorted(times[2:])
print(
    f"PyTorch {torch.__version__}, {args.recipe}, {args.size} pixels, batch {batch}, {args.threads} threads{', compiled' if args.compile else ''}: "
    f"{batch * len(times) / sum(times):.1f} img/s, median step {batch / times[len(times) // 2]:.1f} img/s"
)
