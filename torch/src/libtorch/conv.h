#pragma once

#include <ATen/core/Tensor.h>

namespace tinyres {

// Convolution without bias on the CPU: `x` [N, C, H, W] with `weight` [K, C, R, S], both channels last, gives
// [N, K, OH, OW]. Computes in the dtype of `x`, f32 or bfloat16; the weight and its gradient are f32.
at::Tensor conv2d(const at::Tensor &x, const at::Tensor &weight, int64_t stride, int64_t pad);

} // namespace tinyres
