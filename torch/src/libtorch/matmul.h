#pragma once

#include <ATen/core/Tensor.h>

namespace tinyres {

// The product of two matrices on the CPU, [m, k] and [k, n], both f32 or both bfloat16, as is the result. Sums are f32.
// `symmetric` says that the product is symmetric: then only one half is computed.
at::Tensor matmul(const at::Tensor &a, const at::Tensor &b, bool symmetric);

} // namespace tinyres
