// Batch normalisation in training on the CPU, with what follows it in a residual block: the addition of
// the shortcut and the ReLU. libtorch walks through a map once for each of these and three times for the
// normalisation; here one autograd function walks twice on the way forward and twice on the way back.
//
// Maps are channels last: one row of channels for each place of each image. Rows are parted by their
// number and the number of threads alone, so that a run can be repeated to the bit.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "norm.h"
#include "parallel.h"

// Compiled for each width of vectors, of which the widest that the processor has is taken.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_WIDTH __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define FOR_EACH_WIDTH
#endif

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows that are added up in f32, before the sum goes to f64.
constexpr int64_t BLOCK = 128;

// Adds to `sums` [2, C] what rows are above `origin`, and the squares of that.
template <class T>
FOR_EACH_WIDTH void add_moments(const T *__restrict x, int64_t rows, int64_t channels,
                                const float *__restrict origin, float *__restrict sums) {
  float *__restrict squares = sums + channels;
  for (; rows > 0; rows--, x += channels)
    for (int64_t c = 0; c < channels; c++) {
      const float above = static_cast<float>(x[c]) - origin[c];
      sums[c] += above;
      squares[c] += above * above;
    }
}

// One walk forward, from the normalisation to the ReLU, which lets what is no number through.
template <class T, bool Shortcut, bool Relu>
FOR_EACH_WIDTH void normalize(const T *__restrict x, const T *__restrict shortcut, T *__restrict y,
                              int64_t rows, int64_t channels, const float *__restrict scale,
                              const float *__restrict shift) {
  for (; rows > 0; rows--, x += channels, y += channels) {
    for (int64_t c = 0; c < channels; c++) {
      float value = static_cast<float>(x[c]) * scale[c] + shift[c];
      if constexpr (Shortcut)
        value += static_cast<float>(shortcut[c]);
      if constexpr (Relu)
        value = value < 0 ? 0 : value;
      y[c] = static_cast<T>(value);
    }
    if constexpr (Shortcut)
      shortcut += channels;
  }
}

// Whether a place passes the ReLU: any does where there is none, and where a shortcut was added the output
// says it.
enum class Passes { All, ByInput, ByOutput };

// Adds to `sums` [2, C] what gradient reaches a channel through the ReLU, and its product with what the
// channel is above `mean`. By the output it is written to `inner`, too.
template <class T, Passes passes>
FOR_EACH_WIDTH void add_gradients(const T *__restrict grad, const T *__restrict x, const T *__restrict y,
                                  T *__restrict inner, int64_t rows, int64_t channels,
                                  const float *__restrict mean, const float *__restrict scale,
                                  const float *__restrict shift, float *__restrict sums) {
  float *__restrict products = sums + channels;
  for (; rows > 0; rows--, grad += channels, x += channels) {
    for (int64_t c = 0; c < channels; c++) {
      float reaching = static_cast<float>(grad[c]);
      const float value = static_cast<float>(x[c]);
      if constexpr (passes == Passes::ByInput)
        reaching = value * scale[c] + shift[c] > 0 ? reaching : 0;
      if constexpr (passes == Passes::ByOutput) {
        reaching = static_cast<float>(y[c]) > 0 ? reaching : 0;
        inner[c] = static_cast<T>(reaching);
      }
      sums[c] += reaching;
      products[c] += reaching * (value - mean[c]);
    }
    if constexpr (passes == Passes::ByOutput) {
      y += channels;
      inner += channels;
    }
  }
}

// The gradient of the input: `scale` times what reaches a place, less `slope` times its value, and `level`.
template <class T, bool ByInput>
FOR_EACH_WIDTH void differentiate(const T *__restrict grad, const T *__restrict x, T *__restrict out,
                                  int64_t rows, int64_t channels, const float *__restrict scale,
                                  const float *__restrict shift, const float *__restrict slope,
                                  const float *__restrict level) {
  for (; rows > 0; rows--, grad += channels, x += channels, out += channels)
    for (int64_t c = 0; c < channels; c++) {
      float reaching = static_cast<float>(grad[c]);
      const float value = static_cast<float>(x[c]);
      if constexpr (ByInput)
        reaching = value * scale[c] + shift[c] > 0 ? reaching : 0;
      out[c] = static_cast<T>(scale[c] * reaching - slope[c] * value + level[c]);
    }
}

// Calls `work` for a part of the rows on each thread: its number, its first row and how many.
template <class Work> void in_parts(int64_t rows, Work work) {
  const int64_t parts = at::get_num_threads();
  tinyres::in_parallel(parts, [&](int64_t part) {
    const int64_t first = rows * part / parts;
    work(part, first, rows * (part + 1) / parts - first);
  });
}

// The sum [2, C] of what `add` adds up for blocks of rows.
template <class Add> std::vector<double> sum(int64_t rows, int64_t channels, Add add) {
  const size_t width = 2 * channels;
  std::vector<double> parts(at::get_num_threads() * width);
  in_parts(rows, [&](int64_t part, int64_t first, int64_t count) {
    std::vector<float> block(width);
    for (int64_t row = first; row < first + count; row += BLOCK) {
      std::fill(block.begin(), block.end(), 0.f);
      add(row, std::min(BLOCK, first + count - row), block.data());
      for (size_t i = 0; i < width; i++)
        parts[part * width + i] += block[i];
    }
  });
  for (size_t i = width; i < parts.size(); i++)
    parts[i % width] += parts[i];
  parts.resize(width);
  return parts;
}

// Calls `work` with a value of the type of the maps.
template <class Work> auto of_type(const Tensor &maps, Work work) {
  return maps.scalar_type() == at::kFloat ? work(float()) : work(at::BFloat16());
}

struct Shape {
  int64_t rows, channels;

  explicit Shape(const Tensor &x) : rows(x.size(0) * x.size(2) * x.size(3)), channels(x.size(1)) {}
};

// Of the batch: f64 [2, C], mean and variance.
std::vector<double> statistics(const Tensor &x) {
  const Shape a(x);
  return of_type(x, [&](auto value) {
    using T = decltype(value);
    const T *from = x.const_data_ptr<T>();
    // Of squares as large as the variance little is lost, so they are taken from a value that occurs.
    const std::vector<float> origin(from, from + a.channels);
    auto sums = sum(a.rows, a.channels, [&](int64_t row, int64_t rows, float *sums) {
      add_moments(from + row * a.channels, rows, a.channels, origin.data(), sums);
    });
    for (int64_t c = 0; c < a.channels; c++) {
      const double above = sums[c] / a.rows;
      sums[c] = origin[c] + above;
      sums[a.channels + c] = std::max(0.0, sums[a.channels + c] / a.rows - above * above);
    }
    return sums;
  });
}

// What a channel is multiplied by, and what is then added.
struct Line {
  std::vector<float> scale, shift;

  // `shape` is f32 [2, C]: mean, and 1 / sqrt(variance + eps).
  Line(const Tensor &weight, const Tensor &bias, const Tensor &shape)
      : scale(weight.numel()), shift(weight.numel()) {
    const float *mean = shape.const_data_ptr<float>(), *spread = mean + weight.numel();
    const float *gain = weight.const_data_ptr<float>(), *offset = bias.const_data_ptr<float>();
    for (size_t c = 0; c < scale.size(); c++) {
      scale[c] = gain[c] * spread[c];
      shift[c] = offset[c] - mean[c] * scale[c];
    }
  }
};

struct Normalization : torch::autograd::Function<Normalization> {
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &weight,
                        const Tensor &bias, const std::optional<Tensor> &shortcut, const Tensor &shape,
                        bool relu) {
    const Shape a(x);
    const Line line(weight, bias, shape);
    Tensor y = at::empty_like(x);
    of_type(x, [&](auto value) {
      using T = decltype(value);
      const T *from = x.const_data_ptr<T>();
      const T *beside = shortcut ? shortcut->const_data_ptr<T>() : nullptr;
      T *const to = y.mutable_data_ptr<T>();
      const auto walk = beside ? normalize<T, true, true>
                        : relu ? normalize<T, false, true>
                               : normalize<T, false, false>;
      in_parts(a.rows, [&](int64_t, int64_t first, int64_t count) {
        const int64_t at = first * a.channels;
        walk(from + at, beside ? beside + at : nullptr, to + at, count, a.channels, line.scale.data(),
             line.shift.data());
      });
    });
    context->save_for_backward({x, weight, bias, shape, shortcut ? y : Tensor()});
    context->saved_data["relu"] = relu;
    return y;
  }

  static variable_list backward(AutogradContext *context, const variable_list &outputs) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &shape = saved[3], &y = saved[4];
    const bool by_output = y.defined(), by_input = context->saved_data["relu"].toBool() && !by_output;
    const Tensor grad = outputs[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Tensor inner = by_output ? at::empty_like(x) : grad;
    const Tensor of_x = at::empty_like(x), of_weight = at::empty_like(weight), of_bias = at::empty_like(bias);
    const Shape a(x);
    const Line line(weight, bias, shape);
    const float *mean = shape.const_data_ptr<float>(), *spread = mean + a.channels;
    const float *scale = line.scale.data(), *shift = line.shift.data();
    of_type(x, [&](auto value) {
      using T = decltype(value);
      const T *const from = x.const_data_ptr<T>(), *const slopes = grad.const_data_ptr<T>();
      const T *const after = by_output ? y.const_data_ptr<T>() : nullptr;
      T *const kept = by_output ? inner.mutable_data_ptr<T>() : nullptr;
      const auto add = by_output  ? add_gradients<T, Passes::ByOutput>
                       : by_input ? add_gradients<T, Passes::ByInput>
                                  : add_gradients<T, Passes::All>;
      const auto sums = sum(a.rows, a.channels, [&](int64_t row, int64_t rows, float *sums) {
        const int64_t at = row * a.channels;
        add(slopes + at, from + at, after ? after + at : nullptr, kept ? kept + at : nullptr, rows,
            a.channels, mean, scale, shift, sums);
      });
      std::vector<float> slope(a.channels), level(a.channels);
      for (int64_t c = 0; c < a.channels; c++) {
        const double product = sums[a.channels + c] * spread[c];
        of_bias.mutable_data_ptr<float>()[c] = static_cast<float>(sums[c]);
        of_weight.mutable_data_ptr<float>()[c] = static_cast<float>(product);
        const double along = scale[c] * spread[c] * product / a.rows;
        slope[c] = static_cast<float>(along);
        level[c] = static_cast<float>(along * mean[c] - scale[c] * sums[c] / a.rows);
      }
      T *const to = of_x.mutable_data_ptr<T>();
      const T *const reaching = inner.const_data_ptr<T>();
      const auto walk = by_input ? differentiate<T, true> : differentiate<T, false>;
      in_parts(a.rows, [&](int64_t, int64_t first, int64_t count) {
        const int64_t at = first * a.channels;
        walk(reaching + at, from + at, to + at, count, a.channels, scale, shift, slope.data(),
             level.data());
      });
    });
    return {of_x, of_weight, of_bias, context->needs_input_grad(3) ? inner : Tensor(), Tensor(), Tensor()};
  }
};

} // namespace

Tensor tinyres::batch_norm(const Tensor &x, const Tensor &weight, const Tensor &bias, const Tensor &mean,
                           const Tensor &variance, const std::optional<Tensor> &shortcut, bool relu,
                           double momentum, double eps) {
  TORCH_CHECK(x.dim() == 4, "batch normalisation of ", x.sizes());
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
              "batch normalisation of ", x.scalar_type());
  const Shape a(x);
  TORCH_CHECK(a.rows > 1, "one value of a channel, of ", x.sizes(), ", has no variance");
  for (const Tensor *each : {&weight, &bias, &mean, &variance})
    TORCH_CHECK(each->is_contiguous() && each->numel() == a.channels && each->scalar_type() == at::kFloat,
                "batch normalisation of ", x.sizes(), " by ", each->scalar_type(), " ", each->sizes());
  TORCH_CHECK(!shortcut || (relu && shortcut->sizes() == x.sizes() &&
                            shortcut->scalar_type() == x.scalar_type()),
              "a shortcut without a ReLU, or of another kind than ", x.sizes());
  const Tensor maps = x.contiguous(at::MemoryFormat::ChannelsLast);
  const auto batch = statistics(maps);
  const Tensor shape = at::empty({2, a.channels}, weight.options().requires_grad(false));
  float *const of_mean = mean.mutable_data_ptr<float>(), *const of_variance = variance.mutable_data_ptr<float>();
  for (int64_t c = 0; c < a.channels; c++) {
    const double among = batch[a.channels + c], unbiased = among * a.rows / (a.rows - 1);
    shape.mutable_data_ptr<float>()[c] = static_cast<float>(batch[c]);
    shape.mutable_data_ptr<float>()[a.channels + c] = static_cast<float>(1 / std::sqrt(among + eps));
    of_mean[c] = static_cast<float>((1 - momentum) * of_mean[c] + momentum * batch[c]);
    of_variance[c] = static_cast<float>((1 - momentum) * of_variance[c] + momentum * unbiased);
  }
  std::optional<Tensor> beside;
  if (shortcut)
    beside = shortcut->contiguous(at::MemoryFormat::ChannelsLast);
  return Normalization::apply(maps, weight, bias, beside, shape, relu);
}
