// Work on libtorch's own threads. at::parallel_for cannot be used: it is a template, so it is sequential when
// compiled without OpenMP, and with OpenMP it would start threads in addition to libtorch's.

#include <ATen/TensorIterator.h>
#include <ATen/ops/arange.h>

#include "parallel.h"

// Iterates over a tensor of the numbers with a TensorIterator, whose loop is compiled into libtorch.
void tinyres::in_parallel(int64_t parts, const std::function<void(int64_t)> &work) {
  at::Tensor numbers = at::arange(parts);
  const auto loop = [&](char **data, const int64_t *strides, int64_t count, int64_t rows) {
    for (int64_t row = 0; row < rows; row++)
      for (int64_t i = 0; i < count; i++)
        work(*reinterpret_cast<const int64_t *>(data[0] + row * strides[1] + i * strides[0]));
  };
  at::TensorIterator::nullary_op(numbers).for_each(loop, /*grain_size=*/1);
}
