"""The plain training script that the batches of every peer go through: eager PyTorch on the CPU, one line for each
thing that it does. What a loader costs is seen by the smallest network, what it matters by ResNet18."""

import time

import torch
import torchvision

CLASSES = 200


def small():
    """A network that computes next to nothing: a convolution of 8x8 patches, and a linear layer."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 8, stride=8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, CLASSES),
    )


# "none" only takes the batches.
NETS = {
    "none": None,
    "small": small,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=CLASSES),
}


def train(epochs, name, seconds, warm=2.0):
    """Trains on `epochs`, and returns the images a second over so many seconds, the first `warm` left out, and the
    fraction of that time that the script waited for batches."""
    torch.manual_seed(0)
    net = NETS[name] and NETS[name]().to(memory_format=torch.channels_last)
    if net:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images, waited, counted_from = 0, 0.0, None
    for epoch in epochs:
        asked = time.perf_counter()
        for pixels, labels in epoch:
            there = time.perf_counter()
            if net:
                loss = torch.nn.functional.cross_entropy(net(pixels), labels.reshape(-1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            now = time.perf_counter()
            counted_from = counted_from or now + warm
            if asked < counted_from:
                start = now
            else:
                images += len(pixels)
                waited += there - asked
                if now > counted_from + seconds:
                    return {"images": images / (now - start), "waiting": waited / (now - start)}
            asked = now
