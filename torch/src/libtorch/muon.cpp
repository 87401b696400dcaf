// The passes of Muon over its weights on the CPU. There are millions of weights, so passes are few: each value is read
// and written once before the matrix products, and read twice and written once after them.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "muon.h"
#include "parallel.h"
#include "vectors.h"

namespace {

using at::BFloat16;
using at::Tensor;
using tinyres::Float;
using tinyres::in_parallel;
using tinyres::with_vectors;

// Weights in memory: K filters, each of `taps` rows of C values.
struct Filters {
  int64_t k, taps, c;

  explicit Filters(const Tensor &t) : k(t.size(0)), taps(t.size(2) * t.size(3)), c(t.size(1)) {
    TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous(at::MemoryFormat::ChannelsLast), "Muon: ",
                t.scalar_type(), " ", t.sizes(), " with strides ", t.strides(), ", expected Float, channels last");
  }

  int64_t size() const { return taps * c; }
};

// Calls work(first, last) for a range of the filters on each thread.
template <class Work> void for_filters(const Filters &f, Work work) {
  const int64_t parts = std::min<int64_t>(at::get_num_threads(), f.k);
  in_parallel(parts, [&](int64_t part) { work(f.k * part / parts, f.k * (part + 1) / parts); });
}

// True if a value of the tap is not 0. Nearly always the first filter tells.
bool moves(const float *values, const Filters &f, int64_t tap) {
  for (int64_t k = 0; k < f.k; k++) {
    const float *const row = values + (k * f.taps + tap) * f.c;
    if (std::any_of(row, row + f.c, [](float value) { return value != 0; }))
      return true;
  }
  return false;
}

// mean += (1 - momentum) * (grad - mean), and ahead = grad + momentum * (mean - grad), for W values.
template <int W, class T> ALWAYS_INLINE void move(const float *grad, float *mean, float momentum, T *ahead) {
  Float<W> g, m;
  tinyres::load<W>(grad, g);
  tinyres::load<W>(mean, m);
  m += (1 - momentum) * (g - m);
  tinyres::store<W>(mean, m);
  tinyres::store<W>(ahead, g + momentum * (m - g));
}

// weight = scale * weight + step, for W values.
template <int W, class T> ALWAYS_INLINE void apply(float *weight, const T *step, float scale) {
  Float<W> w, by;
  tinyres::load<W>(weight, w);
  tinyres::load<W>(step, by);
  tinyres::store<W>(weight, scale * w + by);
}

// The sum of squares, in f64 over rows of the memory.
double sum_of_squares(const float *weight, const Filters &f) {
  std::vector<double> sums(f.k);
  for_filters(f, [&](int64_t first, int64_t last) {
    with_vectors([&](auto registers) INLINED {
      constexpr int W = registers.W;
      for (int64_t k = first; k < last; k++)
        for (int64_t tap = 0; tap < f.taps; tap++) {
          const float *const row = weight + (k * f.taps + tap) * f.c;
          Float<W> lanes{};
          int64_t c = 0;
          for (; c + W <= f.c; c += W) {
            Float<W> values;
            tinyres::load<W>(row + c, values);
            lanes += values * values;
          }
          for (int lane = 0; lane < W; lane++)
            sums[k] += lanes[lane];
          for (; c < f.c; c++)
            sums[k] += double(row[c]) * row[c];
        }
    });
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <class T>
Tensor move_filters(const float *grad, float *mean, const Filters &f, const std::vector<int64_t> &taps, float momentum,
                    const at::TensorOptions &options) {
  const int64_t width = static_cast<int64_t>(taps.size()) * f.c;
  const Tensor ahead = at::empty({f.k, width}, options);
  T *const to = ahead.mutable_data_ptr<T>();
  for_filters(f, [&](int64_t first, int64_t last) {
    with_vectors([&](auto registers) INLINED {
      constexpr int W = registers.W;
      for (int64_t k = first; k < last; k++)
        for (size_t i = 0; i < taps.size(); i++) {
          const int64_t at = (k * f.taps + taps[i]) * f.c;
          T *const row = to + k * width + i * f.c;
          int64_t c = 0;
          for (; c + W <= f.c; c += W)
            move<W>(grad + at + c, mean + at + c, momentum, row + c);
          for (; c < f.c; c++)
            move<1>(grad + at + c, mean + at + c, momentum, row + c);
        }
    });
  });
  return ahead;
}

template <class T>
void apply_filters(float *weight, const T *step, const Filters &f, const std::vector<int64_t> &taps, float scale) {
  // The place of each tap in a row of `step`, or -1.
  std::vector<int64_t> places(f.taps, -1);
  for (size_t i = 0; i < taps.size(); i++)
    places[taps[i]] = i * f.c;
  const int64_t width = static_cast<int64_t>(taps.size()) * f.c;
  for_filters(f, [&](int64_t first, int64_t last) {
    with_vectors([&](auto registers) INLINED {
      constexpr int W = registers.W;
      for (int64_t k = first; k < last; k++)
        for (int64_t tap = 0; tap < f.taps; tap++) {
          float *const row = weight + (k * f.taps + tap) * f.c;
          if (places[tap] < 0) {
            for (int64_t c = 0; c < f.c; c++)
              row[c] *= scale;
            continue;
          }
          const T *const by = step + k * width + places[tap];
          int64_t c = 0;
          for (; c + W <= f.c; c += W)
            apply<W>(row + c, by + c, scale);
          for (; c < f.c; c++)
            apply<1>(row + c, by + c, scale);
        }
    });
  });
}

} // namespace

std::pair<Tensor, Tensor> tinyres::muon_ahead(const Tensor &grad, const Tensor &mean, double momentum,
                                              at::ScalarType type) {
  TORCH_CHECK(grad.sizes() == mean.sizes(), "Muon: a gradient ", grad.sizes(), " and a mean ", mean.sizes());
  const Tensor pull = grad.contiguous(at::MemoryFormat::ChannelsLast);
  const Filters f(mean);
  const float *const g = pull.const_data_ptr<float>();
  float *const m = mean.mutable_data_ptr<float>();
  std::vector<int64_t> taps;
  for (int64_t tap = 0; tap < f.taps; tap++)
    if (moves(g, f, tap) || moves(m, f, tap))
      taps.push_back(tap);
  const auto options = mean.options().dtype(type).requires_grad(false);
  const float by = static_cast<float>(momentum);
  const Tensor ahead = type == at::kFloat ? move_filters<float>(g, m, f, taps, by, options)
                                          : move_filters<BFloat16>(g, m, f, taps, by, options);
  return {ahead, at::tensor(taps)};
}

void tinyres::muon_apply(const Tensor &weight, const Tensor &step, const Tensor &taps) {
  const Filters f(weight);
  const int64_t *const indices = taps.const_data_ptr<int64_t>();
  const std::vector<int64_t> moving(indices, indices + taps.numel());
  TORCH_CHECK(step.is_contiguous() && step.numel() == f.k * taps.numel() * f.c, "Muon: a step ", step.sizes(), " for ",
              weight.sizes(), " and ", taps.numel(), " taps");
  float *const w = weight.mutable_data_ptr<float>();
  const auto scale = static_cast<float>(std::sqrt(double(f.k)) / std::sqrt(sum_of_squares(w, f)));
  if (step.scalar_type() == at::kFloat)
    apply_filters(w, step.const_data_ptr<float>(), f, moving, scale);
  else
    apply_filters(w, step.const_data_ptr<BFloat16>(), f, moving, scale);
}
