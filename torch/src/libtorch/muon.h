#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace tinyres {

// Moves `mean` towards `grad`, and returns what Muon makes orthogonal, by the taps of the kernels that move:
//
//   mean  = momentum * mean + (1 - momentum) * grad
//   ahead = momentum * mean + (1 - momentum) * grad          (Nesterov)
//
// `grad` and `mean` are f32 [K, C, R, S] on the CPU, channels last. Returns `ahead` [K, taps * C], f32 or bfloat16 as
// `type` says, and the indices [taps] of its taps among the R * S. The others are 0 in `grad` and `mean`: on small maps
// they only ever met padding. Columns of zeros would change neither the Gram matrix nor the other columns.
std::pair<at::Tensor, at::Tensor> muon_ahead(const at::Tensor &grad, const at::Tensor &mean, double momentum,
                                             at::ScalarType type);

// weight = sqrt(K) * weight / |weight| + step, where `step` [K, taps * C], f32 or bfloat16, is that of the taps `taps`.
// `weight` is f32 [K, C, R, S] on the CPU, channels last.
void muon_apply(const at::Tensor &weight, const at::Tensor &step, const at::Tensor &taps);

} // namespace tinyres
