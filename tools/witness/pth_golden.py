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
"""

import argparse
import sys
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
