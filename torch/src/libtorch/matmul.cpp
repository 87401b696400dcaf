// Matrix products by the products of products.h, and symmetric ones by the same for bfloat16 on processors that multiply
// it in vectors (avx512_bf16). Half of a symmetric product is left out. For the matrices of the optimizer they take 0.3 to
// 0.45 of the time of libtorch's in f32 on a processor of AMD, and symmetric ones 0.6 to 0.8 in bfloat16.
//
// A part of the work is PANEL columns of the result. Some rows of B at a time are copied to a panel that stays in the
// first cache. An element is summed in the order of its terms whatever the number of threads, so a product is the same
// to the bit.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "matmul.h"
#include "parallel.h"
#include "processor.h"
#include "products.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace {

using at::BFloat16;
using at::Tensor;
using tinyres::PANEL;
using tinyres::ROWS;

// Bytes of a panel.
constexpr int64_t PANEL_BYTES = 32 << 10;

template <class T> struct Matrix {
  const T *data;
  int64_t row, column; // strides

  explicit Matrix(const Tensor &t) : data(t.const_data_ptr<T>()), row(t.stride(0)), column(t.stride(1)) {}
};

// Products in f32, on any processor.
struct F32 {
  using Value = float;

  // Writes A B to `sums` [rows, PANEL], or adds it with Add. A's rows are `row` apart; `panel` holds `depth` rows of B.
  template <bool Add>
  static void multiply(const float *a, int64_t row, const float *panel, int64_t rows, int64_t depth, float *sums) {
    tinyres::with_vectors([&](auto registers) INLINED {
      tinyres::multiply<registers.W, registers.N, Add>(a, row, 1, panel, PANEL, rows, depth, sums, PANEL);
    });
  }
};

#if defined(__x86_64__) && defined(__GNUC__)

// Products of bfloat16 by instructions that add two of them to an f32 sum.
struct Bf16 {
  using Value = BFloat16;

  static bool is_supported() { return tinyres::vector_floats() == 16 && __builtin_cpu_supports("avx512bf16"); }

  template <bool Add>
  __attribute__((target("avx512f,avx512bf16"))) static void multiply(const BFloat16 *a, int64_t row,
                                                                     const BFloat16 *panel, int64_t rows,
                                                                     int64_t depth, float *sums) {
    constexpr int64_t N = PANEL / 16;
    for (; rows > 0; rows -= ROWS, a += ROWS * row, sums += ROWS * PANEL) {
      __m512 block[ROWS][N];
      for (int64_t r = 0; r < ROWS; r++)
        for (int64_t n = 0; n < N; n++)
          block[r][n] = Add ? _mm512_loadu_ps(sums + r * PANEL + n * 16) : _mm512_setzero_ps();
      for (int64_t k = 0; k < depth; k += 2) {
        __m512bh right[N];
        for (int64_t n = 0; n < N; n++)
          right[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + k * PANEL + n * 32));
        for (int64_t r = 0; r < ROWS; r++) {
          int32_t pair;
          __builtin_memcpy(&pair, a + r * row + k, sizeof(pair));
          const auto left = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
          for (int64_t n = 0; n < N; n++)
            block[r][n] = _mm512_dpbf16_ps(block[r][n], left, right[n]);
        }
      }
      for (int64_t r = 0; r < ROWS; r++)
        for (int64_t n = 0; n < N; n++)
          _mm512_storeu_ps(sums + r * PANEL + n * 16, block[r][n]);
    }
  }
};

#endif

// Copies the transpose of a W x W block. The rows of the block and of the copy are `row` and `to_row` floats apart.
template <int W, class T> ALWAYS_INLINE void copy_turned(const float *from, int64_t row, T *to, int64_t to_row) {
  tinyres::Float<W> block[W];
#pragma GCC unroll 16
  for (int64_t i = 0; i < W; i++)
    tinyres::load<W>(from + i * row, block[i]);
  tinyres::transpose<W>(block);
#pragma GCC unroll 16
  for (int64_t i = 0; i < W; i++)
    tinyres::store<W>(to + i * to_row, block[i]);
}

// Copies `rows` rows of B from `first` on, in the PANEL columns from `column` on. `rows` is a multiple of PANEL.
template <int W> ALWAYS_INLINE void copy_panel(const Matrix<float> &b, int64_t first, int64_t rows, int64_t column, float *panel) {
  const float *const from = b.data + first * b.row + column * b.column;
  if (b.column == 1) {
    for (int64_t r = 0; r < rows; r++)
      std::memcpy(panel + r * PANEL, from + r * b.row, PANEL * sizeof(float));
    return;
  }
  for (int64_t r = 0; r < rows; r += W)
    for (int64_t c = 0; c < PANEL; c += W)
      copy_turned<W>(from + r + c * b.column, b.column, panel + r * PANEL + c, PANEL);
}

// The same, with each two rows of a column next to each other.
template <int W> ALWAYS_INLINE void copy_panel(const Matrix<BFloat16> &b, int64_t first, int64_t rows, int64_t column, BFloat16 *panel) {
  using Bits = typename tinyres::Vector<W>::Bits;
  using Half = typename tinyres::Vector<W>::Half;
  const BFloat16 *const from = b.data + first * b.row + column * b.column;
  if (b.column == 1) {
    for (int64_t r = 0; r < rows; r += 2)
      for (int64_t c = 0; c < PANEL; c += W) {
        const BFloat16 *const upper = from + r * b.row + c;
        const Bits low = __builtin_convertvector(*reinterpret_cast<const Half *>(upper), Bits);
        const Bits high = __builtin_convertvector(*reinterpret_cast<const Half *>(upper + b.row), Bits);
        const Bits pairs = low | high << 16;
        tinyres::store<W>(reinterpret_cast<float *>(panel + r * PANEL + c * 2), (tinyres::Float<W>)pairs);
      }
    return;
  }
  // Pairs are in place already, and are turned like floats.
  for (int64_t r = 0; r < rows; r += 2 * W)
    for (int64_t c = 0; c < PANEL; c += W)
      copy_turned<W>(reinterpret_cast<const float *>(from + r + c * b.column), b.column / 2,
                     reinterpret_cast<float *>(panel + r * PANEL + c * 2), PANEL);
}

// Writes the PANEL columns of C = A B from `column` on, from row `first` to row `rows`; with `symmetric`, what is below
// their diagonal block also to the right of it. `sums` has room for the columns.
template <class Kind, class T = typename Kind::Value>
void multiply_columns(const Matrix<T> &a, const Matrix<T> &b, int64_t depth, int64_t column, int64_t first,
                      int64_t rows, bool symmetric, T *c, int64_t c_row, float *sums, T *panel) {
  constexpr int64_t DEPTH = PANEL_BYTES / sizeof(T) / PANEL;
  for (int64_t k = 0; k < depth; k += DEPTH) {
    const int64_t count = std::min(depth - k, DEPTH);
    tinyres::with_vectors([&](auto registers) INLINED { copy_panel<registers.W>(b, k, count, column, panel); });
    const T *const left = a.data + first * a.row + k;
    if (k == 0)
      Kind::template multiply<false>(left, a.row, panel, rows - first, count, sums);
    else
      Kind::template multiply<true>(left, a.row, panel, rows - first, count, sums);
  }
  tinyres::with_vectors([&](auto registers) INLINED {
    constexpr int64_t W = registers.W;
    for (int64_t r = first; r < rows; r++)
      for (int64_t n = 0; n < PANEL; n += W) {
        tinyres::Float<W> values;
        tinyres::load<W>(sums + (r - first) * PANEL + n, values);
        tinyres::store<W>(c + r * c_row + column + n, values);
      }
    for (int64_t r = first + PANEL; symmetric && r < rows; r += W)
      for (int64_t n = 0; n < PANEL; n += W)
        copy_turned<W>(sums + (r - first) * PANEL + n, PANEL, c + (column + n) * c_row + r, c_row);
  });
}

template <class Kind> Tensor product_of(const Tensor &a, const Tensor &b, bool symmetric) {
  using T = typename Kind::Value;
  const int64_t rows = a.size(0), depth = a.size(1), columns = b.size(1), panels = columns / PANEL;
  const Tensor c = at::empty({rows, columns}, a.options());
  T *const to = c.mutable_data_ptr<T>();
  const Matrix<T> left(a), right(b);
  // The first panels of a symmetric product are the longest: each part takes one from the front and one from the back.
  const int64_t parts = (panels + 1) / 2;
  tinyres::in_parallel(parts, [&](int64_t part) {
    std::vector<float> sums(rows * PANEL);
    std::vector<T> panel(PANEL_BYTES / sizeof(T));
    for (const int64_t index : {part, panels - 1 - part}) {
      const int64_t column = index * PANEL;
      multiply_columns<Kind>(left, right, depth, column, symmetric ? column : 0, rows, symmetric, to, columns,
                             sums.data(), panel.data());
      if (panels - 1 - part == part)
        break;
    }
  });
  return c;
}

} // namespace

Tensor tinyres::matmul(const Tensor &a, const Tensor &b, bool symmetric) {
  TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0) && a.scalar_type() == b.scalar_type() &&
                  (a.scalar_type() == at::kFloat || a.scalar_type() == at::kBFloat16),
              "matrix product: ", a.scalar_type(), " ", a.sizes(), " and ", b.scalar_type(), " ", b.sizes(),
              ", expected [m, k] and [k, n], both Float or both BFloat16");
  const int64_t rows = a.size(0), depth = a.size(1), columns = b.size(1);
  TORCH_CHECK(!symmetric || rows == columns, "matrix product: ", rows, " x ", columns, " is not square");
  const bool whole_panels = rows % PANEL == 0 && columns % PANEL == 0 && depth % PANEL == 0 && a.numel() > 0 &&
                            (b.stride(0) == 1 || b.stride(1) == 1);
  if (!whole_panels)
    return at::mm(a, b);
  // Its rows are read along their columns.
  const Tensor left = a.contiguous();
  if (a.scalar_type() == at::kFloat)
    return product_of<F32>(left, b, symmetric);
#if defined(__x86_64__) && defined(__GNUC__)
  if (symmetric && Bf16::is_supported() && !has_bf16_tiles())
    return product_of<Bf16>(left, b, symmetric);
#endif
  return at::mm(a, b);
}
