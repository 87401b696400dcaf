// Matrix products in f32 that fit into the caches: the inner loops of winograd_passes.h. They reach 9 tenths of what
// the processor multiplies, where a call into a library would cost as much as the product.

#pragma once

#include <cstdint>

#include "vectors.h"

namespace tinyres {

// Columns that `multiply` computes.
constexpr int64_t PANEL = 64;
// Rows that `multiply` computes at a time: their number is a multiple of it.
constexpr int64_t ROWS = 4;

// `multiply` for ROWS rows and N * W columns, with the sums in registers.
template <int W, int N, bool Add>
ALWAYS_INLINE void multiply_block(const float *__restrict a, int64_t row, int64_t step, const float *__restrict b,
                                  int64_t b_row, int64_t depth, float *__restrict c, int64_t c_row) {
  Float<W> sums[ROWS][N];
  for (int64_t r = 0; r < ROWS; r++)
    for (int64_t n = 0; n < N; n++)
      if constexpr (Add)
        load<W>(c + r * c_row + n * W, sums[r][n]);
      else
        sums[r][n] = Float<W>{};
  for (; depth > 0; depth--, a += step, b += b_row) {
    Float<W> right[N];
    for (int64_t n = 0; n < N; n++)
      load<W>(b + n * W, right[n]);
    for (int64_t r = 0; r < ROWS; r++)
      for (int64_t n = 0; n < N; n++)
        sums[r][n] += a[r * row] * right[n];
  }
  for (int64_t r = 0; r < ROWS; r++)
    for (int64_t n = 0; n < N; n++)
      store<W>(c + r * c_row + n * W, sums[r][n]);
}

// C = A B, or C += A B with Add, for PANEL columns. A [rows, depth] has the element (r, d) at a[r * row + d * step], so
// it can be transposed. The rows of B [depth, PANEL] are `b_row` apart, and those of C [rows, PANEL] `c_row`. N
// vectors of W floats are computed at a time.
template <int W, int N, bool Add>
ALWAYS_INLINE void multiply(const float *a, int64_t row, int64_t step, const float *b, int64_t b_row, int64_t rows,
                            int64_t depth, float *c, int64_t c_row) {
  for (int64_t n = 0; n < PANEL; n += N * W)
    for (int64_t r = 0; r < rows; r += ROWS)
      multiply_block<W, N, Add>(a + r * row, row, step, b + n, b_row, depth, c + r * c_row + n, c_row);
}

} // namespace tinyres
