"""Five steps of torch.optim's SGD and Adam, as the numbers in torch/tests/optim.rs.

    optim_golden.py                 prints them

A weight of shape [2, 3] and a bias of shape [3] begin at w = (i - 2) / 4 and b = i / 8 - 0.125 for
flat index i. Their gradients at step s, from 0, are g = p * (s + 1) / 2 - 0.25. Weight decay is 0.1
for the weight and 0 for the bias, and step s has the rate 0.1 / (s + 1).
"""

import torch


def steps(make):
    w = ((torch.arange(6) - 2) / 4).reshape(2, 3).requires_grad_()
    b = (torch.arange(3) / 8 - 0.125).requires_grad_()
    optimizer = make([{"params": [w], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}])
    for s in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (s + 1)
        for p in (w, b):
            p.grad = p.detach() * (s + 1) / 2 - 0.25
        optimizer.step()
    return [*w.flatten().tolist(), *b.tolist()]


for name, make in {
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "NESTEROV": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "ADAM": lambda groups: torch.optim.Adam(groups),
}.items():
    print(f"const {name}: [f32; 9] = {[float(f'{x:.7g}') for x in steps(make)]};")
