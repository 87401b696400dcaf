// Batch normalisation in training on the CPU, fused with what follows it in a residual block: adding the
// shortcut, and the ReLU. libtorch passes over the tensor once for each of these and three times for the
// normalisation. This autograd function makes two passes forward and two backward.
//
// Names are those of PyTorch. N is the number of values of a channel: images * height * width. Forward, for
// each channel:
//
//   mean  = sum(x) / N       var   = sum((x - mean)^2) / N    rstd = 1 / sqrt(var + eps)
//   scale = weight * rstd    shift = bias - mean * scale
//   y     = relu(scale * x + shift + shortcut)                each of relu and shortcut is optional
//
//   running_mean = (1 - momentum) * running_mean + momentum * mean
//   running_var  = (1 - momentum) * running_var  + momentum * var * N / (N - 1)
//
// Backward, where mask is 1 where the argument of the ReLU is above 0, and 0 elsewhere:
//
//   g       = dy * mask      dshortcut = g
//   dbias   = sum(g)         dweight   = sum(g * (x - mean)) * rstd
//   dx      = scale * (g - dbias / N - (x - mean) * rstd * dweight / N)
//           = scale * g - slope * x + level
//   slope   = scale * rstd * dweight / N
//   level   = slope * mean - scale * dbias / N
//
// Tensors are channels last. A row is the channels of one pixel of one image. How rows are divided among
// threads follows from their number and the number of threads alone, so a run can be repeated to the bit on the same processor.

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
#include "norm_passes.h"
#include "parallel.h"

namespace {

using at::Tensor;
using tinyres::Mask;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows that are summed in f32 before the sum is added to one in f64.
constexpr int64_t BLOCK = 128;

// Divides the rows among the threads: calls work(part, first row, number of rows) for each part.
template <class Work> void parallel_rows(int64_t rows, Work work) {
  const int64_t parts = at::get_num_threads();
  tinyres::in_parallel(parts, [&](int64_t part) {
    const int64_t first = rows * part / parts;
    work(part, first, rows * (part + 1) / parts - first);
  });
}

// The f64 sum [2, C] over all rows. add(first row, number of rows, sums) adds a block of rows in f32.
template <class Add> std::vector<double> sum_rows(int64_t rows, int64_t channels, Add add) {
  const size_t width = 2 * channels;
  std::vector<double> parts(at::get_num_threads() * width);
  parallel_rows(rows, [&](int64_t part, int64_t first, int64_t count) {
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

// Calls work(passes) with the passes for the element type of `x`, float or BFloat16, on this processor.
template <class Work> auto with_passes(const Tensor &x, Work work) {
  if (x.scalar_type() == at::kFloat)
    return work(tinyres::Portable<float>());
#ifdef AVX512_BF16
  if (tinyres::Avx512Bf16::is_supported())
    return work(tinyres::Avx512Bf16());
#endif
  return work(tinyres::Portable<at::BFloat16>());
}

struct Dims {
  int64_t rows, channels;

  explicit Dims(const Tensor &x) : rows(x.size(0) * x.size(2) * x.size(3)), channels(x.size(1)) {}
};

// Mean and biased variance of the batch, f64 [2, C].
std::vector<double> batch_mean_var(const Tensor &x) {
  const Dims d(x);
  return with_passes(x, [&](auto passes) {
    using Passes = decltype(passes);
    using T = typename Passes::Value;
    const T *values = x.const_data_ptr<T>();
    // Shifted variance: subtract the first pixel's value before squaring, or the difference of the sums
    // cancels when |mean| is much larger than the standard deviation.
    const std::vector<float> origin(values, values + d.channels);
    auto sums = sum_rows(d.rows, d.channels, [&](int64_t row, int64_t rows, float *sums) {
      Passes::add_moments(values + row * d.channels, rows, d.channels, origin.data(), sums);
    });
    for (int64_t c = 0; c < d.channels; c++) {
      const double centered = sums[c] / d.rows;
      sums[c] = origin[c] + centered;
      sums[d.channels + c] = std::max(0.0, sums[d.channels + c] / d.rows - centered * centered);
    }
    return sums;
  });
}

// The normalisation as one affine map for each channel: scale * x + shift.
struct Affine {
  std::vector<float> scale, shift;

  // `mean_rstd` is f32 [2, C].
  Affine(const Tensor &weight, const Tensor &bias, const Tensor &mean_rstd)
      : scale(weight.numel()), shift(weight.numel()) {
    const float *mean = mean_rstd.const_data_ptr<float>(), *rstd = mean + weight.numel();
    const float *gamma = weight.const_data_ptr<float>(), *beta = bias.const_data_ptr<float>();
    for (size_t c = 0; c < scale.size(); c++) {
      scale[c] = gamma[c] * rstd[c];
      shift[c] = beta[c] - mean[c] * scale[c];
    }
  }
};

struct BatchNorm : torch::autograd::Function<BatchNorm> {
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &weight,
                        const Tensor &bias, const std::optional<Tensor> &shortcut,
                        const Tensor &mean_rstd, bool relu) {
    const Dims d(x);
    const Affine affine(weight, bias, mean_rstd);
    Tensor y = at::empty_like(x);
    with_passes(x, [&](auto passes) {
      using Passes = decltype(passes);
      using T = typename Passes::Value;
      const T *x_data = x.const_data_ptr<T>();
      const T *shortcut_data = shortcut ? shortcut->const_data_ptr<T>() : nullptr;
      T *const y_data = y.mutable_data_ptr<T>();
      const auto kernel = shortcut_data ? Passes::template forward_rows<true, true>
                          : relu        ? Passes::template forward_rows<false, true>
                                        : Passes::template forward_rows<false, false>;
      parallel_rows(d.rows, [&](int64_t, int64_t first, int64_t count) {
        const int64_t at = first * d.channels;
        kernel(x_data + at, shortcut_data ? shortcut_data + at : nullptr, y_data + at, count, d.channels,
               affine.scale.data(), affine.shift.data());
      });
    });
    context->save_for_backward({x, weight, bias, mean_rstd, shortcut ? y : Tensor()});
    context->saved_data["relu"] = relu;
    return y;
  }

  static variable_list backward(AutogradContext *context, const variable_list &outputs) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &mean_rstd = saved[3], &y = saved[4];
    const bool from_output = y.defined();
    const bool from_input = context->saved_data["relu"].toBool() && !from_output;
    const Tensor dy = outputs[0].contiguous(at::MemoryFormat::ChannelsLast);
    // With a shortcut the first pass stores g, which is also dshortcut. Otherwise the second pass
    // computes it again from dy.
    const Tensor g = from_output ? at::empty_like(x) : dy;
    const Tensor dx = at::empty_like(x), dweight = at::empty_like(weight), dbias = at::empty_like(bias);
    const Dims d(x);
    const Affine affine(weight, bias, mean_rstd);
    const float *mean = mean_rstd.const_data_ptr<float>(), *rstd = mean + d.channels;
    const float *scale = affine.scale.data(), *shift = affine.shift.data();
    with_passes(x, [&](auto passes) {
      using Passes = decltype(passes);
      using T = typename Passes::Value;
      const T *const x_data = x.const_data_ptr<T>(), *const dy_data = dy.const_data_ptr<T>();
      const T *const y_data = from_output ? y.const_data_ptr<T>() : nullptr;
      T *const g_out = from_output ? g.mutable_data_ptr<T>() : nullptr;
      const auto add = from_output  ? Passes::template add_grad_sums<Mask::FromOutput>
                       : from_input ? Passes::template add_grad_sums<Mask::FromInput>
                                    : Passes::template add_grad_sums<Mask::None>;
      const auto sums = sum_rows(d.rows, d.channels, [&](int64_t row, int64_t rows, float *sums) {
        const int64_t at = row * d.channels;
        add(dy_data + at, x_data + at, y_data ? y_data + at : nullptr, g_out ? g_out + at : nullptr, rows,
            d.channels, mean, scale, shift, sums);
      });
      std::vector<float> slope(d.channels), level(d.channels);
      for (int64_t c = 0; c < d.channels; c++) {
        const double product = sums[d.channels + c] * rstd[c];
        dbias.mutable_data_ptr<float>()[c] = static_cast<float>(sums[c]);
        dweight.mutable_data_ptr<float>()[c] = static_cast<float>(product);
        const double along = scale[c] * rstd[c] * product / d.rows;
        slope[c] = static_cast<float>(along);
        level[c] = static_cast<float>(along * mean[c] - scale[c] * sums[c] / d.rows);
      }
      T *const dx_data = dx.mutable_data_ptr<T>();
      const T *const g_data = g.const_data_ptr<T>();
      const auto kernel = from_input ? Passes::template input_grad_rows<true> : Passes::template input_grad_rows<false>;
      parallel_rows(d.rows, [&](int64_t, int64_t first, int64_t count) {
        const int64_t at = first * d.channels;
        kernel(g_data + at, x_data + at, dx_data + at, count, d.channels, scale, shift, slope.data(),
               level.data());
      });
    });
    return {dx, dweight, dbias, context->needs_input_grad(3) ? g : Tensor(), Tensor(), Tensor()};
  }
};

} // namespace

Tensor tinyres::batch_norm(const Tensor &x, const Tensor &weight, const Tensor &bias,
                           const Tensor &running_mean, const Tensor &running_var,
                           const std::optional<Tensor> &shortcut, bool relu, double momentum, double eps) {
  TORCH_CHECK(x.dim() == 4, "batch norm: input of shape ", x.sizes(), ", expected [N, C, H, W]");
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
              "batch norm: input of type ", x.scalar_type(), ", expected Float or BFloat16");
  const Dims d(x);
  TORCH_CHECK(d.rows > 1, "batch norm: one value per channel in ", x.sizes(), " has no variance");
  for (const Tensor *each : {&weight, &bias, &running_mean, &running_var})
    TORCH_CHECK(each->is_contiguous() && each->numel() == d.channels && each->scalar_type() == at::kFloat,
                "batch norm: a parameter is ", each->scalar_type(), " ", each->sizes(),
                ", expected Float [", d.channels, "]");
  TORCH_CHECK(!shortcut || (relu && shortcut->sizes() == x.sizes() &&
                            shortcut->scalar_type() == x.scalar_type()),
              "batch norm: a shortcut needs a ReLU, and the shape and type of the input, ", x.sizes());
  const Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  const auto mean_var = batch_mean_var(input);
  const Tensor mean_rstd = at::empty({2, d.channels}, weight.options().requires_grad(false));
  float *const mean_out = running_mean.mutable_data_ptr<float>();
  float *const var_out = running_var.mutable_data_ptr<float>();
  for (int64_t c = 0; c < d.channels; c++) {
    const double mean = mean_var[c], var = mean_var[d.channels + c];
    const double unbiased = var * d.rows / (d.rows - 1);
    mean_rstd.mutable_data_ptr<float>()[c] = static_cast<float>(mean);
    mean_rstd.mutable_data_ptr<float>()[d.channels + c] = static_cast<float>(1 / std::sqrt(var + eps));
    mean_out[c] = static_cast<float>((1 - momentum) * mean_out[c] + momentum * mean);
    var_out[c] = static_cast<float>((1 - momentum) * var_out[c] + momentum * unbiased);
  }
  std::optional<Tensor> addend;
  if (shortcut)
    addend = shortcut->contiguous(at::MemoryFormat::ChannelsLast);
  return BatchNorm::apply(input, weight, bias, addend, mean_rstd, relu);
}
