#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace tinyres {

// Batch normalisation of `x` [N, C, H, W] in training on the CPU: relu(norm(x) + shortcut), channels last.
// `x`, `shortcut` and the result are all f32 or all bfloat16; the other tensors are f32 [C]. A shortcut
// requires `relu`. Updates `running_mean` and `running_var`, in which the batch has the weight `momentum`.
// norm.cpp has the equations.
at::Tensor batch_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias,
                      const at::Tensor &running_mean, const at::Tensor &running_var,
                      const std::optional<at::Tensor> &shortcut, bool relu, double momentum, double eps);

} // namespace tinyres
