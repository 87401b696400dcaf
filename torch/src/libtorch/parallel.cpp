// Work on libtorch's own threads. Its parallel_for is a template, which is sequential where it is compiled
// without OpenMP, and with it would bring more threads beside those of libtorch.

#include <ATen/TensorIterator.h>
#include <ATen/ops/arange.h>

#include "parallel.h"

// By a walk of libtorch's through the numbers.
void tinyres::in_parallel(int64_t parts, const std::function<void(int64_t)> &work) {
  at::Tensor numbers = at::arange(parts);
  const auto walk = [&](char **data, const int64_t *strides, int64_t count, int64_t rows) {
    for (int64_t row = 0; row < rows; row++)
      for (int64_t i = 0; i < count; i++)
        work(*reinterpret_cast<const int64_t *>(data[0] + row * strides[1] + i * strides[0]));
  };
  at::TensorIterator::nullary_op(numbers).for_each(walk, /*grain_size=*/1);
}
