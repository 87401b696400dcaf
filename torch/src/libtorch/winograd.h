#pragma once

#include <ATen/core/Tensor.h>

namespace tinyres::winograd {

// Products that the method needs for each pair of an input and an output channel of one image of `height` x `width`
// pixels.
int64_t products(int64_t height, int64_t width);

// True if the functions below take `channels`.
bool takes_channels(int64_t channels);

// Convolutions with 3x3 kernels, stride 1 and padding 1 on the CPU. `x` [N, C, H, W], `y` [N, K, H, W] and their
// gradients are f32 or bfloat16, both the same; the weight [K, C, 3, 3] and its gradient are f32. All are channels last.
// Sums are f32.
at::Tensor forward(const at::Tensor &x, const at::Tensor &weight);
at::Tensor input_grad(const at::Tensor &dy, const at::Tensor &weight);
at::Tensor weight_grad(const at::Tensor &dy, const at::Tensor &x);

} // namespace tinyres::winograd
