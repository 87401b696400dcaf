#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace tinyres {

// `x` [N, C, H, W], channels last, on the CPU, normalised by the statistics of the batch, which go into
// `mean` and `variance` with the share `momentum`; plus `shortcut`, where there is one; and through a
// ReLU, where `relu`, as always behind a shortcut. Of the dtype of `x`, f32 or bfloat16; all that is per
// channel is f32.
at::Tensor batch_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias,
                      const at::Tensor &mean, const at::Tensor &variance,
                      const std::optional<at::Tensor> &shortcut, bool relu, double momentum, double eps);

} // namespace tinyres
