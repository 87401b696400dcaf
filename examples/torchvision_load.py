"""Loads a network that tinyres trained into torchvision's ResNet18, and classifies images with it:

    tinyres export runs/default-1 --to safetensors
    python3 examples/torchvision_load.py runs/default-1/final.torchvision.safetensors cat.jpg

Needs torch, torchvision and safetensors.
"""

import json
import sys

import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from torchvision import transforms


def load(path):
    """The network, in evaluation mode, and what the file says of it: classes, side, mean, std, stem."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["model"])
        state = {name: file.get_tensor(name) for name in file.keys()}
    model = torchvision.models.resnet18(num_classes=len(about["classes"]))
    if about["stem"] != "imagenet":
        # For small images: a 3x3 convolution in place of the 7x7 one, and no pooling.
        stride = {"half": 2, "small": 1}[about["stem"]]
        model.conv1 = torch.nn.Conv2d(3, 64, 3, stride, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.load_state_dict(state, strict=True)
    return model.eval(), about


if __name__ == "__main__":
    model, about = load(sys.argv[1])
    prepare = transforms.Compose(
        [
            transforms.Resize(about["side"]),
            transforms.CenterCrop(about["side"]),
            transforms.ToTensor(),
            transforms.Normalize(about["mean"], about["std"]),
        ]
    )
    for path in sys.argv[2:]:
        pixels = prepare(Image.open(path).convert("RGB"))
        with torch.no_grad():
            probabilities = model(pixels[None]).softmax(1)[0]
        best = int(probabilities.argmax())
        print(path, about["classes"][best]["name"], f"{probabilities[best]:.1%}")
