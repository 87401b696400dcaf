"""Five steps of torch.optim's SGD and Adam, and of Muon, as the numbers in torch/tests/optim.rs and golden/muon.rs.

    optim_golden.py                 prints them

A weight of shape [2, 3] and a bias of shape [3] begin at w = (i - 2) / 4 and b = i / 8 - 0.125 for
flat index i. Their gradients at step s, from 0, are g = p * (s + 1) / 2 - 0.25. Weight decay is 0.1
for the weight and 0 for the bias, and step s has the rate 0.1 / (s + 1).

Muon is written down here, in f64, as github.com/KellerJordan/cifar10-airbench has it, for a filter of shape
[4, 3, 1, 2] that begins at f = (i - 10) / 12 and has gradients by the same formula. Its momentum is 0.6, its
rate 0.6 of the others'.
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


def muon_steps():
    f = ((torch.arange(24, dtype=torch.float64) - 10) / 12).reshape(4, 3, 1, 2)
    momentum = torch.zeros_like(f)
    for s in range(5):
        grad = f * (s + 1) / 2 - 0.25
        momentum = 0.6 * momentum + grad
        x = (grad + 0.6 * momentum).reshape(4, -1)
        x = x / (x.norm() + 1e-7)
        for _ in range(3):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        f = f * (4**0.5 / f.norm()) - 0.6 * 0.1 / (s + 1) * x.reshape(f.shape)
    return f.flatten().tolist()


print(f"golden/muon.rs: {[float(f'{x:.7g}') for x in muon_steps()]}")
